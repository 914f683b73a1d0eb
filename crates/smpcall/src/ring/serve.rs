//! The target's side of the post ring.

use core::ptr::NonNull;

use super::{LOOK_AHEAD, PostRing, QUEUE_FIRST, SLOTS, Slot};
use crate::queue::{Chain, Context, Detached, Node};
use crate::sync::{Ordering, mutant, ord};

impl PostRing {
    /// Target: how many posts it has taken.
    #[inline]
    fn number_taken(&self) -> u32 {
        // ORDERING: Relaxed — the target's own word.
        self.target.taken.load(Ordering::Relaxed)
    }

    /// Target: one more is taken, (2).
    #[inline]
    fn count_taken(&self) {
        let taken = self.number_taken().wrapping_add(1);
        // ORDERING: Relaxed — the target's own word.
        self.target.taken.store(taken, Ordering::Relaxed);
        // ORDERING: Relaxed — as above.
        if taken == self.target.show_at.load(Ordering::Relaxed) {
            // ORDERING: Release — our reads of the slots are over; pairs with `look_how_far` (E41).
            self.taken.store(taken, ord!("e41_taken_relaxed", Release));
        }
    }

    /// Target: it is about to take so many, and shows the last.
    #[inline]
    fn show_after(&self, count: u32) {
        let last = self.number_taken().wrapping_add(count);
        // ORDERING: Relaxed — the target's own word.
        self.target.show_at.store(last, Ordering::Relaxed);
    }

    /// Target: is a call waiting here? A hint for idle loops.
    #[inline]
    pub(crate) fn looks_filled(&self) -> bool {
        self.has_number(self.number_taken().wrapping_add(1)) || !self.overflow.looks_empty()
    }

    /// Target: is the post with this number in its slot?
    #[inline]
    fn has_number(&self, number: u32) -> bool {
        // ORDERING: Relaxed — `run_slot` acquires.
        self.slot(number).stamp.load(Ordering::Relaxed) as u32 == number
    }

    /// Target: moves out what the slot holds, so that the slot may be filled again, (2).
    ///
    /// # Safety
    /// 1. The slot was published with a `T`, and its call is being run.
    #[inline]
    pub(crate) unsafe fn take<T>(&self, slot: &Slot) -> T {
        // SAFETY: 1.
        let value = unsafe { slot.read::<T>() };
        self.count_taken();
        value
    }

    /// Target: runs what is here, oldest first; answers how many slots it took. `run_queue` runs the
    /// posted queue. What comes meanwhile is left after a lap, so that nothing else starves.
    ///
    /// # Safety
    /// 1. The context is the one of the CPU that the ring belongs to, which runs this.
    #[inline]
    pub(crate) unsafe fn serve(&self, context: &Context, run_queue: impl Fn()) -> u32 {
        let get = |number| self.count_full(number);
        let take_overflow = || self.overflow.take_all();
        // SAFETY: 1; 2 — published, and nobody retracts from an open target (E11).
        unsafe { self.serve_by(context, SLOTS as u32, get, take_overflow, run_queue) }
    }

    /// Target: how many slots from that of this number on are full, looking at a few: lines that are
    /// still on their way are then on it together.
    #[inline]
    fn count_full(&self, number: u32) -> u32 {
        let mut full = 0;
        while full < LOOK_AHEAD && self.has_number(number.wrapping_add(full)) {
            full += 1;
        }
        full
    }

    /// Target that closes or opens: takes the call in a slot over, unless its source takes it back.
    fn claim(&self, number: u32) -> u32 {
        let slot = self.slot(number);
        let claimed = if mutant!("e42_claim_without_exchange") {
            self.has_number(number)
        } else {
            slot.withdraw(number)
        };
        u32::from(claimed)
    }

    /// Target that opens, before its doorbell does: descriptors may overflow from here on.
    pub(crate) fn open_overflow(&self) {
        self.overflow.open();
    }

    /// Target that has opened its doorbell: as [`Self::serve`], but claims each call first, (3).
    ///
    /// # Safety
    /// As [`Self::serve`].
    pub(crate) unsafe fn claim_and_serve(&self, context: &Context, run_queue: impl Fn()) {
        let take_overflow = || self.overflow.take_all();
        let get = |number| self.claim(number);
        // SAFETY: 1; 2 — the exchange made the call ours.
        unsafe { self.serve_by(context, u32::MAX, get, take_overflow, run_queue) };
    }

    /// Target that has closed its doorbell: as [`Self::claim_and_serve`], and refuses what
    /// overflows later.
    ///
    /// # Safety
    /// As [`Self::serve`].
    pub(crate) unsafe fn close(&self, context: &Context, run_queue: impl Fn()) {
        let take_overflow = || self.overflow.close();
        let get = |number| self.claim(number);
        // SAFETY: 1; 2 — the exchange made the call ours.
        unsafe { self.serve_by(context, u32::MAX, get, take_overflow, run_queue) };
    }

    /// Runs number after number: `most` slots, or all that are full if they are fewer, and all that had
    /// overflowed when this began. So whatever a drain finds runs in it, and no stream of slots holds it.
    ///
    /// # Safety
    /// 1. As [`Self::serve`].
    /// 2. So many posts as `get` answers, from the number on that it is told, are published in their
    ///    slots, and are the target's to run.
    #[inline]
    unsafe fn serve_by(
        &self,
        context: &Context,
        most: u32,
        get: impl Fn(u32) -> u32,
        take_overflow: impl Fn() -> Chain,
        run_queue: impl Fn(),
    ) -> u32 {
        let mut overflowed = Chain::EMPTY;
        let mut has_taken_overflow = false;
        let mut served = 0;
        loop {
            // What overflowed and was taken has to run, whatever comes.
            if served >= most && overflowed.is_empty() {
                if has_taken_overflow || self.overflow.looks_empty() {
                    break;
                }
                overflowed = take_overflow();
                has_taken_overflow = true;
            }
            let number = self.number_taken().wrapping_add(1);
            let full = get(number);
            self.show_after(full);
            for more in 0..full {
                let slot = self.slot(number.wrapping_add(more));
                // SAFETY: 1, 2.
                unsafe { self.run_slot(context, slot, &run_queue) };
            }
            served += full;
            if full > 0 {
                continue;
            }
            if let Some(call) = overflowed.next() {
                self.show_after(1);
                self.count_taken();
                // SAFETY: 1 of `run` — as 1.
                unsafe { call.run(context) };
            } else {
                overflowed = take_overflow();
                has_taken_overflow = true;
                if overflowed.is_empty() {
                    break;
                }
                // Slots that are older than what was just taken are seen full from here on (E44).
                if mutant!("e44_overflow_first")
                    && let Some(call) = overflowed.next()
                {
                    self.show_after(1);
                    self.count_taken();
                    // SAFETY: 1 of `run` — as 1.
                    unsafe { call.run(context) };
                }
            }
        }
        served
    }

    /// Runs the call in a slot.
    ///
    /// # Safety
    /// 1. As [`Self::serve`].
    /// 2. The slot is published, and its call the target's to run.
    #[inline]
    unsafe fn run_slot(&self, context: &Context, slot: &Slot, run_queue: impl Fn()) {
        // ORDERING: Acquire — sees the call; pairs with `publish`, of which a claim's exchange is the
        // continuation (E40).
        let stamp = slot.stamp.load(ord!("e40_serve_relaxed", Acquire));
        // SAFETY: 2 — published, so the function is there.
        let run = slot.call.with(|call| unsafe { (*call).run });
        // SAFETY: 2 — as above.
        let run = unsafe { run.assume_init() };
        let queue_first = stamp & QUEUE_FIRST != 0;
        if queue_first && !mutant!("e45_queue_not_first") {
            run_queue();
        }
        // SAFETY: 1, 2 — published with this function, run once, on its target.
        unsafe { run(context, self, slot) };
    }
}

/// Runs a descriptor that a slot names.
///
/// # Safety
/// As [`SlotFn`]; the slot was published with a `NonNull<Node>` that meets the demands of [`Queue::push`](crate::queue::Queue::push).
pub(crate) unsafe fn run_node(context: &Context, ring: &PostRing, slot: &Slot) {
    // SAFETY: 1 — published with a node's address.
    let node = unsafe { ring.take::<NonNull<Node>>(slot) };
    // SAFETY: 1 — handed over as to a queue.
    let call = unsafe { Detached::handed_over(node) };
    // SAFETY: 1, 2 — it is run this once, on its target.
    unsafe { call.run(context) };
}
