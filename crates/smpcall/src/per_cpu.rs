//! Per-CPU data: one value for each CPU, which only that CPU touches, without locks or atomics.
//!
//! Whoever uses a CPU's own value is that CPU, so no other thread can be in it; what could be is a called
//! function that interrupts the use. So the use itself runs as a called function does: interrupts
//! off, handler context. It is lent by shared reference, because uses nest; a `Cell` or a
//! `RefCell` inside is the way to write. To use another CPU's value, call that CPU.
//!
//! ```text
//!            (1) claim, the CPU's first use
//!   nobody's ───────────────────────────────▶ the CPU's, of that instance
//! ```
//!
//! A place remembers whose it is, by the address of the CPU's area: two instances both have a CPU 0, on
//! two threads, and safe code could show the same value to both. When another thread becomes the CPU
//! (hotplug, attach), the states of hotplug order its uses after the last one's (E17), and
//! the value must be `Send`.

use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use crate::cpu::CpuId;
use crate::guard::Pinned;
use crate::platform::Platform;
use crate::smp::Smp;
use crate::sync::{AtomicPtr, Ordering, UnsafeCell, loom_const_fn};

/// The place of one CPU's value, with a cache line to itself.
#[repr(align(64))]
pub struct PerCpuSlot<T> {
    /// The address of the area of the CPU that uses it; null: nobody's yet.
    owner: AtomicPtr<()>,
    value: UnsafeCell<T>,
}

// SAFETY: only the owner gets to the value (1), and no use interrupts another in mid-air; the value goes
// from one thread to the next when the owner changes, or when it is dropped, hence `Send`.
unsafe impl<T: Send> Sync for PerCpuSlot<T> {}

impl<T> PerCpuSlot<T> {
    loom_const_fn! {
        /// A place with a first value.
        pub fn new(value: T) -> Self {
            Self {
                owner: AtomicPtr::new(ptr::null_mut()),
                value: UnsafeCell::new(value),
            }
        }
    }

    /// Is it that area's CPU's, or becomes so? (1)
    #[inline]
    fn claim(&self, area: *mut ()) -> bool {
        // ORDERING: Relaxed — the word decides and publishes nothing: a place is shared by other means
        // before two CPUs can claim it, and once claimed it stays so.
        let owner = self.owner.load(Ordering::Relaxed);
        owner == area || (owner.is_null() && self.claim_first(area))
    }

    #[cold]
    fn claim_first(&self, area: *mut ()) -> bool {
        // ORDERING: Relaxed — as above.
        self.owner
            .compare_exchange(ptr::null_mut(), area, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

impl<T: Default> Default for PerCpuSlot<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for PerCpuSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuSlot").finish_non_exhaustive()
    }
}

/// One value for each CPU; `S` holds the places, an array or a boxed slice, CPU 0's first.
///
/// ```
/// use smpcall::{PerCpu, PerCpuSlot, Platform, Smp};
/// use core::cell::Cell;
/// type Counters = PerCpu<Cell<u64>, [PerCpuSlot<Cell<u64>>; 8]>;
/// static FAULTS: Counters =
///     PerCpu::new([const { PerCpuSlot::new(Cell::new(0)) }; 8]);
///
/// fn count_a_fault<P: Platform>(smp: &Smp<P>) {
///     // No atomic, no lock: nobody else gets at this CPU's counter.
///     let counted = FAULTS.with(smp, |faults| faults.set(faults.get() + 1));
///     assert!(counted.is_ok(), "eight CPUs, one instance");
/// }
/// ```
#[doc(alias = "DEFINE_PER_CPU")]
pub struct PerCpu<T, S> {
    slots: S,
    _value: PhantomData<fn() -> T>,
}

impl<T, S: AsRef<[PerCpuSlot<T>]>> PerCpu<T, S> {
    /// With these places.
    pub const fn new(slots: S) -> Self {
        Self {
            slots,
            _value: PhantomData,
        }
    }

    /// Uses the value of the CPU that executes.
    ///
    /// `f` runs here at once, as a called function runs: interrupts off, and what waits is
    /// refused, so keep it short. It may be interrupted by nothing that comes through this
    /// library, and `with` may be called again inside. A signal handler or an interrupt vector of
    /// your own must not use it: where `T` is `Sync`, [`get`](Self::get) is for those.
    ///
    /// Another CPU's value is used by a call to it:
    /// `smp.call(cpu, || counters.with(&smp, |counter| counter.get()))`.
    ///
    /// # Errors
    /// `NotACpu`, `NoPlace`, `NotOurs`.
    #[doc(alias = "this_cpu_ptr")]
    #[doc(alias = "get_cpu_var")]
    #[inline]
    pub fn with<P: Platform, const W: usize, const D: usize, R>(
        &self,
        smp: &Smp<P, W, D>,
        f: impl FnOnce(&T) -> R,
    ) -> Result<R, PerCpuError> {
        let _pinned = Pinned::new(smp.platform());
        let me = smp.current_cpu().ok_or(PerCpuError::NotACpu)?;
        let slots = self.slots.as_ref();
        let slot = slots.get(me.index()).ok_or(PerCpuError::NoPlace {
            cpu: me,
            places: slots.len(),
        })?;
        if !slot.claim(ptr::from_ref(smp.own(me)).cast_mut().cast()) {
            return Err(PerCpuError::NotOurs { cpu: me });
        }
        let _alone = Alone::new(smp, me);
        // SAFETY: the place is this CPU's, on whose only thread we are, where no called function
        // interrupts us, and nobody gets it by `&mut` while it is borrowed.
        Ok(slot.value.with(|value| f(unsafe { &*value })))
    }

    /// The value of any CPU, from anywhere, where it can be shared: atomics, for one. `None` without a
    /// place for the CPU.
    #[doc(alias = "per_cpu_ptr")]
    #[inline]
    pub fn get(&self, cpu: CpuId) -> Option<&T>
    where
        T: Sync,
    {
        let slot = self.slots.as_ref().get(cpu.index())?;
        // SAFETY: shared references only, and the value may be shared.
        Some(slot.value.with(|value| unsafe { &*value }))
    }
}

impl<T, S: AsMut<[PerCpuSlot<T>]>> PerCpu<T, S> {
    /// Every CPU's value, CPU 0's first, when nobody else has the data.
    #[doc(alias = "for_each_possible_cpu")]
    pub fn values_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut T>
    where
        T: 'a,
    {
        let slots = self.slots.as_mut().iter_mut();
        // SAFETY: the places are borrowed exclusively, each is visited once.
        slots.map(|slot| slot.value.with_mut(|value| unsafe { &mut *value }))
    }
}

impl<T, S> fmt::Debug for PerCpu<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpu").finish_non_exhaustive()
    }
}

/// Why a CPU's own value could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PerCpuError {
    /// This thread is no CPU of the instance: call the CPU whose value it shall be.
    NotACpu,
    /// There are fewer places than CPUs.
    NoPlace {
        /// The CPU.
        cpu: CpuId,
        /// How many there are.
        places: usize,
    },
    /// Another instance, or another CPU, uses this place already: each needs data of its own.
    NotOurs {
        /// The CPU.
        cpu: CpuId,
    },
}

impl fmt::Display for PerCpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotACpu => f.write_str(
                "this thread is no CPU of the instance: call the CPU whose data it shall be",
            ),
            Self::NoPlace { cpu, places } => {
                write!(f, "CPU {cpu} has no place in per-CPU data for {places}")
            }
            Self::NotOurs { cpu } => write!(
                f,
                "the place of CPU {cpu} in this per-CPU data is used by another instance already"
            ),
        }
    }
}

impl core::error::Error for PerCpuError {}

/// Nothing that comes through this library interrupts the CPU while this lives, and nothing that
/// would run its calls or take it offline is accepted: what a called function's context is.
struct Alone<'a, P: Platform, const W: usize, const D: usize> {
    smp: &'a Smp<P, W, D>,
    me: CpuId,
    irqs_were_on: bool,
    was_in_handler: bool,
}

impl<'a, P: Platform, const W: usize, const D: usize> Alone<'a, P, W, D> {
    #[inline]
    fn new(smp: &'a Smp<P, W, D>, me: CpuId) -> Self {
        let irqs_were_on = smp.platform().irqs_save();
        let local = &smp.own(me).local;
        let was_in_handler = local.in_handler();
        local.set_in_handler(true);
        Self {
            smp,
            me,
            irqs_were_on,
            was_in_handler,
        }
    }
}

impl<P: Platform, const W: usize, const D: usize> Drop for Alone<'_, P, W, D> {
    #[inline]
    fn drop(&mut self) {
        let local = &self.smp.own(self.me).local;
        local.set_in_handler(self.was_in_handler);
        self.smp.platform().irqs_restore(self.irqs_were_on);
    }
}

#[cfg(all(test, loom))]
mod tests;
