//! A CPU's queue of calls: many senders push, the owner takes all.
//!
//! An intrusive list without locks. Pushing is one compare-and-swap; the owner detaches the whole
//! list by one swap, turns it round so that it runs first in, first out, and runs the calls with
//! the queue open to new ones. A closed queue refuses, in the same word, so a push either happened
//! before the close and is in the list that the close returns, or it did not happen.
//!
//! ```text
//!             (1) push, sender            (2) take_all, owner
//!   empty ────────────────────▶ list ──────────────────────────▶ empty
//!     ▲  (4) open, owner         │ (3) close, owner: returns the list
//!     └──────────── closed ◀─────┘
//! ```
//!
//! | | push | take_all | close | open |
//! |---|---|---|---|---|
//! | push | any number | any | any | any |
//! | the owner's | any | one thread, the owner | | |
//!
//! Edges: E1 (1→2, 1→3). Neighbours: `csd` and `record` embed the [`Node`]; `interrupt` runs it.

use core::ptr::{self, NonNull};

use crate::cpu::CpuId;
use crate::sync::{AtomicPtr, Ordering, UnsafeCell, loom_const_fn, mutant, ord};

/// What a call gets when it runs on its target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// The `&P` of the instance.
    pub(crate) platform: *const (),
    /// The target's `&Area`.
    pub(crate) area: *const (),
    /// The target.
    pub(crate) cpu: CpuId,
}

/// Runs the call that a node is the head of.
///
/// # Safety
/// 1. The node was taken from a queue and is run once.
/// 2. The context is the one of the queue's owner.
pub(crate) type NodeFn = unsafe fn(&Context, NonNull<Node>);

/// The head of everything that can be queued; first in its `repr(C)` struct.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Node {
    next: UnsafeCell<*mut Node>,
    run: UnsafeCell<Option<NodeFn>>,
}

impl Node {
    loom_const_fn! {
        /// A node that is in no queue.
        pub(crate) fn new() -> Self {
            Self { next: UnsafeCell::new(ptr::null_mut()), run: UnsafeCell::new(None) }
        }
    }

    /// Says how to run the call.
    ///
    /// # Safety
    /// 1. The caller has the node to itself: it is in no queue.
    pub(crate) unsafe fn set_run(&self, run: NodeFn) {
        // SAFETY: 1 — nobody else looks at the node.
        self.run.with_mut(|slot| unsafe { slot.write(Some(run)) });
    }
}

/// The sentinel of a closed queue; never dereferenced.
const CLOSED: *mut Node = ptr::without_provenance_mut(1);

/// The queue refused: its CPU is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    head: AtomicPtr<Node>,
}

impl Queue {
    loom_const_fn! {
        /// A closed queue.
        pub(crate) fn new() -> Self {
            Self { head: AtomicPtr::new(CLOSED) }
        }
    }

    /// Sender: (1). Answers whether the queue was empty: then the sender rings. Otherwise whoever
    /// pushed first rings or has rung, and the take that it asks for has this node too.
    ///
    /// # Safety
    /// 1. The node's `run` is set, and the node and what it heads stay valid until it ran.
    /// 2. The node is in no queue, and nobody else touches it until it ran.
    #[inline]
    pub(crate) unsafe fn push(&self, node: NonNull<Node>) -> Result<bool, Closed> {
        // ORDERING: Relaxed — a guess for the compare-and-swap; a closed queue publishes nothing here.
        let mut head = self.head.load(Ordering::Relaxed);
        // Two loops, so that a push to a queue that is neither empty nor closed tests that once.
        while head.addr() > CLOSED.addr() {
            // SAFETY: 1, 2 — as this function.
            match unsafe { self.try_push(head, node) } {
                Ok(_) => return Ok(false),
                Err(now) => head = now,
            }
        }
        while head != CLOSED {
            // SAFETY: 1, 2 — as this function.
            match unsafe { self.try_push(head, node) } {
                Ok(_) => return Ok(head.is_null()),
                Err(now) => head = now,
            }
        }
        Err(Closed)
    }

    /// One attempt at (1).
    ///
    /// # Safety
    /// As [`Self::push`].
    #[inline(always)]
    unsafe fn try_push(
        &self,
        head: *mut Node,
        node: NonNull<Node>,
    ) -> Result<*mut Node, *mut Node> {
        // SAFETY: 1 of `push` — the node is valid.
        let node_ref = unsafe { node.as_ref() };
        // SAFETY: 2 of `push` — the node is ours until the exchange succeeds.
        node_ref.next.with_mut(|next| unsafe { next.write(head) });
        // ORDERING: Release — publishes the node and what it heads; pairs with the Acquire in
        // `take_all` and `close` (E1).
        self.head.compare_exchange_weak(
            head,
            node.as_ptr(),
            ord!("e1_push_relaxed", Release),
            Ordering::Relaxed,
        )
    }

    /// Owner: (2). A look at an empty queue costs one load.
    #[inline]
    pub(crate) fn take_all(&self) -> Chain {
        // ORDERING: Relaxed — a node missed here was not yet rung for; the next drain takes it (E7).
        let head = self.head.load(Ordering::Relaxed);
        if head.is_null() || head == CLOSED {
            return Chain::EMPTY;
        }
        // ORDERING: Acquire — sees the nodes that the pushes published (E1).
        Chain::reversed(
            self.head
                .swap(ptr::null_mut(), ord!("e1_take_relaxed", Acquire)),
        )
    }

    /// Owner: (3).
    pub(crate) fn close(&self) -> Chain {
        let closed = if mutant!("bug_calls_queued_for_a_dead_cpu") {
            ptr::null_mut()
        } else {
            CLOSED
        };
        // ORDERING: Acquire — as `take_all` (E1).
        let head = self.head.swap(closed, ord!("e1_close_relaxed", Acquire));
        Chain::reversed(if head == CLOSED {
            ptr::null_mut()
        } else {
            head
        })
    }

    /// Owner: (4).
    pub(crate) fn open(&self) {
        // ORDERING: Relaxed — nothing is published through an empty queue.
        self.head.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Is anything queued? A hint.
    #[inline]
    pub(crate) fn looks_empty(&self) -> bool {
        // ORDERING: Relaxed — a hint.
        let head = self.head.load(Ordering::Relaxed);
        head.is_null() || head == CLOSED
    }
}

/// A detached list, in the order in which it was pushed.
#[derive(Debug)]
pub(crate) struct Chain {
    first: *mut Node,
}

impl Chain {
    /// No call.
    pub(crate) const EMPTY: Self = Self {
        first: ptr::null_mut(),
    };

    /// Is there none?
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Turns a detached list round.
    fn reversed(mut newest: *mut Node) -> Self {
        if mutant!("bug_newest_first") {
            return Self { first: newest };
        }
        let mut first = ptr::null_mut();
        while let Some(node) = NonNull::new(newest) {
            // SAFETY: the list was acquired by E1: its nodes are valid and ours.
            let node_ref = unsafe { node.as_ref() };
            // SAFETY: as above; the links are plain memory.
            newest = node_ref
                .next
                .with_mut(|next| unsafe { next.replace(first) });
            first = node.as_ptr();
        }
        Self { first }
    }

    /// Takes the oldest call off.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Detached> {
        let node = NonNull::new(self.first)?;
        // SAFETY: a detached node is valid until it runs (1 of `push`).
        let node_ref = unsafe { node.as_ref() };
        // SAFETY: as above.
        self.first = node_ref.next.with(|next| unsafe { *next });
        Some(Detached(node))
    }

    /// Runs every call, oldest first.
    ///
    /// # Safety
    /// 1. `context` is the one of the CPU that the queue belongs to, which runs this.
    #[inline]
    pub(crate) unsafe fn run(mut self, context: &Context) {
        while let Some(call) = self.next() {
            // SAFETY: 1.
            unsafe { call.run(context) };
        }
    }
}

/// A call that has left its queue and has not run.
#[derive(Debug)]
pub(crate) struct Detached(NonNull<Node>);

impl Detached {
    /// A call that was handed over by its node's address, without a queue.
    ///
    /// # Safety
    /// 1. What [`Queue::push`] demands of a node, and this is done once for each time it is handed over.
    #[inline]
    pub(crate) unsafe fn handed_over(node: NonNull<Node>) -> Self {
        Self(node)
    }

    /// Runs it. The node is not touched once it runs: its run may free it.
    ///
    /// # Safety
    /// 1. `context` is the one of the CPU that the queue belongs to, which runs this.
    ///
    /// # Panics
    /// If an invariant of the protocol is broken.
    #[inline]
    pub(crate) unsafe fn run(self, context: &Context) {
        // SAFETY: a detached node is valid until it runs (1 of `push`).
        let node_ref = unsafe { self.0.as_ref() };
        // SAFETY: as above.
        let run = node_ref.run.with(|run| unsafe { *run });
        // SAFETY: 1 — the node left the list and is run this once; 2 — 1 of `run`.
        unsafe { run.expect("a queued node has a run function")(context, self.0) };
    }
}

#[cfg(all(test, loom))]
mod tests;
