//! A thread of the program becomes a CPU, and stops being one: that is hotplug.
//!
//! The thread keeps its own loop. It takes calls where it says so ([`Attached::serve`], any poll point, any
//! wait), and tells the machine when it is about to sleep ([`Attached::prepare_to_sleep`]); from then on a
//! sender makes the CPU's file descriptor readable, so that epoll, mio, tokio or io_uring wakes it. While it
//! is awake a call to it costs nobody a system call.
//!
//! ```text
//!             attach                      prepare_to_sleep
//!   foreign ──────────▶ CPU, awake ───────────────────────────▶ CPU, armed
//!      ▲                 │     ▲                                   │ the descriptor is readable
//!      │ detach, drop,   │     └────────────── serve ──────────────┘
//!      │ asked to leave, │
//!      └─ thread's end ──┘
//! ```
//!
//! The guard stays on its thread. What is behind it does not depend on it: a guard that is forgotten, or
//! dropped where its thread cannot leave, leaves the thread a CPU until it ends; then the destructor of
//! a thread-local takes the CPU offline, which runs all that it accepted. Edges: E60, E61.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smpcall::{CpuId, HotplugError, StartError};

use crate::life::{self, Home, Life};
use crate::{CallError, HostedSmp, Machine, affinity, local};

/// Why a thread did not become a CPU.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttachError {
    /// The machine has no such CPU.
    NoSuchCpu {
        /// The CPU that was asked for.
        cpu: CpuId,
    },
    /// Another thread is this CPU, or has not come to rest after it was: choose another id, or try
    /// again.
    Busy {
        /// The CPU that was asked for.
        cpu: CpuId,
    },
    /// The calling thread is a CPU already, of this machine or another, or it is ending.
    ThreadInUse,
    /// The CPU could not come up here: interrupts are off, or a callback refused.
    Hotplug(HotplugError),
    /// The kernel gave no file descriptor.
    Doorbell(io::Error),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu { cpu } => write!(f, "the machine has no CPU {cpu}"),
            Self::Busy { cpu } => write!(f, "another thread is CPU {cpu}"),
            Self::ThreadInUse => f.write_str("this thread is a CPU already, or it is ending"),
            Self::Hotplug(error) => write!(f, "the CPU did not come up: {error}"),
            Self::Doorbell(error) => write!(f, "no file descriptor to be woken by: {error}"),
        }
    }
}

impl std::error::Error for AttachError {}

/// A thread that is a CPU, as long as this lives; derefs to the core's instance, where the calls are.
///
/// It stays on its thread, and keeps what the machine shares: a [`Machine`] that is dropped leaves attached
/// CPUs online, and they may go on to call each other. A CPU that is asked to leave
/// ([`cpu_down`](smpcall::Smp::cpu_down)) does so in [`serve`](Self::serve); the guard is then an empty one.
///
/// Where the thread runs is the program's choice; [`pin`](Self::pin) puts it where a CPU of this id would
/// have been put.
///
/// ```
/// use smpcall_hosted::{CpuId, Machine};
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// let machine = Machine::builder().count(2).only_attached().boot()?;
/// let called = AtomicBool::new(false);
/// std::thread::scope(|scope| {
///     let server = scope.spawn(|| {
///         let here = machine.attach(CpuId::new(1)).expect("nobody else is CPU 1");
///         // A call may run in `sleep` already, which then returns at once.
///         while !called.load(Relaxed) {
///             here.sleep(None);
///             here.serve();
///         }
///     });
///     while machine.call(CpuId::new(1), || called.store(true, Relaxed)).is_err() {}
///     server.join().expect("it was called");
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Attached {
    /// Not `Send`: a CPU is a thread.
    life: Rc<Life>,
    /// Has the thread prepared to sleep since it served?
    is_armed: Cell<bool>,
}

impl Machine {
    /// The calling thread becomes this CPU, which must be offline. It takes calls from here on, and
    /// none runs before it serves.
    ///
    /// # Errors
    /// `Busy` if a thread is this CPU; else what stands in the way, by name.
    pub fn attach(&self, cpu: CpuId) -> Result<Attached, AttachError> {
        if !life::is_free() || local::current().is_some() {
            return Err(AttachError::ThreadInUse);
        }
        if !local::irqs_enabled() {
            let error = HotplugError::Context(CallError::InterruptsOff);
            return Err(AttachError::Hotplug(error));
        }
        if !self.present_cpus().contains(cpu) {
            return Err(AttachError::NoSuchCpu { cpu });
        }
        let home = self.platform().home(cpu);
        home.prepare().map_err(AttachError::Doorbell)?;
        let result = self.cpu_up_by(cpu, || self.arrive(cpu));
        result.map_err(|error| match error {
            HotplugError::AlreadyOnline => AttachError::Busy { cpu },
            HotplugError::Start(StartError::Refused(code)) if code == i64::from(libc::EBUSY) => {
                AttachError::Busy { cpu }
            }
            error => AttachError::Hotplug(error),
        })?;
        Ok(Attached {
            life: Life::begin(Arc::clone(self.inner()), cpu),
            is_armed: Cell::new(false),
        })
    }

    /// Under the lock of up and down: this thread arrives as the CPU.
    fn arrive(&self, cpu: CpuId) -> Result<(), StartError> {
        if !self.inner().is_at_rest(cpu) {
            return Err(StartError::Refused(i64::from(libc::EBUSY)));
        }
        self.platform().home(cpu).take();
        local::become_cpu(self.platform(), cpu.get());
        self.inner().jobs(cpu).open();
        local::irqs_save();
        let arrived = self.online_this_cpu();
        local::irqs_restore(true);
        if arrived {
            return Ok(());
        }
        life::rest(self.inner(), cpu);
        Err(StartError::NoSuchCpu)
    }
}

impl Attached {
    /// The CPU that this thread is.
    pub fn cpu(&self) -> CpuId {
        self.life.cpu()
    }

    /// Is the thread still this CPU? Not after it was asked to leave and did, or left by itself
    /// ([`offline_this_cpu`](smpcall::Smp::offline_this_cpu)).
    pub fn is_online(&self) -> bool {
        !self.life.is_over() && self.life.smp().is_online(self.life.cpu())
    }

    /// Does what came for this CPU: calls, then tasks and jobs, and leaves if it was asked to.
    /// Answers whether there was anything.
    ///
    /// Event loops call it when [the descriptor](AsFd) is readable, and whenever they go round. Inside a
    /// task or a job it takes calls only; inside a called function or with interrupts off, nothing.
    pub fn serve(&self) -> bool {
        let life = &self.life;
        if life.is_over() {
            return false;
        }
        if !life.is_at_top() {
            return life.smp().poll();
        }
        // Before the drain: a signal that comes after it is for the next one (E61).
        if self.is_armed.replace(false) {
            self.home().doorbell().clear();
        }
        let mut served = life.smp().disarm();
        served |= life.smp().run_tasks();
        // A task may have forgotten its guard.
        local::irqs_restore(true);
        served |= life.inner().run_jobs(life.cpu());
        if life.smp().is_online(life.cpu()) {
            life.leave_if_asked();
        } else {
            // A task or a job took the CPU offline.
            life.end();
        }
        served
    }

    /// To be called before the thread sleeps until [the descriptor](AsFd) is readable: from here
    /// on the next call makes it so. Answers whether there is nothing to do first; if there is, call
    /// [`serve`](Self::serve) and come again.
    ///
    /// An event loop stays prepared while it does other things, until it serves: calls then make the
    /// descriptor readable, which costs the caller a system call, and the loop finds it when it looks
    /// next. Waits of this thread in between serve as always.
    ///
    /// # Panics
    /// Inside a called function, or with interrupts off.
    pub fn prepare_to_sleep(&self) -> bool {
        let life = &self.life;
        if !self.is_online() {
            // A job may have taken the CPU offline; nobody calls what is offline.
            return life.is_over();
        }
        if life.has_work() {
            return false;
        }
        self.is_armed.set(true);
        // The second look is at what came before it was armed and rang a doorbell that was not.
        life.smp().arm() && !life.has_work()
    }

    /// Sleeps until something comes for this CPU or the time is up, for threads without a loop of their
    /// own. Answers whether there is something to [`serve`](Self::serve). Returns at once when the
    /// thread [is the CPU no more](Self::is_online).
    ///
    /// # Panics
    /// Inside a called function, or with interrupts off.
    pub fn sleep(&self, limit: Option<Duration>) -> bool {
        !self.prepare_to_sleep() || (self.is_online() && self.home().doorbell().wait(limit))
    }

    /// Pins the thread to the computer's CPU that a started CPU of this id is pinned to.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn pin(&self) -> io::Result<()> {
        let host_cpu = self.life.smp().platform().host_cpu_of(self.life.cpu());
        affinity::pin_to(host_cpu.ok_or(io::ErrorKind::NotFound)?)
    }

    /// The thread stops being a CPU, after what it accepted has run; it may be the last one.
    /// As a drop, but for where it is impossible.
    ///
    /// # Panics
    /// Inside a called function, a task or a job, and with interrupts off. The thread stays the CPU
    /// until it ends.
    pub fn detach(self) {
        assert!(
            self.life.is_over() || self.life.is_at_top(),
            "CPU {} detaches inside a called function, a task or a job, or with interrupts off",
            self.life.cpu()
        );
    }

    fn home(&self) -> &Home {
        self.life.smp().platform().home(self.life.cpu())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.life.is_over() || self.life.smp().platform().is_forked() {
            return;
        }
        if !self.life.is_at_top() {
            let cpu = self.life.cpu();
            return self.life.smp().platform().say(&format_args!(
                "CPU {cpu} was to detach where it cannot: it stays until its thread ends"
            ));
        }
        self.life.end();
    }
}

impl Deref for Attached {
    type Target = HostedSmp;
    fn deref(&self) -> &HostedSmp {
        self.life.smp()
    }
}

impl AsFd for Attached {
    /// The descriptor that becomes readable when something comes for this CPU after it
    /// [prepared to sleep](Self::prepare_to_sleep). [`serve`](Self::serve) clears it; not to be read or
    /// closed. It stays the same for all that attach as this CPU.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.home().doorbell().as_fd()
    }
}

/// The same descriptor for as long as the guard lives, and open as long: what `AsyncFd` and `SourceFd` ask.
impl AsRawFd for Attached {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("cpu", &self.life.cpu())
            .field("is_online", &self.is_online())
            .finish_non_exhaustive()
    }
}
