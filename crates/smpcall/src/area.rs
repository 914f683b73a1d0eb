//! What one CPU has: its doorbell, queues, mailboxes, request bits, broadcast record and room.
//!
//! Laid out by who writes what. A sender to a polling target touches the doorbell's line (which
//! nobody writes then) and one mailbox; everything else is for the general path.

use crate::bell::{self, Bell};
use crate::broadcast::{Broadcast, Requests};
use crate::csd::DropWait;
use crate::guard::Guards;
use crate::lease;
use crate::mailbox::Mailbox;
use crate::pool::Pool;
use crate::queue::{Chain, Queue};
use crate::rendezvous::Seat;
use crate::sync::{AtomicU32, CacheLine, Ordering, UnsafeCell, loom_const_fn};

/// How many mailbox lines a CPU has; source s uses line s modulo this.
pub(crate) const MAILBOXES: usize = 4;

/// In [`Local::mailing`]: a broadcast uses the lines of many targets.
pub(crate) const MAILING_TO_ALL: u32 = u32::MAX;

/// In [`Local::mailing`]: a post fills a ring.
pub(crate) const POSTING: u32 = u32::MAX - 1;

/// The queues.
#[derive(Debug)]
pub(crate) struct Queues {
    /// Waited calls.
    pub(crate) waited: Queue,
    /// Posted calls.
    pub(crate) posted: Queue,
    /// Calls that may sleep.
    pub(crate) sleeping: Queue,
    /// By which others ask this CPU for a line of its.
    pub(crate) release: lease::Request,
}

/// Which queue a posted descriptor is in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lane {
    Posted,
    Sleeping,
}

/// What only the CPU itself writes, from its task context and its handlers.
///
/// The words are atomics because reports read them from elsewhere; they order nothing.
#[derive(Debug)]
pub(crate) struct Local {
    in_handler: AtomicU32,
    /// What the doorbell says when nothing is pending: `QUIET`, `POLLING` or `STREAMING` in a polling idle
    /// loop, else `ARMED` while the CPU is armed.
    resting: AtomicU32,
    armed: AtomicU32,
    mailing: AtomicU32,
    misses: AtomicU32,
    pub(crate) guards: Guards,
    /// How many tasks are running, one inside another's wait.
    tasks: AtomicU32,
    /// Posts that came by rings since the idle loop last began or slept.
    ring_posts: AtomicU32,
    /// How many more turns of a streaming idle loop go by before it looks at the rings.
    ring_pause: AtomicU32,
}

impl Local {
    /// Is a called function running on this CPU?
    #[inline]
    pub(crate) fn in_handler(&self) -> bool {
        // ORDERING: Relaxed — the CPU's own word.
        self.in_handler.load(Ordering::Relaxed) != 0
    }

    /// Enters or leaves handler context.
    #[inline]
    #[expect(
        clippy::fn_params_excessive_bools,
        reason = "a state that is saved and given back, not a choice of behaviour"
    )]
    pub(crate) fn set_in_handler(&self, now: bool) {
        // ORDERING: Relaxed — the CPU's own word.
        self.in_handler.store(u32::from(now), Ordering::Relaxed);
    }

    /// What the doorbell says when nothing is pending.
    #[inline]
    pub(crate) fn resting(&self) -> u32 {
        // ORDERING: Relaxed — the CPU's own word.
        self.resting.load(Ordering::Relaxed)
    }

    /// Says whether the idle loop polls.
    #[expect(
        clippy::fn_params_excessive_bools,
        reason = "a state that is saved and given back, not a choice of behaviour"
    )]
    pub(crate) fn set_polling(&self, now: bool) {
        // ORDERING: Relaxed, here and below — the CPU's own words.
        let resting = match self.armed.load(Ordering::Relaxed) {
            _ if now => bell::POLLING,
            0 => bell::QUIET,
            _ => bell::ARMED,
        };
        self.resting.store(resting, Ordering::Relaxed);
    }

    /// Says whether the CPU is armed. Not while its idle loop polls.
    #[expect(
        clippy::fn_params_excessive_bools,
        reason = "a state that is saved and given back, not a choice of behaviour"
    )]
    pub(crate) fn set_armed(&self, now: bool) {
        // ORDERING: Relaxed — the CPU's own word.
        self.armed.store(u32::from(now), Ordering::Relaxed);
        self.set_polling(false);
    }

    /// Says that the idle loop, which polls, streams.
    pub(crate) fn set_streaming(&self) {
        // ORDERING: Relaxed — the CPU's own word.
        self.resting.store(bell::STREAMING, Ordering::Relaxed);
    }

    /// How many posts came by rings since the last [`Self::forget_ring_posts`].
    #[inline]
    pub(crate) fn ring_posts(&self) -> u32 {
        // ORDERING: Relaxed — the CPU's own counter.
        self.ring_posts.load(Ordering::Relaxed)
    }

    /// Counts posts that came by rings.
    #[inline]
    pub(crate) fn count_ring_posts(&self, more: u32) {
        let posts = self.ring_posts().saturating_add(more);
        // ORDERING: Relaxed — the CPU's own counter.
        self.ring_posts.store(posts, Ordering::Relaxed);
    }

    /// Shall this turn of a streaming idle loop look at the rings?
    #[inline]
    pub(crate) fn looks_at_rings(&self) -> bool {
        // ORDERING: Relaxed — the CPU's own counter.
        let pause = self.ring_pause.load(Ordering::Relaxed);
        if pause > 0 {
            // ORDERING: Relaxed — as above.
            self.ring_pause.store(pause - 1, Ordering::Relaxed);
        }
        pause == 0
    }

    /// Lets so many turns go by before the next look.
    #[inline]
    pub(crate) fn pause_rings(&self, turns: u32) {
        // ORDERING: Relaxed — the CPU's own counter.
        self.ring_pause.store(turns, Ordering::Relaxed);
    }

    /// Begins to count anew.
    pub(crate) fn forget_ring_posts(&self) {
        // ORDERING: Relaxed — the CPU's own counter.
        self.ring_posts.store(0, Ordering::Relaxed);
    }

    /// Marks the target whose mailbox the task context is using; 0 is none, else the id plus one.
    ///
    /// A request to let the mailbox go runs in a handler on this same CPU (E20), so program
    /// order is all that is needed. [`MAILING_TO_ALL`] and [`POSTING`] stand for every target.
    #[inline]
    pub(crate) fn set_mailing(&self, target_plus_one: u32) {
        // The compiler must move no use of the line out over either mark (E20).
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        // ORDERING: Relaxed — read on this CPU only (E20).
        self.mailing.store(target_plus_one, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// The mark.
    #[inline]
    pub(crate) fn mailing(&self) -> u32 {
        // ORDERING: Relaxed — written on this CPU only (E20).
        self.mailing.load(Ordering::Relaxed)
    }

    /// A task begins: answers how many ran before.
    pub(crate) fn enter_task(&self) -> u32 {
        // ORDERING: Relaxed — the CPU's own word.
        let running = self.tasks.load(Ordering::Relaxed);
        self.set_tasks(running + 1);
        running
    }

    /// So many tasks run now.
    pub(crate) fn set_tasks(&self, running: u32) {
        // ORDERING: Relaxed — the CPU's own word.
        self.tasks.store(running, Ordering::Relaxed);
    }

    /// Is a task running?
    pub(crate) fn in_task(&self) -> bool {
        // ORDERING: Relaxed — the CPU's own word.
        self.tasks.load(Ordering::Relaxed) != 0
    }

    /// Counts a call that found its mailbox owned by another source.
    pub(crate) fn count_miss(&self) -> u32 {
        // ORDERING: Relaxed — the CPU's own counter.
        let misses = self.misses.load(Ordering::Relaxed).wrapping_add(1);
        // ORDERING: Relaxed — the CPU's own counter.
        self.misses.store(misses, Ordering::Relaxed);
        misses
    }
}

/// All of one CPU.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Area<const W: usize, const D: usize> {
    /// First, so that its address is the area's.
    drop_waits: UnsafeCell<[DropWait; 2]>,
    pub(crate) bell: CacheLine<Bell>,
    pub(crate) mail: [Mailbox; MAILBOXES],
    pub(crate) queues: CacheLine<Queues>,
    pub(crate) local: CacheLine<Local>,
    pub(crate) requests: Requests<W>,
    pub(crate) broadcast: Broadcast<W>,
    pub(crate) pool: Pool<D>,
    pub(crate) seat: Seat,
    /// Tasks that the CPU has detached from its queue and not run yet; the CPU's own.
    pub(crate) tasks: UnsafeCell<Chain>,
}

// SAFETY: every part is shared under its own protocol; the raw pointers in queue nodes and
// broadcast records are to things that the send side demands to be `Send` or `Sync`.
unsafe impl<const W: usize, const D: usize> Sync for Area<W, D> {}
// SAFETY: as above; an area that can be moved is closed and empty (`Smp::init`).
unsafe impl<const W: usize, const D: usize> Send for Area<W, D> {}

impl<const W: usize, const D: usize> Area<W, D> {
    loom_const_fn! {
        /// A closed, empty area.
        pub(crate) fn new() -> Self {
            #[cfg(not(loom))]
            let mail = [const { Mailbox::new() }; MAILBOXES];
            #[cfg(loom)]
            let mail = core::array::from_fn(|_| Mailbox::new());
            Self {
                bell: CacheLine(Bell::new()),
                mail,
                queues: CacheLine(Queues {
                    waited: Queue::new(),
                    posted: Queue::new(),
                    sleeping: Queue::new(),
                    release: lease::Request::new(),
                }),
                local: CacheLine(Local {
                    in_handler: AtomicU32::new(0),
                    resting: AtomicU32::new(bell::QUIET),
                    armed: AtomicU32::new(0),
                    mailing: AtomicU32::new(0),
                    misses: AtomicU32::new(0),
                    guards: Guards::new(),
                    tasks: AtomicU32::new(0),
                    ring_posts: AtomicU32::new(0),
                    ring_pause: AtomicU32::new(0),
                }),
                requests: Requests::new(),
                broadcast: Broadcast::new(),
                pool: Pool::new(),
                tasks: UnsafeCell::new(Chain::EMPTY),
                seat: Seat::new(),
                drop_waits: UnsafeCell::new([DropWait::NOT_SET_UP; 2]),
            }
        }
    }

    /// Says how descriptors that are dropped in a queue of this CPU wait, by lane.
    ///
    /// # Safety
    /// 1. The CPU has never been online, and this is done once.
    pub(crate) unsafe fn set_drop_waits(&self, waits: [DropWait; 2]) {
        // SAFETY: 1 — nobody looks at the cell of a CPU that has never been online.
        self.drop_waits
            .with_mut(|slot| unsafe { slot.write(waits) });
    }

    /// Where it is written how a descriptor that is dropped in this lane waits. The address alone:
    /// safe code may post to a CPU that is being set up, and is refused.
    #[inline]
    pub(crate) fn drop_wait(&self, lane: Lane) -> *const DropWait {
        self.drop_waits
            .with(|waits| waits.cast::<DropWait>().wrapping_add(lane as usize))
    }
}

#[cfg(all(test, loom))]
mod tests;
