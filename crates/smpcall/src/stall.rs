//! Waits that take long: who is waited for, why, what that CPU runs, and for how long.
//!
//! Nothing here is on a fast path: a waiter comes here after dozens of turns. The first look
//! starts the clock; after the limit the culprit is named and interrupted once more, for an
//! interrupt may have been lost, and so may that one: every report, at growing intervals, comes with
//! one. The end is announced.
//! A report never ends a wait, because the target may still use what the caller lent; past a second
//! limit, if there is one, the platform stops everything.
//!
//! What a CPU runs is known where the platform keeps a [`Running`] for it: two stores for
//! each called function, into the CPU's own line. A request is named by an address that both sides
//! know: the mailbox's payload, the record, the descriptor, or what a broadcast shares.

use core::fmt;
use core::ptr;

use crate::bell;
use crate::cpu::CpuId;
use crate::platform::Platform;
use crate::report::{Report, Stall, StallCause};
use crate::smp::{Smp, Waiter};
use crate::sync::{AtomicPtr, Ordering, loom_const_fn};
use crate::trace::{self, TraceKind};

/// Turns of a wait before it looks at the clock at all.
const TURNS_BEFORE_CLOCK: u32 = 64;
/// Turns from one look at the clock to the next: a turn may be a system call that gives the processor
/// away for milliseconds.
const TURNS_PER_LOOK: u32 = 16;

/// Tells a function's name: its type's.
pub(crate) type NameFn = fn() -> &'static str;

/// What a CPU runs for others; the platform keeps one for each CPU whose stalls shall be named.
///
/// ```
/// static RUNNING: [smpcall::Running; 4] = [const { smpcall::Running::new() }; 4];
/// ```
#[repr(align(64))]
pub struct Running {
    /// A [`NameFn`], or null.
    function: AtomicPtr<()>,
    /// The request's address, as a number.
    request: AtomicPtr<()>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (function, _) = self.look();
        f.debug_struct("Running")
            .field("function", &function.map(|name| name()))
            .finish_non_exhaustive()
    }
}

impl Default for Running {
    fn default() -> Self {
        Self::new()
    }
}

impl Running {
    loom_const_fn! {
        /// Nothing ran yet.
        pub fn new() -> Self {
            Self {
                function: AtomicPtr::new(ptr::null_mut()),
                request: AtomicPtr::new(ptr::null_mut()),
            }
        }
    }

    /// The CPU itself: it begins to run a function for a request.
    #[inline]
    pub(crate) fn set(&self, function: Option<NameFn>, request: usize) {
        let name = function.map_or(ptr::null_mut(), |name| name as *mut ());
        // ORDERING: Relaxed — a report shows a moment, it decides nothing.
        self.function.store(name, Ordering::Relaxed);
        // ORDERING: Relaxed — as above.
        self.request
            .store(ptr::without_provenance_mut(request), Ordering::Relaxed);
    }

    /// The function and the request that began last.
    pub(crate) fn look(&self) -> (Option<NameFn>, usize) {
        // ORDERING: Relaxed — as `set`.
        let name = self.function.load(Ordering::Relaxed);
        // ORDERING: Relaxed — as `set`.
        let request = self.request.load(Ordering::Relaxed).addr();
        if name.is_null() {
            return (None, request);
        }
        // SAFETY: the word is null or a `NameFn` that `set` stored.
        let name = unsafe { core::mem::transmute::<*mut (), NameFn>(name) };
        (Some(name), request)
    }
}

/// Who holds up a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect {
    pub(crate) culprit: CpuId,
    /// The address of what the waiter queued there; 0: nothing.
    pub(crate) request: usize,
    /// What is known without a look at the culprit.
    pub(crate) cause: Option<StallCause>,
}

impl Suspect {
    /// A CPU that was sent a request.
    #[inline]
    pub(crate) fn running(culprit: CpuId, request: usize) -> Self {
        Self {
            culprit,
            request,
            cause: None,
        }
    }
}

/// How long a wait has taken so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    spins: u32,
    clock: Option<StallClock>,
}

/// The clock of a wait that takes long.
#[derive(Debug, Clone, Copy)]
struct StallClock {
    since_ns: u64,
    next_ns: u64,
    reports: u32,
    culprit: CpuId,
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// One turn of a wait that may take long.
    #[inline]
    pub(crate) fn watched_turn(
        &self,
        waiter: Waiter,
        watch: &mut Watch,
        suspect: impl FnOnce() -> Suspect,
    ) {
        self.turn(waiter, watch.spins);
        self.watch(waiter, watch, suspect);
    }

    /// Counts a turn, and now and then looks at the clock.
    #[inline]
    pub(crate) fn watch(
        &self,
        waiter: Waiter,
        watch: &mut Watch,
        suspect: impl FnOnce() -> Suspect,
    ) {
        watch.spins = watch.spins.saturating_add(1);
        if watch.spins >= TURNS_BEFORE_CLOCK && watch.spins.is_multiple_of(TURNS_PER_LOOK) {
            // Never saturates, so that the looks go on.
            watch.spins = watch.spins.min(u32::MAX - 2 * TURNS_PER_LOOK);
            self.check_stall(waiter, suspect(), watch);
        }
    }

    /// Looks at the clock, and reports when it is time. Waits that sleep between their looks call it for
    /// each, and once before.
    #[cold]
    pub(crate) fn check_stall(&self, waiter: Waiter, suspect: Suspect, watch: &mut Watch) {
        let limit = self.platform.stall_limit_ns();
        if limit == 0 {
            return;
        }
        let now = self.platform.now_ns();
        let clock = watch.clock.get_or_insert(StallClock {
            since_ns: now,
            next_ns: now.saturating_add(limit),
            reports: 0,
            culprit: suspect.culprit,
        });
        if now < clock.next_ns {
            return;
        }
        let growth = 1 << clock.reports.min(10);
        clock.next_ns = now.saturating_add(limit.saturating_mul(growth));
        clock.reports += 1;
        clock.culprit = suspect.culprit;
        let (cause, function) = self.diagnose(suspect);
        let stall = Stall {
            waiter: waiter.me,
            culprit: suspect.culprit,
            waited_ns: now.saturating_sub(clock.since_ns),
            cause,
            function,
            caller: waiter.caller,
        };
        self.platform.report(Report::Stall(stall));
        let fatal = self.platform.stall_fatal_ns();
        if fatal != 0 && stall.waited_ns >= fatal {
            self.platform
                .fatal(format_args!("{stall}, which is past the limit"));
        }
        self.interrupt_again(suspect.culprit);
    }

    /// What the culprit does, as far as can be seen from here.
    fn diagnose(&self, suspect: Suspect) -> (StallCause, Option<&'static str>) {
        let running = self.platform.running(suspect.culprit);
        let (name, request) = running.map_or((None, 0), Running::look);
        if !self.own(suspect.culprit).local.in_handler() {
            return (suspect.cause.unwrap_or(StallCause::Unresponsive), None);
        }
        let cause = match (name, suspect.cause) {
            (_, Some(cause)) => cause,
            (None, _) => StallCause::SomeRequest,
            (Some(_), _) if request == suspect.request => StallCause::ThisRequest,
            _ => StallCause::EarlierRequest,
        };
        (cause, name.map(|name| name()))
    }

    /// Interrupts the culprit once more, or wakes it: the last time may have been lost. One whose doorbell is
    /// rung may be busy, or asleep because who rang has not come to wake it.
    fn interrupt_again(&self, culprit: CpuId) {
        let bell = &self.own(culprit).bell;
        match bell.look() {
            #[cfg(not(loom))]
            bell::PARKED => self.platform.wake(culprit, bell.word()),
            #[cfg(not(loom))]
            bell::RUNG => {
                self.platform.wake(culprit, bell.word());
                self.platform.send_ipi(culprit);
            }
            bell::ARMED => self.platform.signal_armed(culprit),
            _ => self.platform.send_ipi(culprit),
        }
    }

    /// Says that a wait has ended, if it was reported.
    #[inline]
    pub(crate) fn end_watch(&self, waiter: Waiter, watch: &Watch) {
        if let Some(clock) = &watch.clock {
            self.announce_recovery(waiter, clock);
        }
    }

    #[cold]
    fn announce_recovery(&self, waiter: Waiter, clock: &StallClock) {
        if clock.reports > 0 {
            self.platform.report(Report::Recovered {
                cpu: clock.culprit,
                waiter: waiter.me,
                waited_ns: self.platform.now_ns().saturating_sub(clock.since_ns),
            });
        }
    }
}

/// Runs a called function, and says so where the platform wants to know.
///
/// Everything that runs for a caller comes through here. `Name` is the function that the caller
/// wrote: what runs it may be a closure of the library's.
#[inline(always)]
pub(crate) fn run_named<P: Platform, Name, R>(
    platform: &P,
    cpu: CpuId,
    request: usize,
    f: impl FnOnce() -> R,
) -> Result<R, P::Panic> {
    if let Some(running) = platform.running(cpu) {
        running.set(Some(core::any::type_name::<Name>), request);
    }
    if platform.is_traced() {
        return run_traced::<P, Name, R>(platform, cpu, request, f);
    }
    platform.catch(f)
}

/// The part of [`run_named`] that writes events down: all of it, so that what is not traced keeps nothing for the
/// end of the function.
#[cold]
#[inline(never)]
fn run_traced<P: Platform, Name, R>(
    platform: &P,
    cpu: CpuId,
    request: usize,
    f: impl FnOnce() -> R,
) -> Result<R, P::Panic> {
    let name = Some(core::any::type_name::<Name> as NameFn);
    let event = |kind| trace::note(platform, Some(cpu), kind, name, request);
    event(TraceKind::Entry);
    let outcome = platform.catch(f);
    event(TraceKind::Exit);
    outcome
}
