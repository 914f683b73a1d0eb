//! The may-sleep lane: work in a CPU's ordinary context.
//!
//! What `run_on_cpu` and `post_task` queue runs in the target's task context, from its idle loop,
//! with interrupts on: it may block and make waited calls. Calls to the target go on meanwhile.
//! A CPU that waits here idles, and serves its own calls; a thread that is no CPU blocks.
//!
//! The lane is a queue of its own, so that a drain in a handler never sees it. Edges: E1, E2, E7.

use core::pin::Pin;
use core::ptr::NonNull;

use crate::area::{Area, Lane};
use crate::cpu::CpuId;
use crate::csd::{self, Csd};
use crate::error::{CallError, Refused};
use crate::job::Outcome;
use crate::platform::Platform;
use crate::queue::{Chain, Detached};
use crate::record::Record;
use crate::report::StallCause;
use crate::smp::Smp;
#[cfg(not(loom))]
use crate::stall::{Suspect, Watch};
use crate::sync::AtomicU32;
#[cfg(not(loom))]
use crate::sync::Ordering;

/// How often a waiting CPU looks before it parks.
const LOOKS_BEFORE_PARK: u32 = 2000;

#[cfg(not(loom))]
impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs `f` in the ordinary context of `cpu`, where it may sleep, and answers its result.
    ///
    /// It runs when the CPU reaches its idle loop ([`run_tasks`](Self::run_tasks)), interrupts on.
    /// This CPU takes calls while it waits. On the calling CPU `f` runs at once.
    ///
    /// A CPU that does not come to its tasks is reported as other stalls are, and interrupted once more. A task
    /// that has begun may take as long as it likes: nothing is reported then.
    ///
    /// # Errors
    /// Hands the closure back: `NoSuchCpu`, `Offline`, `InterruptsOff`, `InHandler`.
    #[doc(alias = "smp_call_on_cpu")]
    #[track_caller]
    pub fn run_on_cpu<R, F>(&self, cpu: CpuId, f: F) -> Result<R, Refused<F>>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let me = self.platform.current_cpu();
        if let Err(error) = self.may_wait(me) {
            return Err(Refused::new(error, f));
        }
        if me == Some(cpu) {
            return Ok(f());
        }
        let Some(area) = self.area(cpu) else {
            return Err(Refused::new(self.refusal(cpu), f));
        };
        let record = Record::<F, Outcome<P, R>>::new(f);
        self.trace_queue::<F>(cpu, record.request());
        let waker = Waker {
            smp: core::ptr::from_ref(self),
            waiter: me,
            begun: AtomicU32::new(0),
        };
        // SAFETY: 1 — new, and waited for below; 2 — this instance's queue.
        let pushed = unsafe { record.push_sleeping::<P, R, W, D>(&area.queues.sleeping, &waker) };
        if !self.announce_waited(cpu, area, pushed) {
            // SAFETY: 1 — refused.
            return Err(Refused::new(self.refusal(cpu), unsafe {
                record.into_closure()
            }));
        }
        let (waiter, mut watch) = (self.waiter(me), Watch::default());
        let mut look = || {
            if !waker.has_begun() {
                let cause = Some(StallCause::NoTasks);
                let suspect = Suspect::running(cpu, record.request());
                self.check_stall(waiter, Suspect { cause, ..suspect }, &mut watch);
            }
        };
        match me {
            Some(_) => self.idle_watching(|| record.is_done(), look),
            None => {
                while !record.is_done() {
                    look();
                    self.platform.block(record.done_word(), 0);
                }
            }
        }
        self.end_watch(waiter, &watch);
        // SAFETY: 1 — done.
        Ok(self.unwrap(unsafe { record.into_outcome() }))
    }

    /// Queues a descriptor's function to run in the ordinary context of `cpu`, and does not wait.
    ///
    /// As [`post_csd`](Self::post_csd), in the may-sleep lane; on the calling CPU too it is queued.
    ///
    /// # Errors
    /// `Busy`, `NoSuchCpu`, `Offline`.
    #[doc(alias = "queue_work_on")]
    pub fn post_task<F>(&self, cpu: CpuId, csd: Pin<&Csd<F>>) -> Result<(), CallError>
    where
        F: Fn() + Copy + Send + 'static,
    {
        if !csd.try_lock() {
            return Err(CallError::Busy);
        }
        let Some(area) = self.area(cpu) else {
            csd.unlock();
            return Err(self.refusal(cpu));
        };
        self.platform.descriptor_posted();
        self.trace_queue::<F>(cpu, csd.request());
        // SAFETY: 1 — locked just now; pinned, and its drop waits; 2 — this instance's queue.
        let node = unsafe { csd.ready_to_post::<P>(area.drop_wait(Lane::Sleeping)) };
        // SAFETY: 1, 2 of `push` — locked, and valid until it is freed by its run.
        let pushed = unsafe { area.queues.sleeping.push(node) };
        if !self.announce(cpu, area, pushed) {
            csd.unlock();
            return Err(self.refusal(cpu));
        }
        Ok(())
    }

    /// Runs what is queued for this CPU's ordinary context; its idle loop calls this when it was
    /// rung. Interrupts on, between [`idle_exit`](Self::idle_exit) and
    /// [`idle_enter`](Self::idle_enter) if it polls. Answers whether anything ran.
    pub fn run_tasks(&self) -> bool {
        let Some(me) = self.platform.current_cpu() else {
            return false;
        };
        let area = self.own(me);
        let mut ran = false;
        while self.may_wait(Some(me)).is_ok()
            // SAFETY: 1 of `next_task` — we are this CPU, in its task context.
            && let Some(task) = unsafe { area.next_task() }
        {
            let running = area.local.enter_task();
            // SAFETY: 1 of `run` — our queue's node, our context.
            unsafe { task.run(&self.context(me)) };
            area.local.set_tasks(running);
            ran = true;
        }
        ran
    }

    /// Is a task running on this CPU, perhaps below a wait? `false` on a thread that is no CPU.
    pub fn in_task(&self) -> bool {
        let me = self.platform.current_cpu();
        me.is_some_and(|me| self.own(me).local.in_task())
    }

    /// Has this CPU tasks to run? Two loads, for idle loops.
    #[inline]
    pub fn has_tasks(&self) -> bool {
        self.platform
            .current_cpu()
            .is_some_and(|me| self.own(me).has_tasks())
    }

    /// Idles on this CPU until `done`; whoever makes it so nudges this CPU. Calls and tasks of this CPU
    /// run meanwhile, so two CPUs that run tasks on each other both finish.
    ///
    /// It waits for something that only the caller knows, so there is nobody whom a stall report could
    /// name or interrupt once more: none comes.
    ///
    /// Task context, interrupts on; elsewhere it would never end, and it panics.
    ///
    /// # Panics
    /// Inside a called function, or with interrupts off.
    pub fn idle_until(&self, done: impl Fn() -> bool) {
        let me = self.platform.current_cpu();
        assert!(
            self.may_wait(me).is_ok(),
            "a CPU idles in its task context, interrupts on"
        );
        self.idle_watching(done, || ());
    }

    /// As [`Self::idle_until`]; looks how long it has waited before it sleeps, and sleeps no longer than
    /// until a stall is due.
    fn idle_watching(&self, done: impl Fn() -> bool, mut look: impl FnMut()) {
        self.idle_enter();
        let mut looks = 0;
        while !done() {
            if self.has_tasks() {
                self.idle_exit();
                self.run_tasks();
                self.idle_enter();
            } else if self.idle_poll() {
                looks = 0;
            } else if looks < LOOKS_BEFORE_PARK {
                looks += 1;
                self.platform.relax(looks);
            } else {
                look();
                let awake = || done() || self.has_tasks();
                self.idle_park_for(self.platform.stall_limit_ns(), awake);
            }
        }
        self.idle_exit();
    }
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs the tasks of a CPU that leaves until there is none, whatever its interrupts are.
    ///
    /// # Safety
    /// 1. The caller is that CPU, in its task context.
    pub(crate) unsafe fn run_every_task(&self, me: CpuId, area: &Area<W, D>) {
        // SAFETY: 1.
        while let Some(task) = unsafe { area.next_task() } {
            let running = area.local.enter_task();
            // SAFETY: 1 of `run` — our queue's node, our context.
            unsafe { task.run(&self.context(me)) };
            area.local.set_tasks(running);
        }
    }
}

impl<const W: usize, const D: usize> Area<W, D> {
    /// The CPU's next task, oldest first. What was detached from the queue and has not run stays
    /// in the area, so that a task that waits lets the ones behind it run.
    ///
    /// # Safety
    /// 1. The caller is the CPU, in its task context.
    unsafe fn next_task(&self) -> Option<Detached> {
        // SAFETY: 1 — nobody else touches the cell, and the references end here.
        self.tasks.with_mut(|tasks| unsafe {
            let tasks = &mut *tasks;
            if tasks.is_empty() {
                *tasks = self.queues.sleeping.take_all();
            }
            tasks.next()
        })
    }

    /// Detached tasks that have not run: those of the closed queue of a CPU that leaves.
    ///
    /// # Safety
    /// 1. The caller is the CPU, in its task context, and all that was detached before has run.
    pub(crate) unsafe fn keep_tasks(&self, detached: Chain) {
        // SAFETY: 1 — nobody else touches the cell, and the reference ends here.
        self.tasks.with_mut(|tasks| unsafe { *tasks = detached });
    }

    /// Is a task detached or queued? Only the CPU itself may ask. A called function, which may have
    /// interrupted [`Self::next_task`] in mid-air, is told of the queue alone.
    #[cfg(not(loom))]
    fn has_tasks(&self) -> bool {
        let detached = || {
            // SAFETY: the CPU's own cell, in its task context: nobody is changing it.
            self.tasks.with(|tasks| unsafe { !(*tasks).is_empty() })
        };
        !self.queues.sleeping.looks_empty() || (!self.local.in_handler() && detached())
    }
}

/// Waits for a descriptor that is dropped while it is queued for a CPU's ordinary context.
///
/// On that CPU itself nobody else runs its tasks, so they are run here.
///
/// # Safety
/// As [`csd::wait_for_dropped`].
#[cfg(not(loom))]
pub(crate) unsafe fn wait_for_dropped_task<P: Platform, const W: usize, const D: usize>(
    smp: *const (),
    target: CpuId,
    queued: &dyn Fn() -> bool,
) {
    // SAFETY: 1.
    let this = unsafe { &*smp.cast::<Smp<P, W, D>>() };
    if this.platform.current_cpu() != Some(target) {
        // SAFETY: as this function.
        return unsafe { csd::wait_for_dropped::<P, W, D>(smp, target, queued) };
    }
    this.run_tasks();
    if queued() {
        this.platform.fatal(format_args!(
            "a Csd that is queued as a task on CPU {target} was dropped on that CPU where its \
             tasks cannot run: with interrupts off or in a called function"
        ));
    }
}

/// How a finished task wakes who waits for it.
pub(crate) struct Waker<P: Platform, const W: usize, const D: usize> {
    smp: *const Smp<P, W, D>,
    waiter: Option<CpuId>,
    /// Does the task run, or has it run?
    begun: AtomicU32,
}

#[cfg(not(loom))]
impl<P: Platform, const W: usize, const D: usize> Waker<P, W, D> {
    /// The target: the task begins. Answers a copy that outlives the waiter's stack.
    pub(crate) fn begin(&self) -> Self {
        // ORDERING: Relaxed — a report shows a moment, it decides nothing.
        self.begun.store(1, Ordering::Relaxed);
        Self {
            smp: self.smp,
            waiter: self.waiter,
            begun: AtomicU32::new(1),
        }
    }

    /// The waiter: has the task begun?
    fn has_begun(&self) -> bool {
        // ORDERING: Relaxed — as `begin`.
        self.begun.load(Ordering::Relaxed) != 0
    }

    /// Wakes the waiter, whose record's `done` word was at the address.
    ///
    /// # Safety
    /// 1. The instance is alive: the caller runs on one of its CPUs.
    pub(crate) unsafe fn wake(&self, done: NonNull<AtomicU32>) {
        // SAFETY: 1.
        let smp = unsafe { &*self.smp };
        match self.waiter {
            // It may have gone offline since: then it does not wait any more.
            Some(waiter) => drop(smp.nudge(waiter)),
            None => smp.platform.unblock(done.as_ptr()),
        }
    }
}
