//! The receive side: what a CPU does when its IPI arrives and when it polls. `idle.rs` has its idle loop.
//!
//! A drain first takes the doorbell, so that whoever publishes later rings anew, then looks
//! into every place that a sender may have used: waited calls before posted ones. Nothing runs
//! under a lock: lists are detached, bits are swapped out, and each call is released as its
//! record says. Posts that were there when the drain began run in it, so nothing starves.

use crate::area::Area;
use crate::cpu::CpuId;
use crate::platform::Platform;
use crate::queue::{Context, Queue};
use crate::smp::Smp;
use crate::sync::mutant;

impl<const W: usize, const D: usize> Area<W, D> {
    /// Runs everything that is here for this CPU.
    ///
    /// # Safety
    /// 1. This CPU owns the area, runs with interrupts off, and no other drain of it is running.
    /// 2. `context` is this area's, `area_of` answers the area of a source.
    #[inline]
    pub(crate) unsafe fn drain<'a>(&self, context: &Context, area_of: impl Fn(CpuId) -> &'a Self) {
        let late = mutant!("bug_bell_taken_after_the_drain");
        if !late {
            self.bell.take(self.local.resting());
        }
        if mutant!("bug_posts_before_waited_calls") {
            // SAFETY: 1 of `run_queue` — our queue, our context.
            unsafe { run_queue(&self.queues.posted, context) };
        }
        // SAFETY: 1, 2.
        unsafe { self.serve_mail(context) };
        if !self.queues.waited.looks_empty() {
            // SAFETY: 1 of `run_queue` — our queue, our context.
            unsafe { run_queue(&self.queues.waited, context) };
        }
        if !self.requests.looks_empty() {
            // SAFETY: 1, 2.
            unsafe { self.serve_requests(context, area_of) };
        }
        if !self.queues.posted.looks_empty() {
            // SAFETY: 1.
            unsafe { self.run_posted(context) };
        }
        if late {
            self.bell.take(self.local.resting());
        }
    }

    /// Runs what is in the posted queue.
    ///
    /// # Safety
    /// As [`Self::drain`].
    #[inline]
    pub(crate) unsafe fn run_posted(&self, context: &Context) {
        // SAFETY: 1 of `run_queue` — our queue, our context.
        unsafe { run_queue(&self.queues.posted, context) };
    }

    /// Runs the calls in the mailboxes.
    ///
    /// # Safety
    /// As [`Self::drain`].
    #[inline]
    pub(crate) unsafe fn serve_mail(&self, context: &Context) -> bool {
        let mut served = false;
        for mailbox in &self.mail {
            // SAFETY: 1 of `serve` — our mailbox, our context.
            served |= unsafe { mailbox.serve(context) };
        }
        served
    }

    /// Runs the broadcasts that were requested.
    ///
    /// # Safety
    /// As [`Self::drain`].
    #[inline(never)]
    unsafe fn serve_requests<'a>(&self, context: &Context, area_of: impl Fn(CpuId) -> &'a Self) {
        self.requests.take(|source| {
            // SAFETY: 1 of `run` — the request was taken, so it is run this once, on its target.
            unsafe { area_of(source).broadcast.run(context) };
        });
    }

    /// What a CPU that closes or opens does: as a drain, but a call in a mailbox is claimed, for
    /// its source may be taking it back (E10).
    ///
    /// # Safety
    /// As [`Self::drain`].
    pub(crate) unsafe fn drain_at_the_edge<'a>(
        &self,
        context: &Context,
        area_of: impl Fn(CpuId) -> &'a Self,
    ) {
        for mailbox in &self.mail {
            // SAFETY: 1 of `claim_and_serve` — our mailbox, our context.
            unsafe { mailbox.claim_and_serve(context) };
        }
        // A call that was pushed between the opening of its queue and that of the doorbell rang a
        // closed one, so nobody will ring for it again (E11).
        // SAFETY: 1 of `Chain::run` — our queue, our context.
        unsafe { self.queues.waited.take_all().run(context) };
        // SAFETY: 1, 2.
        unsafe { self.serve_requests(context, area_of) };
        // SAFETY: 1 of `Chain::run` — our queue, our context.
        unsafe { self.queues.posted.take_all().run(context) };
    }

    /// Is anything here that a drain would run? A hint for idle loops.
    #[inline]
    pub(crate) fn looks_pending(&self) -> bool {
        self.bell.is_rung() || self.looks_mailed()
    }

    /// Is a call in one of the lines? A hint.
    #[inline]
    pub(crate) fn looks_mailed(&self) -> bool {
        self.mail.iter().any(|mailbox| mailbox.looks_called())
    }
}

/// Runs what is queued. Out of line, so that a drain that finds nothing here stays small.
///
/// # Safety
/// 1. The queue and the context belong to this CPU.
#[inline(never)]
unsafe fn run_queue(queue: &Queue, context: &Context) {
    // SAFETY: 1.
    unsafe { queue.take_all().run(context) };
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs what other CPUs have asked of this one.
    ///
    /// A platform calls this from its IPI vector. Calling it without cause is harmless. Its obligations:
    /// 1. The interrupt is acknowledged before, so that one that arrives during the drain is not lost.
    /// 2. Interrupts are off until it returns. With interrupts on, an IPI in the middle of the drain
    ///    finds it running and goes, and what it announced may lie in a place that the drain
    ///    has passed: the kick is lost, and the call waits for the next one. Not checked: that would
    ///    cost each call four instructions.
    #[doc(alias = "generic_smp_call_function_single_interrupt")]
    #[inline]
    pub fn handle_ipi(&self) {
        if let Some(me) = self.platform().current_cpu() {
            self.drain(me);
        }
    }

    /// Drains the CPU's area in handler context. Interrupts are off.
    #[inline]
    pub(crate) fn drain(&self, me: CpuId) {
        let area = self.own(me);
        // A late IPI must not open the doorbell of a CPU that has left.
        if area.bell.looks_closed() {
            return;
        }
        // A drain never nests: handler context is entered with interrupts off, and what runs there
        // cannot wait.
        if area.local.in_handler() {
            return;
        }
        area.local.set_in_handler(true);
        self.trace_drain(me);
        let context = self.context(me);
        if mutant!("bug_posts_before_waited_calls") {
            // SAFETY: 1, 2 — as below.
            unsafe { self.serve_rings(area, &context) };
        }
        // SAFETY: 1 — we are this CPU, interrupts are off, no drain runs; 2 — our own context.
        unsafe { area.drain(&context, |source| self.own(source)) };
        // SAFETY: 1, 2 — as above.
        unsafe { self.serve_rings(area, &context) };
        area.local.set_in_handler(false);
    }

    /// A point at which this CPU takes calls: drains if somebody rang.
    ///
    /// For platforms whose calls do not interrupt, in long work. Answers whether anything ran. Does
    /// nothing on a thread that is no CPU, with interrupts off or inside a called function. A few
    /// loads of lines that nobody writes when there is nothing to do.
    #[inline]
    pub fn poll(&self) -> bool {
        let Some(me) = self.platform().current_cpu() else {
            return false;
        };
        let area = self.own(me);
        if area.bell.is_rung() {
            return self.poll_rung(me);
        }
        self.platform().polls_when_busy() && self.poll_mail(me, area)
    }

    /// Runs the calls in the lines, for which nobody need have rung.
    #[inline]
    pub(crate) fn poll_mail(&self, me: CpuId, area: &Area<W, D>) -> bool {
        // A called function that polls would find the call that it is part of still in its line.
        if !area.looks_mailed() || area.local.in_handler() {
            return false;
        }
        let were_on = self.platform().irqs_save();
        if !were_on {
            return false;
        }
        area.local.set_in_handler(true);
        // SAFETY: 1 — we are this CPU, interrupts are off and no called function is on its way, so no
        // drain is running; 2 — our own context.
        let served = unsafe { area.serve_mail(&self.context(me)) };
        area.local.set_in_handler(false);
        self.platform().irqs_restore(were_on);
        served
    }

    #[cold]
    fn poll_rung(&self, me: CpuId) -> bool {
        if self.own(me).local.in_handler() || !self.platform().irqs_enabled() {
            return false;
        }
        let were_on = self.platform().irqs_save();
        self.drain(me);
        self.platform().irqs_restore(were_on);
        true
    }

    /// Does this CPU have calls pending? For an idle loop, before it goes to deep sleep with
    /// interrupts off. `false` on a thread that is no CPU.
    #[doc(alias = "cpus_peek_for_pending_ipi")]
    pub fn has_pending(&self) -> bool {
        self.platform()
            .current_cpu()
            .is_some_and(|me| self.looks_pending(me))
    }
}
