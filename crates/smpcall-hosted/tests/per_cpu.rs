//! Per-CPU data: whose it is, what may happen while it is used, and where it goes when its CPU does.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use smpcall_hosted::{CallError, CpuId, HotplugError, Machine, PerCpuError};

#[path = "support/bed.rs"]
mod bed;
#[path = "support/rounds.rs"]
mod rounds;

use bed::Bed;
use rounds::rounds;

const CPU1: CpuId = CpuId::new(1);

#[test]
fn a_cpu_without_atomics_counts_what_all_sent_it() {
    let bed = Bed::new(4);
    let counts = bed.per_cpu(|_| Cell::new(0_u64));
    let count = |cpu: CpuId| {
        let own = counts.with(&*bed, |own| own.set(own.get() + u64::from(cpu.get()) + 1));
        own.unwrap();
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(bed.on_each_cpu(count).unwrap().len(), 4);
                }
            });
        }
    });
    let mut counts = counts;
    let sums: Vec<u64> = counts.values_mut().map(|own| own.get()).collect();
    assert_eq!(sums, [400, 800, 1200, 1600]);
}

#[test]
fn a_thread_that_is_no_cpu_and_a_cpu_of_another_machine_are_refused() {
    let (bed, other) = (Bed::new(2), Bed::new(2));
    let data = bed.per_cpu(Cell::new);
    assert_eq!(data.with(&*bed, |_| ()), Err(PerCpuError::NotACpu));
    let own = bed.call(CPU1, || data.with(&*bed, |own| own.get()));
    assert_eq!(own.unwrap(), Ok(CPU1));
    let foreign = other.call(CPU1, || data.with(&*other, |_| ()));
    assert_eq!(foreign.unwrap(), Err(PerCpuError::NotOurs { cpu: CPU1 }));
    // The CPU of the other machine is none of this one.
    let confused = other.call(CPU1, || data.with(&*bed, |_| ()));
    assert_eq!(confused.unwrap(), Err(PerCpuError::NotACpu));
    // A place that nobody has used goes to who comes first.
    let first = other.call(CpuId::new(0), || data.with(&*other, |_| ()));
    assert_eq!(first.unwrap(), Ok(()));
}

#[test]
fn a_borrow_is_never_met_by_a_call_and_waiting_inside_is_refused() {
    let bed = Bed::new(3);
    let lists = Arc::new(bed.per_cpu(|_| RefCell::new(Vec::new())));
    let stop = Arc::new(AtomicBool::new(false));
    let (theirs, their_stop) = (Arc::clone(&lists), Arc::clone(&stop));
    let job = bed.on(1, move |machine| {
        while !their_stop.load(Ordering::Acquire) {
            let used = theirs.with(machine, |list| {
                let mut list = list.borrow_mut();
                list.push(0);
                let inside = machine.call(CpuId::new(2), || ()).map_err(CallError::from);
                assert_eq!(inside, Err(CallError::InHandler));
                assert!(!machine.poll(), "no call runs while the list is borrowed");
                let left = machine.offline_this_cpu();
                assert_eq!(left, Err(HotplugError::Context(CallError::InHandler)));
                list.truncate(50);
            });
            used.unwrap();
            machine.poll();
        }
    });
    for _ in rounds(1_000) {
        let push = || lists.with(&*bed, |list| list.borrow_mut().push(1));
        bed.call(CPU1, push).unwrap().unwrap();
    }
    stop.store(true, Ordering::Release);
    job.join().unwrap();
}

#[test]
fn a_panic_inside_leaves_the_cpu_as_it_was() {
    let bed = Bed::new(2);
    let data = bed.per_cpu(|_| Cell::new(0));
    for _ in 0..3 {
        let panics = || data.with(&*bed, |_| panic!("inside"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            bed.run_on_cpu(CPU1, panics).unwrap().unwrap();
        }));
        assert!(caught.is_err());
        let free = bed.run_on_cpu(CPU1, || bed.call(CpuId::new(0), || 3).unwrap());
        assert_eq!(free.unwrap(), 3, "it may wait again");
    }
}

#[test]
fn a_value_goes_to_the_next_thread_that_becomes_the_cpu() {
    let bed = Bed::new(2);
    let last = bed.per_cpu(|_| Cell::new(None::<ThreadId>));
    let visit = || last.with(&*bed, |own| own.replace(Some(thread::current().id())));
    assert_eq!(bed.call(CPU1, visit).unwrap(), Ok(None));
    let mut before = bed.call(CPU1, visit).unwrap().unwrap();
    for _ in rounds(10) {
        bed.cpu_down(CPU1).unwrap();
        bed.cpu_up(CPU1).unwrap();
        let now = bed
            .call(CPU1, || (visit(), thread::current().id()))
            .unwrap();
        assert_eq!(now.0, Ok(before), "what the last owner left is there");
        assert_ne!(Some(now.1), before, "another thread is the CPU");
        before = Some(now.1);
    }
}

#[test]
fn values_that_can_be_shared_are_read_from_anywhere() {
    let bed = Bed::new(2);
    let data = bed.per_cpu(|cpu| AtomicU64::new(u64::from(cpu.get()) + 5));
    assert_eq!(data.get(CPU1).unwrap().load(Ordering::Relaxed), 6);
    assert!(data.get(CpuId::new(2)).is_none());
}

#[test]
fn pre_emption_respects_the_use_of_per_cpu_data() {
    // SAFETY: 1, 2 — the functions that are called use the counters below, which their own work uses
    // with interrupts off; 3, 4, 5 — one loop on a thread's own stack, no other use of the signal.
    let builder = unsafe { Machine::builder().count(2).preempt() };
    let bed = Bed::of(builder.reporter(|report| bed::log(report)));
    let counts = Arc::new(bed.per_cpu(|_| Cell::new([0_u64; 8])));
    let stop = Arc::new(AtomicBool::new(false));
    let (theirs, their_stop) = (Arc::clone(&counts), Arc::clone(&stop));
    let count = |own: &Cell<[u64; 8]>| own.set(own.get().map(|word| word + 1));
    let job = bed.on(1, move |machine| {
        let mut turns = 0;
        while !their_stop.load(Ordering::Acquire) {
            theirs.with(machine, count).unwrap();
            turns += 1;
        }
        turns
    });
    let mut calls = 0;
    for _ in rounds(2_000) {
        calls += 1;
        bed.call(CPU1, || counts.with(&*bed, count))
            .unwrap()
            .unwrap();
    }
    stop.store(true, Ordering::Release);
    let turns = job.join().unwrap();
    let counted = bed.call(CPU1, || counts.with(&*bed, Cell::get));
    assert_eq!(counted.unwrap(), Ok([turns + calls; 8]));
}
