//! How fast a CPU that makes no poll points is interrupted by a waited call, beside the raw signal.
//!
//! `cargo run --release -p smpcall-hosted --example preempt -- 1000000`
//!
//! CPU 1 allocates, locks and masks interrupts in a loop; CPU 0 calls it so many times (20,000 unless
//! told), and after each call sends it a bare signal and waits until its handler ran. Exit code 1 if
//! a call ran inside a masked region or its answer was wrong.

use std::collections::HashMap;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smpcall_hosted::{CpuId, Machine};

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

/// What the two CPUs share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// CPU 1's thread, once it runs.
    thread: AtomicI32,
    masked: AtomicBool,
    ledger: Mutex<HashMap<u64, Vec<u64>>>,
}

/// What CPU 0 measured, in nanoseconds, and what went wrong.
#[derive(Default)]
struct Measured {
    calls: Vec<u32>,
    signals: Vec<u32>,
    inside: u64,
    wrong: u64,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let rounds = std::env::args().nth(1);
    let rounds: u64 = rounds.map_or(Ok(20_000), |rounds| rounds.parse())?;
    // SAFETY: 1, 2 — the functions that are called read and add to atomics; 3, 4 — the jobs run on
    // their threads' stacks and make no system call that minds; 5 — nothing else uses the signal.
    let machine = unsafe { Machine::builder().count(2).preempt() }.boot()?;
    let machine = Arc::new(machine);
    let shared = Arc::new(Shared::default());

    let (m, s) = (Arc::clone(&machine), Arc::clone(&shared));
    let busy = machine.spawn_on(CPU1, move || work(&m, &s))?;
    let (m, s) = (Arc::clone(&machine), Arc::clone(&shared));
    let measuring = machine.spawn_on(CPU0, move || measure(&m, &s, rounds))?;

    let mut measured = measuring.join().map_err(|_| "the measurement panicked")?;
    shared.stop.store(true, Release);
    let turns = busy.join().map_err(|_| "the interrupted work panicked")?;

    let call = figures("waited call", &mut measured.calls);
    let signal = figures("raw signal", &mut measured.signals);
    println!(
        "ratio of the medians: {:.3}",
        f64::from(call) / f64::from(signal)
    );
    println!(
        "{turns} turns of the interrupted work; {} calls inside a masked region, {} wrong answers",
        measured.inside, measured.wrong
    );
    let fine = measured.inside == 0 && measured.wrong == 0;
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Work without a poll point; answers how many turns it made.
fn work(machine: &Machine, shared: &Shared) -> u64 {
    // SAFETY: no precondition.
    shared.thread.store(unsafe { libc::gettid() }, Release);
    let mut turns = 0;
    while !shared.stop.load(Acquire) {
        let words: Vec<u64> = (0..turns % 60).collect();
        if let Ok(mut ledger) = shared.ledger.lock() {
            ledger.insert(turns % 50, words);
        }
        let masked = machine.irqs_off();
        shared.masked.store(true, Relaxed);
        black_box(shared);
        shared.masked.store(false, Relaxed);
        drop(masked);
        turns += 1;
    }
    turns
}

fn measure(machine: &Machine, shared: &Shared, rounds: u64) -> Measured {
    while shared.thread.load(Acquire) == 0 {
        std::hint::spin_loop();
    }
    let raw = RawSignal::new(shared.thread.load(Acquire));
    let mut measured = Measured::default();
    let inside = AtomicU64::new(0);
    for round in 0..rounds {
        let start = Instant::now();
        let answer = machine.call(CPU1, || {
            inside.fetch_add(u64::from(shared.masked.load(Relaxed)), Relaxed);
            round + 1
        });
        measured.calls.push(nanoseconds(start));
        measured.wrong += u64::from(!answer.is_ok_and(|answer| answer == round + 1));
        settle();
        let start = Instant::now();
        raw.send_and_wait();
        measured.signals.push(nanoseconds(start));
        settle();
    }
    measured.inside = inside.into_inner();
    measured
}

/// The other CPU is back in its work.
fn settle() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(5) {}
}

fn nanoseconds(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

/// Prints the median and the 99th percentile; answers the median.
fn figures(what: &str, samples: &mut [u32]) -> u32 {
    samples.sort_unstable();
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize];
    let (median, p99) = (at(0.5), at(0.99));
    println!(
        "{what}: median {median} ns, 99 % {p99} ns, {} samples",
        samples.len()
    );
    median
}

static HIT: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    HIT.store(true, Release);
}

/// A signal with a handler that stores to a word: the least that an interruption can be.
struct RawSignal {
    thread: i32,
    number: libc::c_int,
}

impl RawSignal {
    fn new(thread: i32) -> Self {
        let number = libc::SIGRTMIN() + 5;
        // SAFETY: all zero is a valid `sigaction`.
        let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler stores to an atomic, which any context may.
        unsafe { libc::sigaction(number, &action, std::ptr::null_mut()) };
        Self { thread, number }
    }

    fn send_and_wait(&self) {
        HIT.store(false, Relaxed);
        // SAFETY: no memory is handed over, and the signal has its handler.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                std::process::id(),
                self.thread,
                self.number,
            )
        };
        while !HIT.load(Acquire) {
            std::hint::spin_loop();
        }
    }
}
