//! Loom models of the descriptor: E3 over posts, E2 over a waited call, and the drop.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use super::{Csd, CsdPanic, DropWait};
use crate::cpu::CpuId;
use crate::queue::Queue;
use crate::testing::{Loom, Plain, model};

/// A target's queue and what the functions write.
struct World {
    platform: Loom,
    queue: Queue,
    written: Plain,
}

// SAFETY: the queue's nodes are one side's at a time; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// The world's address, for a function that is copied to its target.
#[derive(Clone, Copy)]
struct At(*const World);
// SAFETY: the world is `Sync` and outlives the models' threads.
unsafe impl Send for At {}
// SAFETY: as above.
unsafe impl Sync for At {}

impl At {
    fn count(self) {
        // SAFETY: the world outlives the models' threads.
        unsafe { &*self.0 }.written.add(1);
    }
}

/// Waits by giving way.
///
/// # Safety
/// None.
unsafe fn wait(_smp: *const (), _target: CpuId, queued: &dyn Fn() -> bool) {
    while queued() {
        thread::yield_now();
    }
}

const DROP_WAIT: DropWait = DropWait {
    smp: core::ptr::null(),
    target: CpuId::new(0),
    wait,
};

impl World {
    fn new() -> Arc<Self> {
        let world = Self {
            platform: Loom::new(),
            queue: Queue::new(),
            written: Plain::new(),
        };
        world.queue.open();
        Arc::new(world)
    }

    /// Target: runs until this many have run.
    fn run_until(&self, wanted: u32) {
        while self.written.get() < wanted {
            // SAFETY: 1 — this thread owns the queue.
            unsafe { self.queue.take_all().run(&self.platform.context(0)) };
            thread::yield_now();
        }
    }
}

fn post<F: Fn() + Copy + Send + 'static>(csd: &Csd<F>, world: &World) -> bool {
    if !csd.try_lock() {
        return false;
    }
    // SAFETY: 1 — locked, and the model joins its threads before it goes; 2 — a `Loom` runs it.
    let node = unsafe { csd.ready_to_post::<Loom>(&DROP_WAIT) };
    // SAFETY: 1, 2 — locked, and valid until it ran.
    unsafe { world.queue.push(node) }.is_ok()
}

#[test]
fn e3_a_descriptor_is_posted_again_only_when_its_target_is_through_with_it() {
    model(|| {
        let world = World::new();
        let at = At(Arc::as_ptr(&world));
        let csd = Arc::new(Csd::new(move || at.count()));
        assert!(post(&csd, &world));
        let target = thread::spawn({
            let world = world.clone();
            move || world.run_until(2)
        });
        while !post(&csd, &world) {
            thread::yield_now();
        }
        target.join().unwrap();
        assert!(!csd.is_queued());
    });
}

#[test]
fn two_senders_post_one_descriptor_once() {
    model(|| {
        let world = World::new();
        let at = At(Arc::as_ptr(&world));
        let csd = Arc::new(Csd::new(move || at.count()));
        let senders = [(), ()].map(|()| {
            let (csd, world) = (csd.clone(), world.clone());
            thread::spawn(move || post(&csd, &world))
        });
        let posted = senders.map(|sender| sender.join().unwrap());
        assert_ne!(posted[0], posted[1]);
        world.run_until(1);
        assert!(!csd.is_queued());
    });
}

#[test]
fn e3_a_dropped_descriptor_waits_for_its_target() {
    model(|| {
        let world = World::new();
        let at = At(Arc::as_ptr(&world));
        let csd = Box::pin(Csd::new(move || at.count()));
        assert!(post(&csd, &world));
        let target = thread::spawn({
            let world = world.clone();
            move || world.run_until(1)
        });
        drop(csd);
        target.join().unwrap();
    });
}

#[test]
fn e3_who_finds_a_descriptor_free_has_it_back() {
    model(|| {
        let world = World::new();
        let at = At(Arc::as_ptr(&world));
        let csd = Csd::new(move || at.count());
        assert!(post(&csd, &world));
        let target = thread::spawn({
            let world = world.clone();
            move || world.run_until(1)
        });
        while csd.is_queued() {
            thread::yield_now();
        }
        // SAFETY: 1 — free, so ours: loom sees to it.
        unsafe { csd.node.set_run(|_, _| {}) };
        target.join().unwrap();
    });
}

#[test]
fn e2_a_called_descriptor_hands_back_what_its_function_wrote() {
    model(|| {
        let world = World::new();
        let target = thread::spawn({
            let world = world.clone();
            move || {
                while world.queue.looks_empty() {
                    thread::yield_now();
                }
                // SAFETY: 1 — this thread owns the queue.
                unsafe { world.queue.take_all().run(&world.platform.context(0)) };
            }
        });
        let at = At(Arc::as_ptr(&world));
        let csd = Csd::new(move || at.count());
        let panicked = CsdPanic::<Loom>::new();
        assert!(csd.try_lock());
        // SAFETY: 1 — waited for below; 2 — a `Loom` runs it.
        unsafe { csd.push_call::<Loom>(&world.queue, &panicked) }.unwrap();
        while !csd.is_done() {
            thread::yield_now();
        }
        assert_eq!(world.written.get(), 1);
        assert_eq!(panicked.take(), None);
        target.join().unwrap();
    });
}
