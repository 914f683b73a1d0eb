//! Who has a target's mailbox line, and the post ring beside it.
//!
//! A source takes a free line by one exchange and keeps it (`mailbox`, E6). The lease is given up by
//! its owner alone, in its own time: another source that finds the line taken uses a queue, and
//! now and then asks. It asks by a descriptor that every CPU has for this, in the owner's posted
//! queue, so that asking takes no room from posts. The owner's handler lets the line go unless its task
//! context is using it (E20), or posts are still on their way: what the owner posts later by the
//! queue must not overtake them.
//!
//! ```text
//!           (1) ask, another source           (2) run, the owner
//!   free ───────────────────────────▶ queued ─────────────────────▶ free
//! ```
//!
//! Edges: E46 (2→1), E1 carries the target's name. Neighbours: `mailbox`, `ring`, `call`, `post`.

use core::ptr::NonNull;

use crate::area::{Area, Lane, MAILBOXES, MAILING_TO_ALL, POSTING};
use crate::cpu::CpuId;
use crate::mailbox::Mailbox;
use crate::platform::Platform;
use crate::queue::{Context, Node};
use crate::smp::Smp;
use crate::sync::{AtomicU32, Ordering, loom_const_fn, ord};

/// A source asks for a line after this many calls that found it owned by another.
const MISSES_BEFORE_ASKING: u32 = 32;

/// The descriptor by which a CPU is asked to let its line of one target go.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Request {
    node: Node,
    /// The target, plus one; 0: the descriptor is free.
    target: AtomicU32,
}

impl Request {
    loom_const_fn! {
        /// A free descriptor.
        pub(crate) fn new() -> Self {
            Self { node: Node::new(), target: AtomicU32::new(0) }
        }
    }

    /// Another source: (1). `false`: somebody is asking already.
    fn try_lock(&self, target: CpuId) -> bool {
        // ORDERING: Acquire — the owner's last use of the node is over (E46).
        self.target
            .compare_exchange(
                0,
                target.get() + 1,
                ord!("e46_lock_relaxed", Acquire),
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// The owner, which took the node from its queue, or an asker that was refused: (2).
    fn free(&self) -> Option<CpuId> {
        // ORDERING: Relaxed — written before the node was queued (E1).
        let target = self.target.load(Ordering::Relaxed).checked_sub(1);
        // ORDERING: Release — our use of the node is over; pairs with `try_lock` (E46).
        self.target.store(0, ord!("e46_free_relaxed", Release));
        target.map(CpuId::new)
    }
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Now and then asks the owner of a line that this CPU wants to let it go.
    #[cold]
    pub(crate) fn count_miss(&self, me: CpuId, target: CpuId, mailbox: &Mailbox) {
        let misses = self.own(me).local.count_miss();
        if misses.is_multiple_of(MISSES_BEFORE_ASKING)
            && let Some(owner) = mailbox.owner().map(CpuId::new)
            && owner != me
            && let Some(area) = self.area(owner)
        {
            self.ask_for_line(owner, area, target);
        }
    }

    /// Asks a CPU to let its line of a target go. If somebody is asking it just now, or it has
    /// left, the next miss asks again.
    fn ask_for_line(&self, owner: CpuId, area: &Area<W, D>, target: CpuId) {
        let request = &area.queues.release;
        if !request.try_lock(target) {
            return;
        }
        // SAFETY: 1 — locked: in no queue.
        unsafe { request.node.set_run(run_request::<P, W, D>) };
        // SAFETY: 1 — `run` is set, and an area lives as long as the instance; 2 — locked: ours.
        let pushed = unsafe { area.queues.posted.push(NonNull::from(request).cast()) };
        if !self.announce(owner, area, pushed) {
            request.free();
        }
    }

    /// The owner, in a handler: lets its line of `target` go unless it is in use.
    fn release_line(&self, owner: CpuId, target: CpuId) {
        let line = owner.index() % MAILBOXES;
        let mailbox = &self.own(target).mail[line];
        let mailing = self.own(owner).local.mailing();
        let in_use = [MAILING_TO_ALL, POSTING, target.get() + 1].contains(&mailing);
        if in_use || !mailbox.is_owned_by(owner.get()) {
            return;
        }
        if let Some(ring) = self.platform.post_ring(target, line) {
            if !ring.is_idle() {
                return;
            }
            ring.hand_on();
        }
        mailbox.disown();
    }

    /// Lets every line go that a leaving CPU owns and that is not in use.
    pub(crate) fn release_all_lines(&self, owner: CpuId) {
        self.possible
            .load()
            .iter()
            .for_each(|target| self.release_line(owner, target));
    }
}

/// Lets the line go that the request names.
///
/// # Safety
/// As [`crate::queue::NodeFn`].
unsafe fn run_request<P: Platform, const W: usize, const D: usize>(
    context: &Context,
    node: NonNull<Node>,
) {
    // SAFETY: 1 — the node heads a request, which lives as long as the area.
    let request = unsafe { node.cast::<Request>().as_ref() };
    let target = request.free();
    // SAFETY: 2 of `NodeFn` — this CPU's area.
    let area = unsafe { &*context.area.cast::<Area<W, D>>() };
    // SAFETY: written before the CPU came online, and not after.
    let instance = unsafe { (*area.drop_wait(Lane::Posted)).smp };
    // SAFETY: `set_up` wrote the instance's address into its own areas.
    let smp = unsafe { &*instance.cast::<Smp<P, W, D>>() };
    if let Some(target) = target {
        smp.release_line(context.cpu, target);
    }
}

#[cfg(all(test, loom))]
mod tests;
