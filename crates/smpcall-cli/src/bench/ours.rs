//! The library: the rows that the limits and the peers are compared with.
//!
//! Every closure captures a word and answers one, or does something with what it captured, and
//! goes through the public interface with everything in force: hotplug, order, parking, panics.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use smpcall_hosted::CpuMask;

use crate::bench::Contender;
use crate::bench::lab::{Lab, stopped, time_runs};
use crate::bench::limits::{POST_RUNS, POSTS, SLEEP_GAP, WAKE_UPS, compute, time_cold};

/// Runs per block, and calls per run.
pub(crate) const RUNS: usize = 24;
/// As [`RUNS`].
pub(crate) const CALLS: u64 = 32;
/// Calls before the first that is timed.
const WARM_UP: u64 = 64;

/// All rows.
pub(crate) fn all() -> Vec<Contender> {
    let row =
        |name, limit, block: fn(&Lab) -> Vec<f64>| Contender::new(name, "smpcall", limit, block);
    vec![
        row("call_polling", "one_line", call_polling),
        row("call_polling_cold", "one_line_cold", call_polling_cold),
        row("broadcast_two", "two_lines", broadcast_two),
        row("post", "spsc64", post),
        row("post_crowd", "spsc64", post_crowd),
        row("call_parked", "futex", call_parked),
        row("call_poll_point", "one_line_busy", call_poll_point),
        row("call_any", "one_line", call_any),
        row("on_each_cpu_cond", "one_line", cond),
        row("kick_all_cpus_sync", "one_line", kick),
        row("all_to_all", "two_lines", all_to_all),
        row("call_foreign", "one_line", call_foreign),
    ]
}

/// A waited call; panics if it is refused or its answer is wrong.
fn call(lab: &Lab, i: u64) {
    match lab.machine.call(lab.responder, move || black_box(i) + 1) {
        Ok(answer) => assert_eq!(answer, i + 1, "the closure's result comes back"),
        Err(refused) => panic!("a call was refused: {refused}"),
    }
}

/// To an idle CPU that polls, back to back.
fn call_polling(lab: &Lab) -> Vec<f64> {
    (0..WARM_UP).for_each(|i| call(lab, i));
    time_runs(RUNS, CALLS, |i| call(lab, i))
}

/// The same with a pause between two calls: the lines have settled.
fn call_polling_cold(lab: &Lab) -> Vec<f64> {
    (0..WARM_UP).for_each(|i| call(lab, i));
    time_cold(lab, |i| call(lab, i))
}

/// To itself and the other, overlapping.
fn broadcast_two(lab: &Lab) -> Vec<f64> {
    (0..WARM_UP).for_each(|i| call(lab, i));
    time_runs(RUNS, CALLS, |i| {
        let ran = lab.machine.on_each_cpu(move |cpu| {
            black_box((cpu, i));
        });
        assert!(ran.is_ok_and(|ran| ran.len() == 2), "both CPUs run it");
    })
}

/// Closures of three words, back to back, until the last has run.
fn post(lab: &Lab) -> Vec<f64> {
    (0..WARM_UP).for_each(|i| call(lab, i));
    let runs = time_runs(POST_RUNS, 1, |_| {
        for i in 0..POSTS {
            let words = [i, i, i];
            let posted = lab.machine.post_wait(lab.responder, move || {
                black_box(words);
            });
            assert!(posted.is_ok(), "the responder is online");
        }
        assert!(
            lab.machine.flush(lab.responder).is_ok(),
            "the responder is online"
        );
    });
    runs.into_iter().map(|run| run / POSTS as f64).collect()
}

/// Producers of [`post_crowd`], and what each posts in a run: enough that their start does not count.
const PRODUCERS: usize = 4;
/// As [`PRODUCERS`].
const CROWD_POSTS: u64 = 4_096;
/// As [`PRODUCERS`].
const CROWD_RUNS: usize = 2;

/// The caller, and threads that are no CPU, post to one CPU at the same time, all on the caller's
/// processor, until the last has run: nanoseconds per post, whoever sent it.
fn post_crowd(lab: &Lab) -> Vec<f64> {
    (0..WARM_UP).for_each(|i| call(lab, i));
    let produce = || {
        for i in 0..CROWD_POSTS {
            let words = [i, i, i];
            let posted = lab.machine.post_wait(lab.responder, move || {
                black_box(words);
            });
            assert!(posted.is_ok(), "the responder is online");
        }
    };
    let runs = time_runs(CROWD_RUNS, 1, |_| {
        // A thread inherits the processor that its creator is pinned to.
        std::thread::scope(|scope| {
            for _ in 1..PRODUCERS {
                scope.spawn(produce);
            }
            produce();
        });
        let flushed = lab.machine.flush(lab.responder);
        assert!(flushed.is_ok(), "the responder is online");
    });
    let posts = PRODUCERS as f64 * CROWD_POSTS as f64;
    runs.into_iter().map(|run| run / posts).collect()
}

/// To a CPU that sleeps; calls that found it awake do not count.
fn call_parked(lab: &Lab) -> Vec<f64> {
    let wakes = || lab.machine.platform().wakes();
    let mut times = Vec::with_capacity(WAKE_UPS);
    for i in 0..WAKE_UPS as u64 {
        lab.spin(SLEEP_GAP);
        let before = wakes();
        let time = lab.time_one(|| call(lab, i));
        if wakes() == before + 1 {
            times.push(time);
        }
    }
    times
}

/// To a CPU that computes, with poll points.
fn call_poll_point(lab: &Lab) -> Vec<f64> {
    let machine = Arc::clone(&lab.machine);
    let answer = move |stop: &AtomicBool| {
        while !stopped(stop) {
            compute();
            machine.poll();
        }
    };
    lab.duet(answer, || time_runs(RUNS, CALLS, |i| call(lab, i)))
}

/// To whichever CPU of a mask is nearest.
fn call_any(lab: &Lab) -> Vec<f64> {
    let others = CpuMask::of(lab.responder);
    time_runs(RUNS, CALLS, |i| {
        let answer = lab.machine.call_any(&others, move || black_box(i) + 1);
        assert!(
            answer.is_ok_and(|(cpu, answer)| (cpu, answer) == (lab.responder, i + 1)),
            "the closure's result comes back"
        );
    })
}

/// To those that match a predicate: the responder.
fn cond(lab: &Lab) -> Vec<f64> {
    time_runs(RUNS, CALLS, |i| {
        let wanted = |cpu| cpu == lab.responder;
        let ran = lab.machine.on_each_cpu_cond(wanted, move |cpu| {
            black_box((cpu, i));
        });
        assert!(ran.is_ok_and(|ran| ran.len() == 1), "the responder runs it");
    })
}

/// Until the other CPU has run a handler.
fn kick(lab: &Lab) -> Vec<f64> {
    time_runs(RUNS, CALLS, |_| {
        let kicked = lab.machine.kick_all_cpus_sync();
        assert!(
            kicked.is_ok_and(|kicked| kicked.len() == 1),
            "it was online"
        );
    })
}

/// While the other CPU calls this one as often as it can; both serve while they wait.
fn all_to_all(lab: &Lab) -> Vec<f64> {
    let (machine, back) = (Arc::clone(&lab.machine), lab.caller);
    let answer = move |stop: &AtomicBool| {
        while !stopped(stop) {
            let called = machine.call(back, || black_box(1));
            assert!(called.is_ok(), "the caller is online");
        }
    };
    lab.duet(answer, || time_runs(RUNS, CALLS, |i| call(lab, i)))
}

/// From a thread that is no CPU of the machine, on the caller's processor; the caller sleeps meanwhile.
fn call_foreign(lab: &Lab) -> Vec<f64> {
    let foreigner = || {
        (0..WARM_UP).for_each(|i| call(lab, i));
        time_runs(RUNS, CALLS, |i| call(lab, i))
    };
    // A new thread inherits the affinity of the one that makes it.
    std::thread::scope(|scope| scope.spawn(foreigner).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
