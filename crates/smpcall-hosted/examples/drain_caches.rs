//! Giving back what the CPUs' caches hold, and asking only those that hold something.
//!
//! Each CPU keeps buffers that it has freed, for itself, so that it needs no lock to get one again.
//! When memory is short, all caches are to be emptied: a CPU cannot reach into another's, so it
//! runs `drain` there. `on_each_cpu_cond` leaves CPUs with an empty cache alone: no call, no
//! interrupt, no wake-up. Linux drains its per-CPU page lists this way.
//!
//! `cargo run --example drain_caches`

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use smpcall_hosted::{CpuId, Machine, WithoutClosure};

const CPUS: usize = 4;

thread_local! {
    /// This CPU's cache: a CPU is a thread, so per-CPU data is a thread-local.
    static CACHE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// How much each CPU's cache holds, for others to look at: an old value is good enough.
static CACHED: [AtomicUsize; CPUS] = [const { AtomicUsize::new(0) }; CPUS];

/// On the CPU: keeps a freed buffer.
fn free(cpu: CpuId, buffer: Box<[u8]>) {
    let held = CACHE.with_borrow_mut(|cache| {
        cache.push(buffer);
        cache.len()
    });
    // ORDERING: Relaxed — a hint; the call that follows it orders what matters.
    CACHED[cpu.index()].store(held, Ordering::Relaxed);
}

/// On the CPU: gives everything back; answers how many bytes that was.
fn drain(cpu: CpuId) -> usize {
    // ORDERING: Relaxed — as in `free`.
    CACHED[cpu.index()].store(0, Ordering::Relaxed);
    CACHE.take().iter().map(|buffer| buffer.len()).sum()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::builder().count(CPUS).boot()?;
    // CPUs 1 and 2 free a few buffers; 0 and 3 have nothing.
    for (cpu, buffers) in [(1, 3), (2, 1)] {
        let cpu = CpuId::new(cpu);
        let work = || (0..buffers).for_each(|_| free(cpu, vec![0; 4096].into()));
        machine.run_on_cpu(cpu, work).without_closure()?;
    }

    let given_back = AtomicUsize::new(0);
    // ORDERING: Relaxed — as in `free`.
    let holds_something = |cpu: CpuId| CACHED[cpu.index()].load(Ordering::Relaxed) > 0;
    let ran = machine
        .on_each_cpu_cond(holds_something, |cpu| {
            // ORDERING: Relaxed — the end of the call orders it.
            given_back.fetch_add(drain(cpu), Ordering::Relaxed);
        })
        .without_closure()?;

    println!(
        "CPUs {ran} gave {} bytes back",
        given_back.load(Ordering::Relaxed)
    );
    assert_eq!(ran.to_string(), "1-2");
    assert_eq!(given_back.into_inner(), 4 * 4096);
    Ok(())
}
