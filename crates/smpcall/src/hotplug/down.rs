//! A CPU leaves: because it was asked to, or by its own decision.
//!
//! Steps (5) to (8) of the diagram in `hotplug.rs`. Whoever asks holds the lock of up and down until the
//! CPU is gone; a CPU that wants to leave by itself and finds the lock taken by somebody who asks it to
//! leave does what it is asked, for the two want the same. Edges: E9, E10, E17.

use super::{DEAD, DYING, LEAVING, OFFLINE, ONLINE};
use crate::callbacks::CALLBACKS;
use crate::cpu::CpuId;
use crate::error::HotplugError;
use crate::platform::Platform;
use crate::smp::Smp;
use crate::sync::mutant;

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Asks a CPU to leave and waits until it is gone; what it had accepted has run by then.
    ///
    /// The CPU leaves from its idle loop (it calls [`leave_if_asked`](Self::leave_if_asked)), so work
    /// on it ends first. Context: interrupts on, not inside a called function, another CPU.
    ///
    /// # Errors
    /// `Myself`, `LastCpu`, `AlreadyOffline`, `NoSuchCpu`, `Context`, and `Timeout` if it did not
    /// reach its idle loop in time: it is then online as before.
    #[track_caller]
    pub fn cpu_down(&self, cpu: CpuId) -> Result<(), HotplugError> {
        if self.platform.current_cpu() == Some(cpu) {
            return Err(HotplugError::Myself);
        }
        let _lock = self.lock_hotplug()?;
        if !self.present.contains(cpu) {
            return Err(HotplugError::NoSuchCpu);
        }
        if self.hotplug.look(cpu) != ONLINE {
            return Err(HotplugError::AlreadyOffline);
        }
        if self.num_online_cpus() == 1 {
            return Err(HotplugError::LastCpu);
        }
        self.hotplug.set(cpu, LEAVING);
        self.ring(cpu, self.own(cpu));
        let left = self.wait_deadline(|| self.hotplug.look(cpu) == DEAD);
        // A CPU that starts to leave just now wins the exchange and is waited for.
        if !left && self.hotplug.step(cpu, LEAVING, ONLINE) {
            return Err(HotplugError::Timeout);
        }
        // It has begun to leave and may be running its last tasks: no deadline, for a CPU that was
        // called offline too early could be started a second time.
        self.wait_until(self.waiter(self.platform.current_cpu()), cpu, || {
            self.hotplug.look(cpu) == DEAD && self.platform.is_stopped(cpu)
        });
        // Lines with posts on their way stayed its own; it has stopped, so we may speak for it.
        self.release_all_lines(cpu);
        self.run_dead(cpu, CALLBACKS);
        self.hotplug.set(cpu, OFFLINE);
        Ok(())
    }

    /// Has this CPU been asked to leave? One load; for idle loops.
    #[inline]
    pub fn is_asked_to_leave(&self) -> bool {
        self.platform
            .current_cpu()
            .is_some_and(|me| self.hotplug.look(me) == LEAVING)
    }

    /// In the idle loop: leaves if this CPU was asked to. After a `true` it is offline, interrupts
    /// are off, everything it accepted has run, and the platform stops it without delay.
    pub fn leave_if_asked(&self) -> bool {
        let Some(me) = self.platform.current_cpu() else {
            return false;
        };
        // A called function that left would run the call that it is part of once more.
        if self.own(me).local.in_handler() || !self.hotplug.step(me, LEAVING, DYING) {
            return false;
        }
        self.close_cpu(me);
        self.hotplug.set(me, DEAD);
        true
    }

    /// This CPU leaves by its own decision and stays with its thread. Task context; it may be the
    /// last one. Afterwards it is offline, and interrupts are off.
    ///
    /// If somebody asks it to leave meanwhile, it leaves for them: their
    /// [`cpu_down`](Self::cpu_down) ends, with the `dead` callbacks there, when the platform says
    /// that this CPU has come to rest.
    ///
    /// # Errors
    /// `AlreadyOffline`, or `Context` where the lock cannot be waited for.
    #[track_caller]
    pub fn offline_this_cpu(&self) -> Result<(), HotplugError> {
        let me = self.platform.current_cpu().ok_or(HotplugError::NoSuchCpu)?;
        let Some(_lock) = self.lock_hotplug_unless(|| self.leave_if_asked())? else {
            return Ok(());
        };
        if !self.hotplug.step(me, ONLINE, DYING) {
            return Err(HotplugError::AlreadyOffline);
        }
        self.close_cpu(me);
        self.run_dead(me, CALLBACKS);
        self.hotplug.set(me, OFFLINE);
        Ok(())
    }

    /// Step (7), on the CPU itself: after it, nothing more is accepted, and all that was has run.
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    pub(crate) fn close_cpu(&self, me: CpuId) {
        let area = self.own(me);
        let context = self.context(me);
        // Tasks may sleep, so they run before interrupts go off; later ones are refused. Each is taken
        // alone: one that drops another which is queued behind it finds it and runs it.
        // SAFETY: 1 — we are this CPU, in its task context.
        unsafe {
            self.run_every_task(me, area);
            area.keep_tasks(area.queues.sleeping.close());
            self.run_every_task(me, area);
        }
        self.platform.irqs_save();
        self.run_dying(me);
        self.online.remove(me);
        self.close_bell(area);
        let before = area.local.in_handler();
        area.local.set_in_handler(true);
        if mutant!("bug_posts_lost_with_their_cpu") {
            area.queues.posted.close();
        }
        // SAFETY: 1 of `run` — our queue, our context.
        unsafe { area.queues.waited.close().run(&context) };
        // SAFETY: 1 — we are this CPU, interrupts are off, no drain runs; 2 — our own context.
        unsafe { area.drain_at_the_edge(&context, |source| self.own(source)) };
        // SAFETY: 1, 2 — as above.
        unsafe { self.close_rings(area, &context) };
        // SAFETY: 1 of `run` — our queue, our context.
        unsafe { area.queues.posted.close().run(&context) };
        area.local.set_in_handler(before);
        self.release_all_lines(me);
    }
}
