//! Loom models of a whole area that opens: E11 over mailbox, queue and request.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use super::Area;
use crate::bell::{RUNG, Ring};
use crate::cpu::{CpuId, CpuMask};
use crate::job::Outcome;
use crate::mailbox::Payload;
use crate::queue::Context;
use crate::record::Record;
use crate::testing::{Loom, Plain, model};

/// A target's area and its source's; what ran.
struct World {
    platform: Loom,
    target: Area<1, 1>,
    source: Area<1, 1>,
    runs: Plain,
}

/// Counts a broadcast.
///
/// # Safety
/// As [`crate::broadcast::BroadcastFn`]; the data is the count.
unsafe fn count(_context: &Context, data: *const ()) {
    // SAFETY: 1 — prepared with this function, alive as the world is.
    unsafe { &*data.cast::<Plain>() }.add(1);
}

/// Counts a call by mailbox.
///
/// # Safety
/// As [`crate::mailbox::MailFn`]; the payload is the count's address.
unsafe fn count_mail(_context: &Context, payload: *mut Payload) {
    // SAFETY: 1 — published with this function, ours.
    let count = unsafe { *payload.cast::<*const Plain>() };
    // SAFETY: 1 — alive as the world is.
    unsafe { &*count }.add(1);
}

/// What a source that published came away with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It took the call back, or was refused at once.
    Refused,
    /// The target has it.
    Accepted,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            platform: Loom::new(),
            target: Area::new(),
            source: Area::new(),
            runs: Plain::new(),
        })
    }

    fn context(&self) -> Context {
        Context {
            area: (&raw const self.target).cast(),
            ..self.platform.context(0)
        }
    }

    fn drain(&self) {
        // SAFETY: 1, 2 — the models' one target; source 1 is the only one.
        unsafe { self.target.drain(&self.context(), |_| &self.source) };
    }

    fn drain_at_the_edge(&self) {
        // SAFETY: 1, 2 — as above.
        unsafe {
            self.target
                .drain_at_the_edge(&self.context(), |_| &self.source);
        }
    }

    fn mail(&self) -> Fate {
        let mailbox = &self.target.mail[0];
        let count = &raw const self.runs;
        let fill = |payload: *mut Payload| {
            // SAFETY: an address fits the payload, which is ours now.
            unsafe { payload.cast::<*const Plain>().write(count) };
        };
        // SAFETY: 1 — one source; 2 — `count_mail` expects the address.
        unsafe { mailbox.publish(count_mail, fill) };
        if self.target.bell.ring() == Ring::Closed && mailbox.retract() {
            Fate::Refused
        } else {
            Fate::Accepted
        }
    }

    fn broadcast(&self) -> Fate {
        let (source, target) = (CpuId::new(1), CpuId::new(0));
        let data = (&raw const self.runs).cast();
        // SAFETY: 1 — one source, once; 2 — the world outlives the threads.
        unsafe {
            self.source
                .broadcast
                .prepare(count, data, &CpuMask::of(target));
        }
        self.target.requests.request(source);
        if self.target.bell.ring() == Ring::Closed && self.target.requests.retract(source) {
            self.source.broadcast.finish(target);
            Fate::Refused
        } else {
            Fate::Accepted
        }
    }

    /// A target that opens, and drains once more as a late IPI would make it, against a source.
    fn opens_against(publish: impl Fn(&Self) -> Fate + Sync + Send + Copy + 'static) {
        model(move || {
            let world = Self::new();
            let source = thread::spawn({
                let world = world.clone();
                move || publish(&world)
            });
            world.target.open();
            world.drain_at_the_edge();
            world.drain();
            let fate = source.join().unwrap();
            let ran = world.runs.get();
            if fate == Fate::Refused {
                assert_eq!(ran, 0, "taken back and run");
            } else if ran == 0 {
                assert_eq!(world.target.bell.look(), RUNG, "accepted and lost");
                world.drain();
                assert_eq!(world.runs.get(), 1);
            } else {
                assert_eq!(ran, 1, "run twice");
            }
        });
    }
}

#[test]
fn e11_a_mailed_call_to_a_cpu_that_opens_is_retracted_or_run_once() {
    World::opens_against(World::mail);
}

#[test]
fn e11_a_request_to_a_cpu_that_opens_is_retracted_or_run_once() {
    World::opens_against(World::broadcast);
}

#[test]
fn e11_a_call_queued_while_a_cpu_opens_is_not_lost() {
    model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || {
                let record = Box::new(Record::<_, Outcome<Loom, ()>>::new({
                    let world = world.clone();
                    move || world.runs.add(1)
                }));
                // SAFETY: 1 — it is kept until the end of the model; 2 — a `Loom` runs it.
                let pushed = unsafe { record.push::<Loom, ()>(&world.target.queues.waited) };
                pushed.is_ok().then(|| (record, world.target.bell.ring()))
            }
        });
        world.target.open();
        world.drain_at_the_edge();
        let accepted = source.join().unwrap();
        let ran = world.runs.get();
        if accepted.is_none() {
            assert_eq!(ran, 0);
        } else if ran == 0 {
            assert_eq!(world.target.bell.look(), RUNG, "accepted and lost");
            world.drain();
            assert_eq!(world.runs.get(), 1);
        }
    });
}
