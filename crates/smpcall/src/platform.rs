//! The seam: what a kernel or a program supplies.
//!
//! One trait, implemented once per system and generic everywhere else, so that a program may hold
//! many instances (tests do) and a kernel one `static`. Each method says in which
//! context it is called and what ordering it must give; `docs/porting.md` walks through a port.

use core::fmt;
use core::hint::cold_path;

use crate::cpu::CpuId;
use crate::error::{CallError, StartError};
use crate::near::Distance;
use crate::report::Report;
use crate::ring::PostRing;
use crate::stall::Running;
#[cfg(not(loom))]
use crate::sync::AtomicU32;
use crate::trace::Tracer;

/// A system on which calls run.
///
/// # Safety
/// An implementation promises:
/// 1. [`current_cpu`](Self::current_cpu) names the CPU that executes, below the capacity `64 * W` of
///    every instance over the platform; no two threads of execution
///    are the same CPU at once, and a caller that was told a CPU stays on it until the call
///    into this library returns ([`preempt_disable`](Self::preempt_disable) is called for that).
/// 2. Between [`irqs_save`](Self::irqs_save) and [`irqs_restore`](Self::irqs_restore) no handler
///    that enters this library runs on this CPU.
/// 3. [`catch`](Self::catch) runs the function exactly once, here, and lets no panic through.
/// 4. No method unwinds but [`resume`](Self::resume): while a caller waits, its stack is in use
///    elsewhere. A reporter that may panic is caught by the platform.
/// 5. Each [`post_ring`](Self::post_ring) is always the same, of one CPU, one line and one instance.
pub unsafe trait Platform: Sync + Sized + 'static {
    /// What a caught panic carries; [`core::convert::Infallible`] where panics stop the machine.
    type Panic: Send;

    /// Must a waiting CPU serve its own calls by itself? `true` where calls do not interrupt
    /// (threads); `false` where the IPI arrives while the CPU waits with interrupts on.
    const WAITERS_SERVE: bool;

    /// How many idle spins a waiter makes before it doubts that its target polls.
    const GRACE_SPINS: u32 = 256;

    /// Does [`post_ring`](Self::post_ring) answer any? Then a post is compiled for rings, and the way by the
    /// queue is out of line.
    const POST_RINGS: bool = false;

    /// Does a busy CPU take calls at its poll points alone, so that an interrupt tells it nothing that its lines do
    /// not? A waited call then spares the doorbell: [`Smp::poll`](crate::Smp::poll) and every wait look at
    /// the lines too, and the CPU is rung for only if the call is still there after the grace. The default:
    /// no, it is interrupted at once.
    #[inline]
    fn polls_when_busy(&self) -> bool {
        false
    }

    /// The CPU that executes, or `None` for a thread that is no CPU.
    ///
    /// Any context. Called once per operation and inlined: keep it to a load.
    fn current_cpu(&self) -> Option<CpuId>;

    /// Keeps the caller on its CPU; nests. A kernel without a scheduler keeps the default.
    #[inline]
    fn preempt_disable(&self) {}

    /// Undoes one [`preempt_disable`](Self::preempt_disable).
    #[inline]
    fn preempt_enable(&self) {}

    /// Turns interrupts off on this CPU; answers whether they were on. Any context.
    fn irqs_save(&self) -> bool;

    /// Undoes [`irqs_save`](Self::irqs_save); with `false` they stay off.
    #[expect(
        clippy::fn_params_excessive_bools,
        reason = "a state that is saved and given back, not a choice of behaviour"
    )]
    fn irqs_restore(&self, were_on: bool);

    /// Are interrupts on?
    fn irqs_enabled(&self) -> bool;

    /// Interrupts `cpu`: its IPI handler calls [`Smp::handle_ipi`](crate::Smp::handle_ipi).
    ///
    /// Interrupts on or off, from a handler as well; must not block. What the caller wrote before
    /// must be visible to the handler (E19): the barrier that the interrupt controller needs
    /// comes first.
    #[doc(alias = "arch_send_call_function_single_ipi")]
    fn send_ipi(&self, cpu: CpuId);

    /// Interrupts every CPU in `cpus`, `count` of them and at least two, by multicast where the
    /// hardware has it. As [`send_ipi`](Self::send_ipi).
    #[doc(alias = "arch_send_call_function_ipi_mask")]
    #[inline]
    fn send_ipi_mask<const W: usize>(&self, cpus: &crate::CpuMask<W>, count: usize) {
        let _ = count;
        cpus.iter().for_each(|cpu| self.send_ipi(cpu));
    }

    /// Sleeps while `word`, this CPU's doorbell, holds `value`; may return early for any reason.
    ///
    /// Task context, interrupts on. A futex wait on hosted; on bare metal: interrupts off, a look,
    /// the halt instruction, interrupts on. The default relaxes.
    #[cfg(not(loom))]
    fn park(&self, word: &AtomicU32, value: u32) {
        let _ = (word, value);
        self.relax(u32::MAX);
    }

    /// As [`park`](Self::park), for at most so many nanoseconds, so that the CPU looks how long it has waited.
    /// The default has no limit: a stall is then reported when something else wakes the CPU.
    #[cfg(not(loom))]
    fn park_for(&self, word: &AtomicU32, value: u32, limit_ns: u64) {
        let _ = limit_ns;
        self.park(word, value);
    }

    /// Wakes a CPU that [`park`](Self::park)s on `word`. As [`send_ipi`](Self::send_ipi), which
    /// is the default.
    #[cfg(not(loom))]
    #[inline]
    fn wake(&self, cpu: CpuId, word: &AtomicU32) {
        let _ = word;
        self.send_ipi(cpu);
    }

    /// Signals a CPU that is armed ([`Smp::arm`](crate::Smp::arm)): it sleeps in an event loop of its own, or
    /// is about to. What the CPU did before it armed is visible. As [`send_ipi`](Self::send_ipi), which
    /// is the default.
    #[inline]
    fn signal_armed(&self, cpu: CpuId) {
        self.send_ipi(cpu);
    }

    /// Blocks a thread that is no CPU while `word` holds `value`; may return early, and should after
    /// [`stall_limit_ns`](Self::stall_limit_ns), so that the wait can be reported. The default relaxes.
    #[cfg(not(loom))]
    fn block(&self, word: &AtomicU32, value: u32) {
        let _ = (word, value);
        self.relax(u32::MAX);
    }

    /// Wakes who [`block`](Self::block)s on the word at this address, which may be gone by now: the
    /// address is all that may be used.
    #[cfg(not(loom))]
    fn unblock(&self, word: *const AtomicU32) {
        let _ = word;
    }

    /// One turn of a wait: the CPU's relax instruction, or giving up the processor when `spins`,
    /// the number of turns so far, says that it takes long.
    fn relax(&self, spins: u32);

    /// Where events and counters go; `None`, the default, costs nothing. Asked inline by every call.
    #[inline]
    fn tracer(&self) -> Option<Tracer<'_>> {
        None
    }

    /// Does [`tracer`](Self::tracer) answer one? For platforms that have a shorter way to tell: each event of a
    /// call asks this first, and most are not traced.
    #[inline]
    fn is_traced(&self) -> bool {
        self.tracer().is_some()
    }

    /// Nanoseconds of a clock that never goes back, for deadlines and reports.
    fn now_ns(&self) -> u64;

    /// The memory node of a CPU, for [`call_any`](crate::Smp::call_any).
    #[doc(alias = "cpu_to_node")]
    fn node_of(&self, cpu: CpuId) -> u32 {
        let _ = cpu;
        0
    }

    /// How far a CPU is from another, for [`call_any_near`](crate::Smp::call_any_near). The default
    /// knows memory nodes only. Any context; called for each candidate, so keep it short.
    #[doc(alias = "node_distance")]
    fn distance(&self, from: CpuId, to: CpuId) -> Distance {
        match () {
            () if from == to => Distance::SELF,
            () if self.node_of(from) == self.node_of(to) => Distance::NODE,
            () => Distance::REMOTE,
        }
    }

    /// Starts a CPU that is offline: it must arrive at
    /// [`Smp::online_this_cpu`](crate::Smp::online_this_cpu). Task context, interrupts on.
    ///
    /// # Errors
    /// What the firmware or the operating system refused. A CPU that is accepted and then
    /// never arrives is found by the core's deadline.
    #[doc(alias = "__cpu_up")]
    fn start_cpu(&self, cpu: CpuId) -> Result<(), StartError>;

    /// Has a CPU that left ([`Smp::offline_this_cpu`](crate::Smp::offline_this_cpu)) come to rest,
    /// so that it may be started again? Called in a bounded loop.
    #[doc(alias = "__cpu_die")]
    fn is_stopped(&self, cpu: CpuId) -> bool {
        let _ = cpu;
        true
    }

    /// How long a CPU may take to come online or to leave, in nanoseconds.
    const HOTPLUG_TIMEOUT_NS: u64 = 5_000_000_000;

    /// After how long a wait is reported, in nanoseconds; 0 never.
    #[doc(alias = "csd_lock_timeout")]
    const STALL_LIMIT_NS: u64 = 5_000_000_000;

    /// As [`STALL_LIMIT_NS`](Self::STALL_LIMIT_NS), which is the default, where it is known at run
    /// time only. Asked by waits that take long.
    fn stall_limit_ns(&self) -> u64 {
        Self::STALL_LIMIT_NS
    }

    /// After how long a reported wait is [`fatal`](Self::fatal), in nanoseconds; 0, the default,
    /// never. It stops everything, and unwinds no waiter.
    #[doc(alias = "panic_on_ipistall")]
    fn stall_fatal_ns(&self) -> u64 {
        0
    }

    /// Where it is kept what a CPU runs for others, so that a stall's report can name it. `None`,
    /// the default, costs nothing; a [`Running`] costs two stores a call.
    #[inline]
    fn running(&self, cpu: CpuId) -> Option<&Running> {
        let _ = cpu;
        None
    }

    /// The ring by which the sources of one line (`0..4`, a CPU's id modulo four) post to `cpu`. `None`,
    /// the default: posts go by the target's queue. Only [`handle_ipi`](crate::Smp::handle_ipi) may
    /// interrupt a context that posts and post itself. Asked inline by posts and drains.
    #[inline]
    fn post_ring(&self, cpu: CpuId, line: usize) -> Option<&PostRing> {
        let _ = (cpu, line);
        None
    }

    /// Does [`fence_all`](Self::fence_all) work here? Always the same answer; asked inline by idle loops.
    /// If so, posts by rings to a CPU that polls need neither an exchange nor a fence.
    #[inline]
    fn can_fence_all(&self) -> bool {
        false
    }

    /// Makes every CPU and thread that may post, this one too, execute a full fence (`membarrier`).
    fn fence_all(&self) {}

    /// Runs a called function and catches its panic.
    ///
    /// # Errors
    /// The panic's payload.
    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Self::Panic>;

    /// Continues a caught panic in the caller.
    fn resume(&self, panic: Self::Panic) -> !;

    /// Says something to the operator; any context, must not block for long and must not call back.
    fn report(&self, report: Report<'_>);

    /// A caught panic that reaches no caller: of a posted function, or one after the first.
    fn report_panic(&self, cpu: CpuId, panic: Self::Panic);

    /// A caller-owned descriptor has been posted. A platform whose instances end keeps this one
    /// from then on: a descriptor that is dropped on another thread may look at it a moment after it
    /// ran ([`Smp::set_up`](crate::Smp::set_up), obligation 2). The default does nothing.
    #[inline]
    fn descriptor_posted(&self) {}

    /// Stops everything: a rule was broken that memory safety rests on.
    fn fatal(&self, message: fmt::Arguments<'_>) -> !;
}

/// Answers the plain form of a [`CallError`] for each way a context forbids waiting.
#[expect(
    clippy::fn_params_excessive_bools,
    reason = "a state that is saved and given back, not a choice of behaviour"
)]
#[inline]
pub(crate) fn may_wait<P: Platform>(platform: &P, in_handler: bool) -> Result<(), CallError> {
    if in_handler {
        cold_path();
        return Err(CallError::InHandler);
    }
    if !platform.irqs_enabled() {
        cold_path();
        return Err(CallError::InterruptsOff);
    }
    Ok(())
}
