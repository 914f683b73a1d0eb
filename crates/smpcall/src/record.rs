//! A waited call on the waiting caller's stack.
//!
//! What a caller uses that does not own a mailbox line of its target: the record is pushed to the
//! target's queue, the target runs the job in place and sets `done`, and from that store on the
//! record is the caller's again: the target does not touch it any more.
//!
//! ```text
//!            (1) push, caller         (2) take and run, target       (3) done, target
//!   filled ──────────────────▶ queued ───────────────────────▶ running ─────────────▶ done
//! ```
//!
//! Edges: E1 (1→2), E2 (3→caller). Neighbours: `queue` carries it, `call` waits for it.

use core::ptr::NonNull;

use crate::job::{self, Job, Outcome};
use crate::platform::Platform;
use crate::queue::{Closed, Context, Node, Queue};
#[cfg(not(loom))]
use crate::sleep::Waker;
use crate::sync::{AtomicU32, UnsafeCell, ord};

/// A job that is waited for.
#[repr(C)]
pub(crate) struct Record<F, O> {
    node: Node,
    done: AtomicU32,
    job: UnsafeCell<Job<F, O>>,
    /// In the may-sleep lane: how to wake the waiter.
    #[cfg(not(loom))]
    waker: UnsafeCell<*const ()>,
}

impl<F, O> Record<F, O> {
    /// Holds the closure; not queued.
    pub(crate) fn new(closure: F) -> Self {
        Self {
            node: Node::new(),
            done: AtomicU32::new(0),
            job: UnsafeCell::new(Job::new(closure)),
            #[cfg(not(loom))]
            waker: UnsafeCell::new(core::ptr::null()),
        }
    }

    /// Has it run?
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        // ORDERING: Acquire — the outcome and all that the closure wrote are visible (E2).
        self.done.load(ord!("e2_done_relaxed", Acquire)) != 0
    }

    /// The address that names the call, on both sides: the node's.
    #[inline]
    pub(crate) fn request(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// The closure of a record that was not queued.
    ///
    /// # Safety
    /// 1. It was never queued, or the queue refused it; it is taken once.
    pub(crate) unsafe fn into_closure(self) -> F {
        // SAFETY: 1 — the job still holds the closure.
        self.job.with_mut(|job| unsafe { Job::take_closure(job) })
    }

    /// The outcome.
    ///
    /// # Safety
    /// 1. [`Self::is_done`] said so.
    pub(crate) unsafe fn into_outcome(self) -> O {
        // SAFETY: 1 — the job was run.
        self.job.with_mut(|job| unsafe { Job::take_outcome(job) })
    }
}

impl<F, O> Record<F, O> {
    /// Queues the record.
    ///
    /// # Safety
    /// 1. It was not queued before, and stays where it is, alive, until [`Self::is_done`] if this
    ///    answers `Ok`.
    /// 2. The queue's owner runs its calls with a context whose platform is a `P`.
    pub(crate) unsafe fn push<P, R>(&self, queue: &Queue) -> Result<bool, Closed>
    where
        P: Platform,
        F: FnOnce() -> R,
        O: IsOutcome<P, R>,
    {
        // SAFETY: 1 — in no queue yet.
        unsafe { self.node.set_run(run_record::<P, F, R>) };
        // SAFETY: 1 of `push` — `run` is set, the record stays; 2 — ours alone.
        unsafe { queue.push(NonNull::from(self).cast()) }
    }
}

#[cfg(not(loom))]
impl<F, O> Record<F, O> {
    /// The word that becomes 1 when the record is done.
    pub(crate) fn done_word(&self) -> &AtomicU32 {
        &self.done
    }

    /// Queues the record in a may-sleep lane; its end wakes the waiter.
    ///
    /// # Safety
    /// As [`Self::push`]; 3. the waker lives as long as the record.
    pub(crate) unsafe fn push_sleeping<P, R, const W: usize, const D: usize>(
        &self,
        queue: &Queue,
        waker: &Waker<P, W, D>,
    ) -> Result<bool, Closed>
    where
        P: Platform,
        F: FnOnce() -> R,
        O: IsOutcome<P, R>,
    {
        // SAFETY: not queued yet, so ours.
        self.waker
            .with_mut(|slot| unsafe { slot.write(core::ptr::from_ref(waker).cast()) });
        // SAFETY: 1 — in no queue yet.
        unsafe { self.node.set_run(run_sleeping::<P, F, R, W, D>) };
        // SAFETY: 1 of `push` — `run` is set, the record stays; 2 — ours alone.
        unsafe { queue.push(NonNull::from(self).cast()) }
    }
}

/// Runs a record of the may-sleep lane.
///
/// # Safety
/// As [`crate::queue::NodeFn`].
#[cfg(not(loom))]
unsafe fn run_sleeping<P: Platform, F: FnOnce() -> R, R, const W: usize, const D: usize>(
    context: &Context,
    node: NonNull<Node>,
) {
    let record = node.cast::<Record<F, Outcome<P, R>>>();
    // SAFETY: 1 of `NodeFn` — the node heads a record of this type, alive until `done`.
    let waker = unsafe { record.as_ref() }
        .waker
        .with(|waker| unsafe { *waker });
    // SAFETY: 3 of `push_sleeping` — alive as the record is.
    let waker = unsafe { &*waker.cast::<Waker<P, W, D>>() }.begin();
    // SAFETY: as above; only the address is used once the record is done.
    let done = NonNull::from(&unsafe { record.as_ref() }.done);
    // SAFETY: as this function.
    unsafe { run_record::<P, F, R>(context, node) };
    // SAFETY: 1 — we run on a CPU of the instance.
    unsafe { waker.wake(done) };
}

/// Ties the record's second parameter to its closure's outcome.
pub(crate) trait IsOutcome<P: Platform, R> {}
impl<P: Platform, R> IsOutcome<P, R> for Outcome<P, R> {}

/// Runs a queued record.
///
/// # Safety
/// As [`crate::queue::NodeFn`].
unsafe fn run_record<P: Platform, F: FnOnce() -> R, R>(context: &Context, node: NonNull<Node>) {
    let record = node.cast::<Record<F, Outcome<P, R>>>();
    // SAFETY: 1 of `NodeFn` — the node heads a record of this type, alive until `done`.
    let record = unsafe { record.as_ref() };
    // SAFETY: 1, 2 of `NodeFn` — queued with its closure, run once, with its owner's platform.
    record
        .job
        .with_mut(|job| unsafe { job::run::<P, F, R>(context, job, node.addr().get()) });
    // ORDERING: Release — publishes the outcome; pairs with the Acquire in `is_done` (E2). The
    // record may be gone from here on.
    record.done.store(1, ord!("e2_store_relaxed", Release));
}

#[cfg(all(test, loom))]
mod tests;
