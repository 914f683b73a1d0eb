//! The instance: the platform and what every CPU has.
//!
//! `Smp<P, W, D>` is generic over the platform, the mask width in words (`64 * W` CPUs) and the
//! room for posted closures per target. A kernel has one in a `static`; tests have many.

use core::hint::cold_path;
#[cfg(not(loom))]
use core::mem::MaybeUninit;
use core::panic::Location;

use crate::area::Area;
use crate::bell::{self, Ring};
use crate::cpu::{AtomicCpuMask, CpuId, CpuMask};
use crate::error::CallError;
use crate::hotplug::Hotplug;
use crate::platform::{self, Platform};
use crate::queue::{Closed, Context};
use crate::stall::{Suspect, Watch};
use crate::sync::{AtomicU32, Ordering, mutant};

/// How many CPUs a word stands for: few under loom, which pays for each atomic in each execution.
pub(crate) const PER_WORD: usize = if cfg!(loom) { 3 } else { 64 };

/// Cross-CPU calls over one platform.
///
/// `W` words of 64 CPUs; `D` posted closures fit per target (1 to 64).
#[derive(Debug)]
pub struct Smp<P: Platform, const W: usize = 4, const D: usize = 8> {
    pub(crate) platform: P,
    areas: [[Area<W, D>; PER_WORD]; W],
    pub(crate) possible: AtomicCpuMask<W>,
    pub(crate) present: AtomicCpuMask<W>,
    pub(crate) online: AtomicCpuMask<W>,
    pub(crate) nr_cpu_ids: AtomicU32,
    /// How many words of a mask those are, at most `W`.
    pub(crate) nr_words: AtomicU32,
    pub(crate) hotplug: Hotplug<W>,
    /// The lock of rendezvous.
    pub(crate) rendezvous: AtomicU32,
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// An instance on which every CPU is offline; [`init`](Self::init) comes next.
    #[cfg(not(loom))]
    pub const fn new(platform: P) -> Self {
        Self {
            platform,
            areas: [const { [const { Area::new() }; PER_WORD] }; W],
            possible: AtomicCpuMask::new(),
            present: AtomicCpuMask::new(),
            online: AtomicCpuMask::new(),
            nr_cpu_ids: AtomicU32::new(0),
            nr_words: AtomicU32::new(0),
            hotplug: Hotplug::new(),
            rendezvous: AtomicU32::new(0),
        }
    }

    /// An instance for a model; loom's atomics cannot be built in a constant.
    #[cfg(loom)]
    pub fn new(platform: P) -> Self {
        Self {
            platform,
            areas: core::array::from_fn(|_| core::array::from_fn(|_| Area::new())),
            possible: AtomicCpuMask::new(),
            present: AtomicCpuMask::new(),
            online: AtomicCpuMask::new(),
            nr_cpu_ids: AtomicU32::new(0),
            nr_words: AtomicU32::new(0),
            hotplug: Hotplug::new(),
            rendezvous: AtomicU32::new(0),
        }
    }

    /// As [`new`](Self::new), built where it stays: an instance for many CPUs is megabytes.
    #[cfg(not(loom))]
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    pub fn emplace(place: &mut MaybeUninit<Self>, platform: P) -> &mut Self {
        let smp = place.as_mut_ptr();
        // SAFETY: every field is written below through a pointer into the place, and nothing is
        // read before that.
        unsafe {
            let areas = (&raw mut (*smp).areas).cast::<Area<W, D>>();
            (0..64 * W).for_each(|i| areas.add(i).write(Area::new()));
            (&raw mut (*smp).platform).write(platform);
            (&raw mut (*smp).possible).write(AtomicCpuMask::new());
            (&raw mut (*smp).present).write(AtomicCpuMask::new());
            (&raw mut (*smp).online).write(AtomicCpuMask::new());
            (&raw mut (*smp).nr_cpu_ids).write(AtomicU32::new(0));
            (&raw mut (*smp).nr_words).write(AtomicU32::new(0));
            (&raw mut (*smp).hotplug).write(Hotplug::new());
            (&raw mut (*smp).rendezvous).write(AtomicU32::new(0));
            place.assume_init_mut()
        }
    }

    /// The platform.
    #[inline]
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// The area of a CPU that may not exist.
    #[inline]
    pub(crate) fn area(&self, cpu: CpuId) -> Option<&Area<W, D>> {
        self.areas.as_flattened().get(cpu.index())
    }

    /// The area of a CPU that the platform or a request named.
    #[inline]
    pub(crate) fn own(&self, cpu: CpuId) -> &Area<W, D> {
        debug_assert!(
            cpu.index() < CpuMask::<W>::CAPACITY,
            "{cpu:?} is beyond the capacity"
        );
        // SAFETY: the id is the platform's (`Platform` 1), a mask's, or a request bit's: all are
        // below the capacity.
        unsafe { self.areas.as_flattened().get_unchecked(cpu.index()) }
    }

    /// What calls get that run on this CPU.
    #[inline]
    pub(crate) fn context(&self, cpu: CpuId) -> Context {
        Context {
            platform: core::ptr::from_ref(&self.platform).cast(),
            area: core::ptr::from_ref(self.own(cpu)).cast(),
            cpu,
        }
    }

    /// The CPU that executes, or `None` for a thread that is no CPU.
    #[doc(alias = "smp_processor_id")]
    #[inline]
    pub fn current_cpu(&self) -> Option<CpuId> {
        self.platform.current_cpu()
    }

    /// The CPUs that are online now; the answer may be old when it arrives.
    #[doc(alias = "cpu_online_mask")]
    pub fn online_cpus(&self) -> CpuMask<W> {
        self.online.load()
    }

    /// How many CPUs are online now.
    pub fn num_online_cpus(&self) -> usize {
        self.online.load().len()
    }

    /// Is the CPU online now?
    #[doc(alias = "cpu_online")]
    pub fn is_online(&self, cpu: CpuId) -> bool {
        self.online.contains(cpu)
    }

    /// The CPUs that exist now.
    #[doc(alias = "cpu_present_mask")]
    pub fn present_cpus(&self) -> CpuMask<W> {
        self.present.load()
    }

    /// The CPUs that may ever exist.
    #[doc(alias = "cpu_possible_mask")]
    pub fn possible_cpus(&self) -> CpuMask<W> {
        self.possible.load()
    }

    /// One more than the highest possible CPU id.
    pub fn nr_cpu_ids(&self) -> u32 {
        // ORDERING: Relaxed — set once in `init`, before other CPUs run.
        self.nr_cpu_ids.load(Ordering::Relaxed)
    }

    /// How many words of a mask are in use: those of the possible CPUs.
    #[inline]
    pub(crate) fn nr_words(&self) -> usize {
        // ORDERING: Relaxed — as `nr_cpu_ids`.
        self.nr_words.load(Ordering::Relaxed) as usize
    }

    /// Why a call to a CPU with a closed doorbell is refused.
    #[cold]
    pub(crate) fn refusal(&self, cpu: CpuId) -> CallError {
        let nr_cpu_ids = self.nr_cpu_ids();
        if cpu.get() < nr_cpu_ids {
            CallError::Offline { cpu }
        } else {
            CallError::NoSuchCpu { cpu, nr_cpu_ids }
        }
    }

    /// May this context wait for another CPU? Every waited call asks the same.
    ///
    /// # Errors
    /// `InHandler`, `InterruptsOff`.
    pub fn can_wait(&self) -> Result<(), CallError> {
        self.may_wait(self.platform.current_cpu())
    }

    /// As [`can_wait`](Self::can_wait), for a caller who knows which CPU it is.
    #[inline]
    pub(crate) fn may_wait(&self, me: Option<CpuId>) -> Result<(), CallError> {
        match me {
            Some(me) => platform::may_wait(&self.platform, self.own(me).local.in_handler()),
            None => Ok(()),
        }
    }

    /// Rings a CPU for what was published; `false` when it turned out to be offline.
    #[inline]
    pub(crate) fn ring(&self, cpu: CpuId, area: &Area<W, D>) -> bool {
        self.act(cpu, area, area.bell.ring())
    }

    /// Rings for the first in a queue, which accepted it.
    #[inline(never)]
    fn ring_first(&self, cpu: CpuId, area: &Area<W, D>) {
        self.ring(cpu, area);
    }

    /// After a push: rings if the queue was empty. Answers whether the queue accepted.
    ///
    /// A queue that closes after the push hands the node to the leaving CPU's last drain, so a
    /// closed doorbell is no reason to doubt.
    ///
    /// Always inlined: a post to an occupied queue is a few instructions, and the call would be half
    /// of them.
    #[inline(always)]
    pub(crate) fn announce(
        &self,
        cpu: CpuId,
        area: &Area<W, D>,
        pushed: Result<bool, Closed>,
    ) -> bool {
        match pushed {
            Ok(true) => self.ring_first(cpu, area),
            Ok(false) => {}
            Err(Closed) => self.trace_refuse(cpu),
        }
        pushed.is_ok()
    }

    /// As [`Self::announce`] for a caller that waits: it rings even if the queue was not empty, for
    /// whoever pushed first may be the context that this one interrupted, and rings only after it.
    #[inline]
    pub(crate) fn announce_waited(
        &self,
        cpu: CpuId,
        area: &Area<W, D>,
        pushed: Result<bool, Closed>,
    ) -> bool {
        self.announce(cpu, area, pushed.map(|_| true))
    }

    /// Does what a ring demands.
    #[inline]
    pub(crate) fn act(&self, cpu: CpuId, area: &Area<W, D>, ring: Ring) -> bool {
        if matches!(ring, Ring::Kick | Ring::Wake | Ring::Signal) {
            self.trace_send(cpu);
        }
        match ring {
            Ring::Heard => {}
            Ring::Kick => self.platform.send_ipi(cpu),
            #[cfg(not(loom))]
            Ring::Wake => {
                cold_path();
                self.platform.wake(cpu, area.bell.word());
            }
            #[cfg(loom)]
            Ring::Wake => self.platform.send_ipi(cpu),
            Ring::Signal => {
                cold_path();
                self.platform.signal_armed(cpu);
            }
            Ring::Closed => {
                cold_path();
                return false;
            }
        }
        true
    }

    /// Makes a CPU look: its idle loop goes round once, a busy one drains. Any context.
    ///
    /// # Errors
    /// `Offline` or `NoSuchCpu`.
    pub fn nudge(&self, cpu: CpuId) -> Result<(), CallError> {
        match self.area(cpu) {
            Some(area) if self.ring(cpu, area) => Ok(()),
            _ => Err(self.refusal(cpu)),
        }
    }
}

/// Who serves which queue during a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    /// Who waits.
    pub(crate) me: Option<CpuId>,
    /// The CPU whose calls the waiter must run itself; `None` if interrupts do that.
    pub(crate) serve: Option<CpuId>,
    /// For reports.
    pub(crate) caller: &'static Location<'static>,
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// A waiter with interrupts on.
    #[inline]
    #[track_caller]
    pub(crate) fn waiter(&self, me: Option<CpuId>) -> Waiter {
        let serve = if P::WAITERS_SERVE { me } else { None };
        Waiter {
            me,
            serve,
            caller: Location::caller(),
        }
    }

    /// One turn of a wait.
    #[inline]
    pub(crate) fn turn(&self, waiter: Waiter, spins: u32) {
        if let Some(me) = waiter.serve {
            let area = self.own(me);
            let silent = self.platform.polls_when_busy() && area.looks_mailed();
            if (silent || area.bell.is_rung()) && !mutant!("bug_waiters_serve_nobody") {
                self.serve_while_waiting(me);
            }
        }
        self.platform.relax(spins);
    }

    /// Need nobody ring now for a call in a line, because the target, whose doorbell said this, will look by
    /// itself, or be rung for when the grace ends (E8)?
    #[inline]
    pub(crate) fn looks_by_itself(&self, seen: u32) -> bool {
        bell::polls(seen) || (seen == bell::QUIET && self.platform.polls_when_busy())
    }

    #[cold]
    fn serve_while_waiting(&self, me: CpuId) {
        let were_on = self.platform.irqs_save();
        self.drain(me);
        self.platform.irqs_restore(were_on);
    }

    /// Waits until `done`, with what keeps the system going: serving, relaxing, reporting.
    #[inline]
    pub(crate) fn wait_until(&self, waiter: Waiter, culprit: CpuId, done: impl Fn() -> bool) {
        self.wait_for(waiter, Suspect::running(culprit, 0), done);
    }

    /// As [`Self::wait_until`], for what was queued there.
    #[inline]
    pub(crate) fn wait_for(&self, waiter: Waiter, suspect: Suspect, done: impl Fn() -> bool) {
        let mut watch = Watch::default();
        while !done() {
            self.watched_turn(waiter, &mut watch, || suspect);
        }
        self.end_watch(waiter, &watch);
    }
}
