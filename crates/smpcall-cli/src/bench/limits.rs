//! What the hardware and the kernel can do at best: every row has one of these as its limit.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::thread::futex;

use crate::bench::Contender;
use crate::bench::lab::{Lab, Line, stopped, time_runs};
use crate::bench::ours::{CALLS, RUNS};
use crate::bench::placement::{answer_one, ask_one};
use crate::bench::ring;

/// Between two calls of a cold row: long enough that the lines have settled.
const COLD_GAP: Duration = Duration::from_nanos(500);
/// Runs per block of a cold row.
const COLD_RUNS: usize = 24;
/// Calls per run of a cold row.
const COLD_CALLS: u64 = 16;
/// Until a thread that was left alone sleeps and its processor halts: the polling time of a CPU of ours,
/// then that of the idle loop of a guest of KVM, up to 200 us, and some.
pub(crate) const SLEEP_GAP: Duration = Duration::from_micros(500);
/// Wake-ups per block.
pub(crate) const WAKE_UPS: usize = 8;
/// Operations per run and runs per block of a row that goes back to back.
pub(crate) const POSTS: u64 = 512;
/// As [`POSTS`].
pub(crate) const POST_RUNS: usize = 16;

/// All but the two that the probe measures.
pub(crate) fn all() -> Vec<Contender> {
    vec![
        Contender::new("one_line_cold", "limit", "one_line_cold", one_line_cold),
        Contender::new("one_line_busy", "limit", "one_line_busy", one_line_busy),
        Contender::new("spsc64", "limit", "spsc64", spsc64),
        Contender::new("futex", "limit", "futex", futex_wake),
        Contender::new("tgkill", "limit", "tgkill", signal),
        Contender::new("membarrier", "limit", "membarrier", membarrier),
    ]
}

/// Operations with a pause before each; every one is timed alone, and a run counts as its mean: the
/// clock may tick in steps of ten nanoseconds, which a mean smoothes and a median does not.
pub(crate) fn time_cold(lab: &Lab, mut operation: impl FnMut(u64)) -> Vec<f64> {
    let one = |i| {
        lab.spin(COLD_GAP);
        lab.time_one(|| operation(i))
    };
    let times: Vec<f64> = (0..COLD_RUNS as u64 * COLD_CALLS).map(one).collect();
    let mean = |run: &[f64]| run.iter().sum::<f64>() / COLD_CALLS as f64;
    times.chunks(COLD_CALLS as usize).map(mean).collect()
}

/// One line to and fro, with a pause between two trips.
fn one_line_cold(lab: &Lab) -> Vec<f64> {
    let line = Arc::new(Line(AtomicU64::new(0)));
    let theirs = Arc::clone(&line);
    let trips = COLD_RUNS as u64 * COLD_CALLS;
    lab.duet(
        move |_| answer_one(&theirs.0, black_box(&theirs.0), trips),
        || time_cold(lab, |trip| ask_one(&line.0, black_box(&line.0), trip, 1)),
    )
}

/// One line to and fro, to a side that computes and looks now and then.
fn one_line_busy(lab: &Lab) -> Vec<f64> {
    let line = Arc::new(Line(AtomicU64::new(0)));
    let theirs = Arc::clone(&line);
    let trips = RUNS as u64 * CALLS;
    let answer = move |_: &_| {
        let store = black_box(&theirs.0);
        for trip in 0..trips {
            // ORDERING: Acquire and Release — as a call would need them.
            while theirs.0.load(Ordering::Acquire) != 2 * trip + 1 {
                compute();
            }
            store.store(2 * trip + 2, Ordering::Release);
        }
    };
    lab.duet(answer, || {
        time_runs(RUNS, CALLS, |trip| {
            ask_one(&line.0, black_box(&line.0), trip, 1);
        })
    })
}

/// What a busy CPU does between two looks: some dozens of nanoseconds of arithmetic.
pub(crate) fn compute() {
    let step = |x: u64, n: u64| (x ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    black_box((0..16).fold(black_box(1), step));
}

/// Three words per slot through a ring of 64-byte slots, back to back.
fn spsc64(lab: &Lab) -> Vec<f64> {
    let (mut producer, mut consumer) = ring::ring();
    let answer = move |_: &_| {
        for _ in 0..POSTS * POST_RUNS as u64 {
            black_box(consumer.pop());
        }
    };
    lab.duet(answer, || {
        time_runs(POST_RUNS, 1, |_| {
            for i in 0..POSTS {
                producer.push([i, i, i]);
            }
            producer.drain();
        })
        .into_iter()
        .map(|run| run / POSTS as f64)
        .collect()
    })
}

/// A thread that sleeps on a futex is woken and answers; the waker spins.
fn futex_wake(lab: &Lab) -> Vec<f64> {
    let words = Arc::new([Line(AtomicU32::new(0)), Line(AtomicU32::new(0))]);
    let theirs = Arc::clone(&words);
    let answer = move |_: &_| {
        let [call, done] = &*theirs;
        for number in 1..=WAKE_UPS as u32 {
            // ORDERING: Acquire and Release — as a call would need them, in both directions.
            while call.0.load(Ordering::Acquire) != number {
                let _ = futex::wait(&call.0, futex::Flags::PRIVATE, number - 1, None);
            }
            done.0.store(number, Ordering::Release);
        }
    };
    let [call, done] = &*words;
    let wake = |number: u32| {
        lab.spin(SLEEP_GAP);
        lab.time_one(|| {
            // ORDERING: as above.
            call.0.store(number, Ordering::Release);
            let _ = futex::wake(&call.0, futex::Flags::PRIVATE, 1);
            while done.0.load(Ordering::Acquire) != number {}
        })
    };
    lab.duet(answer, || (1..=WAKE_UPS as u32).map(wake).collect())
}

/// The kernel's barrier on every CPU of the process, while the other is busy; what a kick without a
/// handler costs. Nothing where the kernel does not offer it.
fn membarrier(lab: &Lab) -> Vec<f64> {
    // SAFETY: the call takes no pointer.
    let barrier = |command: libc::c_int| unsafe { libc::syscall(libc::SYS_membarrier, command, 0) };
    if barrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0 {
        return Vec::new();
    }
    let busy = |stop: &AtomicBool| while !stopped(stop) {};
    lab.duet(busy, || {
        let once = || {
            lab.time_one(|| {
                let done = barrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
                assert_eq!(done, 0, "the process is registered");
            })
        };
        (0..2 * WAKE_UPS).map(|_| once()).collect()
    })
}

/// Set by the signal handler.
static HIT: Line<AtomicBool> = Line(AtomicBool::new(false));

/// Has the handler run?
fn was_hit() -> bool {
    // ORDERING: Acquire — pairs with the handler's Release.
    HIT.0.load(Ordering::Acquire)
}

extern "C" fn on_signal(_: libc::c_int) {
    // ORDERING: Release — as a call's answer would need it.
    HIT.0.store(true, Ordering::Release);
}

/// A thread in a busy loop gets a signal; the time until its handler was seen to run.
fn signal(lab: &Lab) -> Vec<f64> {
    let number = libc::SIGRTMIN() + 5;
    let before = handle(number, on_signal as *const () as libc::sighandler_t);
    let process = std::process::id();
    let thread = Arc::new(AtomicI32::new(0));
    let theirs = Arc::clone(&thread);
    let answer = move |stop: &AtomicBool| {
        // SAFETY: no precondition.
        theirs.store(unsafe { libc::gettid() }, Ordering::Release);
        while !stopped(stop) {}
    };
    let send = |_| {
        lab.spin(Duration::from_micros(20));
        // ORDERING: Relaxed — the handler that this is for has not been sent yet.
        HIT.0.store(false, Ordering::Relaxed);
        // ORDERING: Acquire — the thread's number is there.
        let thread = thread.load(Ordering::Acquire);
        lab.time_one(|| {
            // SAFETY: no memory is handed over; the thread lives, and the signal has its handler.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, number) };
            while !was_hit() {}
        })
    };
    let times = lab.duet(answer, || {
        // ORDERING: Acquire — as above.
        while thread.load(Ordering::Acquire) == 0 {}
        (0..2 * WAKE_UPS).map(send).collect()
    });
    handle(number, before);
    times
}

/// Sets a signal's handler; answers the one before.
fn handle(number: libc::c_int, handler: libc::sighandler_t) -> libc::sighandler_t {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zero is a valid `sigaction`.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: both are `sigaction`s; the handler stores to a static atomic, which any context may.
    let result = unsafe { libc::sigaction(number, &action, before.as_mut_ptr()) };
    assert_eq!(result, 0, "signal {number} takes a handler");
    // SAFETY: zeroed, and written by the call that succeeded.
    unsafe { before.assume_init() }.sa_sigaction
}
