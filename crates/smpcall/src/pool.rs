//! Room for posted closures: a fixed number of nodes in each target.
//!
//! A sender claims a node by one exchange on a bitmap, moves the closure in and queues the
//! node; the target moves the closure out, frees the node and only then runs the closure, so that
//! the closure may post again. No node free means that the lane is full.
//!
//! ```text
//!          (1) claim, sender          (2) queue, sender           (3) take, target
//!   free ───────────────────▶ filling ──────────────────▶ queued ─────────────────▶ free
//! ```
//!
//! Edges: E15 (3→1); E1 carries the closure. Neighbours: `post` fills, `queue` carries.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::area::Area;
use crate::cpu::CpuId;
use crate::platform::Platform;
use crate::post::run_and_report;
use crate::queue::{Context, Node};
use crate::sync::{AtomicU64, Ordering, UnsafeCell, loom_const_fn, ord};

/// The captured words of a posted closure.
pub(crate) type Words = [MaybeUninit<usize>; 3];

/// Does a closure of this type fit into three words?
pub(crate) const fn fits<F>() -> bool {
    size_of::<F>() <= size_of::<Words>() && align_of::<F>() <= align_of::<Words>()
}

/// A node and the closure that it carries.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PoolNode {
    pub(crate) node: Node,
    pub(crate) words: UnsafeCell<Words>,
}

/// The nodes of one target, at most 64.
#[derive(Debug)]
pub(crate) struct Pool<const D: usize> {
    /// Bit i: node i is in use.
    used: AtomicU64,
    nodes: [PoolNode; D],
}

impl<const D: usize> Pool<D> {
    loom_const_fn! {
        /// All free.
        pub(crate) fn new() -> Self {
            const { assert!(D >= 1 && D <= 64, "a target has room for 1 to 64 posted closures") };
            #[cfg(not(loom))]
            let nodes = [const {
                PoolNode {
                    node: Node::new(),
                    words: UnsafeCell::new([MaybeUninit::uninit(); 3]),
                }
            }; D];
            #[cfg(loom)]
            let nodes = core::array::from_fn(|_| PoolNode {
                node: Node::new(),
                words: UnsafeCell::new([MaybeUninit::uninit(); 3]),
            });
            Self { used: AtomicU64::new(0), nodes }
        }
    }

    /// Sender: (1). `None` when the lane is full.
    #[inline]
    pub(crate) fn claim(&self) -> Option<&PoolNode> {
        // ORDERING: Relaxed — a guess for the exchange.
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let index = (!used).trailing_zeros() as usize;
            let node = self.nodes.get(index)?;
            // ORDERING: Acquire — the target's read of the last closure is over (E15).
            match self.used.compare_exchange_weak(
                used,
                used | 1 << index,
                ord!("e15_claim_relaxed", Acquire),
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(node),
                Err(now) => used = now,
            }
        }
    }

    /// Is no node free? A hint.
    #[inline]
    pub(crate) fn looks_full(&self) -> bool {
        // ORDERING: Relaxed — a hint.
        self.used.load(Ordering::Relaxed).trailing_ones() as usize >= D
    }

    /// Target, or a sender that was refused: (3).
    #[inline]
    pub(crate) fn free(&self, node: NonNull<PoolNode>) {
        let offset = node.as_ptr() as usize - self.nodes.as_ptr() as usize;
        let index = offset / size_of::<PoolNode>();
        // ORDERING: Release — our read of the closure is over; pairs with `claim` (E15).
        self.used
            .fetch_and(!(1 << index), ord!("e15_free_relaxed", Release));
    }
}

/// Moves a posted closure out of its node and frees the node.
///
/// # Safety
/// 1. The node was taken from the queue of the context's CPU and holds an `F`, which moves out once.
#[inline]
unsafe fn take_out<F, const W: usize, const D: usize>(context: &Context, node: NonNull<Node>) -> F {
    let slot = node.cast::<PoolNode>();
    // SAFETY: 1 — the node heads a pool node.
    let words = unsafe { &slot.as_ref().words };
    // SAFETY: 1 — it holds an `F`.
    let f = words.with_mut(|words| unsafe { words.cast::<F>().read() });
    // SAFETY: 1 — the owner's area, which the pool node belongs to.
    let area = unsafe { &*context.area.cast::<Area<W, D>>() };
    area.pool.free(slot);
    f
}

/// Runs a posted closure.
///
/// # Safety
/// As [`crate::queue::NodeFn`].
pub(crate) unsafe fn run_posted<P: Platform, F: FnOnce(), const W: usize, const D: usize>(
    context: &Context,
    node: NonNull<Node>,
) {
    // SAFETY: 1 — queued with this function, so it holds an `F`.
    let f = unsafe { take_out::<F, W, D>(context, node) };
    // SAFETY: 2 of `NodeFn`.
    unsafe { run_and_report::<P, F>(context, node.addr().get(), f) };
}

/// Runs a posted closure that wants to know where.
///
/// # Safety
/// As [`crate::queue::NodeFn`].
pub(crate) unsafe fn run_posted_with_id<
    P: Platform,
    F: FnOnce(CpuId),
    const W: usize,
    const D: usize,
>(
    context: &Context,
    node: NonNull<Node>,
) {
    // SAFETY: 1 — queued with this function, so it holds an `F`.
    let f = unsafe { take_out::<F, W, D>(context, node) };
    // SAFETY: 2 of `NodeFn`.
    unsafe { run_and_report::<P, F>(context, node.addr().get(), || f(context.cpu)) };
}

#[cfg(all(test, loom))]
mod tests;
