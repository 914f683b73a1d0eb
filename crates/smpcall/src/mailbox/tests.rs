//! Loom models of the mailbox: E4, E5, the line's change of owner (E6), retract and claim (E10).
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use super::{Mailbox, Payload};
use crate::queue::Context;
use crate::testing::{Loom, Plain, model};

/// A line, its target's platform, and what the call touches beside the line.
struct World {
    platform: Loom,
    mail: Mailbox,
    runs: Plain,
}

// SAFETY: every part is used under the line's protocol; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// What travels: a number, and where to count.
type Words = (u64, *const Plain);

/// Counts the run and doubles the number.
///
/// # Safety
/// As [`super::MailFn`]; the payload is [`Words`].
unsafe fn double(_context: &Context, payload: *mut Payload) {
    // SAFETY: published with this function, and ours.
    let words = unsafe { &mut *payload.cast::<Words>() };
    words.0 *= 2;
    // SAFETY: the world outlives the call.
    unsafe { &*words.1 }.add(1);
}

impl World {
    /// A line that source 0 owns.
    fn new() -> Arc<Self> {
        let world = Self {
            platform: Loom::new(),
            mail: Mailbox::new(),
            runs: Plain::new(),
        };
        assert!(world.mail.try_own(0) && world.mail.is_owned_by(0));
        Arc::new(world)
    }

    fn publish(&self, number: u64) {
        let words: Words = (number, &raw const self.runs);
        let fill = |payload: *mut Payload| {
            // SAFETY: the words fit the payload, which is ours now.
            unsafe { payload.cast::<Words>().write(words) };
        };
        // SAFETY: 1 — the caller owns the line; 2 — `double` expects `Words`.
        unsafe { self.mail.publish(double, fill) };
    }

    fn number(&self) -> u64 {
        self.mail
            // SAFETY: the call is done or was taken back: the line is the source's.
            .payload(|payload| unsafe { (*payload.cast::<Words>()).0 })
    }

    /// Source: calls and waits.
    fn call(&self, number: u64) -> u64 {
        self.publish(number);
        while !self.mail.is_done() {
            thread::yield_now();
        }
        self.number()
    }

    fn serve(&self) -> bool {
        // SAFETY: 1 — the model's one target.
        unsafe { self.mail.serve(&self.platform.context(0)) }
    }

    fn claim_and_serve(&self) {
        // SAFETY: 1 — the model's one target.
        unsafe { self.mail.claim_and_serve(&self.platform.context(0)) };
    }

    fn serve_until_served(&self) {
        while !self.serve() {
            thread::yield_now();
        }
    }
}

#[test]
fn e4_publish_hands_the_line_to_the_target() {
    model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || world.publish(21)
        });
        world.serve_until_served();
        source.join().unwrap();
        assert_eq!((world.number(), world.runs.get()), (42, 1));
    });
}

#[test]
fn e4_claim_hands_the_line_to_the_target() {
    model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || world.publish(21)
        });
        while !world.mail.looks_called() {
            thread::yield_now();
        }
        world.claim_and_serve();
        source.join().unwrap();
        assert_eq!((world.number(), world.runs.get()), (42, 1));
    });
}

#[test]
fn e5_idle_hands_the_result_to_the_source() {
    model(|| {
        let world = World::new();
        let target = thread::spawn({
            let world = world.clone();
            move || world.serve_until_served()
        });
        assert_eq!((world.call(21), world.runs.get()), (42, 1));
        assert_eq!(world.mail.owner(), Some(0));
        target.join().unwrap();
    });
}

#[test]
fn e6_a_line_that_was_let_go_is_free_of_its_last_owner() {
    model(|| {
        let world = World::new();
        let next = thread::spawn({
            let world = world.clone();
            move || {
                while !world.mail.try_own(1) {
                    thread::yield_now();
                }
                world.publish(5);
                assert!(world.mail.retract());
                world.number()
            }
        });
        // A call that the target took no part in: the line was used by this source alone.
        world.publish(4);
        assert!(world.mail.retract());
        assert_eq!(world.number(), 4);
        world.mail.disown();
        assert_eq!(next.join().unwrap(), 5);
        assert!(world.mail.is_owned_by(1));
    });
}

#[test]
fn two_sources_cannot_own_one_line() {
    model(|| {
        let world = World::new();
        world.mail.disown();
        let others = [1, 2].map(|source| {
            let world = world.clone();
            thread::spawn(move || world.mail.try_own(source))
        });
        let owns = others.map(|other| other.join().unwrap());
        assert_ne!(owns[0], owns[1]);
        assert_eq!(world.mail.owner(), Some(if owns[0] { 1 } else { 2 }));
    });
}

#[test]
fn e10_exactly_one_of_retract_and_claim_gets_the_call() {
    model(|| {
        let world = World::new();
        let target = thread::spawn({
            let world = world.clone();
            move || world.claim_and_serve()
        });
        world.publish(21);
        let retracted = world.mail.retract();
        if retracted {
            assert_eq!(world.number(), 21);
        } else {
            while !world.mail.is_done() {
                thread::yield_now();
            }
            assert_eq!(world.number(), 42);
        }
        target.join().unwrap();
        assert_eq!(world.runs.get(), u32::from(!retracted));
    });
}

#[test]
fn e10_a_call_after_a_retracted_one_is_claimed_with_its_own_words() {
    model(|| {
        let world = World::new();
        let target = thread::spawn({
            let world = world.clone();
            move || world.claim_and_serve()
        });
        // The same function again, so that the word alone cannot tell the two calls apart.
        world.publish(1);
        let first = world.mail.retract();
        if first {
            world.publish(2);
        }
        target.join().unwrap();
        let ran = world.mail.is_done();
        let expected = if first { 2 } else { 1 };
        assert_eq!(world.number(), if ran { 2 * expected } else { expected });
        assert_eq!(world.runs.get(), u32::from(ran));
    });
}
