//! Random operations from every CPU at once, for a time, with CPUs that come and go.
//!
//! The mix, the weights and the knobs are those of Linux's scftorture, and the operations that it lacks.
//! Every CPU works in its task context; the runner, a CPU or a foreign thread, works too, takes
//! CPUs down and brings them back. Every function checks where it runs, what it sees and in which order
//! it comes; at the end what was accepted must have run. If it has not, every CPU is nudged
//! once: what runs then had lost its wake-up, what still does not was lost itself.
//!
//! A seed gives each CPU its own stream of choices: how far it gets depends on time, what it does does
//! not. Neighbours: `knobs` are words for it, `op` names the operations, `work` chooses, `waited` and
//! `posted` do them, `back` those that need an interrupt or a thread that attaches, `letter` arrives, `hotplug` takes CPUs down and up, `end` waits for the last
//! operations, `room` keeps the counts.
//!
//! An operation that not every system has gets an [`Op`] here and a method of [`Lab`] that says whether this
//! one does; the default does not, and a weight for it is refused by name.

use core::pin::pin;
use core::sync::atomic::Ordering;

use smpcall::{CpuId, CpuMask, Csd, Platform, Smp};

use crate::lab::Lab;
use crate::rng::Rng;
use hotplug::Hotplug;
use letter::Source;

mod back;
mod end;
mod hotplug;
mod knobs;
mod letter;
pub mod op;
mod posted;
mod refusal;
mod room;
mod summary;
mod waited;
mod work;

pub use knobs::BadKnob;
pub use op::Op;
pub use refusal::CannotRun;
pub use room::{FAULTS, FOREIGNERS, Fault, Room};
pub use summary::{Progress, Summary};

const MS: u64 = 1_000_000;

/// A run to be: its knobs.
///
/// ```
/// use smpcall_torture::torture::{Op, Torture};
/// let mut torture = Torture { seed: 1, seconds: 60, ..Torture::default() };
/// torture.weights[Op::Kick as usize] = Some(10);
/// ```
#[derive(Debug, Clone)]
pub struct Torture {
    /// What all choices are made from.
    pub seed: u64,
    /// How long it runs.
    pub seconds: u64,
    /// How often each kind of operation is chosen; `None`: the default if all are, else never.
    pub weights: [Option<u32>; op::OPS],
    /// How many threads that are no CPU work beside the runner, at most [`FOREIGNERS`] less one; where
    /// the system has threads ([`Lab::beside`]).
    pub foreigners: u64,
    /// How long before the work begins.
    pub holdoff_ms: u64,
    /// Pause between taking a CPU down and bringing it back, and before the next; 0: never.
    pub hotplug_interval_ms: u64,
    /// How long before the first CPU goes down.
    pub hotplug_holdoff_ms: u64,
    /// All work for so long, then all rest for so long; 0: no rests.
    pub stutter_ms: u64,
    /// A few functions run for up to so long; 0: none does.
    pub long_wait_us: u64,
    /// How often progress is told.
    pub progress_ms: u64,
    /// How long a wait takes before everybody is nudged once, and how long after that before it is lost.
    pub patience_ms: u64,
}

impl Default for Torture {
    fn default() -> Self {
        Self {
            seed: 1,
            seconds: 10,
            weights: [None; op::OPS],
            foreigners: 2,
            holdoff_ms: 0,
            hotplug_interval_ms: 20,
            hotplug_holdoff_ms: 50,
            stutter_ms: 0,
            long_wait_us: 0,
            progress_ms: 250,
            patience_ms: 20_000,
        }
    }
}

impl Torture {
    /// Runs, from the task context of one CPU or from a foreign thread.
    ///
    /// Nobody else uses the instance meanwhile.
    ///
    /// # Errors
    /// What keeps it from running: the weights, or another run that has the room.
    pub fn run<L: Lab<W, D>, const W: usize, const D: usize>(
        &self,
        lab: &L,
        room: &'static Room<W>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Summary, CannotRun> {
        let online = lab.smp().online_cpus();
        let weights = self.table(lab)?;
        if !room.take(lab, |part| Rng::fork(self.seed, part).into_state()) {
            return Err(CannotRun::Taken);
        }
        let runner = Runner::<L, W, D> {
            torture: self,
            lab,
            room,
            weights,
            online,
            me: lab.smp().current_cpu(),
            start_ns: lab.smp().platform().now_ns(),
        };
        let summary = runner.run(progress);
        room.leave();
        Ok(summary)
    }
}

/// A run that is going on; the CPUs that work refer to it.
struct Runner<'a, L, const W: usize, const D: usize> {
    torture: &'a Torture,
    lab: &'a L,
    room: &'static Room<W>,
    weights: [u32; op::OPS],
    online: CpuMask<W>,
    /// The CPU that the runner is, if it is one.
    me: Option<CpuId>,
    start_ns: u64,
}

/// The runner's address, for tasks that must be `'static`.
#[derive(Clone, Copy)]
struct Address(*const ());

// SAFETY: a runner is shared by reference, and its parts are `Sync`.
unsafe impl Send for Address {}

/// A worker's task; its type depends on no lifetime.
fn task<L: Lab<W, D>, const W: usize, const D: usize>(
    runner: Address,
) -> impl Fn() + Copy + Send + 'static + use<L, W, D> {
    move || {
        let runner = runner;
        // SAFETY: the runner waits until its workers have ended (`Runner::end`).
        let runner = unsafe { &*runner.0.cast::<Runner<'_, L, W, D>>() };
        let Some(cpu) = runner.smp().current_cpu() else {
            return;
        };
        let source = Source::task(cpu);
        let worker = runner.room.worker(source);
        runner.work(source);
        // ORDERING: Release — what the worker did is visible; the runner may then go.
        worker.running.store(0, Ordering::Release);
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Runner<'_, L, W, D> {
    fn smp(&self) -> &Smp<L::P, W, D> {
        self.lab.smp()
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Runner<'_, L, W, D> {
    fn run(&self, progress: &mut dyn FnMut(&Progress)) -> Summary {
        let mut hotplug = Hotplug::new(self);
        self.pause(self.torture.holdoff_ms * MS);
        let others = self.online.iter().filter(|&cpu| Some(cpu) != self.me);
        others.for_each(|cpu| self.start_worker(cpu));
        let foreigners = (FOREIGNERS - 1).min(self.lab.threads());
        let foreigners = foreigners.min(self.torture.foreigners as usize);
        let of = |i| self.room.worker(Source::foreign(1 + i));
        // ORDERING: Relaxed — the threads start after this.
        (0..foreigners).for_each(|i| of(i).running.store(1, Ordering::Relaxed));
        let foreign = |i| {
            self.work(Source::foreign(1 + i));
            // ORDERING: Release — what the thread did is visible.
            of(i).running.store(0, Ordering::Release);
        };
        self.lab.beside(foreigners, &foreign, &mut || {
            self.lead(&mut hotplug, progress);
            // Who joins the threads may be a CPU, and takes no calls of theirs then.
            // ORDERING: Acquire — pairs with the Release above.
            let ended = || (0..foreigners).all(|i| of(i).running.load(Ordering::Acquire) == 0);
            self.wait_patiently(ended, "a thread that is no CPU never ended");
        });
        self.end(&mut hotplug);
        progress(&self.progress(&hotplug));
        self.summary(&hotplug)
    }

    /// The runner's own part, until the time is up: work, hotplug, progress.
    fn lead(&self, hotplug: &mut Hotplug, progress: &mut dyn FnMut(&Progress)) {
        let source = self.source();
        let begin = self.now();
        let mut next_progress = begin;
        loop {
            let now = self.now();
            if now.saturating_sub(begin) >= self.torture.seconds * 1_000 * MS {
                break;
            }
            if now >= next_progress {
                next_progress = now + self.torture.progress_ms * MS;
                progress(&self.progress(hotplug));
            }
            self.stutter(now);
            self.turn_hotplug(now, hotplug);
            self.one_operation(source);
        }
        // ORDERING: Relaxed — only says when to stop.
        self.room.rests.store(0, Ordering::Relaxed);
        self.room.stop.store(1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.smp().platform().now_ns()
    }

    /// A point at which calls are taken, where they do not interrupt. Where they do, a look would hide
    /// an interrupt that was lost.
    fn poll(&self) {
        if L::P::WAITERS_SERVE {
            self.smp().poll();
        }
    }

    /// Lets time pass, taking calls.
    fn pause(&self, ns: u64) {
        let start = self.now();
        while self.now().saturating_sub(start) < ns {
            self.poll();
            self.smp().platform().relax(1_000);
        }
    }

    /// Sends the worker of a CPU to work.
    fn start_worker(&self, cpu: CpuId) {
        let worker = self.room.worker(Source::task(cpu));
        // ORDERING: Relaxed — the post publishes it.
        worker.running.store(1, Ordering::Relaxed);
        let csd = pin!(Csd::new(task::<L, W, D>(Address(
            core::ptr::from_ref(self).cast()
        ))));
        if self.smp().post_task(cpu, csd.as_ref()).is_err() {
            self.room.check(false, Fault::Refusal);
            worker.running.store(0, Ordering::Relaxed);
            return;
        }
        // The descriptor is free when the CPU's idle loop has taken it.
        self.wait_patiently(|| !csd.is_queued(), "a worker never started");
    }

    /// Workers work and rest by turns.
    fn stutter(&self, now: u64) {
        let period = self.torture.stutter_ms * MS;
        if let Some(turn) = now.saturating_sub(self.start_ns).checked_div(period) {
            // ORDERING: Relaxed — only says when to rest.
            self.room.rests.store((turn % 2) as u32, Ordering::Relaxed);
        }
    }

    fn progress(&self, hotplug: &Hotplug) -> Progress {
        let each = |w: &room::Worker| (0..op::OPS).map(|op| w.counted(op).0).sum::<u64>();
        Progress {
            elapsed_ns: self.now() - self.start_ns,
            operations: self.room.everyone().map(each).sum(),
            hotplug_cycles: hotplug.cycles,
            errors: self.room.faults().iter().sum(),
            online: self.smp().num_online_cpus(),
        }
    }

    fn summary(&self, hotplug: &Hotplug) -> Summary {
        let Torture { seed, seconds, .. } = *self.torture;
        let mut summary = Summary::new(seed, seconds, self.online.len());
        for op in 0..op::OPS {
            let counted = self.room.everyone().map(|worker| worker.counted(op));
            let (done, refused) = counted.fold((0, 0), |(d, r), (done, no)| (d + done, r + no));
            summary.by_operation[op].1 = done;
            summary.refused[op].1 = refused;
            summary.operations += done;
        }
        for (i, n) in self.room.faults().into_iter().enumerate() {
            summary.by_fault[i].1 = n;
            summary.errors += n;
        }
        summary.posts = self.room.posts().1;
        summary.hotplug_cycles = hotplug.cycles;
        summary.hotplug_timeouts = hotplug.timeouts;
        summary.ok = summary.errors == 0 && summary.operations > 0;
        summary
    }
}
