//! Witnesses: what has been switched off, as a value.

use core::fmt;
use core::marker::PhantomData;

use crate::platform::Platform;
use crate::smp::Smp;
use crate::sync::{AtomicU32, Ordering, loom_const_fn};

/// Keeps its thread on its CPU while it lives.
#[derive(Debug)]
pub(crate) struct Pinned<'a, P: Platform> {
    platform: &'a P,
}

impl<'a, P: Platform> Pinned<'a, P> {
    #[inline]
    pub(crate) fn new(platform: &'a P) -> Self {
        platform.preempt_disable();
        Self { platform }
    }
}

impl<P: Platform> Drop for Pinned<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.platform.preempt_enable();
    }
}

/// Interrupts are off on this CPU while this lives. Stays on its thread.
///
/// Guards nest and may be dropped in any order: interrupts come back on with the last of those that
/// were taken since they were on. Forgetting one leaves interrupts off and breaks nothing else. On a
/// thread that is no CPU there is nothing to turn off.
#[doc(alias = "local_irq_save")]
#[must_use = "interrupts come back on when the guard is dropped"]
pub struct IrqsOff<'a, P: Platform> {
    platform: &'a P,
    /// Of the CPU; `None` on a thread that is none.
    guards: Option<&'a Guards>,
    /// Which region of the CPU it belongs to.
    region: u32,
    /// Not `Send`: the state belongs to this CPU.
    _here: PhantomData<*mut ()>,
}

/// The guards of one CPU that live: a region begins when interrupts go off and ends when the last
/// guard of it is dropped. Only the CPU itself writes here.
#[derive(Debug)]
pub(crate) struct Guards {
    /// Counts regions, so that a guard that outlived its own does not end another's.
    region: AtomicU32,
    live: AtomicU32,
    /// Were interrupts on before the region? Off inside a called function.
    were_on: AtomicU32,
}

impl Guards {
    loom_const_fn! {
        /// None.
        pub(crate) fn new() -> Self {
            Self {
                region: AtomicU32::new(0),
                live: AtomicU32::new(0),
                were_on: AtomicU32::new(0),
            }
        }
    }

    /// A guard more, by a CPU that has just turned interrupts off; answers its region.
    #[expect(
        clippy::fn_params_excessive_bools,
        reason = "a state that is saved and given back, not a choice of behaviour"
    )]
    fn enter(&self, were_on: bool) -> u32 {
        // ORDERING: Relaxed, here and below — the CPU's own words.
        let live = self.live.load(Ordering::Relaxed);
        // With interrupts on no guard is in force: those that were counted have been forgotten.
        if were_on || live == 0 {
            let region = self.region.load(Ordering::Relaxed).wrapping_add(1);
            self.region.store(region, Ordering::Relaxed);
            self.were_on.store(u32::from(were_on), Ordering::Relaxed);
            self.live.store(1, Ordering::Relaxed);
            return region;
        }
        self.live.store(live + 1, Ordering::Relaxed);
        self.region.load(Ordering::Relaxed)
    }

    /// A guard less; answers whether interrupts come back on with it.
    fn leave(&self, region: u32) -> bool {
        // ORDERING: Relaxed, here and below — the CPU's own words.
        if self.region.load(Ordering::Relaxed) != region {
            return false;
        }
        let live = self.live.load(Ordering::Relaxed).saturating_sub(1);
        self.live.store(live, Ordering::Relaxed);
        live == 0 && self.were_on.load(Ordering::Relaxed) != 0
    }
}

impl<P: Platform> IrqsOff<'_, P> {
    /// Is it a guard of the CPU whose guards these are, which it keeps there?
    pub(crate) fn is_of(&self, platform: &P, guards: Option<&Guards>) -> bool {
        core::ptr::eq(self.platform, platform)
            && self.guards.map(core::ptr::from_ref) == guards.map(core::ptr::from_ref)
    }
}

impl<P: Platform> fmt::Debug for IrqsOff<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqsOff")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> Drop for IrqsOff<'_, P> {
    fn drop(&mut self) {
        if self.guards.is_some_and(|guards| guards.leave(self.region)) {
            self.platform.irqs_restore(true);
        }
        self.platform.preempt_enable();
    }
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Turns interrupts off on this CPU until the guard is dropped.
    ///
    /// Calls to this CPU wait meanwhile. Plain waited calls from here are refused
    /// (`InterruptsOff`); [`call_irqs_off`](Self::call_irqs_off) takes the guard.
    pub fn irqs_off(&self) -> IrqsOff<'_, P> {
        self.platform().preempt_disable();
        let me = self.platform().current_cpu();
        let guards = me.map(|me| &self.own(me).local.guards);
        IrqsOff {
            platform: self.platform(),
            guards,
            region: guards.map_or(0, |guards| guards.enter(self.platform().irqs_save())),
            _here: PhantomData,
        }
    }
}
