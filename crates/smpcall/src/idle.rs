//! What a CPU does when it has nothing to do: it polls, it parks, or it arms and sleeps elsewhere.
//!
//! | | senders | the CPU |
//! |---|---|---|
//! | polling, [`idle_enter`](Smp::idle_enter) | do nothing but fill the line, or write the doorbell | looks again and again: [`idle_poll`](Smp::idle_poll) |
//! | parked, [`idle_park`](Smp::idle_park) | wake it, once | sleeps in the platform, on its doorbell |
//! | armed, [`arm`](Smp::arm) | signal it, once | sleeps wherever it likes, and [`disarm`](Smp::disarm)s when it was signalled |
//!
//! All of it belongs to task context with interrupts on. A called function that idled would take the calls
//! behind it before its own is over, and one that slept would hold up its caller: it panics, and the
//! panic says so. Edges: E7, E8, E18, E43, E60.

use crate::area::Area;
use crate::bell;
use crate::cpu::CpuId;
use crate::platform::Platform;
use crate::smp::Smp;
#[cfg(not(loom))]
use crate::sync::AtomicU32;
use crate::sync::mutant;

/// After it has served rings, a streaming CPU leaves them alone for so many turns, some 50 ns: a sender
/// that is at it fills several slots meanwhile, and their lines come together, while a line that is looked at too
/// early is taken from the sender's hands.
const RING_PAUSE: u32 = 4;

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Starts polling: from here on senders do not interrupt or wake this CPU, for it promises to
    /// call [`idle_poll`](Self::idle_poll) again and again. Task context of an online CPU. Does
    /// nothing on a thread that is no CPU.
    ///
    /// # Panics
    /// Inside a called function, or with interrupts off.
    pub fn idle_enter(&self) {
        let Some(me) = self.idler() else {
            return;
        };
        let area = self.own(me);
        area.local.forget_ring_posts();
        // One that streams already, for this is called twice, goes on.
        if !self.streams(area) {
            area.local.set_polling(true);
        }
        self.drain_with_irqs_off(me);
    }

    /// One look, between [`idle_enter`](Self::idle_enter) and [`idle_exit`](Self::idle_exit).
    /// Answers whether anything ran.
    #[inline]
    pub fn idle_poll(&self) -> bool {
        let Some(me) = self.platform().current_cpu() else {
            return false;
        };
        let area = self.own(me);
        if area.bell.is_rung() {
            let drained = self.drain_with_irqs_off(me);
            self.stream_if_busy(area);
            return drained;
        }
        if self.streams(area) && area.local.looks_at_rings() && self.rings_look_filled(me) {
            return self.poll_rings(me, area);
        }
        self.poll_mail(me, area)
    }

    /// Runs what is in the rings, after the calls in the lines.
    fn poll_rings(&self, me: CpuId, area: &Area<W, D>) -> bool {
        if area.local.in_handler() {
            return false;
        }
        let were_on = self.platform().irqs_save();
        if !were_on {
            return false;
        }
        area.local.set_in_handler(true);
        let context = self.context(me);
        // SAFETY: 1 — we are this CPU in its idle loop, interrupts are off, so no drain is
        // running; 2 — our own context.
        unsafe { area.serve_mail(&context) };
        // SAFETY: 1, 2 — as above.
        let served = unsafe { self.serve_rings(area, &context) };
        area.local.pause_rings(RING_PAUSE);
        area.local.set_in_handler(false);
        self.platform().irqs_restore(were_on);
        served
    }

    /// Stops polling: from here on senders interrupt. What came meanwhile is run.
    pub fn idle_exit(&self) {
        let Some(me) = self.platform().current_cpu() else {
            return;
        };
        let area = self.own(me);
        let polling = area.local.resting();
        area.local.set_polling(false);
        if !self.stop_polling(area, polling, area.local.resting()) || self.looks_pending(me) {
            self.drain_or_remember(me);
        }
    }

    /// Goes from `polling`, which is `POLLING` or `STREAMING`, to `mode`. The CPU's own word says something
    /// else already: a drain in between, in a handler, must not put the old state back. Answers
    /// whether nobody had rung; otherwise the CPU must drain.
    fn stop_polling(&self, area: &Area<W, D>, polling: u32, mode: u32) -> bool {
        let stopped = area.bell.stop_polling(polling, mode);
        if polling == bell::STREAMING && !mutant!("e43_fence_all") {
            // Whoever fills a slot and did not see the doorbell change has filled it by now (E43).
            self.platform().fence_all();
        }
        stopped
    }

    /// Goes from polling to `PARKED`; answers whether nothing has come.
    pub(crate) fn falls_asleep(&self, me: CpuId, area: &Area<W, D>) -> bool {
        let polling = area.local.resting();
        if !bell::polls(polling) {
            return false;
        }
        area.local.forget_ring_posts();
        area.local.set_polling(true);
        self.stop_polling(area, polling, bell::PARKED) && !self.looks_pending(me)
    }

    /// Goes from polling to sleep and back, by the platform's `park`; between
    /// [`idle_enter`](Self::idle_enter) and [`idle_exit`](Self::idle_exit). What came is run.
    ///
    /// # Panics
    /// Inside a called function, or with interrupts off.
    #[cfg(not(loom))]
    pub fn idle_park(&self) {
        self.park_by(|word| self.platform().park(word, bell::PARKED));
    }

    /// As [`Self::idle_park`], no longer than so many nanoseconds where the platform can; 0: no limit. Does not
    /// sleep if it shall stay `awake`: since the caller looked, whoever made it so may have rung, and an interrupt
    /// that was late may have answered the ring. Who makes it so from here on finds the CPU parked.
    #[cfg(not(loom))]
    pub(crate) fn idle_park_for(&self, limit_ns: u64, awake: impl Fn() -> bool) {
        self.park_by(|word| match limit_ns {
            _ if awake() => {}
            0 => self.platform().park(word, bell::PARKED),
            _ => self.platform().park_for(word, bell::PARKED, limit_ns),
        });
    }

    #[cfg(not(loom))]
    #[inline]
    fn park_by(&self, park: impl FnOnce(&AtomicU32)) {
        let Some(me) = self.idler() else {
            return;
        };
        let area = self.own(me);
        if self.falls_asleep(me, area) {
            park(area.bell.word());
        }
        self.drain_with_irqs_off(me);
    }

    /// Arms this CPU, which is about to sleep outside this library, in an event loop of its own: from
    /// here until [`disarm`](Self::disarm) the first sender after each drain calls
    /// [`Platform::signal_armed`]. Not between [`idle_enter`](Self::idle_enter) and
    /// [`idle_exit`](Self::idle_exit).
    ///
    /// Answers whether it may sleep. `false`: it is armed, but calls had come and have been run, so the
    /// CPU looks first whether they gave it something to do.
    ///
    /// # Panics
    /// Inside a called function, or with interrupts off.
    pub fn arm(&self) -> bool {
        let Some(me) = self.idler() else {
            return false;
        };
        let area = self.own(me);
        area.local.set_armed(true);
        if area.bell.arm() && !self.looks_pending(me) {
            return true;
        }
        self.drain_with_irqs_off(me);
        false
    }

    /// Is this CPU armed, and nobody has rung since? One load.
    pub fn is_armed(&self) -> bool {
        let me = self.platform().current_cpu();
        me.is_some_and(|me| self.own(me).bell.is_armed())
    }

    /// Disarms this CPU, which is awake, and runs what came. Answers whether anybody had rung.
    ///
    /// # Panics
    /// Inside a called function, or with interrupts off.
    pub fn disarm(&self) -> bool {
        let Some(me) = self.idler() else {
            return false;
        };
        let area = self.own(me);
        area.local.set_armed(false);
        let rung = area.bell.is_rung();
        if rung || area.bell.is_armed() {
            self.drain_with_irqs_off(me);
        }
        rung
    }

    /// The CPU that idles here; `None` on a thread that is none.
    ///
    /// # Panics
    /// Inside a called function, or with interrupts off.
    fn idler(&self) -> Option<CpuId> {
        let me = self.platform().current_cpu()?;
        assert!(
            self.may_wait(Some(me)).is_ok(),
            "CPU {me} idles inside a called function or with interrupts off, where it takes no calls"
        );
        Some(me)
    }

    /// Drains, if interrupts are on; answers whether it did.
    fn drain_with_irqs_off(&self, me: CpuId) -> bool {
        let were_on = self.platform().irqs_save();
        if were_on {
            self.drain(me);
            self.platform().irqs_restore(were_on);
        }
        were_on
    }

    /// Drains; where that is impossible, rings for itself, so that the next poll point does.
    fn drain_or_remember(&self, me: CpuId) {
        if self.may_wait(Some(me)).is_ok() {
            self.drain_with_irqs_off(me);
        } else {
            self.own(me).bell.ring();
        }
    }
}
