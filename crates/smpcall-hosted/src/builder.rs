//! What a machine shall be: which CPUs, its limits, its reports; and booting it.

use std::fmt;
use std::time::Duration;

use smpcall::{CpuId, Platform as _, Report};

use crate::affinity::HostCpus;
use crate::boot_error::BootError;
use crate::local;
use crate::machine::{Inner, Machine};
use crate::platform::{Hosted, Reporter};
use crate::stall::Limits;
use crate::{BootParams, CpuMask, WORDS};

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

/// Where the CPUs come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Homes {
    /// A pinned thread is started for each.
    #[default]
    Started,
    /// Threads of the program attach.
    Attached,
}

/// What a machine shall be.
pub struct Builder {
    cpus: Cpus,
    homes: Homes,
    params: BootParams,
    poll_time: Duration,
    reporter: Option<Reporter>,
    stalls: Limits,
    trace: Option<usize>,
    /// The signal that interrupts busy CPUs.
    pub(crate) preempt: Option<libc::c_int>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("cpus", &self.cpus)
            .field("homes", &self.homes)
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
            homes: Homes::Started,
            params: BootParams::unlimited((64 * WORDS) as u32),
            poll_time: Duration::from_micros(25),
            reporter: None,
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

    /// Starts no thread: every CPU is offline until a thread of the program becomes it by
    /// [`Machine::attach`]. [`cpu_up`](smpcall::Smp::cpu_up) still starts a pinned one.
    ///
    /// ```
    /// use smpcall_hosted::{CpuId, Machine};
    /// let machine = Machine::builder().count(2).only_attached().boot()?;
    /// assert!(machine.online_cpus().is_empty());
    /// let here = machine.attach(CpuId::new(1))?;
    /// assert_eq!(machine.current_cpu(), Some(CpuId::new(1)));
    /// here.detach();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn only_attached(mut self) -> Self {
        self.homes = Homes::Attached;
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

    /// Where reports go (bring-up, stalls, panics of posted functions, CPUs that were moved). Unless
    /// set, what is wrong goes to standard error, and bring-up is passed over.
    ///
    /// It is called on any thread and must not call back into the machine.
    #[must_use]
    pub fn reporter(mut self, report: impl Fn(&dyn fmt::Display) + Send + Sync + 'static) -> Self {
        self.reporter = Some(Box::new(report));
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

    /// Starts the CPUs. On a thread that is a CPU of another machine, whose pinning says nothing about the
    /// process, the CPUs that were allowed to that machine are.
    ///
    /// # Errors
    /// Names what was asked for that cannot be: see [`BootError`]. No thread is left behind.
    pub fn boot(self) -> Result<Machine, BootError> {
        let allowed = match local::current() {
            // A CPU's thread is pinned: its own mask does not say what the process may use.
            Some((platform, _)) => platform.allowed,
            None => *HostCpus::allowed().map_err(BootError::Affinity)?.mask(),
        };
        let (present, host_cpus) = self.cpus.place(&allowed)?;
        let oversubscribed = present.len() > allowed.len();
        let poll_time = if oversubscribed {
            Duration::ZERO
        } else {
            self.poll_time
        };
        let platform = Hosted::new(
            allowed,
            host_cpus,
            oversubscribed,
            self.reporter,
            self.stalls,
            self.trace,
            self.preempt,
        )?;
        let inner = Inner::new(platform, poll_time);
        // SAFETY: 1 — boxed, and every thread that is a CPU holds the box; 2 — `Inner`'s drop keeps
        // the box if a descriptor was ever posted; 3 — nobody else has it yet.
        unsafe { inner.smp.set_up(&present, &present, &self.params) };
        // `nr_cpus=` may have cut off all that the process may use.
        if inner.smp.present_cpus().is_empty() {
            return Err(BootError::NoCpus);
        }
        if let Some(notice) = self.params.notice() {
            let line = notice.to_string();
            inner
                .smp
                .platform()
                .say(&line.trim_start_matches("smpcall: "));
        }
        let machine = Machine::of(inner);
        if self.homes == Homes::Started {
            machine.start_all(self.params.max_cpus.max(1) as usize)?;
        }
        Ok(machine)
    }
}

impl Machine {
    /// Brings the present CPUs up, so many of them, and says how many are online.
    fn start_all(&self, max_cpus: usize) -> Result<(), BootError> {
        for cpu in self.present_cpus().iter().take(max_cpus) {
            self.cpu_up(cpu)
                .map_err(|error| BootError::Cpu { cpu, error })?;
        }
        let online = self.num_online_cpus();
        self.platform().report(Report::BroughtUp { online });
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
