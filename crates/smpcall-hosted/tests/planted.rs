//! Bugs on purpose, for the sanitizers to find: `cargo xtask tsan` and `asan` run these and want a report. A
//! check that finds nothing here would find nothing anywhere.
#![expect(clippy::missing_panics_doc, reason = "a test panics when it fails")]

use std::cell::UnsafeCell;

use smpcall_hosted::{CpuId, Machine};

const CPU1: CpuId = CpuId::new(1);

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

/// The caller of a post goes on; it writes what the function writes.
#[test]
#[ignore = "a bug on purpose: cargo xtask tsan"]
fn planted_data_race() {
    static SHARED: Unguarded = Unguarded(UnsafeCell::new(0));
    let machine = Machine::builder().count(2).boot().expect("boots");
    for _ in 0..1000 {
        // A full lane is as good: some are in it.
        let _ = machine.post(CPU1, || SHARED.add());
        SHARED.add();
    }
}

/// The caller of a post frees what the function uses.
#[test]
#[ignore = "a bug on purpose: cargo xtask asan"]
fn planted_use_after_free() {
    let machine = Machine::builder().count(2).boot().expect("boots");
    let number = Box::new(7_u64);
    let address = std::ptr::from_ref(&*number).addr();
    let busy = machine.spawn_on(CPU1, || {
        std::thread::sleep(std::time::Duration::from_millis(50))
    });
    let read = move || {
        // SAFETY: none: this is the bug.
        let number = unsafe { std::ptr::with_exposed_provenance::<u64>(address).read_volatile() };
        std::hint::black_box(number);
    };
    machine.post(CPU1, read).expect("there is room");
    drop(number);
    machine.flush(CPU1).expect("online");
    drop(busy);
}
