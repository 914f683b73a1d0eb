//! A running case: which CPUs it has, bounded waits, and what to say when a wait does not end.
//!
//! A case fails by answering a [`Failure`]. Its parts run on several CPUs at once; the first failure
//! of any of them counts, and makes the waits of the others end, so that nobody is left behind that
//! uses the case's stack. Every wait leaves a note where it is, for the dump.

use core::cell::UnsafeCell;
use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use smpcall::{CpuId, CpuMask, CpuState, Platform, Smp};

use crate::check::{Check, Failure};
use crate::lab::Lab;

/// How long a wait may take, in nanoseconds.
pub(crate) const LIMIT_NS: u64 = 20_000_000_000;

/// Notes of waits: one for threads that are no CPU, and one for each of 64 CPUs.
const NOTES: usize = 65;

/// No failure yet; one is being written; it is there.
const NONE: u32 = 0;
const WRITING: u32 = 1;
const FAILED: u32 = 2;

/// What a case gets.
pub struct Cx<'l, L, const W: usize, const D: usize> {
    lab: &'l L,
    state: AtomicU32,
    first: UnsafeCell<Option<Failure>>,
    notes: [AtomicPtr<Location<'static>>; NOTES],
}

// SAFETY: `state` gives `first` to one writer, and to readers after that.
unsafe impl<L: Sync, const W: usize, const D: usize> Sync for Cx<'_, L, W, D> {}

impl<L, const W: usize, const D: usize> fmt::Debug for Cx<'_, L, W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").finish_non_exhaustive()
    }
}

impl<'l, L: Lab<W, D>, const W: usize, const D: usize> Cx<'l, L, W, D> {
    /// A case that is about to run on this system.
    pub fn new(lab: &'l L) -> Self {
        Self {
            lab,
            state: AtomicU32::new(NONE),
            first: UnsafeCell::new(None),
            notes: [const { AtomicPtr::new(core::ptr::null_mut()) }; NOTES],
        }
    }

    /// The system.
    pub(crate) fn lab(&self) -> &'l L {
        self.lab
    }

    /// The instance.
    pub(crate) fn smp(&self) -> &'l Smp<L::P, W, D> {
        self.lab.smp()
    }

    /// The CPU that executes; `None` on a thread that is none.
    pub(crate) fn me(&self) -> Option<CpuId> {
        self.smp().current_cpu()
    }

    /// The CPUs that are online.
    pub(crate) fn online(&self) -> CpuMask<W> {
        self.smp().online_cpus()
    }

    /// The CPUs that are online, this one left out.
    pub(crate) fn others(&self) -> CpuMask<W> {
        let mut others = self.online();
        self.me().map(|me| others.remove(me));
        others
    }

    /// Another CPU: number `k` of those.
    ///
    /// # Panics
    /// If there are no more: the case asked for fewer CPUs than it uses.
    pub(crate) fn other(&self, k: usize) -> CpuId {
        let other = self.others().iter().nth(k);
        other.expect("the case's `min_cpus` covers this CPU")
    }

    /// At most `n` CPUs, with this one if it is one.
    pub(crate) fn some_cpus(&self, n: usize) -> CpuMask<W> {
        let me = self.me().into_iter();
        me.chain(&self.others()).take(n).collect()
    }

    /// Nanoseconds of the platform's clock.
    pub(crate) fn now(&self) -> u64 {
        self.smp().platform().now_ns()
    }

    /// Waits until `done`, taking calls, for at most [`LIMIT_NS`].
    ///
    /// # Errors
    /// The time is up, after a dump; or another part of the case failed.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, done: impl Fn() -> bool) -> Check {
        if done() {
            return Ok(());
        }
        let at = Location::caller();
        let note = self.note();
        // ORDERING: Relaxed — notes are for the dump only, here and below.
        let before = note.swap(core::ptr::from_ref(at).cast_mut(), Ordering::Relaxed);
        let ended = self.wait_noted(LIMIT_NS, &done);
        note.store(before, Ordering::Relaxed);
        match ended {
            Ended::Done => Ok(()),
            Ended::GaveUp => Err(Failure::new(format_args!("given up: {what}"))),
            Ended::Late => {
                let failure = Failure::new(format_args!("never happened: {what}"));
                self.dump(&failure);
                Err(self.fail(failure))
            }
        }
    }

    /// Waits until `done`, whatever failed, for at most `limit_ns`; answers whether it is.
    pub(crate) fn wait_at_most(&self, limit_ns: u64, done: impl Fn() -> bool) -> bool {
        let start = self.now();
        let mut spins = 0_u32;
        while !done() {
            self.turn(spins);
            spins = spins.saturating_add(1);
            if self.now().saturating_sub(start) > limit_ns {
                return done();
            }
        }
        true
    }

    /// Lets some time pass, taking calls.
    pub(crate) fn pause_ns(&self, ns: u64) {
        self.wait_at_most(ns, || false);
    }

    fn wait_noted(&self, limit_ns: u64, done: &dyn Fn() -> bool) -> Ended {
        let start = self.now();
        let mut spins = 0_u32;
        loop {
            if done() {
                return Ended::Done;
            }
            if self.has_failed() {
                return Ended::GaveUp;
            }
            self.turn(spins);
            spins = spins.saturating_add(1);
            if (spins.is_multiple_of(16) || spins == u32::MAX)
                && self.now().saturating_sub(start) > limit_ns
            {
                return Ended::Late;
            }
        }
    }

    /// One turn of a wait.
    fn turn(&self, spins: u32) {
        // Where calls interrupt, a look would hide an interrupt that was lost.
        if L::P::WAITERS_SERVE {
            self.smp().poll();
        }
        self.smp().platform().relax(spins);
    }

    fn note(&self) -> &AtomicPtr<Location<'static>> {
        let slot = self.me().map_or(0, |me| 1 + me.index() % (NOTES - 1));
        &self.notes[slot]
    }

    /// Has a part of the case failed?
    pub(crate) fn has_failed(&self) -> bool {
        // ORDERING: Relaxed — only makes waits end; `first_failure` acquires.
        self.state.load(Ordering::Relaxed) != NONE
    }

    /// Keeps the first failure, which makes the other parts' waits end; gives it back.
    pub(crate) fn fail(&self, failure: Failure) -> Failure {
        // ORDERING: Relaxed — decides who writes; the store below publishes.
        let ours = self
            .state
            .compare_exchange(NONE, WRITING, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if ours {
            // SAFETY: the exchange made the cell ours, and nobody reads it before the store.
            unsafe { *self.first.get() = Some(failure.clone()) };
            // ORDERING: Release — publishes the failure to `first_failure`.
            self.state.store(FAILED, Ordering::Release);
        }
        failure
    }

    /// The failure that counts: the first of any part, else the case's own.
    pub(crate) fn verdict(&self, own: Check) -> Check {
        // ORDERING: Acquire — the failure was written (`fail`).
        if self.state.load(Ordering::Acquire) != FAILED {
            return own;
        }
        // SAFETY: it is written, and nobody writes any more.
        let first = unsafe { &*self.first.get() };
        first.clone().map_or(own, Err)
    }

    /// Says who waits where, and how every CPU stands.
    pub(crate) fn dump(&self, failure: &Failure) {
        let lab = self.lab;
        lab.log(format_args!("dump: {failure}, seen by {:?}", self.me()));
        lab.log(format_args!("dump: online {}", self.online()));
        for cpu in &self.smp().present_cpus() {
            let state = self.smp().cpu_state(cpu);
            let at = self.waits_at(1 + cpu.index() % (NOTES - 1));
            match (state, at) {
                (CpuState::Online, None) => {}
                (_, None) => lab.log(format_args!("dump: CPU {cpu}: {state:?}")),
                (_, Some(at)) => {
                    lab.log(format_args!("dump: CPU {cpu}: {state:?}, waits at {at}"));
                }
            }
        }
        if let Some(at) = self.waits_at(0) {
            lab.log(format_args!("dump: a foreign thread waits at {at}"));
        }
    }

    fn waits_at(&self, slot: usize) -> Option<&'static Location<'static>> {
        // ORDERING: Relaxed — a note is the address of a constant, valid whenever it is seen.
        let at = self.notes[slot].load(Ordering::Relaxed);
        // SAFETY: notes are null or come from `Location::caller`, which lives for ever.
        unsafe { at.as_ref() }
    }

    /// Stops everything: somebody still uses this stack and will not stop.
    pub(crate) fn fatal(&self, what: &str) -> ! {
        self.dump(&Failure::new(format_args!("{what}")));
        self.smp().platform().fatal(format_args!("{what}"))
    }
}

/// How a wait ended.
enum Ended {
    Done,
    GaveUp,
    Late,
}
