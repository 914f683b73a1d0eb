//! Loom models of the pool: E15, and that a node has one user.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use super::Pool;
use crate::testing::model;
use core::ptr::NonNull;

/// Writes a number into a claimed node, reads it back later.
fn put(pool: &Pool<1>, number: usize) -> bool {
    pool.claim().is_some_and(|slot| {
        slot.words
            // SAFETY: claimed: ours.
            .with_mut(|words| unsafe { (*words)[0].write(number) });
        true
    })
}

/// Reads the node's number and frees it.
fn take(pool: &Pool<1>) -> usize {
    let slot = &pool.nodes[0];
    // SAFETY: the caller was handed the node.
    let words = slot.words.with(|words| unsafe { *words });
    pool.free(NonNull::from(slot));
    // SAFETY: a number was written.
    unsafe { words[0].assume_init() }
}

/// A pool that threads share.
struct World(Pool<1>);
// SAFETY: the pool's protocol gives each node to one side at a time; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

#[test]
fn e15_a_node_is_claimed_only_after_the_last_closure_was_read() {
    model(|| {
        let world = Arc::new(World(Pool::new()));
        assert!(put(&world.0, 1));
        let target = thread::spawn({
            let world = world.clone();
            move || take(&world.0)
        });
        while !put(&world.0, 2) {
            thread::yield_now();
        }
        assert_eq!(target.join().unwrap(), 1);
        assert_eq!(take(&world.0), 2);
    });
}

#[test]
fn a_full_lane_refuses_and_two_senders_never_share_a_node() {
    model(|| {
        let world = Arc::new(World(Pool::new()));
        let senders = [1, 2].map(|number| {
            let world = world.clone();
            thread::spawn(move || put(&world.0, number))
        });
        let put = senders.map(|sender| sender.join().unwrap());
        assert_ne!(put[0], put[1]);
        assert_eq!(take(&world.0), if put[0] { 1 } else { 2 });
    });
}
