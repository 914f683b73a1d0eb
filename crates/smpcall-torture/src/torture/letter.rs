//! What a posted function carries, and what it checks when it arrives.
//!
//! Two words: the room, and one that says who posted it, for whom, and as which of its posts.

use core::sync::atomic::Ordering;

use smpcall::{CpuId, Platform};

use super::room::{Fault, Room, Worker};
use crate::lab::Lab;

/// Who posts: a CPU's task context, a CPU's handlers, or a thread that is no CPU. Each has an order of
/// its own among its posts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Source(u32);

/// Set in a source that is a CPU's handlers, and in one that is no CPU.
const HANDLER: u32 = 1 << 13;
const FOREIGN: u32 = 1 << 14;

impl Source {
    pub(super) const fn task(cpu: CpuId) -> Self {
        Self(cpu.get())
    }

    pub(super) const fn handler(cpu: CpuId) -> Self {
        Self(cpu.get() | HANDLER)
    }

    pub(super) const fn foreign(index: usize) -> Self {
        Self(index as u32 | FOREIGN)
    }

    /// The CPU, or the number of the thread.
    pub(super) const fn place(self) -> Result<CpuId, usize> {
        if self.0 & FOREIGN == 0 {
            Ok(CpuId::new(self.0 & !HANDLER))
        } else {
            Err((self.0 & !FOREIGN) as usize)
        }
    }

    /// Where a target keeps its last number, among [`SOURCES`]; two sources may share a place.
    const fn slot(self) -> usize {
        match self.place() {
            Ok(cpu) => cpu.index() % 64 + 64 * (self.0 & HANDLER != 0) as usize,
            Err(index) => 63 - index % 64,
        }
    }

    /// As a part of a word, never 0.
    const fn tag(self) -> u64 {
        self.0 as u64 + 1
    }
}

/// What a posted function knows of its post.
pub(super) struct Letter<L, const W: usize, const D: usize> {
    pub(super) room: &'static Room<W>,
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
    pub(super) fn new(
        room: &'static Room<W>,
        source: Source,
        target: Option<CpuId>,
        number: u64,
    ) -> Self {
        let target = target.map_or(ANY_TARGET, CpuId::get);
        let word = u64::from(source.0) << 49 | u64::from(target) << NUMBER_BITS;
        Self {
            room,
            word: word | (number & ((1 << NUMBER_BITS) - 1)),
            _lab: core::marker::PhantomData,
        }
    }

    /// Who posted it.
    pub(super) fn source(self) -> Source {
        Source((self.word >> 49) as u32)
    }

    /// The CPU that it is for; [`ANY_TARGET`] if that is open.
    fn target(self) -> CpuId {
        CpuId::new((self.word >> NUMBER_BITS) as u32 & ANY_TARGET)
    }

    /// The posted function: checks that it is here, now and for the first time.
    pub(super) fn arrive(self) {
        // SAFETY: 1 — the room was taken with an `L` by the run that posted this.
        let Some(lab) = (unsafe { self.room.lab::<L>() }) else {
            return;
        };
        let Some(here) = lab.smp().current_cpu() else {
            self.room.check(false, Fault::WrongCpu);
            return;
        };
        let worker = self.room.worker(Source::task(here));
        let right = [CpuId::new(ANY_TARGET), here].contains(&self.target());
        let here_and_now = right && worker.may_interrupt();
        self.room.check(
            here_and_now && !lab.smp().platform().irqs_enabled(),
            Fault::WrongCpu,
        );
        let number = self.word & ((1 << NUMBER_BITS) - 1);
        // Number 0 is for posts that share no order with others.
        if number != 0 {
            let source = self.source();
            let in_order = worker.see(source.slot(), source.tag(), number);
            self.room.check(in_order, Fault::Order);
        }
        // ORDERING: Release — what ran here is over; pairs with `Room::posts`.
        worker.ran.fetch_add(1, Ordering::Release);
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Letter<L, W, D> {
    /// Is this the target's task context, interrupts on?
    pub(super) fn is_task_context(self, lab: &L) -> bool {
        lab.smp().current_cpu() == Some(self.target()) && lab.smp().platform().irqs_enabled()
    }

    /// A task: checks that it is here, interrupts on, and behind the task before it.
    pub(super) fn arrive_as_task(self, place: u64) {
        // SAFETY: 1 — the room was taken with an `L` by the run that posted this.
        let lab = unsafe { self.room.lab::<L>() };
        let right = lab.is_some_and(|lab| self.is_task_context(lab));
        self.room.check(right, Fault::WrongCpu);
        let [_, _, ran] = &self.room.worker(self.source()).rpc;
        // ORDERING: Release — the task is over; pairs with its source's look.
        let before = ran.fetch_add(1, Ordering::Release);
        self.room.check(before < place, Fault::Order);
    }
}

/// What a CPU answers that has nothing pending; 1 if it has.
pub(super) const QUIET: u64 = 2;

impl<L: Lab<W, D>, const W: usize, const D: usize> Letter<L, W, D> {
    /// A task: tells its source whether this CPU has anything pending.
    pub(super) fn answer_pending(self) {
        // SAFETY: 1 — the room was taken with an `L` by the run that posted this.
        let lab = unsafe { self.room.lab::<L>() };
        let pending = lab.is_some_and(|lab| lab.smp().has_pending());
        let [_, _, answer] = &self.room.worker(self.source()).rpc;
        // ORDERING: Release — the task is over.
        answer.store(if pending { 1 } else { QUIET }, Ordering::Release);
    }
}

/// In a handler: posts a letter of its own, as the next of this CPU's handlers. When it has arrived, `last`
/// gets what is kept for its target. Answers whether it was accepted.
pub(super) fn post_onward<L: Lab<W, D>, const W: usize, const D: usize>(
    letter: Letter<L, W, D>,
    next: CpuId,
    last: impl FnOnce(&'static Worker) + Send + 'static,
) -> bool {
    // SAFETY: 1 — the room was taken with an `L` by this run.
    let lab = unsafe { letter.room.lab::<L>() };
    let here = lab.and_then(|lab| lab.smp().current_cpu());
    let (Some(lab), Some(here)) = (lab, here) else {
        return false;
    };
    let source = Source::handler(here);
    let worker = letter.room.worker(source);
    // ORDERING: Relaxed, all of them — this CPU's handlers run one after another; the post publishes.
    let number = worker.handler_number.fetch_add(1, Ordering::Relaxed) + 1;
    let onward = Letter::<L, W, D>::new(letter.room, source, Some(next), number);
    worker.accepted.fetch_add(1, Ordering::Relaxed);
    let arrive = move || {
        onward.arrive();
        last(onward.room.worker(Source::task(onward.target())));
    };
    let posted = lab.smp().post(next, arrive).is_ok();
    if !posted {
        worker.accepted.fetch_sub(1, Ordering::Relaxed);
    }
    posted
}

/// The function of a descriptor that posts itself, on behalf of its source.
pub(super) fn run_again<L: Lab<W, D>, const W: usize, const D: usize>(
    letter: Letter<L, W, D>,
    source: &'static Worker,
) {
    // ORDERING: Relaxed — one thread of control: each run is posted by the one before.
    let left = source.again_left.load(Ordering::Relaxed);
    // SAFETY: 1 — the room was taken with an `L` by this run.
    let lab = unsafe { letter.room.lab::<L>() };
    let here = lab.and_then(|lab| lab.smp().current_cpu());
    if let (Some(lab), Some(here)) = (lab.filter(|_| left > 1), here) {
        let smp = lab.smp();
        let next = smp.online_cpus().iter().find(|&cpu| cpu > here);
        let worker = letter.room.worker(Source::handler(here));
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
