//! Broadcasts: one record per source, one request bit per source in each target.
//!
//! A waited call to many writes its function once, into its source's [`Broadcast`]; each target
//! learns of it by the source's bit in its own [`Requests`]. Storage grows with the CPUs, by two
//! bitmaps each, not with their square. A target clears its bit in `pending` when it has
//! run; the source waits until none is left. The set is written before any target can see the
//! request, and only ever shrinks after that.
//!
//! ```text
//!            (1) prepare, source       (2) request, source      (3) take, target
//!   idle ─────────────────────▶ filled ────────────▶ requested ───────────────▶ running
//!    ▲                                                   │ (5) retract, source     │
//!    └───────────── pending empty ◀──────────────────────┴─────── (4) finish, target
//! ```
//!
//! Edges: E12 (2→3), E13 (4→source), E14 (summary). Neighbours: `bell` tells the target to look.

use crate::cpu::{CpuId, CpuMask};
use crate::queue::Context;
use crate::sync::{AtomicU64, Ordering, UnsafeCell, loom_const_fn, mutant, ord};

/// Runs a broadcast's function on one target.
///
/// # Safety
/// 1. The data is what was prepared with this function and is alive.
/// 2. The context is the one of the target that runs it, once.
pub(crate) type BroadcastFn = unsafe fn(&Context, *const ());

/// A source's record.
#[derive(Debug)]
pub(crate) struct Broadcast<const W: usize> {
    call: UnsafeCell<Option<(BroadcastFn, *const ())>>,
    pending: [AtomicU64; W],
}

// SAFETY: the source writes `call` while `pending` is empty, targets read it while their bit is set.
unsafe impl<const W: usize> Sync for Broadcast<W> {}
// SAFETY: the data pointer is to something `Sync`: the send side demands it.
unsafe impl<const W: usize> Send for Broadcast<W> {}

impl<const W: usize> Broadcast<W> {
    loom_const_fn! {
        /// An idle record.
        pub(crate) fn new() -> Self {
            #[cfg(not(loom))]
            let pending = [const { AtomicU64::new(0) }; W];
            #[cfg(loom)]
            let pending = core::array::from_fn(|_| AtomicU64::new(0));
            Self { call: UnsafeCell::new(None), pending }
        }
    }

    /// Source: (1).
    ///
    /// # Safety
    /// 1. The caller is the source's one broadcaster, and no target is pending.
    /// 2. `data` stays valid until [`Self::is_done`].
    pub(crate) unsafe fn prepare(&self, run: BroadcastFn, data: *const (), targets: &CpuMask<W>) {
        // SAFETY: 1 — no target looks at the record.
        self.call
            .with_mut(|call| unsafe { call.write(Some((run, data))) });
        for (word, &bits) in self.pending.iter().zip(targets.words()) {
            // ORDERING: Relaxed — the request's Release publishes it with the record (E12).
            word.store(bits, Ordering::Relaxed);
        }
    }

    /// Source: has every target run?
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.pending.iter().all(|word| {
            // ORDERING: Acquire — what the functions wrote is visible (E13).
            word.load(ord!("e13_done_relaxed", Acquire)) == 0
        })
    }

    /// The targets that have not finished; for reports.
    pub(crate) fn laggards(&self) -> CpuMask<W> {
        // ORDERING: Relaxed — a report shows a moment, it decides nothing.
        CpuMask::from_fn(|w| self.pending[w].load(Ordering::Relaxed))
    }

    /// Target, or the source for one that it retracted: (4).
    #[inline]
    pub(crate) fn finish(&self, cpu: CpuId) {
        let (word, bit) = (&self.pending[cpu.index() / 64], 1 << (cpu.index() % 64));
        if mutant!("bug_completion_overwritten") {
            let left = word.load(Ordering::Acquire) & !bit;
            return word.store(left, Ordering::Release);
        }
        // ORDERING: Release — publishes what the function wrote; pairs with `is_done` (E13).
        word.fetch_and(!bit, ord!("e13_finish_relaxed", Release));
    }

    /// Target: runs the function and finishes.
    ///
    /// # Safety
    /// 1. The target took the source's request and runs it once, with its own context.
    ///
    /// # Panics
    /// If an invariant of the protocol is broken.
    #[inline]
    pub(crate) unsafe fn run(&self, context: &Context) {
        // SAFETY: 1 — our bit is pending, so the source does not write the record (E12).
        let call = self.call.with(|call| unsafe { *call });
        let (run, data) = call.expect("a requested broadcast is prepared");
        // SAFETY: 1 and 2 — prepared together, alive while our bit is pending, our context.
        unsafe { run(context, data) };
        self.finish(context.cpu);
    }
}

/// A target's request bits, one for each source.
#[derive(Debug)]
pub(crate) struct Requests<const W: usize> {
    /// Bit `w`: `words[w]` is worth a look.
    summary: AtomicU64,
    words: [AtomicU64; W],
}

impl<const W: usize> Requests<W> {
    loom_const_fn! {
        /// No request.
        pub(crate) fn new() -> Self {
            const { assert!(W >= 1 && W <= 64, "a CPU mask has 1 to 64 words (4,096 CPUs)") };
            #[cfg(not(loom))]
            let words = [const { AtomicU64::new(0) }; W];
            #[cfg(loom)]
            let words = core::array::from_fn(|_| AtomicU64::new(0));
            Self { summary: AtomicU64::new(0), words }
        }
    }

    /// Source: (2). Ring after it.
    #[inline]
    pub(crate) fn request(&self, source: CpuId) {
        let w = source.index() / 64;
        // ORDERING: Release — publishes the source's record; pairs with the Acquire in `take` (E12).
        self.words[w].fetch_or(
            1 << (source.index() % 64),
            ord!("e12_request_relaxed", Release),
        );
        // ORDERING: Release — publishes the word's bit; pairs with the swap in `take` (E14).
        self.summary.fetch_or(1 << w, Ordering::Release);
    }

    /// Source that found the target offline: (5). `false`: the target took the request.
    pub(crate) fn retract(&self, source: CpuId) -> bool {
        let bit = 1 << (source.index() % 64);
        // ORDERING: Relaxed — the record never left the source; the bit decides who has it.
        self.words[source.index() / 64].fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    /// Is anything requested? One load.
    #[inline]
    pub(crate) fn looks_empty(&self) -> bool {
        // ORDERING: Relaxed — a request missed here was not yet rung for (E7).
        self.summary.load(Ordering::Relaxed) == 0
    }

    /// Target: (3). Calls `run` with each source that requested.
    #[inline]
    pub(crate) fn take(&self, mut run: impl FnMut(CpuId)) {
        if self.looks_empty() {
            return;
        }
        // ORDERING: Acquire — sees the bits of the words that it names (E14).
        let mut summary = self.summary.swap(0, Ordering::Acquire);
        while summary != 0 {
            let w = summary.trailing_zeros() as usize;
            summary &= summary - 1;
            // ORDERING: Acquire — sees the records of the sources (E12).
            let mut bits = self.words[w].swap(0, ord!("e12_take_relaxed", Acquire));
            while bits != 0 {
                run(CpuId::new((64 * w) as u32 + bits.trailing_zeros()));
                bits &= bits - 1;
            }
        }
    }
}

#[cfg(all(test, loom))]
mod tests;
