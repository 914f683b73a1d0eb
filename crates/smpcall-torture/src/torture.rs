//! Random operations from every CPU at once, for a time, with CPUs that come and go.
//!
//! The mix, the weights and the knobs are those of Linux's scftorture, and the operations that it lacks.
//! Every CPU works in its task context; the runner, a CPU or a foreign thread, works too, takes
//! CPUs down and brings them back. Every function checks where it runs, what it sees and in which order
//! it comes; at the end what was accepted must have run. If it has not, every CPU is nudged
//! once: what runs then had lost its wake-up, what still does not was lost itself.
//!
//! A seed gives each CPU its own stream of choices: how far it gets depends on time, what it does does
//! not. Neighbours: `op` names the operations, `work` chooses, `waited` and `posted`
//! do them, `letter` arrives, `room` keeps the counts.

use core::pin::pin;
use core::sync::atomic::Ordering;

use smpcall::{CpuId, CpuMask, Csd, HotplugError, Platform, Smp};

use crate::lab::Lab;
use crate::rng::Rng;

mod knobs;
mod letter;
pub mod op;
mod posted;
mod room;
mod summary;
mod waited;
mod work;

pub use knobs::BadKnob;
pub use op::Op;
pub use room::{FAULTS, Fault, Room};
pub use summary::{Progress, Summary};

const MS: u64 = 1_000_000;

/// How long the end of a run waits for its last operations, before and after the nudge.
const PATIENCE_NS: u64 = 20_000 * MS;

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
}

impl Default for Torture {
    fn default() -> Self {
        Self {
            seed: 1,
            seconds: 10,
            weights: [None; op::OPS],
            hotplug_interval_ms: 20,
            hotplug_holdoff_ms: 50,
            stutter_ms: 0,
            long_wait_us: 0,
            progress_ms: 250,
        }
    }
}

impl Torture {
    /// The weights that hold among `n` CPUs; `None` if all are zero.
    fn table(&self, n: u32) -> Option<[u32; op::OPS]> {
        let all_default = self.weights.iter().all(Option::is_none);
        let weight = |i: usize| match self.weights[i] {
            Some(weight) => weight,
            None if all_default => op::ALL[i].default_weight(n),
            None => 0,
        };
        let table = core::array::from_fn(weight);
        table.iter().any(|&weight| weight > 0).then_some(table)
    }

    /// Runs, from the task context of one CPU or from a foreign thread.
    ///
    /// Nobody else uses the instance meanwhile. `None`: another run has the room, or every weight is 0.
    pub fn run<L: Lab<W, D>, const W: usize, const D: usize>(
        &self,
        lab: &L,
        room: &'static Room<W>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Option<Summary> {
        let online = lab.smp().online_cpus();
        let weights = self.table(online.len() as u32)?;
        if !room.take(lab, |part| Rng::fork(self.seed, part).into_state()) {
            return None;
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
        Some(summary)
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
        let worker = runner.room.worker(runner.smp().current_cpu());
        runner.work(worker);
        // ORDERING: Release — what the worker did is visible; the runner may then go.
        worker.running.store(0, Ordering::Release);
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Runner<'_, L, W, D> {
    fn smp(&self) -> &Smp<L::P, W, D> {
        self.lab.smp()
    }
}

/// What takes CPUs down and up.
struct Hotplug {
    rng: Rng,
    next_ns: u64,
    down: Option<CpuId>,
    cycles: u64,
    timeouts: u64,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Runner<'_, L, W, D> {
    fn run(&self, progress: &mut dyn FnMut(&Progress)) -> Summary {
        let me = self.me;
        let Torture { seed, seconds, .. } = *self.torture;
        let mut hotplug = Hotplug {
            rng: Rng::fork(seed, u64::MAX),
            next_ns: self.start_ns + self.torture.hotplug_holdoff_ms * MS,
            down: None,
            cycles: 0,
            timeouts: 0,
        };
        let others = self.online.iter().filter(|&cpu| Some(cpu) != me);
        others.for_each(|cpu| self.start_worker(cpu));
        let mut next_progress = self.start_ns;
        let own = self.room.worker(me);
        loop {
            let now = self.now();
            if now.saturating_sub(self.start_ns) >= seconds * 1_000 * MS {
                break;
            }
            if now >= next_progress {
                next_progress = now + self.torture.progress_ms * MS;
                progress(&self.progress(&hotplug));
            }
            self.stutter(now);
            self.turn_hotplug(now, &mut hotplug);
            (0..32).for_each(|_| self.one_operation(own));
        }
        self.end(&mut hotplug);
        progress(&self.progress(&hotplug));
        self.summary(&hotplug)
    }

    fn now(&self) -> u64 {
        self.smp().platform().now_ns()
    }

    /// Sends the worker of a CPU to work.
    fn start_worker(&self, cpu: CpuId) {
        let worker = self.room.worker(Some(cpu));
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
        if let Some(turn) = (now - self.start_ns).checked_div(period) {
            // ORDERING: Relaxed — only says when to rest.
            self.room.rests.store((turn % 2) as u32, Ordering::Relaxed);
        }
    }

    fn turn_hotplug(&self, now: u64, hotplug: &mut Hotplug) {
        let interval = self.torture.hotplug_interval_ms * MS;
        if interval == 0 || !self.lab.may_hotplug() || now < hotplug.next_ns {
            return;
        }
        hotplug.next_ns = now + interval;
        if let Some(cpu) = hotplug.down {
            self.bring_up(cpu, hotplug);
            return;
        }
        let n = hotplug.rng.below(self.online.len() as u64) as usize;
        let Some(cpu) = self
            .online
            .iter()
            .nth(n)
            .filter(|&cpu| Some(cpu) != self.me)
        else {
            return;
        };
        match self.smp().cpu_down(cpu) {
            Ok(()) => hotplug.down = Some(cpu),
            Err(HotplugError::Timeout) => {
                hotplug.timeouts += 1;
                self.restart_if_it_ended(cpu);
            }
            // The only CPU of a machine whose runner is a foreign thread.
            Err(HotplugError::LastCpu) => {}
            Err(_) => self.room.check(false, Fault::Hotplug),
        }
    }

    /// A worker that ended because its CPU was asked to leave, which then stayed.
    fn restart_if_it_ended(&self, cpu: CpuId) {
        // ORDERING: Acquire — its last work is over.
        if self.room.worker(Some(cpu)).running.load(Ordering::Acquire) == 0 {
            self.start_worker(cpu);
        }
    }

    fn bring_up(&self, cpu: CpuId, hotplug: &mut Hotplug) {
        match self.smp().cpu_up(cpu) {
            Ok(()) => {
                hotplug.cycles += 1;
                hotplug.down = None;
                self.start_worker(cpu);
            }
            Err(HotplugError::Timeout) => hotplug.timeouts += 1,
            Err(_) => self.room.check(false, Fault::Hotplug),
        }
    }

    /// Ends the work: every worker, every post; then every CPU is online again.
    fn end(&self, hotplug: &mut Hotplug) {
        // ORDERING: Relaxed — only says when to stop.
        self.room.rests.store(0, Ordering::Relaxed);
        self.room.stop.store(1, Ordering::Relaxed);
        // ORDERING: Acquire — what the workers did is visible, and they use the runner no more.
        let idle = || {
            self.room
                .everyone()
                .all(|w| w.running.load(Ordering::Acquire) == 0)
        };
        self.wait_patiently(idle, "a worker never ended");
        if let Some(cpu) = hotplug.down {
            self.bring_up(cpu, hotplug);
            self.wait_patiently(idle, "a worker never ended");
        }
        let settled = || {
            let (accepted, ran) = self.room.posts();
            accepted == ran
        };
        if self.wait_or_nudge(settled) {
            return;
        }
        let (accepted, ran) = self.room.posts();
        self.room.check(false, Fault::LostCall);
        self.lab.log(format_args!(
            "torture: {accepted} posts were accepted, {ran} ran"
        ));
    }

    /// Waits for something that must happen, with a nudge after a while; if it never does, whoever
    /// fails to do it still uses the runner, so everything stops.
    fn wait_patiently(&self, done: impl Fn() -> bool, what: &str) {
        if !self.wait_or_nudge(done) {
            self.dump(what);
            self.smp().platform().fatal(format_args!("torture: {what}"));
        }
    }

    /// Waits; after a while nudges every CPU and notes a lost wake-up if that helped.
    fn wait_or_nudge(&self, done: impl Fn() -> bool) -> bool {
        if self.wait(&done) {
            return true;
        }
        for cpu in &self.smp().online_cpus() {
            // One that has left meanwhile ran its last calls.
            let _ = self.smp().nudge(cpu);
            self.smp().platform().send_ipi(cpu);
        }
        let helped = self.wait(&done);
        self.room.check(!helped, Fault::LostWakeup);
        helped
    }

    fn wait(&self, done: &impl Fn() -> bool) -> bool {
        let start = self.now();
        while !done() {
            self.smp().poll();
            self.smp().run_tasks();
            self.smp().platform().relax(1_000);
            if self.now().saturating_sub(start) > PATIENCE_NS {
                return done();
            }
        }
        true
    }

    /// Says which CPUs still work.
    fn dump(&self, what: &str) {
        self.lab.log(format_args!(
            "dump: {what}; online {}",
            self.smp().online_cpus()
        ));
        for cpu in &self.online {
            let worker = self.room.worker(Some(cpu));
            // ORDERING: Relaxed — a report.
            if worker.running.load(Ordering::Relaxed) != 0 {
                let state = self.smp().cpu_state(cpu);
                self.lab
                    .log(format_args!("dump: CPU {cpu}: {state:?}, works"));
            }
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
