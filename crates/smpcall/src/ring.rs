//! The post ring: 64-byte slots that carry one source's posts to one target.
//!
//! A post back to back need cost no more than one cache line that goes there: the closure, its
//! function and a number lie in one slot. There is one producer, the source that owns the mailbox line
//! beside the ring (its *lease*), so nothing is exchanged. Posts are numbered; the target runs
//! number after number, and a slot that does not have the next number counts as empty, so the target
//! need not write it. How far it is stands in one word, which the source reads when it has used up the
//! room that it last saw.
//!
//! ```text
//!          (1) publish, source: number n      (2) take, target: taken = n
//!   empty ──────────────────────────▶ full ───────────────────────────────▶ empty
//!     ▲     (4) retract, source        │            (3) claim, closing or opening target, then (2)
//!     └────────────────────────────────┘
//! ```
//!
//! Everything that the owner posts to the target from its task context goes this way, descriptors by
//! their address; so its order is that of the numbers. A descriptor that finds the ring full is
//! queued in the *overflow*, a list of the same source, and has a number too: it is its turn when
//! no slot has the next number. What a source posted before it got the ring may still be in the posted
//! queue: its first slot says so, and the target runs that queue first. What it posts after it let
//! the ring go cannot come too early, for only an idle ring is let go.
//! Edges: E40 (1→2, 1→3), E41 (2→1), E42 (3 or 4), E43 (no ring while the target streams), E44
//! (overflow). Neighbours: `mailbox` has the lease, `post` fills the ring, `interrupt` serves it.

mod serve;

pub(crate) use serve::run_node;

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use crate::pool::Words;
use crate::queue::{Closed, Context, Node, Queue};
use crate::sync::{
    AtomicU32, AtomicU64, CacheLine, Ordering, UnsafeCell, loom_const_fn, mutant, ord,
};

/// Slots of a ring. A target that streams fills them all: between two CPUs that are far apart a word takes so long
/// that fewer posts on their way would be what limits a source.
const SLOTS: usize = if cfg!(loom) { 2 } else { 64 };

/// How many slots the target looks at before it runs the first.
const LOOK_AHEAD: u32 = 16;

/// Takes the call out of a slot ([`PostRing::take`]) and runs it.
///
/// # Safety
/// 1. The slot was published with this function, and is run once.
/// 2. The context is the one of the target that runs it.
pub(crate) type SlotFn = unsafe fn(&Context, &PostRing, &Slot);

/// What a slot carries.
#[derive(Debug)]
#[repr(C)]
struct Call {
    run: MaybeUninit<SlotFn>,
    words: Words,
}

/// In a stamp: the posted queue may have calls of the same source that come first.
const QUEUE_FIRST: u64 = 1 << 32;

/// The line that carries one post.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// The number of the post that is here, in the lower half; any other than the next one means empty.
    /// And [`QUEUE_FIRST`].
    stamp: AtomicU64,
    call: UnsafeCell<Call>,
}

// SAFETY: the number and the ring's `taken` hand the call to one side at a time (E40, E41).
unsafe impl Sync for Slot {}
// SAFETY: what a slot holds is `Send`: the send side demands it of posted closures.
unsafe impl Send for Slot {}

impl Slot {
    loom_const_fn! {
        /// An empty slot.
        fn new() -> Self {
            Self {
                stamp: AtomicU64::new(0),
                call: UnsafeCell::new(Call {
                    run: MaybeUninit::uninit(),
                    words: [MaybeUninit::uninit(); 3],
                }),
            }
        }
    }

    /// The address that names the call, on both sides.
    #[inline]
    pub(crate) fn request(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Moves out what was published.
    ///
    /// # Safety
    /// 1. The slot holds a `T` that is the caller's: it took, claimed or retracted it, and moves it
    ///    out once.
    #[inline]
    pub(crate) unsafe fn read<T>(&self) -> T {
        self.call.with(|call| {
            // SAFETY: 1 — the cell is alive; nothing is read yet.
            let words = unsafe { &raw const (*call).words };
            // SAFETY: 1.
            unsafe { words.cast::<T>().read() }
        })
    }

    /// Takes the post of this number over or back, (3) or (4): one of the two gets it (E42).
    ///
    /// Who wins owns the call; the target acquires it when it runs it.
    fn withdraw(&self, number: u32) -> bool {
        // ORDERING: Relaxed — a guess for the exchange.
        let stamp = self.stamp.load(Ordering::Relaxed);
        let empty = u64::from(number.wrapping_sub(1)) | stamp & QUEUE_FIRST;
        // ORDERING: Relaxed — the exchange decides and publishes nothing (E42).
        stamp as u32 == number
            && self
                .stamp
                .compare_exchange(stamp, empty, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// What the source writes.
#[derive(Debug)]
struct SourceEnd {
    /// How many posts were accepted, by slot or overflow: the number of the last one.
    published: AtomicU32,
    /// There is room until this many are published; more, perhaps, once `taken` is looked at.
    limit: AtomicU32,
    /// The same while the target streams.
    streaming_limit: AtomicU32,
    /// [`QUEUE_FIRST`]: the posted queue may hold older calls of the source. Or 0.
    queue_first: AtomicU64,
}

/// What the target keeps for itself.
#[derive(Debug)]
struct TargetEnd {
    /// How many posts it has taken, to run them at once: the number of the last one.
    taken: AtomicU32,
    /// It shows this many, and not each on the way there: the source looks at what is shown, and a line
    /// that both use at once costs both.
    show_at: AtomicU32,
}

/// Room for the posts of one source at a time to one target; see
/// [`Platform::post_ring`](crate::Platform::post_ring).
///
/// ```
/// static RINGS: [smpcall::PostRing; 4] = [const { smpcall::PostRing::new() }; 4];
/// ```
#[derive(Debug)]
#[repr(C)]
pub struct PostRing {
    source: CacheLine<SourceEnd>,
    target: CacheLine<TargetEnd>,
    /// How many posts the target has taken, as the source sees it.
    taken: CacheLine<AtomicU32>,
    overflow: CacheLine<Queue>,
    slots: [Slot; SLOTS],
}

impl Default for PostRing {
    fn default() -> Self {
        Self::new()
    }
}

/// How many posts are on their way at most in an instance that has room for `depth`, to a target that does
/// not stream.
const fn room(depth: usize) -> u32 {
    (if depth < SLOTS { depth } else { SLOTS }) as u32
}

impl PostRing {
    loom_const_fn! {
        /// An empty ring.
        pub fn new() -> Self {
            #[cfg(not(loom))]
            let slots = [const { Slot::new() }; SLOTS];
            #[cfg(loom)]
            let slots = core::array::from_fn(|_| Slot::new());
            Self {
                source: CacheLine(SourceEnd {
                    published: AtomicU32::new(0),
                    limit: AtomicU32::new(0),
                    streaming_limit: AtomicU32::new(0),
                    queue_first: AtomicU64::new(QUEUE_FIRST),
                }),
                target: CacheLine(TargetEnd {
                    taken: AtomicU32::new(0),
                    show_at: AtomicU32::new(0),
                }),
                taken: CacheLine(AtomicU32::new(0)),
                overflow: CacheLine(Queue::new()),
                slots,
            }
        }
    }

    /// The slot of the post with this number. It is empty once the post a lap before it was taken.
    #[inline]
    fn slot(&self, number: u32) -> &Slot {
        &self.slots[number as usize % SLOTS]
    }

    /// How many posts were accepted so far.
    #[inline]
    pub(crate) fn published(&self) -> u32 {
        // ORDERING: Relaxed — the source's own word; to who flushes, a post that happened before has
        // been counted before.
        self.source.published.load(Ordering::Relaxed)
    }

    /// Source: the slot to fill next; `None` if as many posts are on their way as fit in an instance of this
    /// depth.
    #[inline]
    pub(crate) fn vacant<const D: usize>(&self) -> Option<&Slot> {
        // ORDERING: Relaxed — the source's own word.
        let limit = self.source.limit.load(Ordering::Relaxed);
        let known = limit.wrapping_sub(self.published()).cast_signed() > 0;
        (known || self.look_how_far::<D>() < room(D)).then(|| self.next_slot())
    }

    /// Source of a target that streams: is there a slot to fill?
    #[inline]
    pub(crate) fn has_streaming_room<const D: usize>(&self) -> bool {
        // ORDERING: Relaxed — the source's own word.
        let limit = self.source.streaming_limit.load(Ordering::Relaxed);
        self.published() != limit || self.look_how_far::<D>() < SLOTS as u32
    }

    /// Source: the slot to fill next, if there is room.
    #[inline]
    pub(crate) fn next_slot(&self) -> &Slot {
        self.slot(self.published().wrapping_add(1))
    }

    /// Source: looks how far the target is; answers how many posts are on their way. What overflowed takes
    /// room as well, and its slots stay empty.
    #[inline(never)]
    fn look_how_far<const D: usize>(&self) -> u32 {
        // ORDERING: Acquire — the target's reads of the slots are over (E41).
        let taken = self.taken.load(ord!("e41_room_relaxed", Acquire));
        let on_their_way = self.published().wrapping_sub(taken);
        if on_their_way < SLOTS as u32 {
            let limits = [
                (&self.source.limit, room(D)),
                (&self.source.streaming_limit, SLOTS as u32),
            ];
            for (limit, room) in limits {
                // ORDERING: Relaxed — the source's own word.
                limit.store(taken.wrapping_add(room), Ordering::Relaxed);
            }
        }
        on_their_way
    }

    /// Source: fills a slot that [`Self::vacant`] gave and publishes it, (1). The source then rings,
    /// and says [`Self::accept_slot`] or [`Self::retract`].
    ///
    /// # Safety
    /// 1. The caller owns the ring, and no one else of the same source uses it.
    /// 2. A `T` fits into [`Words`], and `run` takes a `T`.
    #[inline]
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    pub(crate) unsafe fn publish<T>(&self, slot: &Slot, run: SlotFn, value: T) {
        let number = self.published().wrapping_add(1);
        // ORDERING: Relaxed — the source's own word.
        let queue_first = self.source.queue_first.load(Ordering::Relaxed);
        // SAFETY: 1 — vacant, so ours; 2 — it fits.
        slot.call.with_mut(|call| unsafe {
            (*call).run.write(run);
            (&raw mut (*call).words).cast::<T>().write(value);
        });
        // ORDERING: Release — publishes the call; pairs with `serve` and `claim_and_serve` (E40).
        slot.stamp.store(
            u64::from(number) | queue_first,
            ord!("e40_publish_relaxed", Release),
        );
    }

    /// Source: the slot that it published is the target's.
    #[inline]
    pub(crate) fn accept_slot(&self) {
        // ORDERING: Relaxed — the source's own word.
        if self.source.queue_first.load(Ordering::Relaxed) != 0 {
            // ORDERING: Relaxed — as above.
            self.source.queue_first.store(0, Ordering::Relaxed);
        }
        self.count_published();
    }

    /// Source that found its target offline: takes the post back, (4). `false`: the target has
    /// it. After a `true` what was published is the caller's to [`Slot::read`].
    #[cold]
    pub(crate) fn retract(&self, slot: &Slot) -> bool {
        let number = self.published().wrapping_add(1);
        // A target that ran the call while it was open left the number there; who found the
        // doorbell closed sees how far the target had come then (E9).
        if self.has_passed(number) && !mutant!("e42_taken_not_seen") {
            return false;
        }
        slot.withdraw(number)
    }

    /// Source: queues a descriptor behind a full ring. The source then rings.
    ///
    /// # Safety
    /// 1. The caller owns the ring, and no one else of the same source uses it.
    /// 2. As [`Queue::push`].
    #[cold]
    pub(crate) unsafe fn overflow(&self, node: NonNull<Node>) -> Result<(), Closed> {
        // SAFETY: 2.
        unsafe { self.overflow.push(node) }?;
        self.count_published();
        // No room until `taken` says so.
        // ORDERING: Relaxed — the source's own word.
        self.source.limit.store(self.published(), Ordering::Relaxed);
        // ORDERING: Relaxed — as above.
        self.source
            .streaming_limit
            .store(self.published(), Ordering::Relaxed);
        Ok(())
    }

    /// Source: one more was accepted.
    #[inline]
    fn count_published(&self) {
        // ORDERING: Relaxed — as `published`.
        self.source
            .published
            .store(self.published().wrapping_add(1), Ordering::Relaxed);
    }

    /// Another source: are as many posts on their way as fit? A hint.
    pub(crate) fn is_full<const D: usize>(&self) -> bool {
        // ORDERING: Relaxed — a hint.
        let taken = self.taken.load(Ordering::Relaxed);
        self.published().wrapping_sub(taken).cast_signed() >= room(D).cast_signed()
    }

    /// Owner that lets the ring go: has everything run that went through it?
    pub(crate) fn is_idle(&self) -> bool {
        self.has_passed(self.published())
    }

    /// Owner that lets an idle ring go: the next one may have older calls in the posted queue.
    pub(crate) fn hand_on(&self) {
        // ORDERING: Relaxed — the source's own word; the lease hands it on (E6).
        self.source
            .queue_first
            .store(QUEUE_FIRST, Ordering::Relaxed);
    }

    /// Have so many of the accepted posts been taken? Whatever the caller queues next runs after them.
    pub(crate) fn has_passed(&self, published: u32) -> bool {
        // ORDERING: Relaxed — the target runs what it took before it takes anything else.
        let taken = self.taken.load(Ordering::Relaxed);
        taken.wrapping_sub(published).cast_signed() >= 0
    }
}

#[cfg(all(test, loom))]
mod tests;
