//! Atomics, cells and fences: `core`'s, or loom's or shuttle's when a model is checked.
//!
//! This is the only file that names either, so nothing can slip past the model checker. `ord!` and
//! `full_fence!` give an ordering its edge in `docs/protocol.md` and the name of the mutant that weakens it;
//! `mutant!` names a bug that a real system had. `SMPCALL_MUTANT=NAME` in the environment of such a run chooses
//! one, and so does [`choose_mutant`] in a build with `--cfg smpcall_mutants`, which the conformance cases call: one
//! build each serves all mutants. A test must then fail (`cargo xtask mutants`).

#[cfg(not(loom))]
mod imp {
    #[cfg(not(shuttle))]
    pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};
    #[cfg(shuttle)]
    pub(crate) use shuttle::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};

    /// `core`'s cell behind loom's closure interface.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// Runs `f` on a pointer for reading; the caller keeps the aliasing rules.
        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Runs `f` on a pointer for writing; the caller keeps the aliasing rules.
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};
}

pub(crate) use core::sync::atomic::Ordering;
pub(crate) use imp::{AtomicPtr, AtomicU32, AtomicU64, UnsafeCell, fence};

/// `const fn` where the atomics are `core`'s; loom's cannot be built in a constant.
macro_rules! loom_const_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $name($($arg: $ty),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}

/// Is this mutant chosen? Never, outside the builds that have them.
#[cfg(not(any(smpcall_mutants, all(test, any(loom, shuttle)))))]
#[inline(always)]
pub(crate) const fn is_mutant(_name: &str) -> bool {
    false
}

/// Is this mutant chosen in the environment?
#[cfg(all(test, any(loom, shuttle)))]
pub(crate) fn is_mutant(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("SMPCALL_MUTANT").ok());
    chosen.as_deref() == Some(name)
}

#[cfg(smpcall_mutants)]
static CHOSEN: AtomicPtr<&'static str> = AtomicPtr::new(core::ptr::null_mut());

/// Chooses the bug that this build has from here on: its name in the core's sources.
#[cfg(smpcall_mutants)]
pub fn choose_mutant(name: &'static &'static str) {
    // ORDERING: Release — publishes the name.
    CHOSEN.store(core::ptr::from_ref(name).cast_mut(), Ordering::Release);
}

/// Was this mutant chosen?
#[cfg(smpcall_mutants)]
pub(crate) fn is_mutant(name: &str) -> bool {
    // ORDERING: Acquire — sees the name.
    let chosen = CHOSEN.load(Ordering::Acquire);
    // SAFETY: null or what `choose_mutant` was lent for ever.
    unsafe { chosen.as_ref() }.is_some_and(|chosen| *chosen == name)
}

/// Is this mutant chosen?
macro_rules! mutant {
    ($mutant:tt) => {
        crate::sync::is_mutant($mutant)
    };
}

/// An ordering that a mutant weakens to `Relaxed`.
macro_rules! ord {
    ($mutant:tt, $strong:ident) => {
        if crate::sync::mutant!($mutant) {
            crate::sync::Ordering::Relaxed
        } else {
            crate::sync::Ordering::$strong
        }
    };
}

/// A sequentially consistent fence that a mutant leaves out.
macro_rules! full_fence {
    ($mutant:tt) => {
        if !crate::sync::mutant!($mutant) {
            crate::sync::fence(crate::sync::Ordering::SeqCst)
        }
    };
}

pub(crate) use {full_fence, loom_const_fn, mutant, ord};

/// The light side of a fence that [`Platform::fence_all`](crate::Platform::fence_all) makes on all
/// CPUs: it holds the compiler back, and costs nothing.
#[inline(always)]
pub(crate) fn light_fence() {
    #[cfg(not(all(test, loom)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    // In a model the other side's fence arrives here.
    #[cfg(all(test, loom))]
    crate::testing::fence_point();
}

/// Keeps two hot words out of each other's cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct CacheLine<T>(pub(crate) T);

impl<T> core::ops::Deref for CacheLine<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
