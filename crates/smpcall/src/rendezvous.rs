//! Rendezvous: several CPUs pass three phases in lock step.
//!
//! No CPU begins `action` before every CPU has ended `setup`, and none begins `teardown` before
//! every CPU has ended `action`. That is how code is patched that others may be running, or a clock
//! is compared. The CPUs meet in handler context with interrupts off and spin there:
//!
//! ```text
//!   setup ──▶ (1) arrive, all ──▶ action ──▶ (2) arrive, all ──▶ teardown ──▶ (3) leave, all
//! ```
//!
//! **What cannot deadlock.** One rendezvous at a time: others wait for the lock, and take part
//! in the one under way meanwhile, as they take any call. Who waits for a call takes calls, so it
//! comes. A CPU that leaves has accepted, so it comes. **What does:** a phase that waits for
//! another CPU by means of its own, for that CPU spins here; a CPU that keeps interrupts off until
//! something happens here. Both are named by the stall report.
//!
//! Each CPU has one [`Seat`], which the holder of the lock fills and queues among the waited calls.
//! Edges: E26 (1, 2, 3), E27 (the lock). Neighbours: `queue` carries the seats.

use core::ptr::{self, NonNull};

use crate::cpu::{AtomicCpuMask, CpuId, CpuMask};
use crate::error::CallError;
use crate::guard::Pinned;
use crate::panics::PanicSlot;
use crate::platform::Platform;
use crate::queue::{Context, Node, NodeFn};
use crate::report::StallCause;
use crate::smp::{Smp, Waiter};
use crate::stall::{Suspect, Watch, run_named};
use crate::sync::{AtomicU32, Ordering, UnsafeCell, loom_const_fn, ord};

/// A CPU's place in a rendezvous.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Seat {
    node: Node,
    /// The [`Meeting`].
    meeting: UnsafeCell<*const ()>,
}

impl Seat {
    loom_const_fn! {
        /// A seat that was never taken.
        pub(crate) fn new() -> Self {
            Self { node: Node::new(), meeting: UnsafeCell::new(ptr::null()) }
        }
    }

    /// Fills the seat before it is queued.
    ///
    /// # Safety
    /// 1. The caller holds the lock, and no meeting is under way.
    unsafe fn fill(&self, meeting: *const (), run: NodeFn) {
        // SAFETY: 1 — nobody else looks at the seat.
        self.meeting.with_mut(|slot| unsafe { slot.write(meeting) });
        // SAFETY: 1 — in no queue.
        unsafe { self.node.set_run(run) };
    }
}

/// What the CPUs of a rendezvous share, on the initiator's stack.
struct Meeting<'a, P: Platform, S, A, T, const W: usize> {
    setup: &'a S,
    action: &'a A,
    teardown: &'a T,
    /// How many take part; `u32::MAX` until that is known.
    expected: AtomicU32,
    /// Counts every arrival, in all phases.
    arrived: AtomicU32,
    cancelled: AtomicU32,
    panics: PanicSlot<P>,
    /// Who has arrived at each barrier, for reports.
    passed: [AtomicCpuMask<W>; 3],
}

impl<'a, P, S, A, T, const W: usize> Meeting<'a, P, S, A, T, W>
where
    P: Platform,
    S: Fn(CpuId) + Sync,
    A: Fn(CpuId) + Sync,
    T: Fn(CpuId) + Sync,
{
    fn new(setup: &'a S, action: &'a A, teardown: &'a T) -> Self {
        Self {
            setup,
            action,
            teardown,
            expected: AtomicU32::new(u32::MAX),
            arrived: AtomicU32::new(0),
            cancelled: AtomicU32::new(0),
            panics: PanicSlot::new(),
            passed: [
                AtomicCpuMask::new(),
                AtomicCpuMask::new(),
                AtomicCpuMask::new(),
            ],
        }
    }

    /// The address that names the rendezvous in reports.
    fn request(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// One CPU's way through the phases, up to (3), which [`leave`] does. `turn` is one turn of a
    /// wait for a barrier.
    fn take_part(&self, platform: &P, cpu: CpuId, mut turn: impl FnMut(u32)) {
        let ready = self.run_phase(platform, cpu, self.setup);
        if !ready {
            // ORDERING: Relaxed — the barrier carries it (E26).
            self.cancelled.store(1, Ordering::Relaxed);
        }
        self.meet(cpu, 1, &mut turn);
        // ORDERING: Relaxed — as above.
        if self.cancelled.load(Ordering::Relaxed) == 0 {
            self.run_phase(platform, cpu, self.action);
        }
        self.meet(cpu, 2, &mut turn);
        if ready {
            self.run_phase(platform, cpu, self.teardown);
        }
        self.passed[2].insert(cpu);
    }

    /// Runs one phase; `false` if it panicked.
    fn run_phase<F: Fn(CpuId)>(&self, platform: &P, cpu: CpuId, phase: &F) -> bool {
        let outcome = run_named::<P, F, ()>(platform, cpu, self.request(), || phase(cpu));
        outcome
            .map_err(|panic| self.panics.put(platform, cpu, panic))
            .is_ok()
    }

    /// A barrier: (1), (2).
    fn meet(&self, cpu: CpuId, phase: u32, turn: &mut impl FnMut(u32)) {
        self.passed[phase as usize - 1].insert(cpu);
        leave(&self.arrived);
        let mut spins = 0_u32;
        while !self.have_arrived(phase) {
            turn(spins);
            spins = spins.saturating_add(1);
        }
    }

    /// Has everybody come through so many phases?
    fn have_arrived(&self, phases: u32) -> bool {
        // ORDERING: Relaxed — a number alone, written once.
        let expected = self.expected.load(Ordering::Relaxed);
        // ORDERING: Acquire — what every CPU did before it arrived is visible (E26).
        let arrived = self.arrived.load(ord!("e26_meet_relaxed", Acquire));
        arrived >= expected.saturating_mul(phases)
    }

    /// The first CPU that others wait for.
    fn laggard(&self, members: &CpuMask<W>) -> Suspect {
        let behind = |passed: &AtomicCpuMask<W>| members.and_not(&passed.load()).first();
        let culprit = self.passed.iter().find_map(behind);
        // Everybody has come meanwhile: the wait is about to end.
        let culprit = culprit.or(members.first()).unwrap_or(CpuId::new(0));
        Suspect::running(culprit, self.request())
    }
}

/// Arrives at a barrier; at the last one the meeting may be gone at once, so the word alone is
/// borrowed here.
fn leave(arrived: &AtomicU32) {
    // ORDERING: Release — publishes what this CPU did; pairs with the Acquire in `have_arrived`. The
    // others' additions continue the release sequence (E26).
    arrived.fetch_add(1, ord!("e26_arrive_relaxed", Release));
}

/// Takes part on a target.
///
/// # Safety
/// As [`NodeFn`]; the node heads a seat that was filled with a meeting of this type.
unsafe fn run_seat<P, S, A, T, const W: usize>(context: &Context, node: NonNull<Node>)
where
    P: Platform,
    S: Fn(CpuId) + Sync,
    A: Fn(CpuId) + Sync,
    T: Fn(CpuId) + Sync,
{
    let seat = node.cast::<Seat>();
    // SAFETY: 1 of `NodeFn` — queued in its CPU's area, which lives as long as the instance.
    let seat = unsafe { seat.as_ref() };
    // SAFETY: filled before it was queued, and not again before the meeting is over.
    let meeting = seat.meeting.with(|meeting| unsafe { *meeting });
    // SAFETY: the initiator keeps the meeting until we left it.
    let meeting = unsafe { &*meeting.cast::<Meeting<'_, P, S, A, T, W>>() };
    // SAFETY: 2 of `NodeFn` — the context's platform.
    let platform = unsafe { &*context.platform.cast::<P>() };
    meeting.take_part(platform, context.cpu, |spins| platform.relax(spins));
    leave(&meeting.arrived);
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Takes every online CPU of `cpus`, this one if it is among them, through three phases in lock
    /// step, and waits. Answers who took part.
    ///
    /// Each phase gets the id of the CPU that it runs on, in handler context with interrupts off; it
    /// must be short and must not wait for another CPU. What any CPU did in one phase is
    /// visible to all in the next. If `setup` panics anywhere (hosted), no CPU runs `action`, and
    /// those whose `setup` returned run `teardown`; the panic of the lowest CPU continues here.
    ///
    /// Context: interrupts on, not inside a called function. Any thread. Two at once take turns.
    ///
    /// # Errors
    /// `InterruptsOff`, `InHandler`.
    #[doc(alias = "stop_machine")]
    #[doc(alias = "smp_rendezvous")]
    #[track_caller]
    pub fn rendezvous<S, A, T>(
        &self,
        cpus: &CpuMask<W>,
        setup: S,
        action: A,
        teardown: T,
    ) -> Result<CpuMask<W>, CallError>
    where
        S: Fn(CpuId) + Sync,
        A: Fn(CpuId) + Sync,
        T: Fn(CpuId) + Sync,
    {
        let _pinned = Pinned::new(&self.platform);
        let me = self.platform.current_cpu();
        self.may_wait(me)?;
        let waiter = self.waiter(me);
        let lock = self.lock_rendezvous(waiter, cpus);
        let meeting = Meeting::<P, S, A, T, W>::new(&setup, &action, &teardown);
        let members = self.call_together(me, cpus, &meeting);
        if let Some(me) = me.filter(|&me| members.contains(me)) {
            self.take_part_here(waiter, me, &members, &meeting);
        }
        let mut watch = Watch::default();
        while !meeting.have_arrived(3) {
            self.watched_turn(waiter, &mut watch, || meeting.laggard(&members));
        }
        self.end_watch(waiter, &watch);
        drop(lock);
        match meeting.panics.take() {
            None => Ok(members),
            Some(panic) => self.platform.resume(panic),
        }
    }

    /// Queues the seats of the others, and says how many will come.
    fn call_together<S, A, T>(
        &self,
        me: Option<CpuId>,
        cpus: &CpuMask<W>,
        meeting: &Meeting<'_, P, S, A, T, W>,
    ) -> CpuMask<W>
    where
        S: Fn(CpuId) + Sync,
        A: Fn(CpuId) + Sync,
        T: Fn(CpuId) + Sync,
    {
        let mut members = CpuMask::EMPTY;
        for cpu in &cpus.and(&self.online.load()) {
            if Some(cpu) == me {
                members.insert(cpu);
                continue;
            }
            let area = self.own(cpu);
            let data = ptr::from_ref(meeting).cast();
            // SAFETY: 1 — we hold the lock, and the last holder waited for its meeting's end.
            unsafe { area.seat.fill(data, run_seat::<P, S, A, T, W>) };
            let node = NonNull::from(&area.seat).cast();
            self.trace_queue::<S>(cpu, meeting.request());
            // SAFETY: 1 — filled; the area lives as long as the instance, and the meeting is waited
            // for; 2 — filled by us, in no queue.
            let pushed = unsafe { area.queues.waited.push(node) };
            if self.announce_waited(cpu, area, pushed) {
                members.insert(cpu);
            }
        }
        // ORDERING: Relaxed — a number alone.
        meeting
            .expected
            .store(members.len() as u32, Ordering::Relaxed);
        members
    }

    /// Takes part on the calling CPU, reporting who lags.
    fn take_part_here<S, A, T>(
        &self,
        waiter: Waiter,
        me: CpuId,
        members: &CpuMask<W>,
        meeting: &Meeting<'_, P, S, A, T, W>,
    ) where
        S: Fn(CpuId) + Sync,
        A: Fn(CpuId) + Sync,
        T: Fn(CpuId) + Sync,
    {
        let mut watch = Watch::default();
        let were_on = self.platform.irqs_save();
        let local = &self.own(me).local;
        local.set_in_handler(true);
        meeting.take_part(&self.platform, me, |spins| {
            self.platform.relax(spins);
            self.watch(waiter, &mut watch, || meeting.laggard(members));
        });
        leave(&meeting.arrived);
        local.set_in_handler(false);
        self.platform.irqs_restore(were_on);
        self.end_watch(waiter, &watch);
    }

    /// Waits for our turn, taking part in the rendezvous of others meanwhile.
    fn lock_rendezvous(&self, waiter: Waiter, cpus: &CpuMask<W>) -> RendezvousLock<'_> {
        let name = waiter.me.or(cpus.first()).map_or(1, |cpu| cpu.get() + 1);
        let mut watch = Watch::default();
        loop {
            if let Some(lock) = RendezvousLock::try_lock(&self.rendezvous, name) {
                self.end_watch(waiter, &watch);
                return lock;
            }
            self.watched_turn(waiter, &mut watch, || {
                // ORDERING: Relaxed — a report shows a moment.
                let holder = self.rendezvous.load(Ordering::Relaxed).saturating_sub(1);
                Suspect {
                    cause: Some(StallCause::HoldsRendezvous),
                    ..Suspect::running(CpuId::new(holder), 0)
                }
            });
        }
    }
}

/// The right to call CPUs together; the word holds a CPU of the rendezvous, plus one.
struct RendezvousLock<'a>(&'a AtomicU32);

impl<'a> RendezvousLock<'a> {
    fn try_lock(word: &'a AtomicU32, name: u32) -> Option<Self> {
        // ORDERING: Acquire — the last holder's use of the seats is over (E27).
        word.compare_exchange(
            0,
            name,
            ord!("e27_lock_relaxed", Acquire),
            Ordering::Relaxed,
        )
        .is_ok()
        .then(|| Self(word))
    }
}

impl Drop for RendezvousLock<'_> {
    fn drop(&mut self) {
        // ORDERING: Release — our use of the seats is over; pairs with `try_lock` (E27).
        self.0.store(0, ord!("e27_unlock_relaxed", Release));
    }
}

#[cfg(all(test, loom))]
mod tests;
