//! A machine: what its threads share, and how it ends.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle as Thread;
use std::time::Duration;

use smpcall::CpuId;

use crate::builder::Builder;
use crate::jobs::Jobs;
use crate::panics;
use crate::platform::Hosted;
use crate::{HostedSmp, WORDS};

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
    /// What a machine starts from: every CPU offline.
    pub(crate) fn new(platform: Hosted, poll_time: Duration) -> Arc<Self> {
        // Megabytes: built where they stay, for a thread's stack may be smaller.
        let mut place = Box::<HostedSmp>::new_uninit();
        HostedSmp::emplace(&mut place, platform);
        // SAFETY: `emplace` wrote it.
        let smp = unsafe { place.assume_init() };
        let inner = Arc::new(Self {
            smp: ManuallyDrop::new(smp),
            poll_time,
            jobs: (0..64 * WORDS).map(|_| Jobs::default()).collect(),
            threads: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        // The cell is new.
        let _ = inner.smp.platform().inner.set(Arc::downgrade(&inner));
        inner
    }

    /// The jobs of a CPU below the capacity.
    pub(crate) fn jobs(&self, cpu: CpuId) -> &Jobs {
        &self.jobs[cpu.index()]
    }

    /// Keeps a thread's handle, to be joined.
    pub(crate) fn keep_thread(&self, cpu: CpuId, thread: Thread<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|(_, thread)| !thread.is_finished());
        threads.push((cpu, thread));
    }

    /// Has the thread that was this CPU last come to its end?
    fn is_thread_gone(&self, cpu: CpuId) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = threads.iter().filter(|(id, _)| *id == cpu);
        own.all(|(_, thread)| thread.is_finished())
    }

    /// Has whoever was this CPU last come to rest?
    pub(crate) fn is_at_rest(&self, cpu: CpuId) -> bool {
        self.is_thread_gone(cpu) && !self.smp.platform().home(cpu).is_taken()
    }

    /// Is the machine shutting down?
    pub(crate) fn is_stopping(&self) -> bool {
        // ORDERING: Acquire — pairs with the Release in `shut_down`; nothing else rides on it.
        self.stopping.load(Ordering::Acquire)
    }

    /// Takes every CPU that has a thread of the machine's own offline, and joins the threads. A thread
    /// that attached serves meanwhile: one that ends may wait for it.
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
                while self.smp.current_cpu().is_some() && !thread.is_finished() {
                    self.smp.poll();
                    self.smp.run_tasks();
                    std::thread::yield_now();
                }
                // A CPU's thread catches the panics of what it runs.
                let _ = thread.join();
            }
        }
    }
}

/// A machine whose CPUs are pinned threads; derefs to the core's instance, where the calls are.
///
/// Dropping it takes the CPUs offline, each after the calls and the jobs it had accepted, and joins the
/// threads. Threads that [`attach`](Self::attach)ed stay CPUs until they detach or end.
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
        // A child that was forked has none of the threads.
        if self.platform().is_forked() {
            return;
        }
        if let Some(cpu) = self.current_cpu()
            && !(self.platform().home(cpu).is_taken() && self.can_wait().is_ok())
        {
            panics::fatal(format_args!(
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

    /// What the threads share.
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The machine of what its threads share.
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}
