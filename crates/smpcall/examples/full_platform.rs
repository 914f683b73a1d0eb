//! A port with everything: CPUs sleep, have memory nodes, are watched, and can be traced.
//!
//! `minimal_platform` has what a port must have. This one adds each method that has a default, with
//! the reason to write it. CPUs are threads again; where a kernel would halt, they use `thread::park`.
//!
//! `cargo run -p smpcall --example full_platform`

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use smpcall::{
    BootParams, CpuId, CpuMask, Distance, PairCounters, Platform, PostRing, Report, Running, Smp,
    Stall, StallCause, StartError, TraceBuffer, TraceSlot, Tracer, WithoutClosure,
};

const CPUS: usize = 4;

static SMP: Smp<Threads, 1, 32> = Smp::new(Threads);
static ALIVE: [AtomicBool; CPUS] = [const { AtomicBool::new(false) }; CPUS];
/// The thread of each CPU, to be woken.
static THREADS: [Mutex<Option<Thread>>; CPUS] = [const { Mutex::new(None) }; CPUS];
/// What each CPU runs for others.
static RUNNING: [Running; CPUS] = [const { Running::new() }; CPUS];
/// By which each CPU's posts come, by the line of their source.
static RINGS: [[PostRing; 4]; CPUS] = [const { [const { PostRing::new() }; 4] }; CPUS];
/// Foreign threads that wait for room or for a result.
static BLOCKED: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
/// Storage for a trace: one buffer for each CPU and one for foreign threads, 100 events each.
static BUFFERS: [TraceBuffer; CPUS + 1] = [const { TraceBuffer::new() }; CPUS + 1];
static SLOTS: [TraceSlot; 100 * (CPUS + 1)] = [const { TraceSlot::new() }; 100 * (CPUS + 1)];
static PAIRS: [PairCounters; (CPUS + 1) * (CPUS + 1)] =
    [const { PairCounters::new() }; (CPUS + 1) * (CPUS + 1)];
static STALLS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CPU: Cell<Option<CpuId>> = const { Cell::new(None) };
    static IRQS_ON: Cell<bool> = const { Cell::new(true) };
    static PINNED: Cell<u32> = const { Cell::new(0) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Threads;

// SAFETY: 1 to 4 — as in `minimal_platform`; a thread that parks is still the same CPU. 5 — by index, in
// statics of this one instance.
unsafe impl Platform for Threads {
    type Panic = Box<dyn Any + Send>;

    const WAITERS_SERVE: bool = true;
    const POST_RINGS: bool = true;

    fn current_cpu(&self) -> Option<CpuId> {
        CPU.get()
    }

    // A scheduler that moves threads stops doing so for this one; ours does not move any.
    fn preempt_disable(&self) {
        PINNED.set(PINNED.get() + 1);
    }

    fn preempt_enable(&self) {
        PINNED.set(PINNED.get() - 1);
    }

    fn irqs_save(&self) -> bool {
        IRQS_ON.replace(false)
    }

    fn irqs_restore(&self, were_on: bool) {
        IRQS_ON.set(were_on);
    }

    fn irqs_enabled(&self) -> bool {
        IRQS_ON.get()
    }

    // A CPU that works looks by itself; one that sleeps is woken by `wake`.
    fn send_ipi(&self, _: CpuId) {}

    // So a ring tells a CPU that works nothing: a caller may write its call into the line alone.
    fn polls_when_busy(&self) -> bool {
        true
    }

    // Idle: sleep instead of looking again and again. `unpark` leaves a token, so a wake-up between the
    // look and the sleep ends the sleep at once.
    fn park(&self, word: &AtomicU32, value: u32) {
        // ORDERING: Relaxed — a sleep may end early, and the core looks again after it.
        if word.load(Ordering::Relaxed) == value {
            thread::park();
        }
    }

    // The same with an alarm, for a wait that is reported if it takes long.
    fn park_for(&self, word: &AtomicU32, value: u32, limit_ns: u64) {
        // ORDERING: Relaxed — as `park`.
        if word.load(Ordering::Relaxed) == value {
            thread::park_timeout(Duration::from_nanos(limit_ns));
        }
    }

    fn wake(&self, cpu: CpuId, _: &AtomicU32) {
        locked(&THREADS[cpu.index()])
            .as_ref()
            .inspect(|thread| thread.unpark());
    }

    // Of a CPU that sleeps in an event loop of its own (`arm`): write to what the loop waits for.
    // Here too that is a token for the thread.
    fn signal_armed(&self, cpu: CpuId) {
        locked(&THREADS[cpu.index()])
            .as_ref()
            .inspect(|thread| thread.unpark());
    }

    // A thread that is no CPU waits: let it sleep too. The lock is what a wake-up cannot slip past.
    fn block(&self, word: &AtomicU32, value: u32) {
        let guard = locked(&BLOCKED.0);
        // ORDERING: Relaxed — changed before `unblock` takes the lock, or looked at again later.
        if word.load(Ordering::Relaxed) == value {
            // It may return early, so a lost wake-up would cost a millisecond, not the program.
            let _ = BLOCKED.1.wait_timeout(guard, Duration::from_millis(1));
        }
    }

    fn unblock(&self, _: *const AtomicU32) {
        drop(locked(&BLOCKED.0));
        BLOCKED.1.notify_all();
    }

    fn relax(&self, _: u32) {
        thread::yield_now();
    }

    fn now_ns(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    // Two CPUs a node: `call_any` prefers the own node, `call_any_near` sorts by distance.
    fn node_of(&self, cpu: CpuId) -> u32 {
        cpu.get() / 2
    }

    fn distance(&self, from: CpuId, to: CpuId) -> Distance {
        match (from == to, self.node_of(from) == self.node_of(to)) {
            (true, _) => Distance::SELF,
            (_, true) => Distance::CACHE,
            _ => Distance::REMOTE,
        }
    }

    fn start_cpu(&self, cpu: CpuId) -> Result<(), StartError> {
        // ORDERING: Relaxed — `cpu_up` has waited for `is_stopped`.
        ALIVE[cpu.index()].store(true, Ordering::Relaxed);
        let thread = thread::Builder::new().spawn(move || live(cpu));
        thread
            .map(|thread| *locked(&THREADS[cpu.index()]) = Some(thread.thread().clone()))
            .map_err(|error| StartError::Refused(error.raw_os_error().map_or(0, i64::from)))
    }

    fn is_stopped(&self, cpu: CpuId) -> bool {
        // ORDERING: Acquire — pairs with the Release at the end of `live`.
        !ALIVE[cpu.index()].load(Ordering::Acquire)
    }

    // A wait of 20 ms is reported here; a kernel takes seconds.
    fn stall_limit_ns(&self) -> u64 {
        20_000_000
    }

    // Ten minutes end everything: by then somebody wants a core dump.
    fn stall_fatal_ns(&self) -> u64 {
        600_000_000_000
    }

    // Two stores a call, and a report names the function that holds a CPU up.
    fn running(&self, cpu: CpuId) -> Option<&Running> {
        RUNNING.get(cpu.index())
    }

    fn tracer(&self) -> Option<Tracer<'_>> {
        Some(Tracer::new(&BUFFERS, &SLOTS, &PAIRS))
    }

    // Asked first, with each event. Where a trace is switched on and off, this is one load.
    fn is_traced(&self) -> bool {
        true
    }

    // Some 17 KiB for each CPU, and posts without an exchange on a queue that all CPUs share.
    fn post_ring(&self, cpu: CpuId, line: usize) -> Option<&PostRing> {
        RINGS.get(cpu.index())?.get(line)
    }

    // Where every CPU can be made to execute a fence (`membarrier`, or an interrupt), posts to a CPU
    // that polls need not ring it. Here they do.
    fn can_fence_all(&self) -> bool {
        false
    }

    // Never asked for, then.
    fn fence_all(&self) {}

    // An instance that may end would have to be kept from here on; ours is static.
    fn descriptor_posted(&self) {}

    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Self::Panic> {
        panic::catch_unwind(AssertUnwindSafe(f))
    }

    fn resume(&self, panic: Self::Panic) -> ! {
        panic::resume_unwind(panic)
    }

    fn report(&self, report: Report<'_>) {
        if let Report::Stall(Stall {
            culprit,
            cause: StallCause::ThisRequest,
            ..
        }) = report
        {
            // ORDERING: Relaxed — a statistic.
            STALLS.fetch_add(1, Ordering::Relaxed);
            say(format_args!(
                "CPU {culprit} runs what we wait for, but it takes its time:"
            ));
        }
        say(format_args!("{report}"));
    }

    fn report_panic(&self, cpu: CpuId, _: Self::Panic) {
        say(format_args!("a posted function panicked on CPU {cpu}"));
    }

    fn fatal(&self, message: fmt::Arguments<'_>) -> ! {
        say(message);
        std::process::abort()
    }
}

fn say(message: fmt::Arguments<'_>) {
    // There is nobody to tell that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// As in `minimal_platform`, but an idle CPU sleeps.
fn live(cpu: CpuId) {
    CPU.set(Some(cpu));
    SMP.platform().irqs_save();
    if SMP.online_this_cpu() {
        SMP.platform().irqs_restore(true);
        while !SMP.leave_if_asked() {
            SMP.run_tasks();
            SMP.idle_enter();
            while !SMP.is_asked_to_leave() && !SMP.has_tasks() {
                if !SMP.idle_poll() {
                    SMP.idle_park();
                }
            }
            SMP.idle_exit();
        }
    }
    CPU.set(None);
    // ORDERING: Release — this thread is that CPU no more; pairs with `is_stopped`.
    ALIVE[cpu.index()].store(false, Ordering::Release);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cpus = CpuMask::first_n(CPUS);
    // SAFETY: 1, 2 — a static; 3 — done here, once, before any CPU is online.
    unsafe { SMP.set_up(&cpus, &cpus, &BootParams::unlimited(64)) };
    assert_eq!(SMP.bring_up(), CPUS);

    // The nearest of CPUs 1 and 2 to CPU 3 is on its node.
    let some = CpuMask::from_words([0b0110]);
    let (nearest, ()) = SMP
        .call_any_near(CpuId::new(3), &some, || ())
        .without_closure()?;
    assert_eq!(nearest, CpuId::new(2));

    // A function that takes long is reported, and waited for.
    let slow = || {
        let start = Instant::now();
        // ORDERING: Relaxed — a statistic.
        while STALLS.load(Ordering::Relaxed) == 0 && start.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
    };
    SMP.call(CpuId::new(1), slow).without_closure()?;
    assert!(
        STALLS.load(Ordering::Relaxed) > 0,
        "nobody said that CPU 1 takes long"
    );

    let tracer = SMP.platform().tracer().ok_or("no trace")?;
    for event in tracer.events_of(Some(CpuId::new(1))) {
        println!(
            "{} ns: {:?} {}",
            event.time_ns,
            event.kind,
            event.function.unwrap_or("")
        );
    }
    assert!(tracer.ran(CpuId::new(1)) > 0);
    assert_eq!(
        SMP.cpus_within(CpuId::new(3), Distance::CACHE).to_string(),
        "2-3"
    );
    Ok(())
}
