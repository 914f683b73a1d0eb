//! The ring of the limit `spsc64`: one producer, one consumer, a cache line per slot.
//!
//! Each slot carries its own full-or-empty word, so a message is one line there; the line that
//! comes back empty is asked for a lap later, when it has long arrived.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots; a lap is long enough that the two sides do not meet.
const SLOTS: u64 = 64;

#[derive(Default)]
#[repr(align(64))]
struct Slot {
    /// `2 * lap`: empty in that lap; one more: full.
    state: AtomicU64,
    words: UnsafeCell<[u64; 3]>,
}

// SAFETY: `state` hands the words to one side at a time.
unsafe impl Sync for Slot {}

/// A new ring.
pub(crate) fn ring() -> (Producer, Consumer) {
    let slots: Arc<[Slot]> = (0..SLOTS).map(|_| Slot::default()).collect();
    let producer = Producer {
        slots: Arc::clone(&slots),
        next: 0,
    };
    (producer, Consumer { slots, next: 0 })
}

/// The side that fills.
pub(crate) struct Producer {
    slots: Arc<[Slot]>,
    next: u64,
}

impl Producer {
    /// Fills the next slot; waits for it if it is still full.
    pub(crate) fn push(&mut self, words: [u64; 3]) {
        let slot = &self.slots[(self.next % SLOTS) as usize];
        let lap = self.next / SLOTS;
        // ORDERING: Acquire — the consumer is done with the words.
        while slot.state.load(Ordering::Acquire) != 2 * lap {}
        // SAFETY: empty: ours.
        unsafe { *slot.words.get() = words };
        // ORDERING: Release — publishes the words.
        slot.state.store(2 * lap + 1, Ordering::Release);
        self.next += 1;
    }

    /// Waits until everything was taken.
    pub(crate) fn drain(&self) {
        let Some(last) = self.next.checked_sub(1) else {
            return;
        };
        let slot = &self.slots[(last % SLOTS) as usize];
        // ORDERING: Acquire — everything was taken before.
        while slot.state.load(Ordering::Acquire) != 2 * (last / SLOTS) + 2 {}
    }
}

/// The side that empties.
pub(crate) struct Consumer {
    slots: Arc<[Slot]>,
    next: u64,
}

impl Consumer {
    /// Takes the next message; waits for it.
    pub(crate) fn pop(&mut self) -> [u64; 3] {
        let slot = &self.slots[(self.next % SLOTS) as usize];
        let lap = self.next / SLOTS;
        // ORDERING: Acquire — sees the words.
        while slot.state.load(Ordering::Acquire) != 2 * lap + 1 {}
        // SAFETY: full: ours.
        let words = unsafe { *slot.words.get() };
        // ORDERING: Release — we are done with the words.
        slot.state.store(2 * lap + 2, Ordering::Release);
        self.next += 1;
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_order_over_several_laps() {
        let (mut producer, mut consumer) = ring();
        for i in 0..5 * SLOTS {
            producer.push([i, i + 1, i + 2]);
            assert_eq!(consumer.pop(), [i, i + 1, i + 2]);
        }
        producer.drain();
    }
}
