//! Loom models of the waited record: E2.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use super::Record;
use crate::job::Outcome;
use crate::queue::Queue;
use crate::testing::{Loom, Plain, model};

/// A queue that threads share.
struct World {
    platform: Loom,
    queue: Queue,
    written: Plain,
}

// SAFETY: the queue's nodes are one side's at a time; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

#[test]
fn e2_done_publishes_the_outcome_and_frees_the_stack() {
    model(|| {
        let world = Arc::new(World {
            platform: Loom::new(),
            queue: Queue::new(),
            written: Plain::new(),
        });
        world.queue.open();
        let caller = thread::spawn({
            let world = world.clone();
            move || {
                let input = 20;
                let closure = || {
                    world.written.set(1);
                    input + 1
                };
                let record = Record::<_, Outcome<Loom, u32>>::new(closure);
                // SAFETY: 1 — waited for below; 2 — the target's context is a `Loom`'s.
                unsafe { record.push::<Loom, u32>(&world.queue) }.unwrap();
                while !record.is_done() {
                    thread::yield_now();
                }
                assert_eq!(world.written.get(), 1);
                // SAFETY: 1 — done.
                unsafe { record.into_outcome() }
            }
        });
        while world.queue.looks_empty() {
            thread::yield_now();
        }
        // SAFETY: 1 — this thread owns the queue.
        unsafe { world.queue.take_all().run(&world.platform.context(0)) };
        assert_eq!(caller.join().unwrap(), Ok(21));
    });
}
