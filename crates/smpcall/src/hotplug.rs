//! CPUs come and go: bring-up, `cpu_up`, `cpu_down`, and the callbacks that others register.
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

use core::ptr;

use crate::area::Area;
use crate::cpu::{CpuId, CpuMask};
use crate::csd::DropWait;
use crate::error::{HotplugError, StartError};
use crate::params::BootParams;
use crate::platform::{Platform, Report, StallCause};
use crate::post;
#[cfg(not(loom))]
use crate::sleep;
use crate::smp::{PER_WORD, Smp};
use crate::stall::{Suspect, Watch};
use crate::sync::{AtomicPtr, AtomicU32, Ordering, full_fence, loom_const_fn, ord};

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

/// What a subsystem does when CPUs come and go (the seed's notifier).
///
/// The seed's `_FROZEN` twins, for suspend, are the same callbacks: nothing here differs.
#[derive(Debug, Clone, Copy)]
#[doc(alias = "notifier_block")]
#[doc(alias = "hotplug_cfd")]
pub struct CpuCallbacks {
    /// For reports.
    pub name: &'static str,
    /// Before the CPU is started, on the CPU that brings it up; task context. An error (its own
    /// code) undoes the callbacks before it, by their `dead`, in reverse order.
    #[doc(alias = "CPU_UP_PREPARE")]
    pub prepare: fn(CpuId) -> Result<(), i32>,
    /// On the new CPU, interrupts off, before it takes calls.
    #[doc(alias = "CPU_STARTING")]
    pub starting: fn(CpuId),
    /// On the leaving CPU, interrupts off, while it still takes calls.
    #[doc(alias = "CPU_DYING")]
    pub dying: fn(CpuId),
    /// After the CPU is gone or has failed to come, on the CPU that asked; task context.
    #[doc(alias = "CPU_DEAD")]
    #[doc(alias = "CPU_UP_CANCELED")]
    pub dead: fn(CpuId),
}

impl CpuCallbacks {
    /// Callbacks that do nothing; fill in what is needed with `..`.
    pub const NONE: Self = Self {
        name: "",
        prepare: |_| Ok(()),
        starting: |_| (),
        dying: |_| (),
        dead: |_| (),
    };
}

const CALLBACKS: usize = 16;

/// The state of every CPU, the callbacks and the lock.
#[derive(Debug)]
pub(crate) struct Hotplug<const W: usize> {
    states: [[AtomicU32; PER_WORD]; W],
    callbacks: [AtomicPtr<CpuCallbacks>; CALLBACKS],
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
            #[cfg(not(loom))]
            let callbacks = [const { AtomicPtr::new(ptr::null_mut()) }; CALLBACKS];
            #[cfg(loom)]
            let callbacks = core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
            Self { states, callbacks, locked: AtomicU32::new(0), max_cpus: AtomicU32::new(0) }
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

    fn callbacks(&self) -> impl DoubleEndedIterator<Item = &'static CpuCallbacks> {
        self.callbacks.iter().filter_map(|slot| {
            // ORDERING: Acquire — the callbacks were written before they were registered (E17).
            let callbacks = slot.load(ord!("e17_callbacks_relaxed", Acquire));
            // SAFETY: only `register` stores here, from `&'static`.
            (!callbacks.is_null()).then(|| unsafe { &*callbacks.cast_const() })
        })
    }
}

impl<const W: usize, const D: usize> Area<W, D> {
    /// The owner's step (4): opens everything to senders.
    pub(crate) fn open(&self) {
        self.queues.waited.open();
        self.queues.posted.open();
        self.queues.sleeping.open();
        self.bell.open();
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
                wait: post::wait_for_dropped::<P, W, D>,
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

    /// Registers callbacks for CPUs that come and go from now on.
    ///
    /// # Errors
    /// `TooManyCallbacks` when all 16 slots are taken.
    #[doc(alias = "register_cpu_notifier")]
    pub fn register(&self, callbacks: &'static CpuCallbacks) -> Result<(), HotplugError> {
        let new = ptr::from_ref(callbacks).cast_mut();
        let slot = self.hotplug.callbacks.iter().find(|slot| {
            // ORDERING: Release — publishes the callbacks; pairs with the Acquire of `callbacks` (E17).
            slot.compare_exchange(
                ptr::null_mut(),
                new,
                ord!("e17_register_relaxed", Release),
                Ordering::Relaxed,
            )
            .is_ok()
        });
        slot.map(|_| ()).ok_or(HotplugError::TooManyCallbacks)
    }

    /// Starts an offline CPU and waits until it takes calls. May exceed `maxcpus=`, as in the seed.
    ///
    /// Context: interrupts on, not inside a called function.
    ///
    /// # Errors
    /// What refused; everything that had been prepared was undone.
    #[track_caller]
    pub fn cpu_up(&self, cpu: CpuId) -> Result<(), HotplugError> {
        self.cpu_up_by(cpu, || self.platform.start_cpu(cpu))
    }

    /// As [`cpu_up`](Self::cpu_up), started by the caller's own means: `start` makes somebody call
    /// [`online_this_cpu`](Self::online_this_cpu) as `cpu`, perhaps itself.
    ///
    /// # Errors
    /// As [`cpu_up`](Self::cpu_up).
    #[track_caller]
    pub fn cpu_up_by(
        &self,
        cpu: CpuId,
        start: impl FnOnce() -> Result<(), StartError>,
    ) -> Result<(), HotplugError> {
        let _lock = self.lock_hotplug()?;
        if !self.present.contains(cpu) {
            return Err(HotplugError::NoSuchCpu);
        }
        if !self.hotplug.step(cpu, OFFLINE, PREPARING) {
            return Err(HotplugError::AlreadyOnline);
        }
        let mut prepared = 0;
        let result = self.prepare_and_start(cpu, start, &mut prepared);
        if result.is_err() {
            self.run_dead(cpu, prepared);
            self.hotplug.set(cpu, OFFLINE);
        }
        result
    }

    fn prepare_and_start(
        &self,
        cpu: CpuId,
        start: impl FnOnce() -> Result<(), StartError>,
        prepared: &mut usize,
    ) -> Result<(), HotplugError> {
        for callbacks in self.hotplug.callbacks() {
            (callbacks.prepare)(cpu).map_err(|code| HotplugError::Callback {
                name: callbacks.name,
                code,
            })?;
            *prepared += 1;
        }
        self.hotplug.set(cpu, STARTING);
        start().map_err(HotplugError::Start)?;
        let arrived = self.wait_deadline(|| self.hotplug.look(cpu) > STARTING);
        // A CPU that arrives just now wins the exchange and is waited for; a later one is turned away.
        if !arrived && self.hotplug.step(cpu, STARTING, OFFLINE) {
            return Err(HotplugError::Timeout);
        }
        self.wait_until(self.waiter(self.platform.current_cpu()), cpu, || {
            self.hotplug.look(cpu) == ONLINE
        });
        Ok(())
    }

    /// Undoes `prepare` for the first `prepared` callbacks, in reverse order.
    fn run_dead(&self, cpu: CpuId, prepared: usize) {
        let registered = self.hotplug.callbacks().count();
        self.hotplug
            .callbacks()
            .rev()
            .skip(registered.saturating_sub(prepared))
            .for_each(|callbacks| (callbacks.dead)(cpu));
    }

    /// The new CPU arrives: it takes calls when this answers `true`.
    ///
    /// Interrupts off, on the CPU that was started. `false`: it came too late and was given up; the
    /// platform stops it again.
    pub fn online_this_cpu(&self) -> bool {
        let Some(me) = self.platform.current_cpu() else {
            return false;
        };
        if !self.hotplug.step(me, STARTING, ARRIVED) {
            return false;
        }
        self.hotplug
            .callbacks()
            .for_each(|callbacks| (callbacks.starting)(me));
        self.open_cpu(me);
        true
    }

    /// Step (4), on the CPU itself, interrupts off.
    pub(crate) fn open_cpu(&self, me: CpuId) {
        let area = self.own(me);
        area.open();
        let before = area.local.in_handler();
        area.local.set_in_handler(true);
        // SAFETY: 1 — we are this CPU, interrupts are off, no drain runs; 2 — our own context.
        unsafe { area.drain_at_the_edge(&self.context(me), |source| self.own(source)) };
        area.local.set_in_handler(before);
        self.online.insert(me);
        // Orders our being seen online before what we look at from here on: who stored something and
        // kicks without us has stored it for us (E25).
        full_fence!("e25_online_fence");
        self.hotplug.set(me, ONLINE);
    }

    /// Asks a CPU to leave and waits until it is gone; what it had accepted has run by then.
    ///
    /// The CPU leaves from its idle loop (it calls [`leave_if_asked`](Self::leave_if_asked)), so work
    /// on it ends first. Context: interrupts on, not inside a called function, another CPU.
    ///
    /// # Errors
    /// `Myself`, `LastCpu`, `AlreadyOffline`, `NoSuchCpu`, `Context`, and `Timeout` if it did not
    /// reach its idle loop in time: it is then online as before.
    #[track_caller]
    pub fn cpu_down(&self, cpu: CpuId) -> Result<(), HotplugError> {
        if self.platform.current_cpu() == Some(cpu) {
            return Err(HotplugError::Myself);
        }
        let _lock = self.lock_hotplug()?;
        if !self.present.contains(cpu) {
            return Err(HotplugError::NoSuchCpu);
        }
        if self.hotplug.look(cpu) != ONLINE {
            return Err(HotplugError::AlreadyOffline);
        }
        if self.num_online_cpus() == 1 {
            return Err(HotplugError::LastCpu);
        }
        self.hotplug.set(cpu, LEAVING);
        self.ring(cpu, self.own(cpu));
        let left = self.wait_deadline(|| self.hotplug.look(cpu) == DEAD);
        // A CPU that starts to leave just now wins the exchange and is waited for.
        if !left && self.hotplug.step(cpu, LEAVING, ONLINE) {
            return Err(HotplugError::Timeout);
        }
        // It has begun to leave and may be running its last tasks: no deadline, for a CPU that was
        // called offline too early could be started a second time.
        self.wait_until(self.waiter(self.platform.current_cpu()), cpu, || {
            self.hotplug.look(cpu) == DEAD && self.platform.is_stopped(cpu)
        });
        self.run_dead(cpu, CALLBACKS);
        self.hotplug.set(cpu, OFFLINE);
        Ok(())
    }

    /// Has this CPU been asked to leave? One load; for idle loops.
    #[inline]
    pub fn is_asked_to_leave(&self) -> bool {
        self.platform
            .current_cpu()
            .is_some_and(|me| self.hotplug.look(me) == LEAVING)
    }

    /// In the idle loop: leaves if this CPU was asked to. After a `true` it is offline, interrupts
    /// are off, everything it accepted has run, and the platform stops it without delay.
    pub fn leave_if_asked(&self) -> bool {
        let Some(me) = self.platform.current_cpu() else {
            return false;
        };
        // A called function that left would run the call that it is part of once more.
        if self.own(me).local.in_handler() || !self.hotplug.step(me, LEAVING, DYING) {
            return false;
        }
        self.close_cpu(me);
        self.hotplug.set(me, DEAD);
        true
    }

    /// This CPU leaves by its own decision and stays with its thread: what `attach` gave back.
    /// Task context. Afterwards it is offline, and interrupts are off.
    ///
    /// # Errors
    /// `AlreadyOffline`, or `Context` where the lock cannot be waited for.
    #[track_caller]
    pub fn offline_this_cpu(&self) -> Result<(), HotplugError> {
        let me = self.platform.current_cpu().ok_or(HotplugError::NoSuchCpu)?;
        let _lock = self.lock_hotplug()?;
        if !self.hotplug.step(me, ONLINE, DYING) {
            return Err(HotplugError::AlreadyOffline);
        }
        self.close_cpu(me);
        self.run_dead(me, CALLBACKS);
        self.hotplug.set(me, OFFLINE);
        Ok(())
    }

    /// Step (7), on the CPU itself: after it, nothing more is accepted, and all that was has run.
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    pub(crate) fn close_cpu(&self, me: CpuId) {
        let area = self.own(me);
        let context = self.context(me);
        // Tasks may sleep, so they run before interrupts go off; later ones are refused. Each is taken
        // alone: one that drops another which is queued behind it finds it and runs it.
        // SAFETY: 1 — we are this CPU, in its task context.
        unsafe {
            self.run_every_task(me, area);
            area.keep_tasks(area.queues.sleeping.close());
            self.run_every_task(me, area);
        }
        self.platform.irqs_save();
        self.hotplug
            .callbacks()
            .for_each(|callbacks| (callbacks.dying)(me));
        self.online.remove(me);
        area.local.set_polling(false);
        area.bell.close();
        let before = area.local.in_handler();
        area.local.set_in_handler(true);
        // SAFETY: 1 of `run` — our queue, our context.
        unsafe { area.queues.waited.close().run(&context) };
        // SAFETY: 1 — we are this CPU, interrupts are off, no drain runs; 2 — our own context.
        unsafe { area.drain_at_the_edge(&context, |source| self.own(source)) };
        // SAFETY: 1 of `run` — our queue, our context.
        unsafe { area.queues.posted.close().run(&context) };
        area.local.set_in_handler(before);
        self.release_all_mailboxes(me);
    }

    /// Waits for the lock of up and down, serving meanwhile.
    #[track_caller]
    fn lock_hotplug(&self) -> Result<HotplugLock<'_>, HotplugError> {
        let me = self.platform.current_cpu();
        self.may_wait(me).map_err(HotplugError::Context)?;
        let waiter = self.waiter(me);
        let mut watch = Watch::default();
        loop {
            if let Some(lock) = self.hotplug.try_lock() {
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

#[cfg(all(test, loom))]
mod tests;
