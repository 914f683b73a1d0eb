//! Loom models of the broadcast: E12 with two sources, E13 with two targets.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use super::{Broadcast, Requests};
use crate::cpu::{CpuId, CpuMask};
use crate::queue::Context;
use crate::testing::{Loom, Plain, large_model};

/// Two CPUs' records and request bits, and what the functions write.
struct World {
    platform: Loom,
    records: [Broadcast<1>; 2],
    requests: [Requests<1>; 2],
    written: [Plain; 2],
}

// SAFETY: every part is used under the broadcast's protocol; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// Adds one where the target's own number says.
///
/// # Safety
/// As [`super::BroadcastFn`]; the data is `[Plain; 2]`.
unsafe fn write(context: &Context, data: *const ()) {
    // SAFETY: 1 — prepared with this function, alive as the world is.
    let written = unsafe { &*data.cast::<[Plain; 2]>() };
    written[context.cpu.index()].add(1);
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            platform: Loom::new(),
            records: [Broadcast::new(), Broadcast::new()],
            requests: [Requests::new(), Requests::new()],
            written: [Plain::new(), Plain::new()],
        })
    }

    /// Source `source` asks the targets.
    fn request(&self, source: usize, targets: &[u32]) {
        let mask: CpuMask<1> = targets.iter().map(|&cpu| CpuId::new(cpu)).collect();
        let data = (&raw const self.written).cast();
        // SAFETY: 1 — once per record; 2 — the world outlives the models' threads.
        unsafe { self.records[source].prepare(write, data, &mask) };
        for cpu in &mask {
            self.requests[cpu.index()].request(CpuId::new(source as u32));
        }
    }

    /// Target `cpu` runs what was requested; answers how many.
    fn take(&self, cpu: u32) -> usize {
        let mut ran = 0;
        self.requests[cpu as usize].take(|source| {
            let context = self.platform.context(cpu);
            // SAFETY: 1 — the request was taken, and this thread is the target.
            unsafe { self.records[source.index()].run(&context) };
            ran += 1;
        });
        ran
    }

    fn take_until(&self, cpu: u32, wanted: usize) {
        let mut ran = 0;
        while ran < wanted {
            ran += self.take(cpu);
            thread::yield_now();
        }
    }

    fn wait(&self, source: usize) {
        while !self.records[source].is_done() {
            thread::yield_now();
        }
    }
}

#[test]
fn e12_a_request_publishes_its_record_even_under_another_summary() {
    // Two sources: the summary bit that a target finds may be the one's and the request bit the
    // other's, so the summary alone would not do.
    large_model(|| {
        let world = World::new();
        let other = thread::spawn({
            let world = world.clone();
            move || world.request(1, &[0])
        });
        let target = thread::spawn({
            let world = world.clone();
            move || world.take_until(0, 2)
        });
        world.request(0, &[0]);
        other.join().unwrap();
        target.join().unwrap();
        assert_eq!(world.written[0].get(), 2);
    });
}

#[test]
fn e13_the_source_sees_what_both_targets_wrote() {
    large_model(|| {
        let world = World::new();
        world.request(0, &[0, 1]);
        // Requested before the targets start, which look once: three spinning threads would take
        // minutes, and E12 has its own model.
        let targets = [0, 1].map(|cpu| {
            let world = world.clone();
            thread::spawn(move || world.take(cpu))
        });
        world.wait(0);
        assert_eq!((world.written[0].get(), world.written[1].get()), (1, 1));
        assert!(world.records[0].laggards().is_empty());
        assert_eq!(targets.map(|target| target.join().unwrap()), [1, 1]);
    });
}

#[test]
fn e13_a_record_is_free_for_the_next_broadcast_when_it_is_done() {
    large_model(|| {
        let world = World::new();
        let target = thread::spawn({
            let world = world.clone();
            move || world.take_until(0, 2)
        });
        world.request(0, &[0]);
        world.wait(0);
        world.request(0, &[0]);
        world.wait(0);
        assert_eq!(world.written[0].get(), 2);
        target.join().unwrap();
    });
}

#[test]
fn a_request_is_either_retracted_or_run() {
    large_model(|| {
        let world = World::new();
        let target = thread::spawn({
            let world = world.clone();
            move || world.take(0)
        });
        world.request(0, &[0]);
        let retracted = world.requests[0].retract(CpuId::new(0));
        if retracted {
            world.records[0].finish(CpuId::new(0));
        }
        world.wait(0);
        let ran = target.join().unwrap();
        assert_eq!(ran, usize::from(!retracted));
        assert_eq!(world.written[0].get() as usize, ran);
        assert_eq!(
            world.take(0),
            0,
            "a summary bit may be left over, a request may not"
        );
    });
}
