//! The end of a run: every worker stops, every post has run, every CPU is back, nothing is left.
//!
//! A wait that takes too long nudges every CPU once: what comes then had lost its wake-up; what
//! still does not come was lost itself.

use core::pin::pin;
use core::sync::atomic::Ordering;

use smpcall::{CpuId, Csd, Platform};

use super::hotplug::Hotplug;
use super::letter::{Letter, QUIET, Source};
use super::room::Fault;
use super::{MS, Runner};
use crate::lab::Lab;

impl<L: Lab<W, D>, const W: usize, const D: usize> Runner<'_, L, W, D> {
    pub(super) fn end(&self, hotplug: &mut Hotplug) {
        // ORDERING: Acquire — what the workers did is visible, and they use the runner no more.
        let idle = || {
            self.room
                .everyone()
                .all(|w| w.running.load(Ordering::Acquire) == 0)
        };
        self.wait_patiently(idle, "a worker never ended");
        for _ in 0..BRING_UPS {
            if let Some(cpu) = hotplug.down {
                self.bring_up(cpu, hotplug);
                self.wait_patiently(idle, "a worker never ended");
            }
        }
        self.room.check(hotplug.down.is_none(), Fault::Hotplug);
        let settled = || {
            let (accepted, ran) = self.room.posts();
            accepted == ran
        };
        if !self.wait_or_nudge(settled) {
            let (accepted, ran) = self.room.posts();
            self.room.check(false, Fault::LostCall);
            self.lab.log(format_args!(
                "torture: {accepted} posts were accepted, {ran} ran"
            ));
        }
        let online = self.smp().online_cpus();
        online.iter().for_each(|cpu| self.check_nothing_left(cpu));
        self.check_counters();
    }

    /// Nothing is queued for the CPU, as it sees itself: its doorbell is quiet, its lines are idle. It is
    /// asked by a posted task, for a wait for one interrupts nobody again if the interrupt is lost.
    fn check_nothing_left(&self, cpu: CpuId) {
        let source = self.source();
        let [_, _, answer] = &self.room.worker(source).rpc;
        let letter = Letter::<L, W, D>::new(self.room, source, Some(cpu), 0);
        let csd = pin!(Csd::new(move || letter.answer_pending()));
        let is_quiet = || {
            // ORDERING: Relaxed — the post publishes it.
            answer.store(0, Ordering::Relaxed);
            let posted = self.smp().post_task(cpu, csd.as_ref());
            // ORDERING: Acquire — the task is over.
            let answered = || answer.load(Ordering::Acquire) != 0;
            posted.is_ok()
                && self.wait_or_nudge(answered)
                && answer.load(Ordering::Relaxed) == QUIET
        };
        let quiet = self.wait_or_nudge(is_quiet);
        self.room.check(quiet, Fault::LeftOver);
    }

    /// What was sent to each CPU and not taken back ran there, where the platform counts it.
    fn check_counters(&self) {
        let Some(tracer) = self.smp().platform().tracer() else {
            return;
        };
        for cpu in &self.smp().online_cpus() {
            let others = self.smp().possible_cpus();
            let sources = others.iter().map(Some).chain([None]);
            let counts = sources.map(|from| tracer.pair(from, cpu));
            let sent: u64 = counts.map(|pair| pair.calls - pair.refused).sum();
            let phases = &self.room.worker(Source::task(cpu)).phases;
            // ORDERING: Relaxed — a count, and all is over.
            let ran = tracer.ran(cpu) - phases.load(Ordering::Relaxed);
            self.room.check(sent == ran, Fault::Counters);
            if sent != ran {
                self.lab.log(format_args!(
                    "torture: {sent} calls were sent to CPU {cpu}, it ran {ran}"
                ));
            }
        }
    }

    /// Waits for something that must happen, with a nudge after a while; if it never does, whoever
    /// fails to do it still uses the runner, so everything stops.
    pub(super) fn wait_patiently(&self, done: impl Fn() -> bool, what: &str) {
        if !self.wait_or_nudge(done) {
            self.dump(what);
            self.smp().platform().fatal(format_args!("torture: {what}"));
        }
    }

    /// Waits; after a while nudges every CPU and notes a lost wake-up if that helped.
    pub(super) fn wait_or_nudge(&self, done: impl Fn() -> bool) -> bool {
        self.wait_until(&done) || self.nudge_until(|| self.wait_until(&done))
    }

    /// Nudges every CPU, once for each hop that an operation may take, for each may have lost its wake-up;
    /// notes that if it helped.
    fn nudge_until(&self, in_time: impl Fn() -> bool) -> bool {
        let helped = (0..HOPS).any(|_| {
            self.nudge_all();
            in_time()
        });
        self.room.check(!helped, Fault::LostWakeup);
        helped
    }

    /// As [`Self::wait_or_nudge`], on a CPU that looks for nothing meanwhile: it must be interrupted.
    pub(super) fn wait_without_looking(&self, done: impl Fn() -> bool) -> bool {
        let in_time = || {
            let start = self.now();
            while !done() && self.now().saturating_sub(start) <= self.torture.patience_ms * MS {
                // Some instructions at which to be interrupted, and then some time for others.
                (0..LOOKS_PER_RELAX).for_each(|_| core::hint::spin_loop());
                self.smp().platform().relax(u32::MAX);
            }
            done()
        };
        in_time() || self.nudge_until(in_time)
    }

    /// The recovery interrupt: every CPU is rung and interrupted.
    fn nudge_all(&self) {
        for cpu in &self.smp().online_cpus() {
            // One that has left meanwhile ran its last calls.
            let _ = self.smp().nudge(cpu);
            self.smp().platform().send_ipi(cpu);
        }
    }

    /// Waits for so long as the run has patience; answers whether it came.
    fn wait_until(&self, done: &impl Fn() -> bool) -> bool {
        let start = self.now();
        while !done() {
            self.poll();
            self.smp().run_tasks();
            self.smp().platform().relax(1_000);
            if self.now().saturating_sub(start) > self.torture.patience_ms * MS {
                return done();
            }
        }
        true
    }

    /// Says which CPUs still work.
    pub(super) fn dump(&self, what: &str) {
        self.lab.log(format_args!(
            "dump: {what}; online {}",
            self.smp().online_cpus()
        ));
        for cpu in &self.online {
            let worker = self.room.worker(Source::task(cpu));
            // ORDERING: Relaxed — a report.
            if worker.running.load(Ordering::Relaxed) != 0 {
                let state = self.smp().cpu_state(cpu);
                self.lab
                    .log(format_args!("dump: CPU {cpu}: {state:?}, works"));
            }
        }
    }
}

/// As many times an operation may be handed on from CPU to CPU.
const HOPS: u32 = 4;

/// Pause instructions of a CPU that waits to be interrupted, each time before it gives the processor away.
const LOOKS_PER_RELAX: u32 = 200;

/// How often the CPU that is down at the end is brought up, where that may fail.
const BRING_UPS: usize = 20;
