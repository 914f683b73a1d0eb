//! CPUs come and go: the states and bring-up; `hotplug/{up,down}.rs` the ways up and
//! down, `callbacks.rs` the callbacks that others register.
//!
//! ```text
//!            (1) cpu_up       (2) start_cpu        (3) arrive, the CPU     (4) open, the CPU
//!   OFFLINE ──────────▶ PREPARING ─────────▶ STARTING ──────────▶ ARRIVED ──────────▶ ONLINE
//!    ▲  ▲    callback refused │ platform refused, │                                     │
//!    │  └─────────────────────┴─── or timeout ────┘                  (5) cpu_down       │
//!    │                                               ┌──────── LEAVING ◀────────────────┤
//!    │ (8) forget               (7) drained, the CPU │ (6) leave, the CPU   (6') timeout ▲
//!    └────────────────── DEAD ◀────────────── DYING ◀┘            └────────────────────┘
//! ```
//!
//! A CPU becomes a target only in (4), after its callbacks ran there; its doorbell, queues and
//! mailboxes open, and it scans them once. In (7) it closes the doorbell, then runs whatever was
//! accepted, and each queue's own closing refuses the rest. Storage is never freed, so a late IPI or a
//! source that went away leaves nothing dangling. One lock orders the callers of up and down.
//! Edges: E9 to E11, E16, E17.

mod down;
mod up;

use core::ptr;

use crate::callbacks::Callbacks;
use crate::cpu::{CpuId, CpuMask};
use crate::csd::{self, DropWait};
use crate::error::HotplugError;
use crate::params::BootParams;
use crate::platform::Platform;
use crate::report::{Report, StallCause};
#[cfg(not(loom))]
use crate::sleep;
use crate::smp::{PER_WORD, Smp};
use crate::stall::{Suspect, Watch};
use crate::sync::{AtomicU32, Ordering, loom_const_fn, ord};

const OFFLINE: u32 = 0;
const PREPARING: u32 = 1;
const STARTING: u32 = 2;
const ARRIVED: u32 = 3;
const ONLINE: u32 = 4;
const LEAVING: u32 = 5;
const DYING: u32 = 6;
const DEAD: u32 = 7;

/// Where a CPU stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CpuState {
    /// Not running.
    Offline,
    /// Its callbacks prepare for it, or it has been started and has not arrived.
    ComingUp,
    /// It takes calls.
    Online,
    /// It has been asked to leave, or is running its last calls.
    GoingDown,
}

/// The state of every CPU, the callbacks and the lock.
#[derive(Debug)]
pub(crate) struct Hotplug<const W: usize> {
    states: [[AtomicU32; PER_WORD]; W],
    pub(crate) callbacks: Callbacks,
    locked: AtomicU32,
    max_cpus: AtomicU32,
}

impl<const W: usize> Hotplug<W> {
    loom_const_fn! {
        /// Everything offline.
        pub(crate) fn new() -> Self {
            #[cfg(not(loom))]
            let states = [const { [const { AtomicU32::new(OFFLINE) }; PER_WORD] }; W];
            #[cfg(loom)]
            let states =
                core::array::from_fn(|_| core::array::from_fn(|_| AtomicU32::new(OFFLINE)));
            Self {
                states,
                callbacks: Callbacks::new(),
                locked: AtomicU32::new(0),
                max_cpus: AtomicU32::new(0),
            }
        }
    }

    fn state(&self, cpu: CpuId) -> Option<&AtomicU32> {
        self.states.as_flattened().get(cpu.index())
    }

    /// The state word, read with what its writer published (E17).
    fn look(&self, cpu: CpuId) -> u32 {
        // ORDERING: Acquire — what the CPU did before it changed its state is visible (E17).
        self.state(cpu).map_or(OFFLINE, |state| {
            state.load(ord!("e17_look_relaxed", Acquire))
        })
    }

    /// A transition that one side alone can make.
    fn set(&self, cpu: CpuId, to: u32) {
        if let Some(state) = self.state(cpu) {
            // ORDERING: Release — publishes what was done before; pairs with `look` (E17).
            state.store(to, ord!("e17_set_relaxed", Release));
        }
    }

    /// A transition that two sides may race for; answers whether it was ours.
    fn step(&self, cpu: CpuId, from: u32, to: u32) -> bool {
        self.state(cpu).is_some_and(|state| {
            // ORDERING: AcqRel — as `look` and `set` (E17); the exchange decides the race.
            state
                .compare_exchange(
                    from,
                    to,
                    ord!("e17_step_relaxed", AcqRel),
                    Ordering::Relaxed,
                )
                .is_ok()
        })
    }

    /// The lock of up and down, if nobody holds it.
    fn try_lock(&self) -> Option<HotplugLock<'_>> {
        // ORDERING: Acquire — the last holder's changes are visible; pairs with the drop (E17).
        self.locked
            .compare_exchange(0, 1, ord!("e17_lock_relaxed", Acquire), Ordering::Relaxed)
            .is_ok()
            .then(|| HotplugLock(&self.locked))
    }
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Sets the instance up on its boot CPU, which is online from then on, alone.
    ///
    /// `possible` are the CPUs that may ever exist, `present` those that do now; ids from
    /// `params.nr_cpus` on are cut off both. Interrupts are off or no IPI can arrive yet.
    ///
    /// # Panics
    /// If the caller is not one of the present CPUs (the platform numbers its CPUs wrongly), or is
    /// online already.
    #[doc(alias = "call_function_init")]
    #[doc(alias = "setup_nr_cpu_ids")]
    pub fn init(&'static self, possible: &CpuMask<W>, present: &CpuMask<W>, params: &BootParams) {
        // Under the lock, for safe code may call this on two threads at once.
        let lock = self.hotplug.try_lock();
        assert!(
            lock.is_some() && self.nr_words() == 0,
            "`init` runs once, before everything else"
        );
        // SAFETY: 1, 2 — the borrow is for ever; 3 — asserted.
        unsafe { self.set_up(possible, present, params) };
        let boot = self.platform.current_cpu();
        let boot = boot.filter(|&boot| self.present.contains(boot));
        let boot = boot.expect("`init` runs on a present CPU");
        assert!(
            self.hotplug.step(boot, OFFLINE, ARRIVED),
            "`init` runs once"
        );
        self.open_cpu(boot);
    }

    /// As [`init`](Self::init) for an instance without a boot CPU: all are offline.
    ///
    /// # Safety
    /// 1. The instance is not moved or dropped while a CPU of it is online.
    /// 2. It outlives the pinned descriptors that are posted to it: a descriptor that is dropped
    ///    while it is queued waits by means of the instance, a little beyond the moment it ran.
    /// 3. It is done once, before any CPU is online.
    pub unsafe fn set_up(&self, possible: &CpuMask<W>, present: &CpuMask<W>, params: &BootParams) {
        let ids = CpuMask::first_n(params.nr_cpus as usize);
        let possible = possible.and(&ids);
        self.possible.store(&possible);
        self.present.store(&present.and(&possible));
        let nr_cpu_ids = possible.last().map_or(0, |last| last.get() + 1);
        let smp = ptr::from_ref(self).cast();
        for cpu in &possible {
            let posted = DropWait {
                smp,
                target: cpu,
                wait: csd::wait_for_dropped::<P, W, D>,
            };
            #[cfg(not(loom))]
            let sleeping = DropWait {
                wait: sleep::wait_for_dropped_task::<P, W, D>,
                ..posted
            };
            #[cfg(loom)]
            let sleeping = posted;
            // SAFETY: 1 — 3 of `set_up`.
            unsafe { self.own(cpu).set_drop_waits([posted, sleeping]) };
        }
        // ORDERING: Relaxed — other CPUs are started after this (E17).
        self.nr_cpu_ids.store(nr_cpu_ids, Ordering::Relaxed);
        // ORDERING: Relaxed — as above.
        self.nr_words
            .store(nr_cpu_ids.div_ceil(64), Ordering::Relaxed);
        // ORDERING: Relaxed — as above.
        self.hotplug
            .max_cpus
            .store(params.max_cpus, Ordering::Relaxed);
    }

    /// Brings up the present CPUs in the order of their ids, until `maxcpus=` says that it is enough.
    /// One that does not come is reported and left out. Answers how many CPUs are online.
    #[doc(alias = "smp_init")]
    #[doc(alias = "idle_threads_init")]
    #[doc(alias = "smp_cpus_done")]
    #[track_caller]
    pub fn bring_up(&self) -> usize {
        // ORDERING: Relaxed — set in `set_up`, by this CPU or one that started it.
        let max_cpus = self.hotplug.max_cpus.load(Ordering::Relaxed) as usize;
        for cpu in &self.present.load() {
            if self.num_online_cpus() >= max_cpus {
                break;
            }
            if !self.is_online(cpu)
                && let Err(error) = self.cpu_up(cpu)
            {
                self.platform.report(Report::FailedUp { cpu, error });
            }
        }
        let online = self.num_online_cpus();
        self.platform.report(Report::BroughtUp { online });
        online
    }

    /// Where a CPU stands.
    pub fn cpu_state(&self, cpu: CpuId) -> CpuState {
        match self.hotplug.look(cpu) {
            PREPARING | STARTING | ARRIVED => CpuState::ComingUp,
            ONLINE => CpuState::Online,
            LEAVING | DYING | DEAD => CpuState::GoingDown,
            _ => CpuState::Offline,
        }
    }

    /// Waits for the lock of up and down, serving meanwhile.
    #[track_caller]
    fn lock_hotplug(&self) -> Result<HotplugLock<'_>, HotplugError> {
        loop {
            if let Some(lock) = self.lock_hotplug_unless(|| false)? {
                return Ok(lock);
            }
        }
    }

    /// As [`Self::lock_hotplug`], or until something else comes first: then `None`.
    #[track_caller]
    fn lock_hotplug_unless(
        &self,
        comes_first: impl Fn() -> bool,
    ) -> Result<Option<HotplugLock<'_>>, HotplugError> {
        let me = self.platform.current_cpu();
        self.may_wait(me).map_err(HotplugError::Context)?;
        let waiter = self.waiter(me);
        let mut watch = Watch::default();
        loop {
            let lock = self.hotplug.try_lock();
            if lock.is_some() || comes_first() {
                self.end_watch(waiter, &watch);
                return Ok(lock);
            }
            self.watched_turn(waiter, &mut watch, || self.who_changes());
        }
    }

    /// Who holds up the lock of up and down: the CPU that is coming or going.
    #[cold]
    fn who_changes(&self) -> Suspect {
        let changing = |cpu: &CpuId| !matches!(self.hotplug.look(*cpu), OFFLINE | ONLINE);
        let culprit = self.possible.load().iter().find(changing);
        Suspect {
            cause: Some(StallCause::HoldsHotplug),
            ..Suspect::running(culprit.unwrap_or(CpuId::new(0)), 0)
        }
    }

    /// Waits for a state, serving meanwhile; `false` when the time is up.
    #[track_caller]
    fn wait_deadline(&self, done: impl Fn() -> bool) -> bool {
        let waiter = self.waiter(self.platform.current_cpu());
        let start = self.platform.now_ns();
        let mut spins = 0_u32;
        while !done() {
            self.turn(waiter, spins);
            spins = spins.saturating_add(1);
            if self.platform.now_ns().saturating_sub(start) > P::HOTPLUG_TIMEOUT_NS {
                return done();
            }
        }
        true
    }
}

/// The lock of up and down.
struct HotplugLock<'a>(&'a AtomicU32);

impl Drop for HotplugLock<'_> {
    fn drop(&mut self) {
        // ORDERING: Release — publishes our changes to the next holder (E17).
        self.0.store(0, ord!("e17_unlock_relaxed", Release));
    }
}

#[cfg(all(test, shuttle))]
mod shuttles;
#[cfg(all(test, loom))]
mod tests;
