//! Tickets: a posted call whose end can be waited for, polled or awaited.
//!
//! The caller owns the room, a [`TicketSlot`], pinned or static; submitting gives a [`Ticket`] for
//! the result. The call travels in the posted lane, in its order. One word says who has the slot:
//!
//! ```text
//!           (1) submit, sender          (2) finish, target          (3) take, ticket
//!   FREE ──────────────────────▶ PENDING ─────────────────▶ DONE ─────────────────────▶ FREE
//!    ▲            (4) listen, ticket │ ▲
//!    │                               ▼ │ (5) stop listening, ticket
//!    │                           LISTENED ──────────────────▶ CLAIMED ──▶ (2)
//!    │                               (6) claim the waker, target
//!    └─ (8) finish, target ── DROPPED ◀── (7) drop, ticket: from PENDING and CLAIMED
//! ```
//!
//! The target takes the waker out in (6), gives the slot away in (2), and only then wakes: whoever is
//! woken may use the slot again at once, and no lock is held. A poll between (6) and (2) wakes
//! itself, for the end is a few instructions away. Forgetting a ticket keeps its slot busy, no
//! more: the slot's drop waits for the target and drops the result.
//! Edges: E22 (FREE→1), E23 (2→3), E24 (4→6). Neighbours: `queue` carries the slot, `post` is the
//! same without a result.

use core::fmt;
use core::marker::PhantomPinned;
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::ptr::{self, NonNull};
use core::task::{self, Poll, Waker};

use crate::area::Lane;
use crate::cpu::CpuId;
use crate::csd::DropWait;
use crate::error::{CallError, Refused};
use crate::guard::Pinned;
use crate::job::Outcome;
use crate::platform::Platform;
use crate::queue::{Context, Node};
use crate::smp::Smp;
use crate::stall::{Suspect, run_named};
use crate::sync::{AtomicU32, Ordering, UnsafeCell, loom_const_fn, ord};

const FREE: u32 = 0;
/// Queued or running.
const PENDING: u32 = 1;
/// The result is there.
const DONE: u32 = 2;
/// Beside `PENDING`: a waker is in the cell, for the target to claim.
const LISTENED: u32 = 4;
/// Beside `PENDING`: the target has taken the waker and is about to finish.
const CLAIMED: u32 = 8;
/// Beside `PENDING`: nobody wants the result.
const DROPPED: u32 = 16;

/// What a ticket and the target share of a slot.
#[repr(C)]
struct Core<P: Platform, R> {
    node: Node,
    state: AtomicU32,
    outcome: UnsafeCell<MaybeUninit<Outcome<P, R>>>,
    waker: UnsafeCell<Option<Waker>>,
    /// How the slot's drop waits while it is queued.
    drop_wait: UnsafeCell<*const DropWait>,
}

/// Room for one call at a time, its result of type `R`, and up to `N` captured words.
///
/// ```
/// # use smpcall::{Platform, TicketSlot};
/// fn room<P: Platform>() -> TicketSlot<P, u64> {
///     TicketSlot::new()
/// }
/// ```
#[repr(C)]
pub struct TicketSlot<P: Platform, R, const N: usize = 3> {
    core: Core<P, R>,
    words: UnsafeCell<[MaybeUninit<usize>; N]>,
    _pin: PhantomPinned,
}

// SAFETY: `state` gives the cells to one side at a time; closures and results are `Send`, which
// `submit` demands of the ones and these bounds of the others, and a panic is by its trait.
unsafe impl<P: Platform, R: Send, const N: usize> Sync for TicketSlot<P, R, N> {}
// SAFETY: a slot that can be moved is in no queue; see above for what it holds.
unsafe impl<P: Platform, R: Send, const N: usize> Send for TicketSlot<P, R, N> {}
// SAFETY: as the slot that it is part of.
unsafe impl<P: Platform, R: Send> Sync for Core<P, R> {}

impl<P: Platform, R, const N: usize> fmt::Debug for TicketSlot<P, R, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSlot")
            .field("free", &self.is_free())
            .finish_non_exhaustive()
    }
}

impl<P: Platform, R, const N: usize> Default for TicketSlot<P, R, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform, R, const N: usize> TicketSlot<P, R, N> {
    loom_const_fn! {
        /// A free slot.
        pub fn new() -> Self {
            Self {
                core: Core {
                    node: Node::new(),
                    state: AtomicU32::new(FREE),
                    outcome: UnsafeCell::new(MaybeUninit::uninit()),
                    waker: UnsafeCell::new(None),
                    drop_wait: UnsafeCell::new(ptr::null()),
                },
                words: UnsafeCell::new([MaybeUninit::uninit(); N]),
                _pin: PhantomPinned,
            }
        }
    }

    /// Is it free to be submitted? Another thread may change the answer at once.
    pub fn is_free(&self) -> bool {
        // ORDERING: Relaxed — a hint; (1) acquires.
        self.core.state.load(Ordering::Relaxed) == FREE
    }

    /// Does a closure of this type fit?
    const fn fits<F>() -> bool {
        size_of::<F>() <= N * size_of::<usize>() && align_of::<F>() <= align_of::<usize>()
    }
}

impl<P: Platform, R> Core<P, R> {
    /// Sender: (1).
    fn try_lock(&self) -> bool {
        // ORDERING: Acquire — the last call's use of the slot is over (E22).
        self.state
            .compare_exchange(
                FREE,
                PENDING,
                ord!("e22_lock_relaxed", Acquire),
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// A sender that was refused, (3) and (8).
    fn free(&self) {
        // ORDERING: Release — our use of the slot is over; pairs with `try_lock` (E22).
        self.state.store(FREE, ord!("e22_free_relaxed", Release));
    }

    /// Is the result there?
    fn is_done(&self) -> bool {
        self.look() == DONE
    }

    fn look(&self) -> u32 {
        // ORDERING: Acquire — the result and all that the function wrote are visible (E23).
        self.state.load(ord!("e23_look_relaxed", Acquire))
    }

    /// Leaves the result. Target, or the sender on its own CPU.
    ///
    /// # Safety
    /// 1. The call is pending, and ours to finish.
    unsafe fn put(&self, outcome: Outcome<P, R>) {
        // SAFETY: 1 — nobody reads it before (2).
        self.outcome
            .with_mut(|slot| unsafe { (*slot).write(outcome) });
    }

    /// Moves the result out.
    ///
    /// # Safety
    /// 1. It is there and ours: the state is `DONE`, or `DROPPED` on the target. It moves once.
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    unsafe fn take(&self) -> Outcome<P, R> {
        // SAFETY: 1.
        self.outcome
            .with_mut(|slot| unsafe { (*slot).assume_init_read() })
    }

    /// Moves the waker out.
    ///
    /// # Safety
    /// 1. The cell is ours: the target's after (6), the ticket's unless `LISTENED` or `CLAIMED`.
    unsafe fn take_waker(&self) -> Option<Waker> {
        // SAFETY: 1.
        self.waker.with_mut(|cell| unsafe { (*cell).take() })
    }

    /// Target, after [`Self::put`]: (2) or (8), then wakes.
    ///
    /// # Safety
    /// 1. As `put`, which was done. The slot may be gone when this returns.
    unsafe fn finish(&self, platform: &P, cpu: CpuId) {
        let mut waker: Option<Waker> = None;
        let mut state = self.look();
        loop {
            if state & DROPPED != 0 {
                // SAFETY: 1 of `take` — put there just now, and the ticket gave it up.
                discard(platform, cpu, unsafe { self.take() });
                self.free();
                let unwanted = waker.take();
                return discard(platform, cpu, platform.catch(|| drop(unwanted)));
            }
            let claims = state & LISTENED != 0;
            let next = if claims { PENDING | CLAIMED } else { DONE };
            // ORDERING: AcqRel — Release publishes the result to who takes it (E23), Acquire sees
            // the waker (E24). Acquire on failure — a ticket that was dropped is through (E22).
            match self
                .state
                .compare_exchange(state, next, finish_order(claims), Ordering::Acquire)
            {
                Ok(_) if claims => {
                    // SAFETY: 1 of `take_waker` — (6) made the cell ours.
                    waker = unsafe { self.take_waker() };
                    state = next;
                }
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        if let Some(waker) = waker {
            discard(platform, cpu, platform.catch(|| waker.wake()));
        }
    }
}

/// The ordering of (6) and (2), each with its mutant.
#[expect(
    clippy::fn_params_excessive_bools,
    reason = "a state that is saved and given back, not a choice of behaviour"
)]
fn finish_order(claims: bool) -> Ordering {
    if claims {
        ord!("e24_claim_relaxed", AcqRel)
    } else {
        ord!("e23_done_relaxed", AcqRel)
    }
}

/// Drops a result that nobody wants; a panic is reported, the drop's own too.
fn discard<P: Platform, R>(platform: &P, cpu: CpuId, outcome: Outcome<P, R>) {
    let panicked = outcome.and_then(|result| platform.catch(|| drop(result)));
    if let Err(panic) = panicked {
        platform.report_panic(cpu, panic);
    }
}

/// Runs a submitted closure.
///
/// # Safety
/// As [`crate::queue::NodeFn`]; the node heads a slot of this type with an `F` in its words.
unsafe fn run_ticket<P: Platform, F: FnOnce() -> R, R, const N: usize>(
    context: &Context,
    node: NonNull<Node>,
) {
    let slot = node.cast::<TicketSlot<P, R, N>>();
    // SAFETY: 1 of `NodeFn` — queued by `submit`, alive until it is finished below.
    let slot = unsafe { slot.as_ref() };
    // SAFETY: 1 — the words hold an `F`, which moves out once.
    let f = slot
        .words
        .with_mut(|words| unsafe { words.cast::<F>().read() });
    // SAFETY: 2 of `NodeFn` — the context's platform.
    let platform = unsafe { &*context.platform.cast::<P>() };
    let outcome = run_named::<P, F, R>(platform, context.cpu, node.addr().get(), f);
    // SAFETY: 1 — the call is pending and this is its run.
    unsafe { slot.core.put(outcome) };
    // SAFETY: 1 — put just now; the slot is not used after this.
    unsafe { slot.core.finish(platform, context.cpu) };
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs `f` on `cpu` soon, as [`post`](Self::post) does and in its lane and order, and gives a
    /// ticket for the result. On the calling CPU it runs inline at once.
    ///
    /// The closure holds at most `N` words, the slot's. Nothing is allocated and nothing blocks.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Hands the closure back: `NoSuchCpu`, `Offline`, and `Busy` while the slot is in use.
    pub fn submit<'a, R, F, const N: usize>(
        &'a self,
        cpu: CpuId,
        slot: Pin<&'a TicketSlot<P, R, N>>,
        f: F,
    ) -> Result<Ticket<'a, P, R>, Refused<F>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        const {
            assert!(
                TicketSlot::<P, R, N>::fits::<F>(),
                "the closure holds more words than the `TicketSlot` has room for"
            );
        }
        let _pinned = Pinned::new(&self.platform);
        let slot = slot.get_ref();
        let core = &slot.core;
        let Some(area) = self.area(cpu).filter(|area| !area.bell.looks_closed()) else {
            return Err(Refused::new(self.refusal(cpu), f));
        };
        if !core.try_lock() {
            return Err(Refused::new(CallError::Busy, f));
        }
        let ticket = Ticket {
            core: Some(core),
            platform: &self.platform,
            target: cpu,
        };
        if self.platform.current_cpu() == Some(cpu) {
            // SAFETY: 1 — locked just now, and nobody else finishes it.
            unsafe { core.put(self.catch_here::<F, R>(cpu, f)) };
            // ORDERING: Release — publishes the result (E23).
            core.state.store(DONE, Ordering::Release);
            return Ok(ticket);
        }
        // SAFETY: locked: the words are ours, and a closure of this type fits.
        slot.words
            .with_mut(|words| unsafe { words.cast::<F>().write(f) });
        self.platform.descriptor_posted();
        let drop_wait = area.drop_wait(Lane::Posted);
        // SAFETY: locked: the cell is ours.
        core.drop_wait
            .with_mut(|cell| unsafe { cell.write(drop_wait) });
        // SAFETY: 1 — locked: in no queue.
        unsafe { core.node.set_run(run_ticket::<P, F, R, N>) };
        // SAFETY: 1 — `run` is set, a pinned slot's drop waits, and it is locked: ours.
        if unsafe { self.post_node::<F>(cpu, area, NonNull::from(slot).cast()) } {
            return Ok(ticket);
        }
        core::mem::forget(ticket);
        // SAFETY: refused: the closure is still there and moves out once.
        let f = slot
            .words
            .with_mut(|words| unsafe { words.cast::<F>().read() });
        core.free();
        Err(Refused::new(self.refusal(cpu), f))
    }

    /// As [`submit`](Self::submit), into a free slot of a pool.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); `Busy` if no slot is free.
    pub fn submit_pooled<'a, R, F, const M: usize, const N: usize>(
        &'a self,
        cpu: CpuId,
        pool: Pin<&'a TicketPool<P, R, M, N>>,
        f: F,
    ) -> Result<Ticket<'a, P, R>, Refused<F>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let mut f = f;
        for slot in &pool.get_ref().slots {
            if !slot.is_free() {
                continue;
            }
            // SAFETY: the pool is pinned, and its slots with it.
            let slot = unsafe { Pin::new_unchecked(slot) };
            match self.submit(cpu, slot, f) {
                Err(Refused {
                    error: CallError::Busy,
                    closure,
                }) => f = closure,
                other => return other,
            }
        }
        Err(Refused::new(CallError::Busy, f))
    }

    /// Waits for a ticket's result; a panic of its function continues here.
    ///
    /// Context: as [`call`](Self::call).
    ///
    /// # Errors
    /// Hands the ticket back: `InterruptsOff`, `InHandler`.
    #[track_caller]
    pub fn redeem<'a, R>(&self, ticket: Ticket<'a, P, R>) -> Result<R, Refused<Ticket<'a, P, R>>> {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        let outcome = match ticket.try_take() {
            Ok(outcome) => outcome,
            Err(ticket) => {
                if let Err(error) = self.may_wait(me) {
                    return Err(Refused::new(error, ticket));
                }
                let core = ticket.core();
                let suspect = Suspect::running(ticket.target, ptr::from_ref(core).addr());
                self.wait_for(self.waiter(me), suspect, || core.is_done());
                ticket.take_done()
            }
        };
        Ok(self.unwrap(outcome))
    }
}

/// The result of a submitted call, to come.
///
/// It is waited for by [`Smp::redeem`], polled by [`try_take`](Self::try_take), or awaited: the
/// future's output is the result, or the panic's payload. Dropped, the call still runs, and its
/// result is dropped there; forgotten, it keeps its slot busy.
#[must_use = "a dropped ticket lets the result go"]
pub struct Ticket<'a, P: Platform, R> {
    /// `None` once the result was taken.
    core: Option<&'a Core<P, R>>,
    platform: &'a P,
    target: CpuId,
}

impl<P: Platform, R> fmt::Debug for Ticket<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("target", &self.target)
            .field("done", &self.core.is_none_or(Core::is_done))
            .finish_non_exhaustive()
    }
}

impl<'a, P: Platform, R> Ticket<'a, P, R> {
    /// The CPU that runs the call.
    pub fn target(&self) -> CpuId {
        self.target
    }

    /// Has it run? Then the result is there.
    pub fn is_done(&self) -> bool {
        self.core().is_done()
    }

    /// The result, or the panic's payload, if the call has run; otherwise the ticket.
    ///
    /// # Errors
    /// The ticket, while the call has not run.
    pub fn try_take(self) -> Result<Outcome<P, R>, Self> {
        if self.is_done() {
            Ok(self.take_done())
        } else {
            Err(self)
        }
    }

    /// A future that was ready is not polled again, so the slot is there.
    ///
    /// # Panics
    /// If an invariant of the protocol is broken.
    fn core(&self) -> &'a Core<P, R> {
        self.core.expect("a ticket is polled until it is ready")
    }

    /// (3). The result is there.
    fn take_done(mut self) -> Outcome<P, R> {
        self.take_out()
    }

    /// (3). The result is there.
    fn take_out(&mut self) -> Outcome<P, R> {
        let core = self.core();
        self.core = None;
        // SAFETY: 1 — done, which is asked before this, and the ticket is spent.
        let outcome = unsafe { core.take() };
        core.free();
        outcome
    }

    /// (4), with (5) before it if an earlier poll listened. `Ready`: the result is there.
    fn listen(&self, waker: &Waker) -> Poll<()> {
        let core = self.core();
        let Some(kept) = self.stop_listening() else {
            waker.wake_by_ref();
            return if core.is_done() {
                Poll::Ready(())
            } else {
                Poll::Pending
            };
        };
        if core.is_done() {
            return Poll::Ready(());
        }
        let new = match kept {
            Some(kept) if kept.will_wake(waker) => kept,
            _ => waker.clone(),
        };
        // SAFETY: not listening: the cell is the ticket's.
        core.waker.with_mut(|cell| unsafe { *cell = Some(new) });
        // ORDERING: Release — publishes the waker; pairs with the Acquire in `finish` (E24). On
        // failure Acquire — the call has finished, and its result is visible (E23).
        let listens = core.state.compare_exchange(
            PENDING,
            PENDING | LISTENED,
            ord!("e24_listen_relaxed", Release),
            Ordering::Acquire,
        );
        if listens.is_ok() {
            return Poll::Pending;
        }
        // SAFETY: 1 — done, and nobody claimed the waker.
        drop(unsafe { core.take_waker() });
        Poll::Ready(())
    }

    /// (5): takes the waker of an earlier poll back, if there is one. `None`: the target has
    /// claimed it and is about to finish.
    fn stop_listening(&self) -> Option<Option<Waker>> {
        let core = self.core();
        let state = core.look();
        if state & CLAIMED != 0 {
            return None;
        }
        if state & LISTENED == 0 {
            return Some(None);
        }
        // ORDERING: Acquire — what an earlier poll, perhaps on another thread, left in the cell; its
        // own hand-over orders that too. On failure the target was faster.
        let stopped = core.state.compare_exchange(
            PENDING | LISTENED,
            PENDING,
            Ordering::Acquire,
            Ordering::Acquire,
        );
        match stopped {
            // SAFETY: 1 — not listening any more: the cell is the ticket's.
            Ok(_) => Some(unsafe { core.take_waker() }),
            Err(DONE) => Some(None),
            Err(_claimed) => None,
        }
    }
}

impl<P: Platform, R> Future for Ticket<'_, P, R> {
    type Output = Outcome<P, R>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let ticket = self.get_mut();
        if ticket.is_done() || ticket.listen(context.waker()).is_ready() {
            return Poll::Ready(ticket.take_out());
        }
        Poll::Pending
    }
}

impl<P: Platform, R> Drop for Ticket<'_, P, R> {
    /// (7), or (3) if the result is there: it is dropped here, and a panic reported.
    fn drop(&mut self) {
        let Some(core) = self.core else {
            return;
        };
        drop(self.stop_listening());
        let mut state = core.look();
        while state != DONE {
            // ORDERING: Release — our use of the waker's cell is over; pairs with the Acquire in
            // `finish`, whose Release passes it on to the next user (E22).
            match core.state.compare_exchange(
                state,
                state | DROPPED,
                ord!("e22_drop_relaxed", Release),
                Ordering::Acquire,
            ) {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
        let outcome = self.take_out();
        discard(self.platform, self.target, outcome);
    }
}

impl<P: Platform, R, const N: usize> Drop for TicketSlot<P, R, N> {
    /// Waits until a queued call has run, as a [`Csd`](crate::Csd)'s drop does.
    fn drop(&mut self) {
        let core = &self.core;
        if core.look() & PENDING != 0 {
            // SAFETY: written before the slot was queued and not after.
            let wait = core.drop_wait.with(|cell| unsafe { *cell });
            // SAFETY: the slot is queued, so the cell has its target's `DropWait`, which lives as
            // long as the instance, which outlives what is queued on it.
            let wait = unsafe { &*wait };
            // SAFETY: 1 — the instance wrote itself into its areas.
            unsafe { (wait.wait)(wait.smp, wait.target, &|| core.look() & PENDING != 0) };
        }
        if core.is_done() {
            // SAFETY: 1 — done; its ticket was forgotten, for it borrows the slot.
            drop(unsafe { core.take() });
        }
    }
}

/// A bounded number of slots: as many calls as that may be under way.
///
/// ```
/// # use smpcall::{Platform, TicketPool};
/// fn room<P: Platform>() -> TicketPool<P, u64, 16> {
///     TicketPool::new()
/// }
/// ```
pub struct TicketPool<P: Platform, R, const M: usize, const N: usize = 3> {
    slots: [TicketSlot<P, R, N>; M],
}

impl<P: Platform, R, const M: usize, const N: usize> fmt::Debug for TicketPool<P, R, M, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.slots.iter().filter(|slot| slot.is_free()).count();
        f.debug_struct("TicketPool")
            .field("free", &free)
            .finish_non_exhaustive()
    }
}

impl<P: Platform, R, const M: usize, const N: usize> Default for TicketPool<P, R, M, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform, R, const M: usize, const N: usize> TicketPool<P, R, M, N> {
    loom_const_fn! {
        /// All free.
        pub fn new() -> Self {
            #[cfg(not(loom))]
            let slots = [const { TicketSlot::new() }; M];
            #[cfg(loom)]
            let slots = core::array::from_fn(|_| TicketSlot::new());
            Self { slots }
        }
    }
}

#[cfg(all(test, loom))]
mod tests;
