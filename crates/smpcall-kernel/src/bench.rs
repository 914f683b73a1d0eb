//! Instruction counts of each operation, as the brief's section 7 measures Linux.
//!
//! Under `-icount shift=0` the counter counts the instructions of all CPUs together. Each sample is a
//! counter read before and after the call, so it includes the cost of an empty sample; the
//! median of many is printed. Operations that are short beside the counter's grain run in batches. An
//! idle target sits in this kernel's idle loop, a busy one in a loop with the relax instruction.

use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use smpcall::{CpuId, CpuMask, Csd};
use smpcall_metal::{WORDS, println, raw};

use crate::kernel::SMP;

const SAMPLES: usize = 200;
const BATCH: usize = 64;

/// Makes busy CPUs stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// CPUs that are busy now.
static BUSY: AtomicU32 = AtomicU32::new(0);
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
    })
}

/// What is called: it must not be optimised away, and costs nothing.
fn nothing() {
    core::hint::black_box(());
}

/// Measures and prints one operation.
fn row(name: &str, batch: usize, mut operation: impl FnMut()) {
    let median = median(|| {
        let before = raw::instructions();
        for _ in 0..batch {
            operation();
        }
        raw::instructions() - before
    });
    print(name, median / batch as u64);
}

/// The median of samples, with some to warm up.
fn median(mut sample: impl FnMut() -> u64) -> u64 {
    let mut samples = [0; SAMPLES];
    for _ in 0..8 {
        sample();
    }
    samples.iter_mut().for_each(|slot| *slot = sample());
    samples.sort_unstable();
    samples[SAMPLES / 2]
}

fn print(name: &str, instructions: u64) {
    let cpus = SMP.num_online_cpus();
    println!(
        "{{\"type\":\"icount\",\"arch\":\"{}\",\"cpus\":{cpus},\"name\":\"{name}\",\"instructions\":{instructions}}}",
        raw::NAME
    );
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
    static SPIN: [Csd; smpcall_metal::MAX_CPUS] =
        [const { Csd::new(spin as fn()) }; smpcall_metal::MAX_CPUS];
    for cpu in others {
        if SMP
            .post_task(cpu, Pin::static_ref(&SPIN[cpu.index()]))
            .is_err()
        {
            return false;
        }
    }
    let all = others.len() as u32;
    // ORDERING: Relaxed — as above.
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
    let queue = median(|| {
        batch(&mut queued);
        queued
    });
    print("post_batch64_queue", queue / BATCH as u64);
    print(
        "post_batch64_done",
        median(|| batch(&mut queued)) / BATCH as u64,
    );
}
