//! The two CPUs of a bench: one that calls, and one that answers.
//!
//! Whatever is measured runs on these two threads: calls go from the caller's task context to
//! the idle responder; everything else gives the responder a loop to run meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smpcall_hosted::{CpuId, CpuMask, Machine, WithoutClosure};

use crate::Failure;
use crate::args::CpuChoice;
use crate::{host, stats};

/// The machine and its two CPUs.
pub(crate) struct Lab {
    pub(crate) machine: Arc<Machine>,
    pub(crate) caller: CpuId,
    pub(crate) responder: CpuId,
    /// What reading the clock adds to a sample between two readings.
    pub(crate) clock_cost_ns: f64,
}

impl Lab {
    /// Boots the first two of the CPUs that were asked for, and only those.
    pub(crate) fn boot(cpus: Option<&CpuChoice>) -> Result<Self, Failure> {
        let all = host::boot(cpus)?;
        let two: CpuMask = all.present_cpus().iter().take(2).collect();
        let count = all.present_cpus().len();
        let hosts: Vec<_> = two.iter().map(|cpu| host::host_cpu_of(&all, cpu)).collect();
        drop(all);
        if two.len() < 2 || hosts[0] == hosts[1] {
            return Err(Failure::Usage(format!(
                "bench measures the way between two of this computer's CPUs; this process may use \
                 {}, and --cpus asks for {count}",
                host::allowed_count()?
            )));
        }
        let real: CpuMask = hosts.iter().flatten().copied().map(CpuId::new).collect();
        let machine = Arc::new(host::boot(Some(&CpuChoice::List(real)))?);
        let mut ids = real.iter();
        let (Some(caller), Some(responder)) = (ids.next(), ids.next()) else {
            return Err(Failure::Trouble("two CPUs were there, and are not".into()));
        };
        let clock_cost_ns = machine
            .run_on_cpu(caller, stats::clock_cost_ns)
            .without_closure()?;
        Ok(Self {
            machine,
            caller,
            responder,
            clock_cost_ns,
        })
    }

    /// Runs `answer` on the responder and, once that runs, `ask` here; then waits for the end of
    /// `answer`, which is told to stop by its argument.
    pub(crate) fn duet<R>(
        &self,
        answer: impl FnOnce(&AtomicBool) + Send + 'static,
        ask: impl FnOnce() -> R,
    ) -> R {
        let stage = Arc::new(Stage::default());
        let theirs = Arc::clone(&stage);
        let job = self.machine.spawn_on(self.responder, move || {
            // ORDERING: Release — what came before is over; pairs with the look below.
            theirs.running.store(true, Ordering::Release);
            answer(&theirs.stop);
        });
        let job = job.unwrap_or_else(|error| panic!("the responder is gone: {error}"));
        // ORDERING: Acquire — as above.
        while !stage.running.load(Ordering::Acquire) {
            self.machine.poll();
        }
        let stop = StopOnDrop(&stage.stop);
        let result = ask();
        drop(stop);
        let ended = loop {
            if let Some(ended) = job.try_join() {
                break ended;
            }
            self.machine.poll();
        };
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
        result
    }

    /// Spins for a while, with the clock.
    pub(crate) fn spin(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {}
    }

    /// Times one operation by two readings of the clock.
    pub(crate) fn time_one(&self, operation: impl FnOnce()) -> f64 {
        let start = Instant::now();
        operation();
        (start.elapsed().as_nanos() as f64 - self.clock_cost_ns).max(0.1)
    }
}

/// Times `runs` runs of `count` operations each; nanoseconds per operation.
pub(crate) fn time_runs(runs: usize, count: u64, mut operation: impl FnMut(u64)) -> Vec<f64> {
    let one_run = |run: usize| {
        let start = Instant::now();
        for i in 0..count {
            operation(run as u64 * count + i);
        }
        start.elapsed().as_nanos() as f64 / count as f64
    };
    (0..runs).map(one_run).collect()
}

#[derive(Default)]
struct Stage {
    running: AtomicBool,
    stop: AtomicBool,
}

/// Ends the responder's loop even if the caller panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        // ORDERING: Release — what the caller did is over; the responder looks with Relaxed, and
        // its end is seen through the job's channel.
        self.0.store(true, Ordering::Release);
    }
}

/// Has the responder been told to stop?
pub(crate) fn stopped(stop: &AtomicBool) -> bool {
    // ORDERING: Relaxed — it only ends the loop.
    stop.load(Ordering::Relaxed)
}

/// A word that has its cache line, and the neighbour that the prefetcher fetches with it, to itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Line<T>(pub(crate) T);
