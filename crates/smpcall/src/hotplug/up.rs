//! A CPU comes: somebody prepares for it and starts it, it arrives, and it opens.
//!
//! Steps (1) to (4) of the diagram in `hotplug.rs`. Until the CPU has arrived, an error, a deadline that
//! passes and a panic all undo what was prepared, in one place: the drop of the attempt. Edges: E11,
//! E16, E17, E25.

use super::{ARRIVED, OFFLINE, ONLINE, PREPARING, STARTING};
use crate::area::Area;
use crate::cpu::CpuId;
use crate::error::{HotplugError, StartError};
use crate::platform::Platform;
use crate::ring::PostRing;
use crate::smp::Smp;
use crate::sync::{full_fence, mutant};

impl<const W: usize, const D: usize> Area<W, D> {
    /// The owner's step (4): opens everything to senders.
    pub(crate) fn open(&self) {
        self.queues.waited.open();
        self.queues.posted.open();
        self.queues.sleeping.open();
        self.bell.open();
    }
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Starts an offline CPU and waits until it takes calls. May exceed `maxcpus=`, as in the seed.
    ///
    /// Context: interrupts on, not inside a called function. A `prepare` callback that panics (hosted)
    /// panics here, after what had been prepared was undone.
    ///
    /// # Errors
    /// What refused; everything that had been prepared was undone.
    #[track_caller]
    pub fn cpu_up(&self, cpu: CpuId) -> Result<(), HotplugError> {
        self.cpu_up_by(cpu, || self.platform.start_cpu(cpu))
    }

    /// As [`cpu_up`](Self::cpu_up), started by the caller's own means: `start` makes somebody call
    /// [`online_this_cpu`](Self::online_this_cpu) as `cpu`, perhaps itself.
    ///
    /// # Errors
    /// As [`cpu_up`](Self::cpu_up).
    #[track_caller]
    pub fn cpu_up_by(
        &self,
        cpu: CpuId,
        start: impl FnOnce() -> Result<(), StartError>,
    ) -> Result<(), HotplugError> {
        let _lock = self.lock_hotplug()?;
        if !self.present.contains(cpu) {
            return Err(HotplugError::NoSuchCpu);
        }
        if !self.hotplug.step(cpu, OFFLINE, PREPARING) {
            return Err(HotplugError::AlreadyOnline);
        }
        let mut attempt = Attempt {
            smp: self,
            cpu,
            prepared: 0,
        };
        self.prepare_and_start(cpu, start, &mut attempt.prepared)?;
        core::mem::forget(attempt);
        Ok(())
    }

    fn prepare_and_start(
        &self,
        cpu: CpuId,
        start: impl FnOnce() -> Result<(), StartError>,
        prepared: &mut usize,
    ) -> Result<(), HotplugError> {
        for callbacks in self.hotplug.callbacks.iter() {
            (callbacks.prepare)(cpu).map_err(|code| HotplugError::Callback {
                name: callbacks.name,
                code,
            })?;
            *prepared += 1;
        }
        self.hotplug.set(cpu, STARTING);
        start().map_err(HotplugError::Start)?;
        let arrived = self.wait_deadline(|| self.hotplug.look(cpu) > STARTING);
        // A CPU that arrives just now wins the exchange and is waited for; a later one is turned away.
        if !arrived && self.hotplug.step(cpu, STARTING, PREPARING) {
            return Err(HotplugError::Timeout);
        }
        self.wait_until(self.waiter(self.platform.current_cpu()), cpu, || {
            self.hotplug.look(cpu) == ONLINE
        });
        Ok(())
    }

    /// The new CPU arrives: it takes calls when this answers `true`.
    ///
    /// Interrupts off, on the CPU that was started. `false`: it came too late and was given up; the
    /// platform stops it again.
    pub fn online_this_cpu(&self) -> bool {
        let Some(me) = self.platform.current_cpu() else {
            return false;
        };
        if !self.hotplug.step(me, STARTING, ARRIVED) {
            return false;
        }
        self.run_starting(me);
        self.open_cpu(me);
        true
    }

    /// Step (4), on the CPU itself, interrupts off.
    pub(crate) fn open_cpu(&self, me: CpuId) {
        let area = self.own(me);
        if mutant!("bug_online_before_it_takes_calls") {
            self.online.insert(me);
        }
        self.rings(me).for_each(PostRing::open_overflow);
        area.open();
        let before = area.local.in_handler();
        area.local.set_in_handler(true);
        let context = self.context(me);
        // SAFETY: 1 — we are this CPU, interrupts are off, no drain runs; 2 — our own context.
        unsafe { area.drain_at_the_edge(&context, |source| self.own(source)) };
        // SAFETY: 1, 2 — as above.
        unsafe { self.claim_rings(area, &context) };
        area.local.set_in_handler(before);
        self.online.insert(me);
        // Orders our being seen online before what we look at from here on: who stored something and
        // kicks without us has stored it for us (E25).
        full_fence!("e25_online_fence");
        self.hotplug.set(me, ONLINE);
    }
}

/// A CPU on its way up. Dropped, by an error or a panic, it is undone.
struct Attempt<'a, P: Platform, const W: usize, const D: usize> {
    smp: &'a Smp<P, W, D>,
    cpu: CpuId,
    /// How many callbacks have prepared for it.
    prepared: usize,
}

impl<P: Platform, const W: usize, const D: usize> Drop for Attempt<'_, P, W, D> {
    fn drop(&mut self) {
        let states = &self.smp.hotplug;
        // From here on a CPU that arrives late is turned away; one that has come, although starting
        // it panicked, stays.
        if !states.step(self.cpu, STARTING, PREPARING) && states.look(self.cpu) > STARTING {
            return;
        }
        self.smp.run_dead(self.cpu, self.prepared);
        states.set(self.cpu, OFFLINE);
    }
}
