//! Witnesses: what has been switched off, as a value.

use core::fmt;
use core::marker::PhantomData;

use crate::platform::Platform;
use crate::smp::Smp;

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

/// Interrupts are off on this CPU while this lives; nests. Stays on its thread.
///
/// Forgetting it leaves interrupts off and breaks nothing else.
#[doc(alias = "local_irq_save")]
#[must_use = "interrupts come back on when the guard is dropped"]
pub struct IrqsOff<'a, P: Platform> {
    platform: &'a P,
    were_on: bool,
    /// Not `Send`: the state belongs to this CPU.
    _here: PhantomData<*mut ()>,
}

impl<P: Platform> IrqsOff<'_, P> {
    /// Is it a guard of this platform, whose caller it keeps on its CPU?
    pub(crate) fn is_of(&self, platform: &P) -> bool {
        core::ptr::eq(self.platform, platform)
    }
}

impl<P: Platform> fmt::Debug for IrqsOff<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqsOff")
            .field("were_on", &self.were_on)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> Drop for IrqsOff<'_, P> {
    fn drop(&mut self) {
        self.platform.irqs_restore(self.were_on);
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
        let were_on = self.platform().irqs_save();
        IrqsOff {
            platform: self.platform(),
            were_on,
            _here: PhantomData,
        }
    }
}
