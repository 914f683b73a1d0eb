//! Building, booting and shutting down a machine of threads.

use std::collections::VecDeque;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle as Thread;
use std::time::{Duration, Instant};

use smpcall::CpuId;

use crate::affinity::HostCpus;
use crate::boot_error::BootError;
use crate::local;
use crate::platform::{self, Hosted, Payload, Reporter};
use crate::preempt::Preemption;
use crate::stall::Limits;
use crate::topology::Topology;
use crate::trace::TraceStorage;
use crate::{BootParams, CallError, CpuMask, HostedSmp, WORDS};

/// Work that runs long on a CPU, in its task context.
type Job = Box<dyn FnOnce() + Send>;

/// What one CPU's thread is asked to run.
#[derive(Default)]
struct Jobs {
    queue: Mutex<VecDeque<Job>>,
    count: AtomicU32,
}

/// What the threads of a machine share.
pub(crate) struct Inner {
    pub(crate) smp: ManuallyDrop<Box<HostedSmp>>,
    pub(crate) poll_time: Duration,
    jobs: Vec<Jobs>,
    threads: Mutex<Vec<(CpuId, Thread<()>)>>,
    stopping: AtomicBool,
}

impl Drop for Inner {
    /// Gives the instance's memory back, unless a caller's own descriptor was ever queued in it: the
    /// drop of one on another thread may look at the instance a moment after it ran.
    fn drop(&mut self) {
        if !self.smp.platform().has_had_descriptors() {
            // SAFETY: dropped here and not used again.
            unsafe { ManuallyDrop::drop(&mut self.smp) };
        }
    }
}

impl Inner {
    /// Keeps a thread's handle, to be joined.
    pub(crate) fn keep_thread(&self, cpu: CpuId, thread: Thread<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|(_, thread)| !thread.is_finished());
        threads.push((cpu, thread));
    }

    /// Has the thread that was this CPU last come to its end?
    pub(crate) fn is_thread_gone(&self, cpu: CpuId) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = threads.iter().filter(|(id, _)| *id == cpu);
        own.all(|(_, thread)| thread.is_finished())
    }

    /// Is the machine shutting down?
    pub(crate) fn is_stopping(&self) -> bool {
        // ORDERING: Acquire — pairs with the Release in `shut_down`; nothing else rides on it.
        self.stopping.load(Ordering::Acquire)
    }

    /// Has the CPU's thread jobs to run?
    pub(crate) fn has_jobs(&self, cpu: CpuId) -> bool {
        // ORDERING: Relaxed — the mutex orders the jobs, and the sender nudges after it counted.
        self.jobs[cpu.index()].count.load(Ordering::Relaxed) != 0
    }

    /// Runs the CPU's jobs on its thread; a job's panic stays in its join handle.
    pub(crate) fn run_jobs(&self, cpu: CpuId) {
        while let Some(job) = self.next_job(cpu) {
            // A result that nobody wants is dropped in there, and its drop may panic.
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(job)) {
                platform::discard(payload);
            }
            // A job may have forgotten its guard; the next one, and the CPU's end, need them on.
            local::irqs_restore(true);
        }
    }

    fn next_job(&self, cpu: CpuId) -> Option<Job> {
        let jobs = &self.jobs[cpu.index()];
        if !self.has_jobs(cpu) {
            return None;
        }
        let job = jobs
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()?;
        // ORDERING: Relaxed — as `has_jobs`.
        jobs.count.fetch_sub(1, Ordering::Relaxed);
        Some(job)
    }

    /// Takes every CPU offline and joins the threads.
    fn shut_down(&self) {
        // ORDERING: Release — pairs with `is_stopping`.
        self.stopping.store(true, Ordering::Release);
        loop {
            for cpu in &self.smp.online_cpus() {
                // One that has left meanwhile needs no nudge.
                let _ = self.smp.nudge(cpu);
            }
            let threads =
                std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
            if threads.is_empty() {
                return;
            }
            for (_, thread) in threads {
                // A CPU's thread catches the panics of what it runs.
                let _ = thread.join();
            }
        }
    }
}

/// A machine whose CPUs are pinned threads; derefs to the core's instance, where the calls are.
///
/// Dropping it takes the CPUs offline, each after the calls it had accepted, and joins the threads.
///
/// ```
/// use smpcall_hosted::{CpuId, Machine};
/// let machine = Machine::builder().count(4).boot()?;
/// let ran = machine.on_each_cpu(|cpu| assert!(cpu < CpuId::new(4)))?;
/// assert_eq!(ran.to_string(), "0-3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Machine {
    inner: Arc<Inner>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("online", &self.online_cpus())
            .finish_non_exhaustive()
    }
}

impl Deref for Machine {
    type Target = HostedSmp;
    fn deref(&self) -> &HostedSmp {
        &self.inner.smp
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(cpu) = self.current_cpu() {
            platform::fatal(format_args!(
                "a machine was dropped on its own CPU {cpu}, which it would wait for"
            ));
        }
        self.inner.shut_down();
    }
}

impl Machine {
    /// A machine of the CPUs that the process may use, unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs `f` in the task context of `cpu`, where it may take long; it takes calls at
    /// [`poll`](smpcall::Smp::poll) points and whenever it waits. Jobs of a CPU run in turn.
    ///
    /// # Errors
    /// `Offline` or `NoSuchCpu`. A job that is queued when its CPU goes offline is dropped, and its
    /// handle says so.
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
        if !self.is_online(cpu) {
            // Names the cause: no such CPU, or offline.
            return self.nudge(cpu).and(Err(CallError::Offline { cpu }));
        }
        let jobs = &self.inner.jobs[cpu.index()];
        jobs.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(job);
        // ORDERING: Relaxed — the nudge's Release publishes it (E7).
        jobs.count.fetch_add(1, Ordering::Relaxed);
        self.nudge(cpu)?;
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

/// Which CPUs a machine has.
#[derive(Debug, Clone, Default)]
enum Cpus {
    /// Those of the affinity mask, by their real ids.
    #[default]
    Allowed,
    /// These real ids.
    List(CpuMask),
    /// Ids from 0, sharing the allowed ones.
    Count(usize),
}

/// What a machine shall be.
pub struct Builder {
    cpus: Cpus,
    params: BootParams,
    poll_time: Duration,
    reporter: Reporter,
    stalls: Limits,
    trace: Option<usize>,
    /// The signal that interrupts busy CPUs.
    pub(crate) preempt: Option<libc::c_int>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("cpus", &self.cpus)
            .field("params", &self.params)
            .field("poll_time", &self.poll_time)
            .field("stalls", &self.stalls)
            .field("trace", &self.trace)
            .field("preempt", &self.preempt)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            cpus: Cpus::Allowed,
            params: BootParams::unlimited((64 * WORDS) as u32),
            poll_time: Duration::from_micros(25),
            reporter: Box::new(|report| eprintln!("smpcall: {report}")),
            stalls: Limits::default(),
            trace: None,
            preempt: None,
        }
    }
}

impl Builder {
    /// CPUs `0..n`: CPU i is pinned to the i-th allowed one, modulo their number. With more than
    /// the computer has they share, and park instead of polling.
    #[must_use]
    pub fn count(mut self, n: usize) -> Self {
        self.cpus = Cpus::Count(n);
        self
    }

    /// These CPUs of the computer, by their real ids.
    #[must_use]
    pub fn list(mut self, cpus: &CpuMask) -> Self {
        self.cpus = Cpus::List(*cpus);
        self
    }

    /// Boot parameters: `maxcpus=` and `nr_cpus=`.
    #[must_use]
    pub fn params(mut self, params: BootParams) -> Self {
        self.params = params;
        self
    }

    /// How long an idle CPU polls before it parks; 25 microseconds unless set.
    #[must_use]
    pub fn poll_time(mut self, time: Duration) -> Self {
        self.poll_time = time;
        self
    }

    /// Where reports go (bring-up, stalls, panics of posted functions); standard error unless set.
    ///
    /// It is called on any thread and must not call back into the machine.
    #[must_use]
    pub fn reporter(mut self, report: impl Fn(&dyn fmt::Display) + Send + Sync + 'static) -> Self {
        self.reporter = Box::new(report);
        self
    }

    /// After how long a wait is reported with the CPU that holds it up; 5 seconds unless set, zero
    /// for never.
    #[must_use]
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.stalls.report = limit;
        self
    }

    /// After how long a reported wait ends the process; never unless set, zero for never.
    #[must_use]
    pub fn stall_abort(mut self, limit: Duration) -> Self {
        self.stalls.abort = limit;
        self
    }

    /// Keeps a trace, of so many events for each CPU; what comes later is counted and lost. Without
    /// this a call pays one look at a word that nobody writes.
    #[must_use]
    pub fn trace(mut self, events: usize) -> Self {
        self.trace = Some(events);
        self
    }

    /// Starts the CPUs.
    ///
    /// # Errors
    /// Names what was asked for that cannot be: see [`BootError`]. No thread is left behind.
    pub fn boot(self) -> Result<Machine, BootError> {
        let allowed = *HostCpus::allowed().map_err(BootError::Affinity)?.mask();
        let (present, host_cpus) = self.cpus.place(&allowed)?;
        let oversubscribed = present.len() > allowed.len();
        let host_cpus_len = host_cpus.len();
        let preemption = self
            .preempt
            .map(|signal| Preemption::new(signal, host_cpus_len))
            .transpose()?;
        let platform = Hosted {
            inner: OnceLock::new(),
            preemption,
            host_cpus,
            topology: Topology::of_this_computer(),
            oversubscribed,
            reporter: self.reporter,
            epoch: Instant::now(),
            stalls: self.stalls.keep(host_cpus_len),
            trace: self
                .trace
                .map(|events| TraceStorage::new(host_cpus_len, events)),
            kicks: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            descriptors: AtomicBool::new(false),
        };
        // Megabytes: built where they stay, for a thread's stack may be smaller.
        let mut place = Box::<HostedSmp>::new_uninit();
        HostedSmp::emplace(&mut place, platform);
        // SAFETY: `emplace` wrote it.
        let smp = unsafe { place.assume_init() };
        let inner = Arc::new(Inner {
            smp: ManuallyDrop::new(smp),
            poll_time: if oversubscribed {
                Duration::ZERO
            } else {
                self.poll_time
            },
            jobs: (0..64 * WORDS).map(|_| Jobs::default()).collect(),
            threads: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        // The cell is new.
        let _ = inner.smp.platform().inner.set(Arc::downgrade(&inner));
        // SAFETY: 1 — boxed, and `Machine`'s drop takes every CPU offline before the box goes.
        unsafe { inner.smp.set_up(&present, &present, &self.params) };
        // `nr_cpus=` may have cut off all that the process may use.
        if inner.smp.present_cpus().is_empty() {
            return Err(BootError::NoCpus);
        }
        let machine = Machine { inner };
        machine.start_all(self.params.max_cpus.max(1) as usize)?;
        Ok(machine)
    }
}

impl Machine {
    /// Brings the present CPUs up, as many as `maxcpus=` allows.
    fn start_all(&self, max_cpus: usize) -> Result<(), BootError> {
        for cpu in self.present_cpus().iter().take(max_cpus) {
            self.cpu_up(cpu)
                .map_err(|error| BootError::Cpu { cpu, error })?;
        }
        Ok(())
    }
}

impl Cpus {
    /// The logical CPUs, and the computer's CPU for each.
    fn place(&self, allowed: &CpuMask) -> Result<(CpuMask, Vec<u32>), BootError> {
        let present = match self {
            _ if allowed.is_empty() => return Err(BootError::NoCpus),
            Self::Allowed => *allowed,
            Self::List(cpus) if cpus.is_empty() => return Err(BootError::NoCpus),
            Self::List(cpus) => match cpus.and_not(allowed).first() {
                Some(cpu) => {
                    return Err(BootError::NotAllowed {
                        cpu,
                        allowed: Box::new(*allowed),
                    });
                }
                None => *cpus,
            },
            Self::Count(0) => return Err(BootError::NoCpus),
            Self::Count(n) if *n > CpuMask::CAPACITY => {
                return Err(BootError::TooMany {
                    asked: *n,
                    capacity: CpuMask::CAPACITY,
                });
            }
            Self::Count(n) => CpuMask::first_n(*n),
        };
        let shared: Vec<u32> = allowed.iter().map(CpuId::get).collect();
        let host_cpu = |logical: usize| match self {
            Self::Count(_) => shared[logical % shared.len()],
            _ => logical as u32,
        };
        let last = present.last().map_or(0, CpuId::index);
        Ok((present, (0..=last).map(host_cpu).collect()))
    }
}
