//! Loom models of tickets: the slot's change of hands (E22), the result (E23), the waker (E24).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use loom::thread;

use super::{Core, FREE, Ticket, TicketSlot};
use crate::cpu::CpuId;
use crate::sync::{AtomicU32, Ordering};
use crate::testing::{Loom, Plain, large_model, model};

/// A slot whose call is finished by hand, as the target does.
struct World {
    platform: Loom,
    slot: TicketSlot<Loom, u32>,
    written: Plain,
}

// SAFETY: every part is used under the slot's protocol; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            platform: Loom::new(),
            slot: TicketSlot::new(),
            written: Plain::new(),
        })
    }

    fn core(&self) -> &Core<Loom, u32> {
        &self.slot.core
    }

    /// Sender: (1), without the queue.
    fn submit(&self) -> Option<Ticket<'_, Loom, u32>> {
        self.core().try_lock().then(|| Ticket {
            core: Some(self.core()),
            platform: &self.platform,
            target: CpuId::new(0),
        })
    }

    /// Target: the call's end.
    fn finish(&self, result: u32) {
        // SAFETY: 1 — the model submitted once for each finish.
        unsafe { self.core().put(Ok(result)) };
        // SAFETY: 1 — put just now.
        unsafe { self.core().finish(&self.platform, CpuId::new(0)) };
    }
}

/// Counts its wake-ups.
struct Bells(AtomicU32);

impl Wake for Bells {
    fn wake(self: Arc<Self>) {
        // ORDERING: AcqRel — as an executor's own wake-up would.
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn e22_a_slot_is_submitted_again_only_when_the_last_call_is_through_with_it() {
    model(|| {
        let world = World::new();
        let ticket = world.submit().unwrap();
        let target = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                world.written.set(1);
                world.finish(7);
            }
        });
        // Nobody wants it: the target drops the result and frees the slot.
        drop(ticket);
        loop {
            if let Some(next) = world.submit() {
                assert_eq!(world.written.get(), 1);
                world.finish(8);
                assert_eq!(next.try_take().unwrap(), Ok(8));
                break;
            }
            thread::yield_now();
        }
        target.join().unwrap();
    });
}

#[test]
fn e22_a_dropped_ticket_is_through_with_its_waker_before_the_slot_goes_on() {
    model(|| {
        let world = World::new();
        let mut ticket = world.submit().unwrap();
        let bells = Arc::new(Bells(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&bells));
        let pending = Pin::new(&mut ticket).poll(&mut TaskContext::from_waker(&waker));
        assert!(pending.is_pending());
        let target = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                world.finish(7);
                // The next user, if the slot is free, has the waker's cell to itself.
                if let Some(mut next) = world.submit() {
                    let polled =
                        Pin::new(&mut next).poll(&mut TaskContext::from_waker(Waker::noop()));
                    assert!(polled.is_pending());
                    world.finish(9);
                }
            }
        });
        drop(ticket);
        target.join().unwrap();
        assert_eq!(world.core().look(), FREE);
    });
}

#[test]
fn e23_the_ticket_sees_the_result_and_what_the_function_wrote() {
    model(|| {
        let world = World::new();
        let mut ticket = world.submit().unwrap();
        let target = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                world.written.set(5);
                world.finish(7);
            }
        });
        let result = loop {
            match ticket.try_take() {
                Ok(result) => break result,
                Err(again) => ticket = again,
            }
            thread::yield_now();
        };
        assert_eq!(result, Ok(7));
        assert_eq!(world.written.get(), 5);
        assert_eq!(world.core().look(), FREE);
        target.join().unwrap();
    });
}

#[test]
fn e24_the_waker_of_a_poll_is_woken_once_and_the_result_is_there_then() {
    model(|| {
        let world = World::new();
        let mut ticket = world.submit().unwrap();
        let bells = Arc::new(Bells(AtomicU32::new(0)));
        let target = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                world.written.set(5);
                world.finish(7);
            }
        });
        let waker = Waker::from(Arc::clone(&bells));
        let polled = Pin::new(&mut ticket).poll(&mut TaskContext::from_waker(&waker));
        let result = match polled {
            Poll::Ready(result) => result,
            Poll::Pending => {
                // ORDERING: Acquire — as an executor's own look.
                while bells.0.load(Ordering::Acquire) == 0 {
                    thread::yield_now();
                }
                match Pin::new(&mut ticket).poll(&mut TaskContext::from_waker(&waker)) {
                    Poll::Ready(result) => result,
                    Poll::Pending => panic!("woken before the result was there"),
                }
            }
        };
        assert_eq!(result, Ok(7));
        assert_eq!(world.written.get(), 5);
        target.join().unwrap();
        // ORDERING: Relaxed — joined.
        assert!(bells.0.load(Ordering::Relaxed) <= 1);
    });
}

#[test]
fn e24_a_poll_with_another_waker_beside_the_end_loses_no_wake_up() {
    // Bounded: the poller spins while the target is between claim and done.
    large_model(|| {
        let world = World::new();
        let mut ticket = world.submit().unwrap();
        let first = Arc::new(Bells(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&first));
        let polled = Pin::new(&mut ticket).poll(&mut TaskContext::from_waker(&waker));
        assert!(polled.is_pending());
        let target = thread::spawn({
            let world = Arc::clone(&world);
            move || world.finish(7)
        });
        let second = Arc::new(Bells(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&second));
        let mut polled = Pin::new(&mut ticket).poll(&mut TaskContext::from_waker(&waker));
        while polled.is_pending() {
            // ORDERING: Acquire — as an executor's own look.
            while second.0.swap(0, Ordering::AcqRel) == 0 {
                thread::yield_now();
            }
            // A poll beside the end wakes itself: the target must get on.
            thread::yield_now();
            polled = Pin::new(&mut ticket).poll(&mut TaskContext::from_waker(&waker));
        }
        assert_eq!(polled, Poll::Ready(Ok(7)));
        target.join().unwrap();
        assert!(world.slot.is_free());
    });
}
