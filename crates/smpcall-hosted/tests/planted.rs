//! Bugs on purpose, for the sanitizers to find: `cargo xtask tsan` and `asan` run these and want a report. A
//! check that finds nothing here would find nothing anywhere.
#![expect(clippy::missing_panics_doc, reason = "a test panics when it fails")]

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smpcall_hosted::{CpuId, Machine};

const CPU1: CpuId = CpuId::new(1);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits without ordering anything: what a flag says, the order of memory does not follow.
fn wait_for(flag: &AtomicBool) {
    let start = Instant::now();
    while !flag.load(Ordering::Relaxed) {
        assert!(start.elapsed() < PATIENCE, "the other side never came");
        std::thread::yield_now();
    }
}

/// A number that two CPUs write as if nobody else did.
struct Unguarded(UnsafeCell<u64>);

// SAFETY: none: this is the bug.
unsafe impl Sync for Unguarded {}

impl Unguarded {
    fn add(&self) {
        // SAFETY: none: this is the bug.
        unsafe { *self.0.get() += 1 };
    }
}

/// The caller of a post writes what the function wrote, without a wait that would order the two.
#[test]
#[ignore = "a bug on purpose: cargo xtask tsan"]
fn planted_data_race() {
    static SHARED: Unguarded = Unguarded(UnsafeCell::new(0));
    static WROTE: AtomicBool = AtomicBool::new(false);
    let machine = Machine::builder().count(2).boot().expect("boots");
    let write = || {
        SHARED.add();
        WROTE.store(true, Ordering::Relaxed);
    };
    machine.post(CPU1, write).expect("there is room");
    wait_for(&WROTE);
    SHARED.add();
}

/// The caller of a post frees what the function uses.
#[test]
#[ignore = "a bug on purpose: cargo xtask asan"]
fn planted_use_after_free() {
    static BUSY: AtomicBool = AtomicBool::new(false);
    static FREED: AtomicBool = AtomicBool::new(false);
    let machine = Machine::builder().count(2).boot().expect("boots");
    let number = Box::new(7_u64);
    let address = std::ptr::from_ref(&*number).expose_provenance();
    // Keeps the CPU from its posts until the number is gone.
    let busy = machine.spawn_on(CPU1, || {
        BUSY.store(true, Ordering::Relaxed);
        wait_for(&FREED);
    });
    let busy = busy.expect("online");
    wait_for(&BUSY);
    let read = move || {
        // SAFETY: none: this is the bug.
        let number = unsafe { std::ptr::with_exposed_provenance::<u64>(address).read_volatile() };
        std::hint::black_box(number);
    };
    machine.post(CPU1, read).expect("there is room");
    drop(number);
    FREED.store(true, Ordering::Relaxed);
    machine.flush(CPU1).expect("online");
    assert!(busy.join().is_ok());
}
