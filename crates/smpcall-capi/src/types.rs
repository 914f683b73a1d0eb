//! The types that C sees; `include/` has them in C, and `tests/header.rs` compares the two.

use core::cell::UnsafeCell;
use core::ffi::{c_uint, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::CpuMask;

/// Words of a mask: 1,024 CPUs.
pub(crate) const WORDS: usize = 16;

/// What `NR_CPUS` says in the header.
pub(crate) const NR_CPUS: u32 = 64 * WORDS as u32;

/// A set of CPUs as the core has it.
pub(crate) type Mask = CpuMask<WORDS>;

/// The type of a function that C gives to be called. Where something can unwind, an exception that
/// leaves it stops the process, by name; a kernel has nothing that could tell.
macro_rules! callback {
    ($(#[$meta:meta])* $name:ident($($argument:ident: $type:ty),*) -> $result:ty) => {
        $(#[$meta])*
        #[cfg(not(target_os = "none"))]
        pub(crate) type $name = unsafe extern "C-unwind" fn($($argument: $type),*) -> $result;
        $(#[$meta])*
        #[cfg(target_os = "none")]
        pub(crate) type $name = unsafe extern "C" fn($($argument: $type),*) -> $result;
    };
}

callback! {
    /// A function that runs on another CPU.
    SmpCallFunc(info: *mut c_void) -> ()
}
callback! {
    /// Decides for a CPU whether a function runs there.
    CondFunc(cpu: i32, info: *mut c_void) -> bool
}
callback! {
    /// Work with a result, in a CPU's ordinary context.
    OnCpuFunc(par: *mut c_void) -> i32
}

/// `struct cpumask`: on these targets an `unsigned long` is 64 bits, and bit i of word w is
/// CPU 64 w + i.
#[repr(C)]
#[derive(Debug)]
#[doc(alias = "cpumask")]
pub(crate) struct RawMask(pub(crate) [AtomicU64; WORDS]);

impl RawMask {
    /// The empty set.
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// All of them.
    pub(crate) const fn full() -> Self {
        Self([const { AtomicU64::new(u64::MAX) }; WORDS])
    }

    /// A copy; each word is read once, for C may change bits meanwhile.
    pub(crate) fn load(&self) -> Mask {
        // ORDERING: Acquire — a CPU seen in the live mask has an opened area (E16); for masks of a
        // caller's own there is nothing to acquire.
        CpuMask::from_words(core::array::from_fn(|w| self.0[w].load(Ordering::Acquire)))
    }

    /// Replaces it.
    pub(crate) fn store(&self, mask: &Mask) {
        for (word, &value) in self.0.iter().zip(mask.words()) {
            // ORDERING: Release — as `load`.
            word.store(value, Ordering::Release);
        }
    }
}

/// Words of a descriptor that are the library's.
pub(crate) const PRIVATE_WORDS: usize = 7;

/// `struct call_single_data`. C may leave `private` as it finds it.
#[repr(C)]
#[derive(Debug)]
#[doc(alias = "call_single_data")]
pub(crate) struct CallSingleData {
    pub(crate) func: UnsafeCell<Option<SmpCallFunc>>,
    pub(crate) info: UnsafeCell<*mut c_void>,
    pub(crate) flags: AtomicU32,
    pub(crate) private: UnsafeCell<[MaybeUninit<*mut c_void>; PRIVATE_WORDS]>,
}

/// `CSD_FLAG_LOCK`.
pub(crate) const CSD_FLAG_LOCK: c_uint = 1;

/// What C asked to be run.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) func: SmpCallFunc,
    pub(crate) info: *mut c_void,
}

// SAFETY: C promised that the function may run on another CPU with this argument; that is what
// every call of the header says.
unsafe impl Send for Call {}
// SAFETY: as above, on several CPUs at once.
unsafe impl Sync for Call {}

impl Call {
    /// Runs it.
    #[inline]
    pub(crate) fn run(self) {
        // SAFETY: C promised a function that takes this argument.
        unsafe { (self.func)(self.info) };
    }
}

/// What `tests/header.rs` says of the header's types too.
const _: () = {
    assert!(size_of::<RawMask>() == 128);
    assert!(size_of::<CallSingleData>() == 80);
    assert!(core::mem::offset_of!(CallSingleData, func) == 0);
    assert!(core::mem::offset_of!(CallSingleData, info) == 8);
    assert!(core::mem::offset_of!(CallSingleData, flags) == 16);
    assert!(core::mem::offset_of!(CallSingleData, private) == 24);
};
