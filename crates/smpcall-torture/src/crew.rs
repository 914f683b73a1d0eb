//! The same code in the task context of several CPUs, borrowing the case's stack.
//!
//! The library posts tasks to CPUs by descriptors that are pinned here; the case waits until the last
//! one has ended, so what they borrow outlives them. A CPU that never ends stops the whole
//! run: returning would pull the stack from under it.

use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use smpcall::{CpuId, CpuMask, Csd};

use crate::check::{Check, Failure};
use crate::cx::{Cx, LIMIT_NS};
use crate::lab::Lab;

/// How many CPUs a crew has at most, the case's own not counted.
pub(crate) const CREW: usize = 8;

/// What the members of a crew share.
struct Muster<'a> {
    member: &'a (dyn Fn(CpuId) + Sync),
    left: AtomicUsize,
}

/// The muster's address, for tasks that must be `'static`.
#[derive(Clone, Copy)]
struct Address(*const ());

// SAFETY: a muster is shared by reference: its parts are `Sync`.
unsafe impl Send for Address {}

impl Address {
    /// Runs the member on this CPU.
    ///
    /// # Safety
    /// 1. It is a muster's address, alive until `left` is counted down for this member.
    unsafe fn run(self, cpu: CpuId) {
        // SAFETY: 1.
        let muster = unsafe { &*self.0.cast::<Muster<'_>>() };
        /// Counts down even if the member panics.
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                // ORDERING: Release — what the member did is visible to the case, which may then
                // take the muster away.
                self.0.fetch_sub(1, Ordering::Release);
            }
        }
        let _leave = Leave(&muster.left);
        (muster.member)(cpu);
    }
}

/// A task; its type depends on no lifetime.
fn task(muster: Address, cpu: CpuId) -> impl Fn() + Copy + Send + 'static {
    // SAFETY: 1 — `Cx::crew` waits for every task that was accepted.
    move || unsafe { muster.run(cpu) }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Runs `member` in the task context of each of these CPUs (at most [`CREW`], this one left
    /// out), `lead` here meanwhile, and waits for all.
    ///
    /// # Errors
    /// The first failure of any of them.
    pub(crate) fn crew(
        &self,
        cpus: &CpuMask<W>,
        member: impl Fn(CpuId) -> Check + Sync,
        lead: impl FnOnce() -> Check,
    ) -> Check {
        let me = self.me();
        let report = |cpu: CpuId| {
            let here = self.me();
            if here != Some(cpu) {
                self.fail(Failure::new(format_args!(
                    "a task of CPU {cpu} ran on {here:?}"
                )));
            } else if let Err(failure) = member(cpu) {
                self.fail(failure);
            }
        };
        let chosen: CpuMask<W> = cpus.iter().filter(|&c| Some(c) != me).take(CREW).collect();
        let muster = Muster {
            member: &report,
            left: AtomicUsize::new(chosen.len()),
        };
        let address = Address(core::ptr::from_ref(&muster).cast());
        let mut each = chosen.iter();
        let csds = pin!(core::array::from_fn::<_, CREW, _>(|_| {
            Csd::new(task(address, each.next().unwrap_or(CpuId::new(0))))
        }));
        let csds = csds.as_ref();
        for (i, cpu) in chosen.iter().enumerate() {
            // SAFETY: an element of a pinned array is pinned.
            let csd = unsafe { csds.map_unchecked(|csds| &csds[i]) };
            self.post_member(cpu, csd, &muster);
        }
        let led = lead().map_err(|failure| self.fail(failure));
        // ORDERING: Acquire — what the members did is visible, and they are gone.
        let gone = || muster.left.load(Ordering::Acquire) == 0;
        if !self.wait_at_most(2 * LIMIT_NS, gone) {
            self.fatal("a member of a crew never ended");
        }
        self.verdict(led)
    }

    fn post_member<F: Fn() + Copy + Send + 'static>(
        &self,
        cpu: CpuId,
        csd: Pin<&Csd<F>>,
        muster: &Muster<'_>,
    ) {
        if let Err(error) = self.smp().post_task(cpu, csd) {
            self.fail(Failure::new(format_args!("task for CPU {cpu}: {error}")));
            // ORDERING: Relaxed — ours alone; the task never runs.
            muster.left.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Runs `member` in the task context of each of these CPUs at once, this one included.
    ///
    /// # Errors
    /// The first failure of any of them.
    pub(crate) fn together(
        &self,
        cpus: &CpuMask<W>,
        member: impl Fn(CpuId) -> Check + Sync,
    ) -> Check {
        let me = self.me().filter(|&me| cpus.contains(me));
        self.crew(cpus, &member, || me.map_or(Ok(()), &member))
    }

    /// Runs `lead` here while these CPUs hold their interrupts off in their task context; they let
    /// go when it ends, or earlier when it tells them to.
    ///
    /// # Errors
    /// The first failure of any of them.
    pub(crate) fn masked(&self, cpus: &CpuMask<W>, lead: impl FnOnce(&Masked) -> Check) -> Check {
        let held = AtomicU32::new(0);
        let masked = Masked::new();
        let n = cpus.len().min(CREW) as u32;
        let member = |_| {
            // Nothing is pending when the mask begins: the doorbell is quiet.
            self.smp().poll();
            let guard = self.smp().irqs_off();
            // ORDERING: Relaxed — a count; the library orders what matters.
            held.fetch_add(1, Ordering::Relaxed);
            let waited = self.wait("let go of the interrupts", || masked.ends_by(self.now()));
            masked.note_end();
            drop(guard);
            waited
        };
        self.crew(cpus, member, || {
            // ORDERING: Relaxed — as above.
            self.wait("all hold their interrupts off", || {
                held.load(Ordering::Relaxed) == n
            })?;
            let led = lead(&masked);
            masked.let_go();
            led
        })
    }

    /// Arrives, and waits until `n` have.
    ///
    /// # Errors
    /// As [`Cx::wait`].
    #[track_caller]
    pub(crate) fn meet(&self, what: &str, arrived: &AtomicU32, n: usize) -> Check {
        // ORDERING: Relaxed — a count that only grows; the library orders what matters.
        arrived.fetch_add(1, Ordering::Relaxed);
        self.wait(what, || arrived.load(Ordering::Relaxed) as usize >= n)
    }
}

/// CPUs that hold their interrupts off.
pub(crate) struct Masked {
    /// When they let go.
    until_ns: AtomicU64,
    /// How many are about to have let go.
    ended: AtomicU32,
}

impl Masked {
    fn new() -> Self {
        Self {
            until_ns: AtomicU64::new(u64::MAX),
            ended: AtomicU32::new(0),
        }
    }

    /// Makes them turn their interrupts on again.
    pub(crate) fn let_go(&self) {
        self.let_go_at(0);
    }

    /// Makes them turn their interrupts on again when the platform's clock says so: while this CPU
    /// waits for them, for example.
    pub(crate) fn let_go_at(&self, ns: u64) {
        // ORDERING: Release — pairs with `ends_by`.
        self.until_ns.fetch_min(ns, Ordering::Release);
    }

    fn ends_by(&self, now_ns: u64) -> bool {
        // ORDERING: Acquire — pairs with `let_go_at`.
        self.until_ns.load(Ordering::Acquire) <= now_ns
    }

    fn note_end(&self) {
        // ORDERING: Relaxed — what runs after the mask comes after this on the same CPU.
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are at their mask's end.
    pub(crate) fn ended(&self) -> u32 {
        // ORDERING: Relaxed — asked by who waited for something after the mask.
        self.ended.load(Ordering::Relaxed)
    }
}
