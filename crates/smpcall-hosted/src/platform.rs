//! The platform: futexes wake, the soft flag masks, threads are CPUs.

use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use smpcall::{CpuId, Distance, Platform, PostRing, Report, Running, StartError, Tracer};

use crate::CpuMask;
use crate::boot_error::BootError;
use crate::fork::Process;
use crate::life::Home;
use crate::local;
use crate::machine::Inner;
use crate::panics::{PanicReport, Payload, discard, fatal};
use crate::placement::Placement;
use crate::preempt::Preemption;
use crate::rings::{self, Rings};
use crate::sleep;
use crate::stall::{Limits, Stalls};
use crate::thread;
use crate::topology::Topology;
use crate::trace::TraceStorage;

/// Where reports go.
pub(crate) type Reporter = Box<dyn Fn(&dyn fmt::Display) + Send + Sync>;

/// The platform of a [`Machine`](crate::Machine).
pub struct Hosted {
    pub(crate) inner: OnceLock<Weak<Inner>>,
    /// Busy CPUs are interrupted, if that was asked for.
    pub(crate) preemption: Option<Preemption>,
    /// The CPUs of the computer that the process could use.
    pub(crate) allowed: CpuMask,
    /// The computer's CPU that each CPU is pinned to.
    host_cpus: Vec<u32>,
    topology: &'static Topology,
    /// More CPUs than the computer has: give the processor away instead of spinning.
    pub(crate) oversubscribed: bool,
    /// `None`: to standard error, what is wrong alone.
    reporter: Option<Reporter>,
    epoch: Instant,
    stalls: Stalls,
    rings: Rings,
    pub(crate) trace: Option<TraceStorage>,
    kicks: AtomicU64,
    wakes: AtomicU64,
    signals: AtomicU64,
    /// Has a caller's own descriptor been posted?
    descriptors: AtomicBool,
    /// By CPU: the threads that attached.
    homes: Box<[Home]>,
    /// The process that the threads are in.
    process: Process,
    pub(crate) placement: Placement,
}

impl fmt::Debug for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosted")
            .field("host_cpus", &self.host_cpus)
            .field("oversubscribed", &self.oversubscribed)
            .finish_non_exhaustive()
    }
}

impl Hosted {
    /// A platform for CPUs that stand for these of the computer.
    ///
    /// # Errors
    /// The signal of pre-emption cannot be had.
    #[expect(
        clippy::fn_params_excessive_bools,
        reason = "what the builder found out about the computer"
    )]
    pub(crate) fn new(
        allowed: CpuMask,
        host_cpus: Vec<u32>,
        oversubscribed: bool,
        reporter: Option<Reporter>,
        stalls: Limits,
        trace: Option<usize>,
        preempt: Option<libc::c_int>,
    ) -> Result<Self, BootError> {
        let cpus = host_cpus.len();
        let preemption = preempt.map(|signal| Preemption::new(signal, cpus));
        Ok(Self {
            inner: OnceLock::new(),
            preemption: preemption.transpose()?,
            allowed,
            topology: Topology::of_this_computer(),
            oversubscribed,
            reporter,
            epoch: Instant::now(),
            stalls: stalls.keep(cpus),
            rings: Rings::new(cpus),
            trace: trace.map(|events| TraceStorage::new(cpus, events)),
            kicks: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            signals: AtomicU64::new(0),
            descriptors: AtomicBool::new(false),
            homes: (0..cpus).map(|_| Home::default()).collect(),
            process: Process::current(),
            placement: Placement::new(cpus),
            host_cpus,
        })
    }

    /// Where the thread that attaches as this CPU is found; the CPU is one of the machine's.
    pub(crate) fn home(&self, cpu: CpuId) -> &Home {
        &self.homes[cpu.index()]
    }

    /// Is this process a child that was forked from the machine's, and has none of its threads?
    pub(crate) fn is_forked(&self) -> bool {
        self.process != Process::current()
    }

    /// How many threads that had armed their doorbell senders have signalled so far.
    pub fn signals(&self) -> u64 {
        // ORDERING: Relaxed — a statistic.
        self.signals.load(Ordering::Relaxed)
    }

    /// How many sleeping CPUs senders have woken so far.
    pub fn wakes(&self) -> u64 {
        // ORDERING: Relaxed — a statistic.
        self.wakes.load(Ordering::Relaxed)
    }

    /// How many kicks were sent to busy CPUs so far: signals, with [`Builder::preempt`](crate::Builder::preempt);
    /// otherwise a busy CPU hears them at its next poll point.
    pub fn kicks(&self) -> u64 {
        // ORDERING: Relaxed — a statistic.
        self.kicks.load(Ordering::Relaxed)
    }

    /// Has a caller's own descriptor ever been posted here?
    pub(crate) fn has_had_descriptors(&self) -> bool {
        // ORDERING: Relaxed — asked when nobody else holds the machine.
        self.descriptors.load(Ordering::Relaxed)
    }

    /// The computer's CPU that a CPU of the machine is pinned to.
    pub fn host_cpu_of(&self, cpu: CpuId) -> Option<u32> {
        self.host_cpus.get(cpu.index()).copied()
    }
}

/// How often a thread that blocks on one machine looks after the CPU that it is on another.
const SERVE_EVERY_NS: u64 = 200_000;
// SAFETY: 1 — a thread becomes a CPU by `local::become_cpu` in its own machine's `thread` module,
// and the state machine of the core's hotplug lets one thread at a time be online as a CPU; a
// thread cannot change its CPU in a call. 2 — calls are taken only at poll points and by the signal's
// handler, which look at the soft mask. 3 — `catch_unwind`. 5 — by index.
unsafe impl Platform for Hosted {
    type Panic = Payload;

    const WAITERS_SERVE: bool = true;
    const POST_RINGS: bool = true;

    /// Without pre-emption.
    #[inline]
    fn polls_when_busy(&self) -> bool {
        self.preemption.is_none()
    }

    #[inline]
    fn current_cpu(&self) -> Option<CpuId> {
        local::current_of(self).map(CpuId::new)
    }

    #[inline]
    fn irqs_save(&self) -> bool {
        local::irqs_save()
    }

    #[inline]
    fn irqs_restore(&self, were_on: bool) {
        local::irqs_restore(were_on);
    }

    #[inline]
    fn irqs_enabled(&self) -> bool {
        local::irqs_enabled()
    }

    /// Without pre-emption a busy CPU sees its doorbell at its next poll point.
    fn send_ipi(&self, cpu: CpuId) {
        // ORDERING: Relaxed — a statistic.
        self.kicks.fetch_add(1, Ordering::Relaxed);
        if let Some(preemption) = &self.preemption {
            preemption.interrupt(cpu);
        }
    }

    fn park(&self, word: &AtomicU32, value: u32) {
        sleep::for_at_most(word, value, 0);
    }

    fn park_for(&self, word: &AtomicU32, value: u32, limit_ns: u64) {
        sleep::for_at_most(word, value, limit_ns);
    }

    fn wake(&self, _cpu: CpuId, word: &AtomicU32) {
        // ORDERING: Relaxed — a statistic.
        self.wakes.fetch_add(1, Ordering::Relaxed);
        sleep::wake(word);
    }

    fn signal_armed(&self, cpu: CpuId) {
        // ORDERING: Relaxed — a statistic.
        self.signals.fetch_add(1, Ordering::Relaxed);
        // E60: it had its doorbell before it armed.
        self.home(cpu).signal();
    }

    fn block(&self, word: &AtomicU32, value: u32) {
        self.check_process();
        match local::elsewhere(self).and_then(Self::own_instance) {
            // The CPU that this thread is on another machine takes calls and runs tasks meanwhile.
            Some(own) => {
                own.smp.poll();
                own.smp.run_tasks();
                sleep::for_at_most(word, value, SERVE_EVERY_NS);
            }
            None => sleep::for_at_most(word, value, self.stalls.limit_ns),
        }
    }

    fn unblock(&self, word: *const AtomicU32) {
        sleep::wake_at(word);
    }

    #[inline]
    fn relax(&self, spins: u32) {
        self.relax_in_turn(spins);
    }

    #[inline]
    fn tracer(&self) -> Option<Tracer<'_>> {
        self.trace.as_ref().map(TraceStorage::tracer)
    }

    fn stall_limit_ns(&self) -> u64 {
        self.stalls.limit_ns
    }

    fn stall_fatal_ns(&self) -> u64 {
        self.stalls.fatal_ns
    }

    #[inline]
    fn running(&self, cpu: CpuId) -> Option<&Running> {
        self.stalls.running.get(cpu.index())
    }

    #[inline]
    fn post_ring(&self, cpu: CpuId, line: usize) -> Option<&PostRing> {
        self.rings.get(cpu, line)
    }

    #[inline]
    fn can_fence_all(&self) -> bool {
        self.rings.can_fence_all()
    }

    fn fence_all(&self) {
        rings::fence_all();
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn node_of(&self, cpu: CpuId) -> u32 {
        let host = self
            .host_cpu_of(cpu)
            .and_then(|host| self.topology.cpu(host));
        host.and_then(|host| host.node).unwrap_or(0)
    }

    /// CPUs that share one of the computer's are as near as those of a core.
    fn distance(&self, from: CpuId, to: CpuId) -> Distance {
        let hosts = (self.host_cpu_of(from), self.host_cpu_of(to));
        match hosts {
            _ if from == to => Distance::SELF,
            (Some(from), Some(to)) if from == to => Distance::CORE,
            (Some(from), Some(to)) => self.topology.distance(from, to),
            _ => Distance::REMOTE,
        }
    }

    fn start_cpu(&self, cpu: CpuId) -> Result<(), StartError> {
        let inner = self.own_instance().ok_or(StartError::NoSuchCpu)?;
        thread::start(&inner, cpu)
    }

    fn is_stopped(&self, cpu: CpuId) -> bool {
        self.own_instance()
            .is_none_or(|inner| inner.is_at_rest(cpu))
    }

    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Payload> {
        panic::catch_unwind(AssertUnwindSafe(f))
    }

    fn resume(&self, payload: Payload) -> ! {
        panic::resume_unwind(payload)
    }

    fn report(&self, report: Report<'_>) {
        if self.reporter.is_none() && matches!(report, Report::BroughtUp { .. }) {
            return;
        }
        self.say(&report);
    }

    fn report_panic(&self, cpu: CpuId, payload: Payload) {
        self.say(&PanicReport {
            cpu,
            payload: &payload,
        });
        discard(payload);
    }

    fn descriptor_posted(&self) {
        // ORDERING: Relaxed — only the last holder of the machine asks.
        if !self.descriptors.load(Ordering::Relaxed) {
            // ORDERING: Relaxed — as above.
            self.descriptors.store(true, Ordering::Relaxed);
        }
    }

    fn fatal(&self, message: fmt::Arguments<'_>) -> ! {
        fatal(message)
    }
}

impl Hosted {
    /// Reports; 4 of [`Platform`]: a reporter that panics stays here.
    pub(crate) fn say(&self, report: &dyn fmt::Display) {
        let say = || match &self.reporter {
            Some(reporter) => reporter(report),
            None => eprintln!("smpcall: {report}"),
        };
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(say)) {
            discard(payload);
        }
    }
}

impl Hosted {
    /// What the machine of this platform shares.
    pub(crate) fn own_instance(&self) -> Option<Arc<Inner>> {
        self.inner.get().and_then(Weak::upgrade)
    }
}

/// The error of a refused pin, as the core carries it.
pub(crate) fn refused(error: &io::Error) -> StartError {
    StartError::Refused(i64::from(error.raw_os_error().unwrap_or(0)))
}
