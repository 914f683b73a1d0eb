//! What a worker does: one operation after another, each checked.
//!
//! Posted functions carry two words: the room, and where they come from. Waited ones borrow the
//! worker's stack, with plain values in and out of it.

use core::pin::pin;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask, Csd, Platform};

use super::room::{Fault, Room, Worker};
use super::{MS, PATIENCE_NS, Runner, op};
use crate::lab::Lab;
use crate::rng::Rng;

use super::op::Op;

/// The source number of the foreign thread.
const FOREIGN: u32 = (1 << 15) - 1;

/// What a posted function knows of its post.
struct Letter<L, const W: usize, const D: usize> {
    room: &'static Room<W>,
    word: u64,
    _lab: core::marker::PhantomData<fn() -> L>,
}

impl<L, const W: usize, const D: usize> Clone for Letter<L, W, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<L, const W: usize, const D: usize> Copy for Letter<L, W, D> {}

/// Bits of a letter's word: the source, the target (or [`ANY_TARGET`]), and the post's number.
const NUMBER_BITS: u32 = 34;
const ANY_TARGET: u32 = (1 << 15) - 1;

impl<L: Lab<W, D>, const W: usize, const D: usize> Letter<L, W, D> {
    fn new(room: &'static Room<W>, source: u32, target: Option<CpuId>, number: u64) -> Self {
        let target = target.map_or(ANY_TARGET, CpuId::get);
        let word = u64::from(source) << 49 | u64::from(target) << NUMBER_BITS;
        Self {
            room,
            word: word | (number & ((1 << NUMBER_BITS) - 1)),
            _lab: core::marker::PhantomData,
        }
    }

    /// The posted function: checks that it is here, now and for the first time.
    fn arrive(self) {
        // SAFETY: 1 — the room was taken with an `L` by the run that posted this.
        let Some(lab) = (unsafe { self.room.lab::<L>() }) else {
            return;
        };
        let here = lab.smp().current_cpu();
        let worker = self.room.worker(here);
        let target = (self.word >> NUMBER_BITS) as u32 & ANY_TARGET;
        let right = here.is_some_and(|here| target == ANY_TARGET || here.get() == target);
        self.room.check(
            right && !lab.smp().platform().irqs_enabled(),
            Fault::WrongCpu,
        );
        let number = self.word & ((1 << NUMBER_BITS) - 1);
        // Number 0 is for posts that share no order with others.
        if number != 0 {
            self.room
                .check(worker.see((self.word >> 49) as u32, number), Fault::Order);
        }
        // ORDERING: Release — what ran here is over; pairs with `Room::posts`.
        worker.ran.fetch_add(1, Ordering::Release);
    }
}

/// A waited function's view of its caller's stack.
struct Probe {
    input: u64,
    output: AtomicU64,
    runs: AtomicU64,
}

impl Probe {
    const fn new(input: u64) -> Self {
        Self {
            input,
            output: AtomicU64::new(0),
            runs: AtomicU64::new(0),
        }
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Runner<'_, L, W, D> {
    /// Works until it is time to stop, or this CPU is asked to leave.
    pub(super) fn work(&self, worker: &'static Worker) {
        // ORDERING: Relaxed, both — only say when to stop and to rest.
        while self.room.stop.load(Ordering::Relaxed) == 0 && !self.smp().is_asked_to_leave() {
            self.smp().run_tasks();
            self.smp().poll();
            if self.room.rests.load(Ordering::Relaxed) == 0 {
                self.one_operation(worker);
            } else {
                self.smp().platform().relax(1_000);
            }
        }
    }

    /// Chooses an operation and does it.
    pub(super) fn one_operation(&self, worker: &'static Worker) {
        // ORDERING: Relaxed — the worker's own.
        let mut rng = Rng::new(worker.rng.load(Ordering::Relaxed));
        let sum: u64 = self.weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut choice = rng.below(sum);
        let weights = self.weights.iter().map(|&weight| u64::from(weight));
        let chosen = weights.zip(op::ALL).find(|&(weight, _)| {
            let here = choice < weight;
            choice = choice.wrapping_sub(weight);
            here
        });
        let op = chosen.map_or(Op::Nudge, |(_, op)| op);
        let turn = Turn {
            op,
            target: CpuId::new(rng.below(u64::from(self.smp().nr_cpu_ids())) as u32),
            key: rng.next_u64() | 1,
            burn_ns: self.burn_time(&mut rng),
        };
        let rests = rng.one_in(4096);
        worker.rng.store(rng.into_state(), Ordering::Relaxed);
        let refused = Doing {
            runner: self,
            worker,
            turn,
        }
        .act();
        worker.count(op, refused);
        if rests {
            self.burn(MS);
        }
    }

    /// How long the function runs: mostly not at all.
    fn burn_time(&self, rng: &mut Rng) -> u64 {
        let long = self.torture.long_wait_us;
        match rng.below(4096) {
            0 if long > 0 => 1_000 * rng.below(long),
            1..4 => 1_000 * rng.below(64),
            _ => 0,
        }
    }

    /// Passes time without taking calls, in whatever context.
    fn burn(&self, ns: u64) {
        if ns == 0 {
            return;
        }
        let start = self.now();
        while self.now().saturating_sub(start) < ns {
            self.smp().platform().relax(0);
        }
    }
}

/// The choices for one operation.
#[derive(Clone, Copy)]
struct Turn {
    op: Op,
    target: CpuId,
    key: u64,
    burn_ns: u64,
}

/// One operation of one worker.
struct Doing<'a, 'r, L, const W: usize, const D: usize> {
    runner: &'a Runner<'r, L, W, D>,
    worker: &'static Worker,
    turn: Turn,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Doing<'_, '_, L, W, D> {
    fn smp(&self) -> &smpcall::Smp<L::P, W, D> {
        self.runner.smp()
    }

    fn room(&self) -> &'static Room<W> {
        self.runner.room
    }

    fn me(&self) -> Option<CpuId> {
        self.smp().current_cpu()
    }

    fn source(&self) -> u32 {
        self.me().map_or(FOREIGN, CpuId::get)
    }

    /// A random set of CPUs: each with even chance, the target among them.
    fn some(&self) -> CpuMask<W> {
        let mut rng = Rng::new(self.turn.key);
        let words = core::array::from_fn(|_| rng.next_u64());
        CpuMask::from_words(words).or(&CpuMask::of(self.turn.target))
    }

    /// A letter to be posted, with the next number of this source.
    fn letter(&self, target: Option<CpuId>) -> Letter<L, W, D> {
        // ORDERING: Relaxed — this source's own; its handlers take no numbers.
        let number = self.worker.number.fetch_add(1, Ordering::Relaxed) + 1;
        Letter::new(self.room(), self.source(), target, number)
    }

    /// Does it; answers how many calls were refused.
    fn act(&self) -> u64 {
        let smp = self.smp();
        let Turn { op, target, .. } = self.turn;
        match op {
            Op::Nudge => self.refused(smp.nudge(target)),
            Op::SinglePost => self.post(|letter| {
                smp.post(target, move || letter.arrive())
                    .map_err(|refused| refused.error)
            }),
            Op::PostWait => self.post(|letter| {
                smp.post_wait(target, move || letter.arrive())
                    .map_err(|refused| refused.error)
            }),
            Op::SingleRpc => self.rpc(),
            Op::SingleWait => self.waited_single(target),
            Op::LocalWait => self.waited_single(self.me().unwrap_or(target)),
            Op::IrqsOffWait => self.irqs_off_wait(),
            Op::AnyWait => self.any_wait(),
            Op::AnyPost => self.any_post(),
            Op::ManyPost | Op::AllPost | Op::CondPost => self.posted_set(),
            Op::ManyWait | Op::AllWait | Op::CondWait => self.waited_set(),
            Op::CsdWait => self.csd_wait(),
            Op::CsdPost => self.csd_post(),
            Op::CsdAgain => self.csd_again(),
            Op::TaskRpc => self.task_rpc(),
            Op::TaskWait => self.task_wait(),
            Op::Kick => self.kick(),
            Op::Flush => self.refused(smp.flush(target)),
            Op::NestedPost => self.nested_post(),
            Op::Masked => self.masked(),
        }
    }

    /// 1 if it was refused; a reason that does not fit is a fault.
    fn refused<T>(&self, result: Result<T, CallError>) -> u64 {
        let Err(error) = result else { return 0 };
        let fits = matches!(
            error,
            CallError::Offline { .. }
                | CallError::NoSuchCpu { .. }
                | CallError::EmptyMask
                | CallError::Full { .. }
                | CallError::Busy
        );
        self.room().check(fits, Fault::Refusal);
        1
    }

    /// Counts a post before it is made, and takes it back if it was refused.
    fn counted<T>(&self, post: impl FnOnce() -> Result<T, CallError>) -> u64 {
        // ORDERING: Relaxed — before the post, which publishes it.
        self.worker.accepted.fetch_add(1, Ordering::Relaxed);
        let refused = self.refused(post());
        self.worker.accepted.fetch_sub(refused, Ordering::Relaxed);
        refused
    }

    fn post(&self, post: impl FnOnce(Letter<L, W, D>) -> Result<(), CallError>) -> u64 {
        let letter = self.letter(Some(self.turn.target));
        self.counted(|| post(letter))
    }

    /// What a waited function does on `cpu`.
    fn probe(&self, probe: &Probe, cpu: CpuId) {
        let here = self.me() == Some(cpu) && !self.smp().platform().irqs_enabled();
        self.room().check(here, Fault::WrongCpu);
        self.room()
            .check(probe.input == self.turn.key, Fault::MemoryIn);
        self.runner.burn(self.turn.burn_ns);
        // ORDERING: Relaxed — the call alone must order it; that is what is checked.
        probe.output.store(!self.turn.key, Ordering::Relaxed);
        probe.runs.fetch_add(1, Ordering::Relaxed);
    }

    /// What the caller checks: as many runs as were accepted, and what they wrote.
    fn checked(&self, probe: &Probe, accepted: u64) {
        // ORDERING: Relaxed — as above.
        let (runs, output) = (
            probe.runs.load(Ordering::Relaxed),
            probe.output.load(Ordering::Relaxed),
        );
        self.room().check(runs == accepted, Fault::Count);
        let wrote = if accepted > 0 { !self.turn.key } else { 0 };
        self.room().check(output == wrote, Fault::MemoryOut);
    }

    fn waited_single(&self, target: CpuId) -> u64 {
        let probe = Probe::new(self.turn.key);
        let call = self.smp().call(target, || self.probe(&probe, target));
        let refused = self.refused(call.map_err(|refused| refused.error));
        self.checked(&probe, 1 - refused);
        refused
    }

    fn irqs_off_wait(&self) -> u64 {
        let target = self.turn.target;
        let probe = Probe::new(self.turn.key);
        let mut guard = self.smp().irqs_off();
        let run = || self.probe(&probe, target);
        let call = self.smp().call_irqs_off(&mut guard, target, run);
        drop(guard);
        let refused = self.refused(call.map_err(|refused| refused.error));
        self.checked(&probe, 1 - refused);
        refused
    }

    fn any_wait(&self) -> u64 {
        let some = self.some();
        let probe = Probe::new(self.turn.key);
        let run = || {
            let here = self.me();
            here.into_iter().for_each(|cpu| self.probe(&probe, cpu));
            here
        };
        let call = self
            .smp()
            .call_any(&some, run)
            .map_err(|refused| refused.error);
        if let Ok((cpu, ran_on)) = call {
            self.room()
                .check(some.contains(cpu) && ran_on == Some(cpu), Fault::WrongCpu);
        }
        let refused = self.refused(call);
        self.checked(&probe, 1 - refused);
        refused
    }

    fn any_post(&self) -> u64 {
        let some = self.some();
        let letter = self.letter(None);
        self.counted(|| {
            let any = self.smp().post_any(&some, move || letter.arrive());
            any.map_err(|refused| refused.error)
        })
    }

    fn waited_set(&self) -> u64 {
        let some = self.some();
        let probe = Probe::new(self.turn.key);
        let run = |cpu| self.probe(&probe, cpu);
        let set = match self.turn.op {
            Op::ManyWait => self.smp().call_many(&some, run),
            Op::CondWait => self.smp().on_each_cpu_cond(|cpu| some.contains(cpu), run),
            _ => self.smp().on_each_cpu(run),
        };
        let refused = self.refused(set.as_ref().map(|_| ()).map_err(|refused| refused.error));
        self.checked(&probe, set.map_or(0, |set| set.len() as u64));
        refused
    }

    fn posted_set(&self) -> u64 {
        let some = self.some();
        let letter = self.letter(None);
        let run = move |_| letter.arrive();
        // More than it can be, for it must not be behind what ran.
        let most = CpuMask::<W>::CAPACITY as u64;
        // ORDERING: Relaxed — before the post, which publishes it.
        self.worker.accepted.fetch_add(most, Ordering::Relaxed);
        let set = match self.turn.op {
            Op::ManyPost => self.smp().post_many(&some, run),
            Op::CondPost => self.smp().post_each_cond(|cpu| some.contains(cpu), run),
            _ => self.smp().post_each(run),
        };
        let (posted, full) = match set {
            Ok(posted) => (posted, CpuMask::EMPTY),
            Err(error) => (error.posted, error.full),
        };
        self.worker
            .accepted
            .fetch_sub(most - posted.len() as u64, Ordering::Relaxed);
        full.len() as u64
    }

    fn csd_wait(&self) -> u64 {
        let target = self.turn.target;
        let probe = Probe::new(self.turn.key);
        let csd = Csd::new(|| self.probe(&probe, target));
        let refused = self.refused(self.smp().call_csd(target, &csd));
        self.checked(&probe, 1 - refused);
        refused
    }

    /// Its end waits until the target has taken it.
    fn csd_post(&self) -> u64 {
        let target = self.turn.target;
        // Its two posts have one number, so it has no place in the order.
        let letter = Letter::<L, W, D>::new(self.room(), self.source(), Some(target), 0);
        let csd = pin!(Csd::new(move || letter.arrive()));
        let first = self.counted(|| self.smp().post_csd(target, csd.as_ref()));
        first + self.counted(|| self.smp().post_csd(target, csd.as_ref()))
    }

    /// Posts a descriptor whose function posts it again, and waits until it has had enough.
    fn csd_again(&self) -> u64 {
        let (worker, room) = (self.worker, self.room());
        let letter = Letter::<L, W, D>::new(room, self.source(), None, 0);
        let from = self.me();
        let csd = pin!(Csd::new(move || run_again(letter, room.worker(from))));
        let hops = 1 + self.turn.key as u32 % 4;
        // ORDERING: Relaxed — the post publishes them.
        worker.again_left.store(hops, Ordering::Relaxed);
        worker.again.arm(self.smp(), csd.as_ref());
        let refused = self.counted(|| self.smp().post_csd(self.turn.target, csd.as_ref()));
        if refused == 0 {
            // ORDERING: Acquire — the last run is over and posts it no more.
            let ended = || worker.again_left.load(Ordering::Acquire) == 0;
            self.wait_for(ended);
        }
        refused
    }

    /// Waits for a function that was accepted; it still uses this stack, so it must come.
    fn wait_for(&self, ended: impl Fn() -> bool) {
        let start = self.runner.now();
        let mut nudged = false;
        while !ended() {
            self.smp().poll();
            self.smp().run_tasks();
            self.smp().platform().relax(1_000);
            let waited = self.runner.now().saturating_sub(start);
            if waited > PATIENCE_NS && !nudged {
                nudged = true;
                for cpu in &self.smp().online_cpus() {
                    self.smp().platform().send_ipi(cpu);
                    // One that left meanwhile ran its last calls.
                    let _ = self.smp().nudge(cpu);
                }
            }
            if waited > 2 * PATIENCE_NS {
                let (op, target) = (self.turn.op, self.turn.target);
                self.runner.dump("an accepted function never ran");
                let me = self.me();
                let platform = self.smp().platform();
                platform.fatal(format_args!(
                    "torture: {op:?} of {me:?} to CPU {target} is lost"
                ));
            }
        }
        self.room().check(!nudged, Fault::LostWakeup);
    }

    /// A function that is told something and answers, without a waited call.
    fn rpc(&self) -> u64 {
        let (worker, room, target) = (self.worker, self.room(), self.turn.target);
        let [input, output, ran] = &worker.rpc;
        // ORDERING: Relaxed — the post must order it, which is what is checked.
        input.store(self.turn.key, Ordering::Relaxed);
        output.store(0, Ordering::Relaxed);
        ran.store(0, Ordering::Relaxed);
        let key = self.turn.key;
        let letter = Letter::<L, W, D>::new(room, self.source(), Some(target), 0);
        // Three words: the letter's two, which say whose RPC it is, and the key.
        let refused = self.counted(|| {
            let post = self.smp().post(target, move || {
                let source = (letter.word >> 49) as u32;
                let from = (source != FOREIGN).then(|| CpuId::new(source));
                let [input, output, ran] = &letter.room.worker(from).rpc;
                letter
                    .room
                    .check(input.load(Ordering::Relaxed) == key, Fault::MemoryIn);
                output.store(!key, Ordering::Relaxed);
                letter.arrive();
                // ORDERING: Release — what it wrote is visible to the caller.
                ran.store(1, Ordering::Release);
            });
            post.map_err(|refused| refused.error)
        });
        if refused == 0 {
            // ORDERING: Acquire — pairs with the Release above.
            self.wait_for(|| ran.load(Ordering::Acquire) == 1);
            room.check(output.load(Ordering::Relaxed) == !key, Fault::MemoryOut);
        }
        refused
    }

    /// A task in the target's ordinary context; this CPU runs its own tasks while it waits.
    fn task_rpc(&self) -> u64 {
        let (target, room) = (self.turn.target, self.room());
        let [_, _, ran] = &self.worker.rpc;
        // ORDERING: Relaxed — the post publishes it.
        ran.store(0, Ordering::Relaxed);
        let from = self.me();
        let csd = pin!(Csd::new(move || {
            // SAFETY: 1 — the room was taken with an `L` by this run.
            let lab = unsafe { room.lab::<L>() };
            let right = lab.is_some_and(|lab| {
                lab.smp().current_cpu() == Some(target) && lab.smp().platform().irqs_enabled()
            });
            room.check(right, Fault::WrongCpu);
            // ORDERING: Release — the task is over.
            room.worker(from).rpc[2].store(1, Ordering::Release);
        }));
        let refused = self.refused(self.smp().post_task(target, csd.as_ref()));
        if refused == 0 {
            // ORDERING: Acquire — pairs with the Release above.
            self.wait_for(|| ran.load(Ordering::Acquire) == 1);
        }
        refused
    }

    /// Only the runner may wait for another CPU's ordinary context; others do a task RPC instead.
    fn task_wait(&self) -> u64 {
        let target = self.turn.target;
        // ORDERING: Relaxed — set before this worker was started; the runner's own is never set.
        if self.worker.running.load(Ordering::Relaxed) != 0 {
            return self.task_rpc();
        }
        let ran = AtomicU32::new(0);
        let run = || {
            self.room()
                .check(self.me() == Some(target), Fault::WrongCpu);
            ran.fetch_add(1, Ordering::Relaxed);
        };
        let call = self.smp().run_on_cpu(target, run);
        let refused = self.refused(call.map_err(|refused| refused.error));
        let runs = u64::from(ran.load(Ordering::Relaxed));
        self.room().check(runs == 1 - refused, Fault::Count);
        refused
    }

    fn kick(&self) -> u64 {
        self.refused(self.smp().kick_all_cpus_sync())
    }

    /// A post whose function posts onward, from the target's handler context.
    fn nested_post(&self) -> u64 {
        let (room, target) = (self.room(), self.turn.target);
        let letter = Letter::<L, W, D>::new(room, self.source(), Some(target), 0);
        let next = CpuId::new((self.turn.key % u64::from(self.smp().nr_cpu_ids())) as u32);
        self.counted(|| {
            let post = self.smp().post(target, move || {
                // SAFETY: 1 — the room was taken with an `L` by this run.
                if let Some(lab) = unsafe { letter.room.lab::<L>() } {
                    let here = letter.room.worker(lab.smp().current_cpu());
                    let onward = Letter::<L, W, D>::new(letter.room, 0, Some(next), 0);
                    // ORDERING: Relaxed — before the post, which publishes it.
                    here.accepted.fetch_add(1, Ordering::Relaxed);
                    if lab.smp().post(next, move || onward.arrive()).is_err() {
                        here.accepted.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                letter.arrive();
            });
            post.map_err(|refused| refused.error)
        })
    }

    /// Takes no calls for a while.
    fn masked(&self) -> u64 {
        let guard = self.smp().irqs_off();
        self.runner.burn(1_000 * (self.turn.key % 64));
        drop(guard);
        0
    }
}

/// The function of a descriptor that posts itself, on behalf of its source.
fn run_again<L: Lab<W, D>, const W: usize, const D: usize>(
    letter: Letter<L, W, D>,
    source: &'static Worker,
) {
    // ORDERING: Relaxed — one thread of control: each run is posted by the one before.
    let left = source.again_left.load(Ordering::Relaxed);
    // SAFETY: 1 — the room was taken with an `L` by this run.
    let lab = unsafe { letter.room.lab::<L>() };
    if let Some(lab) = lab.filter(|_| left > 1) {
        let smp = lab.smp();
        let here = smp.current_cpu();
        let next = smp.online_cpus().iter().find(|&cpu| Some(cpu) > here);
        let worker = letter.room.worker(here);
        // ORDERING: Relaxed — before the post, which publishes them.
        source.again_left.store(left - 1, Ordering::Relaxed);
        worker.accepted.fetch_add(1, Ordering::Relaxed);
        // SAFETY: 1 — armed with this instance by its source; 2 — the source keeps it until
        // `again_left` is 0, which the last run stores.
        let posted = next.is_some_and(|next| unsafe { source.again.post(smp, next) }.is_ok());
        letter.arrive();
        if !posted {
            worker.accepted.fetch_sub(1, Ordering::Relaxed);
            // ORDERING: Release — the last run is over.
            source.again_left.store(0, Ordering::Release);
        }
        return;
    }
    letter.arrive();
    // ORDERING: Release — the last run is over.
    source.again_left.store(0, Ordering::Release);
}
