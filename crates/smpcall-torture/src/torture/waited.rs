//! The operations that wait.
//!
//! Their functions borrow the worker's stack: what they are told is checked there, what they answer and
//! how often they ran is checked here.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CpuId, CpuMask, Csd, Platform};

use super::letter::Source;
use super::op::Op;
use super::room::Fault;
use super::work::Doing;
use crate::lab::Lab;

/// A waited function's view of its caller's stack.
struct Probe {
    input: u64,
    output: AtomicU64,
    runs: AtomicU64,
}

impl Probe {
    const fn new(input: u64) -> Self {
        Self {
            input,
            output: AtomicU64::new(0),
            runs: AtomicU64::new(0),
        }
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Doing<'_, '_, L, W, D> {
    /// What a waited function does on `cpu`.
    fn probe(&self, probe: &Probe, cpu: CpuId) {
        let may_run = self.room().worker(Source::task(cpu)).may_interrupt();
        let here = self.me() == Some(cpu) && !self.smp().platform().irqs_enabled() && may_run;
        self.room().check(here, Fault::WrongCpu);
        self.room()
            .check(probe.input == self.turn.key, Fault::MemoryIn);
        self.runner.burn(self.turn.burn_ns);
        // ORDERING: Relaxed — the call alone must order it; that is what is checked.
        probe.output.store(!self.turn.key, Ordering::Relaxed);
        probe.runs.fetch_add(1, Ordering::Relaxed);
    }

    /// What the caller checks: as many runs as were accepted, and what they wrote.
    fn checked(&self, probe: &Probe, accepted: u64) {
        // ORDERING: Relaxed — as above.
        let (runs, output) = (
            probe.runs.load(Ordering::Relaxed),
            probe.output.load(Ordering::Relaxed),
        );
        self.room().check(runs == accepted, Fault::Count);
        let wrote = if accepted > 0 { !self.turn.key } else { 0 };
        self.room().check(output == wrote, Fault::MemoryOut);
    }

    pub(super) fn waited_single(&self, target: CpuId) -> u64 {
        let probe = Probe::new(self.turn.key);
        let call = self.smp().call(target, || self.probe(&probe, target));
        let refused = self.refused(call.map_err(|refused| refused.error));
        self.checked(&probe, 1 - refused);
        refused
    }

    pub(super) fn irqs_off_wait(&self) -> u64 {
        let target = self.turn.target;
        let probe = Probe::new(self.turn.key);
        let mut guard = self.smp().irqs_off();
        let run = || self.probe(&probe, target);
        let call = self.smp().call_irqs_off(&mut guard, target, run);
        drop(guard);
        let refused = self.refused(call.map_err(|refused| refused.error));
        self.checked(&probe, 1 - refused);
        refused
    }

    pub(super) fn any_wait(&self) -> u64 {
        let some = self.some();
        let probe = Probe::new(self.turn.key);
        let run = || {
            let here = self.me();
            here.into_iter().for_each(|cpu| self.probe(&probe, cpu));
            here
        };
        let call = self
            .smp()
            .call_any(&some, run)
            .map_err(|refused| refused.error);
        if let Ok((cpu, ran_on)) = call {
            self.room()
                .check(some.contains(cpu) && ran_on == Some(cpu), Fault::WrongCpu);
        }
        let refused = self.refused(call);
        self.checked(&probe, 1 - refused);
        refused
    }

    pub(super) fn waited_set(&self) -> u64 {
        let some = self.some();
        let probe = Probe::new(self.turn.key);
        let run = |cpu| self.probe(&probe, cpu);
        let set = match self.turn.op {
            Op::ManyWait => self.smp().call_many(&some, run),
            Op::CondWait => self.smp().on_each_cpu_cond(|cpu| some.contains(cpu), run),
            _ => self.smp().on_each_cpu(run),
        };
        let refused = self.refused(set.as_ref().map(|_| ()).map_err(|refused| refused.error));
        self.checked(&probe, set.map_or(0, |set| set.len() as u64));
        refused
    }

    pub(super) fn csd_wait(&self) -> u64 {
        let target = self.turn.target;
        let probe = Probe::new(self.turn.key);
        let csd = Csd::new(|| self.probe(&probe, target));
        let refused = self.refused(self.smp().call_csd(target, &csd));
        self.checked(&probe, 1 - refused);
        refused
    }

    /// Only the runner may wait for another CPU's ordinary context; others do a task RPC instead.
    pub(super) fn task_wait(&self) -> u64 {
        let target = self.turn.target;
        if self.source != self.runner.source() {
            return self.task_rpc();
        }
        let ran = AtomicU32::new(0);
        let run = || {
            self.room()
                .check(self.me() == Some(target), Fault::WrongCpu);
            ran.fetch_add(1, Ordering::Relaxed);
        };
        let call = self.smp().run_on_cpu(target, run);
        let refused = self.refused(call.map_err(|refused| refused.error));
        let runs = u64::from(ran.load(Ordering::Relaxed));
        self.room().check(runs == 1 - refused, Fault::Count);
        refused
    }

    pub(super) fn kick(&self) -> u64 {
        self.refused(self.smp().kick_all_cpus_sync())
    }

    /// Takes no calls for a while.
    pub(super) fn masked(&self) -> u64 {
        let guard = self.smp().irqs_off();
        self.burn_masked();
        drop(guard);
        0
    }

    /// Some CPUs in lock step: nobody acts before all are set up.
    pub(super) fn rendezvous(&self) -> u64 {
        let some = self.some();
        let (came, acted) = (AtomicU32::new(0), AtomicU32::new(0));
        let caller = self.me();
        // ORDERING: Relaxed, all of them — the rendezvous alone must order its phases.
        let setup = |cpu| {
            self.room().check(self.me() == Some(cpu), Fault::WrongCpu);
            came.fetch_add(1, Ordering::Relaxed);
            // The call that brought a CPU here counts for its first phase.
            let uncalled = u64::from(caller == Some(cpu));
            self.phases_of(cpu).fetch_add(uncalled, Ordering::Relaxed);
        };
        let seen = AtomicU32::new(u32::MAX);
        let action = |cpu| {
            seen.fetch_min(came.load(Ordering::Relaxed), Ordering::Relaxed);
            acted.fetch_add(1, Ordering::Relaxed);
            self.phases_of(cpu).fetch_add(1, Ordering::Relaxed);
        };
        let teardown = |cpu| {
            self.phases_of(cpu).fetch_add(1, Ordering::Relaxed);
        };
        let set = self.smp().rendezvous(&some, setup, action, teardown);
        if let Ok(set) = &set {
            let all = set.len() as u32;
            let runs = (came.load(Ordering::Relaxed), acted.load(Ordering::Relaxed));
            self.room().check(runs == (all, all), Fault::Count);
            let in_step = all == 0 || seen.load(Ordering::Relaxed) == all;
            self.room().check(in_step, Fault::Order);
        }
        self.refused(set)
    }

    /// Where a CPU's phases of rendezvous are counted that no call brought.
    fn phases_of(&self, cpu: CpuId) -> &AtomicU64 {
        &self.room().worker(Source::task(cpu)).phases
    }

    /// The results of each CPU, in this worker's storage.
    pub(super) fn many_into(&self) -> u64 {
        let some = self.some().and(&CpuMask::first_n(RESULTS));
        let key = self.turn.key;
        let mut room = [const { MaybeUninit::uninit() }; RESULTS];
        let f = |cpu: CpuId| {
            self.room().check(self.me() == Some(cpu), Fault::WrongCpu);
            key ^ u64::from(cpu.get())
        };
        let results = self.smp().on_each_cpu_mask_into(&some, &mut room, f);
        if let Ok(results) = &results {
            let is_right = |cpu: CpuId| results.get(cpu) == Some(&(key ^ u64::from(cpu.get())));
            let right = results.ran().iter().all(is_right);
            self.room().check(right, Fault::MemoryOut);
        }
        self.refused(results.map(drop).map_err(|refused| refused.error))
    }
}

/// CPUs whose results a worker has room for.
const RESULTS: usize = 32;
