//! Instruction counts of each operation, as the brief's section 7 measures Linux.
//!
//! Under `-icount shift=0` the counter counts the instructions of all CPUs together. Each sample is a
//! counter read before and after the call, so it includes the cost of an empty sample; the
//! median of many is printed. Operations that are short beside the counter's grain run in batches. An
//! idle target sits in this kernel's idle loop, a busy one in a loop with the relax instruction.

use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use smpcall::{CpuId, CpuMask, Csd};
use smpcall_metal::{MAX_CPUS, Metal, WORDS, println, raw};

use crate::kernel::SMP;

const SAMPLES: usize = 200;
/// Of the row whose operation is as many calls as there are pairs of CPUs.
const ROUNDS: usize = 16;
/// Before the first sample that counts.
const WARM_UP: usize = 8;
const BATCH: usize = 64;

/// Makes busy CPUs stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// CPUs that are busy now.
static BUSY: AtomicU32 = AtomicU32::new(0);
/// Rounds of calls of all to all that have begun.
static ROUND: AtomicU32 = AtomicU32::new(0);
/// CPUs that are through with the present round.
static THROUGH: AtomicU32 = AtomicU32::new(0);
/// Posted descriptors that have run.
static RAN: AtomicU32 = AtomicU32::new(0);

/// Prints every row; answers whether all ran.
pub(crate) fn run() -> bool {
    let cpus = SMP.num_online_cpus();
    row("single_self", BATCH, || {
        drop(SMP.call(CpuId::new(0), nothing))
    });
    if cpus < 2 {
        return true;
    }
    let other = CpuId::new(1);
    let others = CpuMask::<WORDS>::first_n(cpus).and_not(&CpuMask::of(CpuId::new(0)));
    row("single_idle", 1, || drop(SMP.call(other, nothing)));
    row("any_remote", 1, || drop(SMP.call_any(&others, nothing)));
    row("many_idle", 1, || {
        drop(SMP.call_many(&others, |_| nothing()))
    });
    row("on_each_cpu", 1, || drop(SMP.on_each_cpu(|_| nothing())));
    row("on_each_cpu_cond_half", 1, || {
        drop(SMP.on_each_cpu_cond(|cpu| cpu.get() % 2 == 1, |_| nothing()));
    });
    row("kick_all_cpus_sync", 1, || {
        let _ = SMP.kick_all_cpus_sync();
    });
    with_busy(&CpuMask::of(other), || {
        row("single_busy", 1, || drop(SMP.call(other, nothing)));
        post_rows(other);
    }) && with_busy(&others, || {
        row("many_busy", 1, || {
            drop(SMP.call_many(&others, |_| nothing()))
        });
        if share_a_counter(&others) {
            caller_rows(&others);
        }
    }) && all_to_all(&others)
}

/// Do all CPUs read one counter? On aarch64 each counts from its own start, and two are no span.
fn share_a_counter(others: &CpuMask<WORDS>) -> bool {
    others.iter().all(|cpu| {
        let before = raw::instructions();
        let there = SMP.call(cpu, raw::instructions);
        let after = raw::instructions();
        there.is_ok_and(|there| (before..=after).contains(&there))
    })
}

/// What of `many_busy` is the caller's own, and grows with the number of targets however parallel they
/// are: until the first target runs the function, and after the last one has.
fn caller_rows(others: &CpuMask<WORDS>) {
    /// When the first target began, and when the last one did.
    static BEGAN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    fn note(_: CpuId) {
        // ORDERING: Relaxed, here and below — the waited call orders them.
        let now = raw::instructions();
        BEGAN[0].fetch_min(now, Ordering::Relaxed);
        BEGAN[1].fetch_max(now, Ordering::Relaxed);
    }
    let noted_call = || {
        BEGAN[0].store(u64::MAX, Ordering::Relaxed);
        BEGAN[1].store(0, Ordering::Relaxed);
        let before = raw::instructions();
        drop(SMP.call_many(others, note));
        let after = raw::instructions();
        let [first, last] = BEGAN.each_ref().map(|at| at.load(Ordering::Relaxed));
        (first - before, after - last)
    };
    let ipis = others.len() as u64;
    print("many_busy_send", median(SAMPLES, || noted_call().0), ipis);
    print("many_busy_collect", median(SAMPLES, || noted_call().1), 0);
}

/// What is called: it must not be optimised away, and costs nothing.
fn nothing() {
    core::hint::black_box(());
}

/// Measures and prints one operation.
fn row(name: &str, batch: usize, operation: impl FnMut()) {
    sampled_row(name, batch, SAMPLES, operation);
}

/// The same with so many samples, at most [`SAMPLES`].
fn sampled_row(name: &str, batch: usize, samples: usize, mut operation: impl FnMut()) {
    let ipis = Metal::ipis_sent();
    let median = median(samples, || {
        let before = raw::instructions();
        for _ in 0..batch {
            operation();
        }
        raw::instructions() - before
    });
    let ipis = ipis_of_each(ipis, samples, batch);
    print(name, median / batch as u64, ipis);
}

/// IPIs of one operation, to the nearest whole one; `before` had been sent before the samples.
fn ipis_of_each(before: u64, samples: usize, batch: usize) -> u64 {
    let operations = ((WARM_UP + samples) * batch) as u64;
    (Metal::ipis_sent() - before + operations / 2) / operations
}

/// The median of samples, with some to warm up.
fn median(count: usize, mut sample: impl FnMut() -> u64) -> u64 {
    let mut samples = [0; SAMPLES];
    for _ in 0..WARM_UP {
        sample();
    }
    let samples = &mut samples[..count];
    samples.iter_mut().for_each(|slot| *slot = sample());
    samples.sort_unstable();
    samples[count / 2]
}

fn print(name: &str, instructions: u64, ipis: u64) {
    let cpus = SMP.num_online_cpus();
    println!(
        "{{\"type\":\"icount\",\"arch\":\"{}\",\"cpus\":{cpus},\"name\":\"{name}\",\
         \"instructions\":{instructions},\"ipis\":{ipis}}}",
        raw::NAME
    );
}

/// Every CPU calls all others and waits, all at the same time; until the last one is through.
fn all_to_all(others: &CpuMask<WORDS>) -> bool {
    fn call_others() {
        drop(SMP.call_others(|_| nothing()));
    }
    fn join_rounds() {
        let mut round = 0;
        // ORDERING: Relaxed — counters and flags of a bench; the calls order what they must.
        BUSY.fetch_add(1, Ordering::Relaxed);
        while !STOP.load(Ordering::Relaxed) {
            if ROUND.load(Ordering::Relaxed) == round {
                raw::relax();
                continue;
            }
            round += 1;
            call_others();
            THROUGH.fetch_add(1, Ordering::Relaxed);
        }
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
    static JOIN: Tasks = [const { Csd::new(join_rounds as fn()) }; MAX_CPUS];
    // ORDERING: Relaxed — as above; nobody looks yet.
    ROUND.store(0, Ordering::Relaxed);
    while_they_run(others, &JOIN, || {
        sampled_row("all_to_all", 1, ROUNDS, || {
            THROUGH.store(0, Ordering::Relaxed);
            ROUND.fetch_add(1, Ordering::Relaxed);
            call_others();
            while THROUGH.load(Ordering::Relaxed) < others.len() as u32 {
                raw::relax();
            }
        });
    })
}

/// Runs `f` while these CPUs spin in their task context; `false` if they cannot.
fn with_busy(others: &CpuMask<WORDS>, f: impl FnOnce()) -> bool {
    fn spin() {
        // ORDERING: Relaxed — counters and flags of a bench; the loop orders nothing.
        BUSY.fetch_add(1, Ordering::Relaxed);
        while !STOP.load(Ordering::Relaxed) {
            raw::relax();
        }
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
    static SPIN: Tasks = [const { Csd::new(spin as fn()) }; MAX_CPUS];
    while_they_run(others, &SPIN, f)
}

/// A task for each CPU.
type Tasks = [Csd; MAX_CPUS];

/// Runs `f` while these CPUs run a task that counts itself in [`BUSY`] until [`STOP`]; `false` if
/// they cannot.
fn while_they_run(others: &CpuMask<WORDS>, tasks: &'static Tasks, f: impl FnOnce()) -> bool {
    for cpu in others {
        if SMP
            .post_task(cpu, Pin::static_ref(&tasks[cpu.index()]))
            .is_err()
        {
            return false;
        }
    }
    let all = others.len() as u32;
    // ORDERING: Relaxed — counters and flags of a bench.
    while BUSY.load(Ordering::Relaxed) < all {
        raw::relax();
    }
    f();
    STOP.store(true, Ordering::Relaxed);
    while BUSY.load(Ordering::Relaxed) > 0 {
        raw::relax();
    }
    STOP.store(false, Ordering::Relaxed);
    true
}

/// Posted descriptors: to queue one, and to queue and run one, in batches.
fn post_rows(target: CpuId) {
    fn count() {
        // ORDERING: Release — pairs with the wait for the batch; only this CPU writes.
        RAN.store(RAN.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
    let csds = pin!([const { Csd::new(count as fn()) }; BATCH]);
    let csds = csds.as_ref();
    let batch = move |queued: &mut u64| {
        // ORDERING: Relaxed — nothing is queued now.
        RAN.store(0, Ordering::Relaxed);
        let before = raw::instructions();
        for csd in csds.get_ref() {
            // SAFETY: 1. An element of a pinned array is pinned.
            let _ = SMP.post_csd(target, unsafe { Pin::new_unchecked(csd) });
        }
        *queued = raw::instructions() - before;
        // ORDERING: Acquire — the batch has run.
        while RAN.load(Ordering::Acquire) < BATCH as u32 {
            raw::relax();
        }
        raw::instructions() - before
    };
    let mut queued = 0;
    let ipis = Metal::ipis_sent();
    let queue = median(SAMPLES, || {
        batch(&mut queued);
        queued
    });
    let ipis = ipis_of_each(ipis, SAMPLES, BATCH);
    print("post_batch64_queue", queue / BATCH as u64, ipis);
    let done = median(SAMPLES, || batch(&mut queued));
    print("post_batch64_done", done / BATCH as u64, ipis);
}
