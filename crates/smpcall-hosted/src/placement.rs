//! Where the threads of CPUs really run, when others change what this library set.
//!
//! A started CPU is pinned once. `taskset` on the process, a cgroup whose CPUs change and a CPU of the computer
//! that goes offline all make the kernel move its thread, and nothing here moves it back: who
//! administers the computer decides. A CPU is its thread, so calls stay right wherever it runs; what is
//! lost is the place. That is reported once, by the thread itself when it goes to sleep, and
//! [`Hosted::moved`] answers it. A CPU that goes down and comes up is pinned anew.

use std::sync::atomic::{AtomicBool, Ordering};

use smpcall::CpuId;

use crate::CpuMask;
use crate::affinity::host_cpu;
use crate::platform::Hosted;

/// By CPU: has its thread been seen elsewhere since it was pinned?
#[derive(Debug)]
pub(crate) struct Placement(Box<[AtomicBool]>);

impl Placement {
    /// For CPUs `0..cpus`, all in their places.
    pub(crate) fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| AtomicBool::new(false)).collect())
    }
}

impl Hosted {
    /// The started CPUs whose threads have been seen on another CPU of the computer than the one that
    /// they were pinned to: somebody changed their affinity, or that CPU went offline. A thread looks
    /// when it goes to sleep.
    pub fn moved(&self) -> CpuMask {
        let moved = self.placement.0.iter().enumerate();
        moved
            // ORDERING: Relaxed — a statistic.
            .filter(|(_, moved)| moved.load(Ordering::Relaxed))
            .map(|(cpu, _)| CpuId::new(cpu as u32))
            .collect()
    }

    /// The CPU's thread has just been pinned.
    pub(crate) fn note_pinned(&self, cpu: CpuId) {
        // ORDERING: Relaxed — a statistic.
        self.placement.0[cpu.index()].store(false, Ordering::Relaxed);
    }

    /// The CPU's thread, before it sleeps: is it where it was pinned?
    pub(crate) fn look_where(&self, cpu: CpuId) {
        let (here, home) = (host_cpu(), self.host_cpu_of(cpu));
        // ORDERING: Relaxed — a statistic, written by this thread.
        if home != Some(here) && !self.placement.0[cpu.index()].swap(true, Ordering::Relaxed) {
            self.say(&format_args!(
                "CPU {cpu} runs on the computer's CPU {here} instead of {}: somebody changed its \
                 affinity, or that CPU went offline",
                home.unwrap_or(0)
            ));
        }
    }
}
