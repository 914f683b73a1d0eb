//! What a worker does: chooses one operation after another, and has it done.
//!
//! All choices for an operation are made before it begins, from the worker's own stream, so that what
//! a seed chooses does not depend on time.

use core::sync::atomic::Ordering;

use smpcall::{CallError, CpuId, CpuMask, Platform};

use super::letter::Source;
use super::op::Op;
use super::room::{Fault, Room, Worker};
use super::{MS, Runner, op};
use crate::lab::Lab;
use crate::rng::Rng;

impl<L: Lab<W, D>, const W: usize, const D: usize> Runner<'_, L, W, D> {
    /// Works until it is time to stop, or this CPU is asked to leave.
    pub(super) fn work(&self, source: Source) {
        // ORDERING: Relaxed, both — only say when to stop and to rest.
        while self.room.stop.load(Ordering::Relaxed) == 0 && !self.smp().is_asked_to_leave() {
            self.smp().run_tasks();
            self.poll();
            if self.room.rests.load(Ordering::Relaxed) == 0 {
                self.one_operation(source);
            } else {
                self.smp().platform().relax(1_000);
            }
        }
    }

    /// Chooses an operation and does it.
    pub(super) fn one_operation(&self, source: Source) {
        let worker = self.room.worker(source);
        // ORDERING: Relaxed — the worker's own.
        let mut rng = Rng::new(worker.rng.load(Ordering::Relaxed));
        let Some(op) = self.choose(source, &mut rng) else {
            self.smp().platform().relax(1_000);
            return;
        };
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
            source,
            worker,
            turn,
        }
        .act();
        worker.count(op, refused);
        if rests {
            self.burn(MS);
        }
    }

    /// One kind of operation, by the weights; `None` if this source may do none.
    fn choose(&self, source: Source, rng: &mut Rng) -> Option<Op> {
        let weights = || op::ALL.map(|op| (op, self.weight(op, source))).into_iter();
        let sum: u64 = weights().map(|(_, weight)| weight).sum();
        let mut choice = rng.below(sum.max(1));
        let chosen = weights().find(|&(_, weight)| {
            let here = choice < weight;
            choice = choice.wrapping_sub(weight);
            here
        });
        chosen.map(|(op, _)| op)
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

    /// The stream of posts that the runner's own are part of.
    pub(super) fn source(&self) -> Source {
        self.me.map_or(Source::foreign(0), Source::task)
    }

    /// May this source choose this kind of operation?
    fn weight(&self, op: Op, source: Source) -> u64 {
        let weight = u64::from(self.weights[op as usize]);
        // A CPU is one already, and the runner counts those that are down.
        let attaches = source != self.source() && source.place().is_err();
        if op == Op::Attach && !attaches {
            0
        } else {
            weight
        }
    }

    /// Passes time without taking calls, in whatever context.
    pub(super) fn burn(&self, ns: u64) {
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
pub(super) struct Turn {
    pub(super) op: Op,
    pub(super) target: CpuId,
    pub(super) key: u64,
    pub(super) burn_ns: u64,
}

/// One operation of one worker.
pub(super) struct Doing<'a, 'r, L, const W: usize, const D: usize> {
    pub(super) runner: &'a Runner<'r, L, W, D>,
    pub(super) source: Source,
    pub(super) worker: &'static Worker,
    pub(super) turn: Turn,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Doing<'_, '_, L, W, D> {
    pub(super) fn smp(&self) -> &smpcall::Smp<L::P, W, D> {
        self.runner.smp()
    }

    pub(super) fn room(&self) -> &'static Room<W> {
        self.runner.room
    }

    pub(super) fn me(&self) -> Option<CpuId> {
        self.smp().current_cpu()
    }

    /// A random set of CPUs: each with even chance, the target among them.
    pub(super) fn some(&self) -> CpuMask<W> {
        let mut rng = Rng::new(self.turn.key);
        let words = core::array::from_fn(|_| rng.next_u64());
        CpuMask::from_words(words).or(&CpuMask::of(self.turn.target))
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
            Op::Ticket => self.ticket(),
            Op::Rendezvous => self.rendezvous(),
            Op::ManyInto => self.many_into(),
            Op::Preempt => self.preempt(),
            Op::Attach => self.attach(),
        }
    }

    /// 1 if it was refused; a reason that does not fit is a fault.
    pub(super) fn refused<T>(&self, result: Result<T, CallError>) -> u64 {
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
    pub(super) fn counted<T>(&self, post: impl FnOnce() -> Result<T, CallError>) -> u64 {
        // ORDERING: Relaxed — before the post, which publishes it.
        self.worker.accepted.fetch_add(1, Ordering::Relaxed);
        let refused = self.refused(post());
        self.worker.accepted.fetch_sub(refused, Ordering::Relaxed);
        refused
    }

    /// Waits for a function that was accepted; it still uses this stack, so it must come.
    pub(super) fn wait_for(&self, ended: impl Fn() -> bool) {
        if !self.runner.wait_or_nudge(ended) {
            self.give_up();
        }
    }

    /// An accepted function never ran: it still uses what this run has, so everything stops.
    pub(super) fn give_up(&self) -> ! {
        let Turn { op, target, .. } = self.turn;
        self.runner.dump("an accepted function never ran");
        let me = self.me();
        let platform = self.smp().platform();
        platform.fatal(format_args!(
            "torture: {op:?} of {me:?} to CPU {target} is lost"
        ))
    }
}
