//! CPUs that go down and come back while all the others work.

use core::sync::atomic::Ordering;

use smpcall::{CpuId, HotplugError};

use super::letter::Source;
use super::room::Fault;
use super::{MS, Runner};
use crate::lab::Lab;
use crate::rng::Rng;

/// Which CPU is down, and what came of the others.
pub(super) struct Hotplug {
    rng: Rng,
    next_ns: u64,
    pub(super) down: Option<CpuId>,
    pub(super) cycles: u64,
    pub(super) timeouts: u64,
}

impl Hotplug {
    pub(super) fn new<L: Lab<W, D>, const W: usize, const D: usize>(
        runner: &Runner<'_, L, W, D>,
    ) -> Self {
        Self {
            rng: Rng::fork(runner.torture.seed, u64::MAX),
            next_ns: runner.start_ns
                + (runner.torture.holdoff_ms + runner.torture.hotplug_holdoff_ms) * MS,
            down: None,
            cycles: 0,
            timeouts: 0,
        }
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Runner<'_, L, W, D> {
    /// Takes a CPU down, or brings the one back that is down, if it is time.
    pub(super) fn turn_hotplug(&self, now: u64, hotplug: &mut Hotplug) {
        let interval = self.torture.hotplug_interval_ms * MS;
        if interval == 0 || !self.lab.may_hotplug() || now < hotplug.next_ns {
            return;
        }
        hotplug.next_ns = now + interval;
        if let Some(cpu) = hotplug.down {
            self.bring_up(cpu, hotplug);
            return;
        }
        let n = hotplug.rng.below(self.online.len() as u64) as usize;
        let chosen = self.online.iter().nth(n);
        let Some(cpu) = chosen.filter(|&cpu| Some(cpu) != self.me) else {
            return;
        };
        match self.smp().cpu_down(cpu) {
            Ok(()) => hotplug.down = Some(cpu),
            Err(HotplugError::Timeout) => {
                hotplug.timeouts += 1;
                self.restart_if_it_ended(cpu);
            }
            // The only CPU of a machine whose runner is a foreign thread.
            Err(HotplugError::LastCpu) => {}
            Err(_) => self.room.check(false, Fault::Hotplug),
        }
    }

    /// A worker that ended because its CPU was asked to leave, which then stayed.
    fn restart_if_it_ended(&self, cpu: CpuId) {
        // ORDERING: Acquire — its last work is over.
        let running = &self.room.worker(Source::task(cpu)).running;
        if running.load(Ordering::Acquire) == 0 {
            self.start_worker(cpu);
        }
    }

    /// A thread that attached while its CPU was down is asked to leave; it may be leaving by itself.
    fn ask_to_detach(&self, cpu: CpuId) {
        let fits = matches!(
            self.smp().cpu_down(cpu),
            Ok(()) | Err(HotplugError::Timeout | HotplugError::AlreadyOffline)
        );
        self.room.check(fits, Fault::Hotplug);
    }

    /// Brings it back, unless its system fails to, which may be what is tried.
    pub(super) fn bring_up(&self, cpu: CpuId, hotplug: &mut Hotplug) {
        match self.smp().cpu_up(cpu) {
            Ok(()) => {
                hotplug.cycles += 1;
                hotplug.down = None;
                self.start_worker(cpu);
            }
            Err(HotplugError::Timeout) => hotplug.timeouts += 1,
            Err(HotplugError::Start(_)) if self.lab.may_fail_to_start() => hotplug.timeouts += 1,
            // A thread is this CPU, or on its way out: tried again later.
            Err(HotplugError::AlreadyOnline) if self.lab.attaches() => self.ask_to_detach(cpu),
            Err(HotplugError::Start(_)) if self.lab.attaches() => {}
            Err(_) => self.room.check(false, Fault::Hotplug),
        }
    }
}
