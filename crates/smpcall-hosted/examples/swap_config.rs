//! Swapping a configuration under running workers, and freeing the old one.
//!
//! Readers use the current configuration without a lock and without counting references: they only
//! promise to forget the pointer before their next poll point. The writer swaps the pointer and makes
//! every CPU run an empty function (`kick_all_cpus_sync`). A CPU runs it at a poll point, so when
//! the kick returns no CPU has the old pointer any more, and it can be freed. The price is paid by
//! the writer, which is rare; a reader pays one load.
//!
//! `cargo run --example swap_config`

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use smpcall_hosted::{CpuId, Machine};

struct Config {
    version: u64,
    greeting: String,
}

static CONFIG: AtomicPtr<Config> = AtomicPtr::new(ptr::null_mut());
static REQUESTS: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

/// A worker, on its CPU until `STOP`.
///
/// # Panics
/// If the configuration that it reads is not whole.
fn work(machine: &Machine) {
    // ORDERING: Relaxed — it only ends the loop.
    while !STOP.load(Ordering::Relaxed) {
        // ORDERING: Acquire — the configuration was written before; pairs with the swap.
        let config = CONFIG.load(Ordering::Acquire);
        // SAFETY: it is freed after a kick only, and this CPU does not take one before `poll`.
        let config = unsafe { &*config };
        assert_eq!(config.greeting, format!("hello {}", config.version));
        // ORDERING: Relaxed — a statistic.
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        // Here the old pointer is forgotten, and calls are taken.
        machine.poll();
    }
}

fn config(version: u64) -> *mut Config {
    let greeting = format!("hello {version}");
    Box::into_raw(Box::new(Config { version, greeting }))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Arc::new(Machine::builder().count(3).boot()?);
    CONFIG.store(config(0), Ordering::Release);
    let start = |cpu: u32| {
        let machine = Arc::clone(&machine);
        machine
            .clone()
            .spawn_on(CpuId::new(cpu), move || work(&machine))
    };
    let workers = [start(1)?, start(2)?];

    for version in 1..=100 {
        // ORDERING: AcqRel — publishes the new one, and takes the old one over.
        let old = CONFIG.swap(config(version), Ordering::AcqRel);
        machine.kick_all_cpus_sync()?;
        // SAFETY: it came from a box, no CPU has it any more, and nobody gets it again.
        drop(unsafe { Box::from_raw(old) });
    }

    STOP.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")?;
    }
    // SAFETY: the last one; the workers have ended.
    let last = unsafe { Box::from_raw(CONFIG.swap(ptr::null_mut(), Ordering::AcqRel)) };
    println!(
        "configuration {} after {} requests; 100 old ones were freed meanwhile",
        last.version,
        REQUESTS.load(Ordering::Relaxed)
    );
    assert_eq!(last.version, 100);
    Ok(())
}
