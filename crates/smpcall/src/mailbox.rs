//! The mailbox: one cache line that carries a call there and its result back.
//!
//! A waited call to a CPU that polls can cost no less than one line going there and back. So the
//! function, up to six captured words and the result live in one line, and `done` is that line
//! going back to idle. The line belongs to one source at a time: the owner fills it with
//! plain stores, without a lock or a read-modify-write. Another source gives up after one look,
//! uses the queue instead and, if that goes on, asks the owner to let go (E6).
//!
//! ```text
//!          (1) publish, source             (2) serve, target
//!   idle ───────────────────────▶ called ─────────────────────▶ idle
//!     ▲  (4) retract, source         │  (3) claim, closing or opening target
//!     ├──────────────────────────────┤
//!     └──────────── taken ◀──────────┘   (5) serve, target: taken → idle
//! ```
//!
//! (3) and (4) compare-and-swap the same word, so that exactly one of a source that found its target
//! offline and a target that is about to leave, or to come back, gets the call (E10).
//! Edges: E4 (1→2), E5 (2→idle), E6, E10. Neighbours: `bell` tells the target to look.

use core::mem::MaybeUninit;
use core::ptr;

use crate::queue::Context;
use crate::sync::{AtomicPtr, AtomicU32, Ordering, UnsafeCell, loom_const_fn, mutant, ord};

/// What fits into the line beside the function and the owner.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Payload([MaybeUninit<u64>; 6]);

impl Payload {
    /// Can a value of this type travel in the line?
    pub(crate) const fn fits<T>() -> bool {
        size_of::<T>() <= size_of::<Self>() && align_of::<T>() <= align_of::<Self>()
    }
}

/// Runs a call whose captured words are at the pointer, and leaves the result there.
///
/// # Safety
/// 1. The payload is the one that was published with this function, and is run once.
/// 2. The context is the one of the target that runs it.
pub(crate) type MailFn = unsafe fn(&Context, *mut Payload);

/// Marks a call that a closing or opening target has claimed.
const TAKEN: *mut () = ptr::without_provenance_mut(1);

/// The line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Mailbox {
    /// Null: idle. Otherwise the [`MailFn`], or `TAKEN`.
    call: AtomicPtr<()>,
    /// The source that may publish, plus one; 0: nobody.
    owner: AtomicU32,
    payload: UnsafeCell<Payload>,
}

// SAFETY: `owner` and `call` hand the payload to one side at a time (E4, E5, E6).
unsafe impl Sync for Mailbox {}
// SAFETY: what a payload holds is `Send`: the send side demands it of closures and results.
unsafe impl Send for Mailbox {}

impl Mailbox {
    loom_const_fn! {
        /// An idle line that nobody owns.
        pub(crate) fn new() -> Self {
            Self {
                call: AtomicPtr::new(ptr::null_mut()),
                owner: AtomicU32::new(0),
                payload: UnsafeCell::new(Payload([MaybeUninit::uninit(); 6])),
            }
        }
    }

    /// Does `source` own the line?
    #[inline]
    pub(crate) fn is_owned_by(&self, source: u32) -> bool {
        // ORDERING: Relaxed — only the owner itself gives the line up, so its own look is exact.
        self.owner.load(Ordering::Relaxed) == source + 1
    }

    /// Takes the line if nobody owns it.
    pub(crate) fn try_own(&self, source: u32) -> bool {
        // ORDERING: Relaxed — a hint that spares others the exchange.
        self.owner.load(Ordering::Relaxed) == 0
            // ORDERING: Acquire — the last owner's use of the payload is over (E6).
            && self
                .owner
                .compare_exchange(
                    0,
                    source + 1,
                    ord!("e6_own_relaxed", Acquire),
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// The owner's number, if there is one.
    pub(crate) fn owner(&self) -> Option<u32> {
        // ORDERING: Relaxed — a hint whom to ask.
        self.owner.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Owner: lets the line go. It must be idle.
    pub(crate) fn disown(&self) {
        // ORDERING: Release — our use of the payload is over; pairs with `try_own` (E6).
        self.owner.store(0, ord!("e6_disown_relaxed", Release));
    }

    /// Owner: fills the payload and publishes the call, (1).
    ///
    /// # Safety
    /// 1. The caller owns the line, it is idle, and no one else of the same source uses it.
    /// 2. `fill` leaves what `run` expects, and that stays valid until [`Self::is_done`].
    #[inline]
    pub(crate) unsafe fn publish(&self, run: MailFn, fill: impl FnOnce(*mut Payload)) {
        self.payload.with_mut(fill);
        // ORDERING: Release — publishes the payload; pairs with the Acquire in `serve` (E4).
        self.call
            .store(run as *mut (), ord!("e4_publish_relaxed", Release));
    }

    /// Source, after it published: the line under a name that no store has used.
    ///
    /// AMD's Zen cores rename memory: a load by the register and displacement of an earlier store is
    /// guessed to get what was stored. Here the target has stored since, and each wrong guess flushes the
    /// pipeline (measured: 10 to 20 ns a call, near). So the base is shifted by an amount that the
    /// compiler does not know, and every displacement by its opposite.
    #[inline]
    pub(crate) fn by_another_name(&self) -> &Self {
        let shift = size_of::<Self>();
        let shifted = ptr::from_ref(self).wrapping_byte_sub(core::hint::black_box(shift));
        // SAFETY: shifted there and back, it is this line.
        unsafe { &*shifted.wrapping_byte_add(shift) }
    }

    /// Source: has the call run?
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        // ORDERING: Acquire — the result and all that the function wrote are visible (E5).
        self.call.load(ord!("e5_done_relaxed", Acquire)).is_null()
    }

    /// The address that names a call in this line, on both sides.
    #[inline]
    pub(crate) fn request(&self) -> usize {
        ptr::from_ref(self).addr() + core::mem::offset_of!(Self, payload)
    }

    /// Source: takes the result out of the line after [`Self::is_done`], or the call back after
    /// [`Self::retract`].
    #[inline]
    pub(crate) fn payload<R>(&self, read: impl FnOnce(*mut Payload) -> R) -> R {
        self.payload.with_mut(read)
    }

    /// Source that found its target offline: takes the call back, (4). `false`: the target has
    /// run it or is about to; wait for [`Self::is_done`].
    ///
    /// What the word holds is found by looking, not by naming the function again: one function may
    /// have several addresses.
    pub(crate) fn retract(&self) -> bool {
        // ORDERING: Relaxed — our own publication or what the target made of it.
        let call = self.call.load(Ordering::Relaxed);
        // ORDERING: Relaxed — the payload comes back to the one that wrote it; who gets
        // the call is decided by the exchange alone (E10).
        !call.is_null()
            && call != TAKEN
            && self
                .call
                .compare_exchange(call, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Target: is a call waiting here? A hint for idle loops.
    #[inline]
    pub(crate) fn looks_called(&self) -> bool {
        // ORDERING: Relaxed — a hint; `serve` acquires.
        !self.call.load(Ordering::Relaxed).is_null()
    }

    /// Target: runs the call if there is one, (2). One load if there is none.
    ///
    /// # Safety
    /// 1. The context is the one of the CPU that the line belongs to, which runs this.
    #[inline]
    pub(crate) unsafe fn serve(&self, context: &Context) -> bool {
        // ORDERING: Acquire — sees the payload (E4).
        let call = self.call.load(ord!("e4_serve_relaxed", Acquire));
        if call.is_null() {
            return false;
        }
        // SAFETY: 1 — ours; the word was published and nobody retracts from an open target (E11).
        unsafe { self.run(call, context) };
        true
    }

    /// Target that closes or opens: as [`Self::serve`], but claims the call first, (3).
    ///
    /// # Safety
    /// 1. As [`Self::serve`].
    pub(crate) unsafe fn claim_and_serve(&self, context: &Context) {
        // ORDERING: Relaxed — the exchange acquires.
        let call = self.call.load(Ordering::Relaxed);
        if call.is_null() {
            return;
        }
        // ORDERING: Acquire — sees the payload (E4); the exchange decides against `retract` (E10).
        let claimed = if mutant!("e10_claim_without_exchange") {
            true
        } else {
            self.call
                .compare_exchange(
                    call,
                    TAKEN,
                    ord!("e4_claim_relaxed", Acquire),
                    Ordering::Relaxed,
                )
                .is_ok()
        };
        if claimed {
            // SAFETY: 1 — ours, and the exchange made the call ours.
            unsafe { self.run(call, context) };
        }
    }

    /// Runs what the word says and goes back to idle, (2) and (5).
    ///
    /// # Safety
    /// 1. `call` was published, belongs to this target, and the payload with it.
    #[inline]
    unsafe fn run(&self, call: *mut (), context: &Context) {
        // SAFETY: the word is a `MailFn` that `publish` stored.
        let run = unsafe { core::mem::transmute::<*mut (), MailFn>(call) };
        // SAFETY: 1 of `run` — published with its payload, run once, on its target.
        self.payload
            .with_mut(|payload| unsafe { run(context, payload) });
        // ORDERING: Release — publishes the result; pairs with the Acquire in `is_done` (E5).
        self.call
            .store(ptr::null_mut(), ord!("e5_idle_relaxed", Release));
    }
}

#[cfg(all(test, loom))]
mod tests;
