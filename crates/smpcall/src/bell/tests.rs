//! Loom models of the doorbell: E7, E8, E9, E60, the parking handshake (E18) with a modelled futex, and an
//! armed CPU (E61) with a modelled file descriptor.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::{ARMED, Bell, CLOSED, PARKED, POLLING, QUIET, RUNG, Ring};
use crate::mailbox::{Mailbox, Payload};
use crate::queue::{Context, Node, Queue};
use crate::sync::Ordering;
use crate::testing::{Loom, Plain, model};
use core::ptr::NonNull;

/// A doorbell and what can be published beside it.
struct World {
    platform: Loom,
    bell: Bell,
    mail: Mailbox,
    queue: Queue,
    node: Node,
    data: Plain,
    ran: Plain,
    /// The kernel's side of a futex: its lock, and where waiters sleep.
    futex: (Mutex<()>, Condvar),
    /// The descriptor of an armed CPU: how often it was signalled, and who sleeps on it.
    signal: (Mutex<u32>, Condvar),
}

// SAFETY: every part is used under its own protocol; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// Doubles the number in the line.
///
/// # Safety
/// As [`crate::mailbox::MailFn`].
unsafe fn double(_context: &Context, payload: *mut Payload) {
    // SAFETY: the payload is the number that `publish` wrote, and ours.
    unsafe { *payload.cast::<u64>() *= 2 };
}

/// Counts in the plain memory that the context's platform stands for.
///
/// # Safety
/// As [`crate::queue::NodeFn`]; the context is [`World::take_and_run`]'s.
unsafe fn count(context: &Context, _node: NonNull<Node>) {
    // SAFETY: the context's, by 1.
    let ran = unsafe { &*context.platform.cast::<Plain>() };
    ran.add(1);
}

impl World {
    /// Open, quiet or polling.
    fn new(mode: u32) -> Arc<Self> {
        let world = Self {
            platform: Loom::new(),
            bell: Bell::new(),
            mail: Mailbox::new(),
            queue: Queue::new(),
            node: Node::new(),
            data: Plain::new(),
            ran: Plain::new(),
            futex: (Mutex::new(()), Condvar::new()),
            signal: (Mutex::new(0), Condvar::new()),
        };
        world.queue.open();
        world.bell.open();
        world.bell.take(mode);
        Arc::new(world)
    }

    /// Source: fills the line and does not ring.
    fn publish(&self) {
        let fill = |payload: *mut Payload| {
            // SAFETY: a number fits the payload, which is ours now.
            unsafe { payload.cast::<u64>().write(21) };
        };
        // SAFETY: 1 — the model has one source; 2 — `double` expects a number.
        unsafe { self.mail.publish(double, fill) };
    }

    /// Owner: serves the line.
    fn serve(&self) -> bool {
        // SAFETY: 1 — the model's one target.
        unsafe { self.mail.serve(&self.platform.context(0)) }
    }

    fn push(&self) {
        // SAFETY: 1 — in no queue yet.
        unsafe { self.node.set_run(count) };
        // SAFETY: 1, 2 — pushed once, lives as long as the world.
        unsafe { self.queue.push(NonNull::from(&self.node)) }.unwrap();
    }

    /// Owner: runs what is queued.
    fn take_and_run(&self) {
        let context = Context {
            platform: core::ptr::from_ref(&self.ran).cast(),
            ..self.platform.context(0)
        };
        // SAFETY: 1 — the model's one target.
        unsafe { self.queue.take_all().run(&context) };
    }

    /// Source: a futex wake.
    fn futex_wake(&self) {
        let _bucket = self.futex.0.lock().unwrap();
        self.futex.1.notify_all();
    }

    /// Owner: a futex wait. The kernel looks at the word under the lock that a wake takes.
    fn futex_wait(&self, value: u32) {
        let mut bucket = self.futex.0.lock().unwrap();
        while self.bell.look() == value {
            bucket = self.futex.1.wait(bucket).unwrap();
        }
    }
}

impl World {
    /// Source: a write to the descriptor.
    fn signal(&self) {
        *self.signal.0.lock().unwrap() += 1;
        self.signal.1.notify_all();
    }

    /// Owner: sleeps until the descriptor is readable, and leaves it so.
    fn sleep_on_signal(&self) {
        let mut signals = self.signal.0.lock().unwrap();
        while *signals == 0 {
            signals = self.signal.1.wait(signals).unwrap();
        }
    }

    /// Owner: a read of the descriptor.
    fn clear_signal(&self) {
        *self.signal.0.lock().unwrap() = 0;
    }
}

#[test]
fn e7_ring_publishes_what_was_queued() {
    model(|| {
        let world = World::new(QUIET);
        let sender = thread::spawn({
            let world = world.clone();
            move || {
                world.data.set(1);
                world.bell.ring()
            }
        });
        while !world.bell.is_rung() {
            thread::yield_now();
        }
        world.bell.take(QUIET);
        assert_eq!(world.data.get(), 1);
        assert_eq!(sender.join().unwrap(), Ring::Kick);
    });
}

#[test]
fn e7_a_ring_on_a_rung_bell_is_not_lost() {
    model(|| {
        let world = World::new(QUIET);
        let nudger = thread::spawn({
            let world = world.clone();
            move || world.bell.ring()
        });
        let sender = thread::spawn({
            let world = world.clone();
            move || {
                world.push();
                world.bell.ring()
            }
        });
        for _ in 0..2 {
            if world.bell.is_rung() {
                world.bell.take(QUIET);
                world.take_and_run();
            }
            thread::yield_now();
        }
        let rings = [nudger.join().unwrap(), sender.join().unwrap()];
        assert!(rings.contains(&Ring::Kick));
        let ran = world.ran.get() == 1;
        assert!(ran || world.bell.look() == RUNG, "nobody will look again");
    });
}

#[test]
fn e7_what_was_rung_for_is_seen_by_the_close() {
    model(|| {
        let world = World::new(QUIET);
        let source = thread::spawn({
            let world = world.clone();
            move || {
                world.publish();
                world.bell.ring() == Ring::Closed && world.mail.retract()
            }
        });
        world.bell.close();
        // SAFETY: 1 — the model's one target.
        unsafe { world.mail.claim_and_serve(&world.platform.context(0)) };
        let retracted = source.join().unwrap();
        assert!(retracted || world.mail.is_done(), "the call waits for ever");
    });
}

#[test]
fn two_rings_of_a_quiet_cpu_kick_once() {
    model(|| {
        let world = World::new(QUIET);
        let senders = [(), ()].map(|()| {
            let world = world.clone();
            thread::spawn(move || world.bell.ring())
        });
        let rings = senders.map(|sender| sender.join().unwrap());
        assert_eq!(rings.iter().filter(|&&ring| ring == Ring::Kick).count(), 1);
        assert_eq!(rings.iter().filter(|&&ring| ring == Ring::Heard).count(), 1);
    });
}

/// A source that does not ring, because the target seemed to poll, against a target that stops.
fn silent_source_against(stop: impl Fn(&World) + Sync + Send + Copy + 'static) {
    model(move || {
        let world = World::new(POLLING);
        let source = thread::spawn({
            let world = world.clone();
            move || {
                world.publish();
                let ring = world.bell.ring_unless_polling();
                ring == Ring::Closed && world.mail.retract()
            }
        });
        stop(&world);
        let retracted = source.join().unwrap();
        assert!(
            retracted || world.mail.is_done() || world.bell.look() == RUNG,
            "the call waits for ever"
        );
    });
}

#[test]
fn e8_a_cpu_that_goes_back_to_work_sees_a_silent_call() {
    silent_source_against(|world| {
        if !world.bell.stop_polling(POLLING, QUIET) || world.mail.looks_called() {
            world.bell.take(QUIET);
            world.serve();
        }
    });
}

#[test]
fn e8_a_cpu_that_goes_to_sleep_sees_a_silent_call() {
    silent_source_against(|world| {
        if !world.bell.stop_polling(POLLING, PARKED) || world.mail.looks_called() {
            world.bell.take(POLLING);
            world.serve();
        }
    });
}

#[test]
fn e8_a_cpu_that_closes_sees_a_silent_call() {
    silent_source_against(|world| {
        world.bell.close();
        // SAFETY: 1 — the model's one target.
        unsafe { world.mail.claim_and_serve(&world.platform.context(0)) };
    });
}

#[test]
fn e9_who_finds_the_bell_closed_sees_what_ran_before() {
    model(|| {
        let world = World::new(QUIET);
        let sender = thread::spawn({
            let world = world.clone();
            move || {
                if world.bell.ring() == Ring::Closed {
                    assert_eq!(world.ran.get(), 1);
                }
            }
        });
        world.ran.set(1);
        // Without the fence of `close`: loom does not stop a thread between an exchange and a fence
        // after it, so that the fence would hide what the exchange alone must publish.
        world.bell.shut();
        sender.join().unwrap();
        assert_eq!(world.bell.look(), CLOSED);
    });
}

#[test]
fn e18_a_parked_cpu_is_woken_by_a_call() {
    model(|| {
        let world = World::new(POLLING);
        let source = thread::spawn({
            let world = world.clone();
            move || {
                world.publish();
                match world.bell.ring_unless_polling() {
                    Ring::Wake => world.futex_wake(),
                    Ring::Heard | Ring::Kick => {}
                    Ring::Signal | Ring::Closed => unreachable!("nobody arms or closes here"),
                }
            }
        });
        // What `idle_park` does, until the call has run: a wake-up that is lost is a deadlock.
        let mut served = false;
        while !served {
            if world.bell.stop_polling(POLLING, PARKED) && !world.mail.looks_called() {
                world.futex_wait(PARKED);
            }
            world.bell.take(POLLING);
            served = world.serve();
            thread::yield_now();
        }
        source.join().unwrap();
        assert!(world.mail.is_done());
    });
}

#[test]
fn e8_a_cpu_that_arms_hears_of_a_silent_call() {
    silent_source_against(|world| {
        if !world.bell.stop_polling(POLLING, QUIET) || world.mail.looks_called() {
            world.bell.take(QUIET);
            world.serve();
        }
        if !world.bell.arm() {
            world.bell.take(ARMED);
            world.serve();
        }
    });
}

/// Who signals a CPU needs what that CPU prepared before it armed.
fn signaller_against(arm: impl Fn(&World) + Sync + Send + Copy + 'static) {
    model(move || {
        let world = World::new(QUIET);
        let sender = thread::spawn({
            let world = world.clone();
            move || {
                if world.bell.ring() == Ring::Signal {
                    assert_eq!(world.data.get(), 1);
                }
            }
        });
        world.data.set(1);
        arm(&world);
        sender.join().unwrap();
    });
}

#[test]
fn e60_who_finds_a_cpu_armed_sees_what_it_prepared() {
    signaller_against(|world| {
        world.bell.arm();
    });
}

#[test]
fn e60_who_finds_a_cpu_armed_by_its_drain_sees_what_it_prepared() {
    signaller_against(|world| {
        // Armed or rung: the drain leaves it armed.
        world.bell.arm();
        world.bell.take(ARMED);
    });
}

#[test]
fn e61_an_armed_cpu_that_sleeps_is_signalled() {
    model(|| {
        let world = World::new(QUIET);
        let source = thread::spawn({
            let world = world.clone();
            move || {
                world.publish();
                match world.bell.ring_unless_polling() {
                    Ring::Signal => world.signal(),
                    Ring::Heard | Ring::Kick => {}
                    Ring::Wake | Ring::Closed => unreachable!("nobody parks or closes here"),
                }
            }
        });
        // What an event loop does, until the call has run: a signal that is lost is a deadlock.
        let mut served = false;
        while !served {
            if world.bell.arm() && !world.mail.looks_called() {
                world.sleep_on_signal();
            }
            world.clear_signal();
            world.bell.take(QUIET);
            served = world.serve();
            thread::yield_now();
        }
        source.join().unwrap();
        assert!(world.mail.is_done());
    });
}

#[test]
fn e70_who_kicks_a_cpu_sees_what_it_did_before_it_opened() {
    model(|| {
        let world = World::new(QUIET);
        world.bell.close();
        let sender = thread::spawn({
            let world = world.clone();
            move || {
                if world.bell.ring() == Ring::Kick {
                    // The platform's, in `send_ipi`.
                    loom::sync::atomic::fence(Ordering::Acquire);
                    assert_eq!(world.data.get(), 1);
                }
            }
        });
        world.data.set(1);
        world.bell.open();
        // The chain of exchanges carries it on.
        world.bell.take(QUIET);
        sender.join().unwrap();
    });
}
