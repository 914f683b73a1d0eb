//! A sampling profiler for busy threads: where are they, right now?
//!
//! Each worker notes in a thread-local what it is doing, which costs it a store. The profiler asks
//! all CPUs at once, a hundred times; each answers at its next poll point, without stopping, and
//! no worker shares a line of memory with the profiler until it is asked.
//!
//! `cargo run --example sample_busy`

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use smpcall_hosted::{CpuId, Machine, WithoutClosure};

thread_local! {
    static DOING: Cell<&'static str> = const { Cell::new("idle") };
}

static STOP: AtomicBool = AtomicBool::new(false);

/// A worker: three parts of parsing, one of writing.
fn work(machine: &Machine) {
    let turn = ["parsing", "parsing", "parsing", "writing"];
    for doing in turn.into_iter().cycle() {
        DOING.set(doing);
        for _ in 0..2_000 {
            std::hint::spin_loop();
            machine.poll();
        }
        // ORDERING: Relaxed — it only ends the loop.
        if STOP.load(Ordering::Relaxed) {
            return DOING.set("idle");
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Arc::new(Machine::builder().count(3).boot()?);
    let start = |cpu: u32| {
        let machine = Arc::clone(&machine);
        machine
            .clone()
            .spawn_on(CpuId::new(cpu), move || work(&machine))
    };
    // CPU 0 stays idle.
    let workers = [start(1)?, start(2)?];

    let mut profile: BTreeMap<(CpuId, &str), u32> = BTreeMap::new();
    for _ in 0..100 {
        let sample = machine.collect_each(|_| DOING.get()).without_closure()?;
        for place in sample {
            *profile.entry(place).or_default() += 1;
        }
        thread::sleep(Duration::from_micros(300));
    }

    STOP.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")?;
    }
    for ((cpu, doing), samples) in &profile {
        println!("CPU {cpu}: {doing:8} {samples:3} of 100 samples");
    }
    assert_eq!(profile[&(CpuId::new(0), "idle")], 100);
    assert_eq!(profile.values().sum::<u32>(), 300);
    Ok(())
}
