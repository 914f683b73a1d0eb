//! Jobs: work that runs long on a CPU, in its task context.
//!
//! A job that was accepted runs before its CPU leaves: the queue closes only when it is empty, in the
//! same step, and refuses from then on. A CPU that is asked to leave finishes its jobs first; if that
//! takes longer than the asker waits, it stays. The one exception is a job that takes its own CPU
//! offline: the jobs behind it never run, and their handles say so.

use std::collections::VecDeque;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use smpcall::CpuId;

use crate::local;
use crate::machine::Inner;
use crate::panics::{self, Payload};
use crate::{CallError, Machine};

/// A job, with the way for its result.
type Job = Box<dyn FnOnce() + Send>;

/// What one CPU is asked to run.
#[derive(Default)]
pub(crate) struct Jobs {
    queue: Mutex<Queue>,
    count: AtomicU32,
}

/// Closed while the CPU is offline.
#[derive(Default)]
struct Queue {
    is_open: bool,
    jobs: VecDeque<Job>,
}

impl Jobs {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The CPU's thread: jobs are accepted from here on.
    pub(crate) fn open(&self) {
        self.queue().is_open = true;
    }

    /// The CPU's thread: nothing is accepted any more, unless there is something to run first.
    /// Answers whether it is closed.
    fn close_if_empty(&self) -> bool {
        let mut queue = self.queue();
        queue.is_open = !queue.jobs.is_empty();
        !queue.is_open
    }

    /// The CPU's thread, which has left: what has not run never will, and each handle hears of it.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.is_open = false;
        let overtaken = mem::take(&mut queue.jobs);
        // ORDERING: Relaxed — the lock orders the jobs.
        self.count.store(0, Ordering::Relaxed);
        drop(queue);
        for job in overtaken {
            // What the job owns is dropped here, and a drop may panic.
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(move || drop(job))) {
                panics::discard(payload);
            }
        }
    }

    /// Anybody: one job more; `false` if the CPU takes none, and the job is gone.
    fn push(&self, job: Job) -> bool {
        let mut queue = self.queue();
        if !queue.is_open {
            return false;
        }
        queue.jobs.push_back(job);
        // ORDERING: Relaxed — the nudge's Release publishes it (E7).
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn pop(&self) -> Option<Job> {
        let job = self.queue().jobs.pop_front()?;
        // ORDERING: Relaxed — as `has_jobs`.
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(job)
    }
}

impl Inner {
    /// Has the CPU's thread jobs to run?
    pub(crate) fn has_jobs(&self, cpu: CpuId) -> bool {
        // ORDERING: Relaxed — the lock orders the jobs, and the sender nudges after it counted.
        self.jobs(cpu).count.load(Ordering::Relaxed) != 0
    }

    /// Runs the CPU's jobs on its thread; a job's panic stays in its join handle. Answers whether
    /// there were any.
    pub(crate) fn run_jobs(&self, cpu: CpuId) -> bool {
        let mut ran = false;
        // A job may take the CPU offline: those behind it have no CPU to run on.
        while self.has_jobs(cpu)
            && self.smp.is_online(cpu)
            && let Some(job) = self.jobs(cpu).pop()
        {
            let outer = local::enter_job();
            // A result that nobody wants is dropped in there, and its drop may panic.
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(job)) {
                panics::discard(payload);
            }
            local::leave_job(outer);
            // A job may have forgotten its guard; the next one, and the CPU's end, need them on.
            local::irqs_restore(true);
            ran = true;
        }
        ran
    }

    /// The CPU's thread, before it leaves: runs what was accepted, and accepts nothing from then on.
    /// `false` if one of the jobs has taken the CPU offline.
    pub(crate) fn finish_jobs(&self, cpu: CpuId) -> bool {
        loop {
            self.run_jobs(cpu);
            if !self.smp.is_online(cpu) {
                return false;
            }
            if self.jobs(cpu).close_if_empty() {
                return true;
            }
        }
    }
}

impl Machine {
    /// Runs `f` in the task context of `cpu`, where it may take long; it takes calls at
    /// [`poll`](smpcall::Smp::poll) points and whenever it waits. Jobs of a CPU run in turn.
    ///
    /// A job that was accepted runs before its CPU leaves by [`cpu_down`](smpcall::Smp::cpu_down) or because
    /// the machine or its thread ends. A job that takes its own CPU offline overtakes those behind it:
    /// their handles say so.
    ///
    /// # Errors
    /// `Offline` or `NoSuchCpu`; a CPU that is about to leave is offline. The job is dropped.
    pub fn spawn_on<R, F>(&self, cpu: CpuId, f: F) -> Result<JoinHandle<R>, CallError>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let (sender, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // The handle may be gone: then nobody wants the result.
            let _ = sender.send(panic::catch_unwind(AssertUnwindSafe(f)));
        });
        if cpu.get() >= self.nr_cpu_ids() || !self.inner().jobs(cpu).push(job) {
            // Names the cause: no such CPU, or offline.
            return self.nudge(cpu).and(Err(CallError::Offline { cpu }));
        }
        // One that is leaving needs no nudge: it looks before it closes.
        let _ = self.nudge(cpu);
        Ok(JoinHandle { result })
    }
}

/// The result of a job, to come.
#[derive(Debug)]
pub struct JoinHandle<R> {
    result: mpsc::Receiver<Result<R, Payload>>,
}

impl<R> JoinHandle<R> {
    /// Blocks until the job has run. Not for a CPU's thread, which would take no calls meanwhile.
    ///
    /// # Errors
    /// The job's panic, or a message if its CPU went offline before it ran.
    pub fn join(self) -> Result<R, Payload> {
        self.result
            .recv()
            .unwrap_or_else(|_| Err(Box::new("the job's CPU went offline first")))
    }

    /// Has the job ended? Then [`join`](Self::join) does not block.
    pub fn try_join(&self) -> Option<Result<R, Payload>> {
        self.result.try_recv().ok()
    }
}
