//! Results of each CPU: in the caller's storage, collected, and dropped when one CPU panics.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};

use smpcall_hosted::{CallError, CpuId, CpuMask};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

/// Counts how many of its kind are alive.
struct Counted<'a>(&'a AtomicUsize, u32);

impl<'a> Counted<'a> {
    fn new(alive: &'a AtomicUsize, number: u32) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(alive, number)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn storage<R>(n: usize) -> Vec<MaybeUninit<R>> {
    (0..n).map(|_| MaybeUninit::uninit()).collect()
}

#[test]
fn each_cpu_of_the_mask_gives_its_result() {
    let bed = Bed::new(20);
    bed.cpu_down(CpuId::new(3)).unwrap();
    let mut slots = storage(20);
    let results = bed
        .call_many_into(&CpuMask::first_n(5), &mut slots, |cpu| cpu.get() * 10)
        .unwrap();
    assert_eq!(results.ran().to_string(), "0-2,4");
    assert_eq!(results.get(CpuId::new(4)), Some(&40));
    assert_eq!(results.get(CpuId::new(3)), None);
    let expected = [0, 1, 2, 4].map(|cpu| (CpuId::new(cpu), cpu * 10));
    assert_eq!(results.collect::<Vec<_>>(), expected);
    // From a CPU, its own result included, through a second batch from a foreign thread.
    let from_cpu = bed.on(2, |machine| machine.collect_each(CpuId::get).unwrap());
    let ids: Vec<u32> = from_cpu.join().unwrap().iter().map(|(_, id)| *id).collect();
    let all: Vec<u32> = (0..20).filter(|cpu| *cpu != 3).collect();
    assert_eq!(ids, all);
    assert_eq!(bed.collect_each(CpuId::get).unwrap().len(), 19);
}

#[test]
fn results_that_are_not_taken_are_dropped_once() {
    let bed = Bed::new(4);
    let alive = AtomicUsize::new(0);
    let mut slots = storage(4);
    let mut results = bed
        .on_each_cpu_into(&mut slots, |cpu| Counted::new(&alive, cpu.get()))
        .unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 4);
    let (first, result) = results.next().unwrap();
    assert_eq!((first.get(), result.1), (0, 0));
    drop(results);
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    drop(result);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_panic_on_one_cpu_drops_what_the_others_wrote_and_reaches_the_caller() {
    let bed = Bed::new(4);
    let alive = AtomicUsize::new(0);
    let mut slots = storage(4);
    let call = || {
        let results = bed.on_each_cpu_into(&mut slots, |cpu| {
            assert!(cpu.get() != 2, "number 2");
            Counted::new(&alive, cpu.get())
        });
        results.map(drop).map_err(CallError::from)
    };
    let payload = panic::catch_unwind(AssertUnwindSafe(call)).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"number 2"));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn storage_that_is_too_short_is_refused_and_nothing_runs() {
    let bed = Bed::new(4);
    let mut slots = storage(3);
    let refused = bed.on_each_cpu_into(&mut slots, |_| unreachable!("nothing runs"));
    let refused: Result<(), CallError> = refused
        .map(|r: smpcall_hosted::Results<'_, u8>| drop(r))
        .map_err(CallError::from);
    assert_eq!(refused, Err(CallError::ResultsTooShort { needed: 4 }));
    let fits = CpuMask::first_n(3);
    assert_eq!(
        bed.call_many_into(&fits, &mut slots, |_| 1_u8)
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        bed.call_many_into(&CpuMask::EMPTY, &mut [], |_| 1_u8)
            .unwrap()
            .len(),
        0
    );
}
