//! What a run keeps for each CPU, in storage that the caller supplies.
//!
//! Posted functions refer to it and may run after their sender has gone on, so it lives for ever: a
//! `static`. A kernel has one; a program that wants several at once leaks some boxes.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::letter::Source;
use super::op::{OPS, Op};
use crate::again::Again;

/// Sources that a target keeps the last number of, half of them handlers; of more, some are not checked.
const SOURCES: usize = 128;

/// Threads that are no CPU, the runner among them if it is one.
pub const FOREIGNERS: usize = 4;

/// What was found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// A function ran on a CPU that was not asked, or in a context in which nothing may run.
    WrongCpu,
    /// A post ran before an earlier one of its source, or twice.
    Order,
    /// A function did not see what its caller wrote.
    MemoryIn,
    /// A caller did not see what the function wrote.
    MemoryOut,
    /// A waited function ran more or fewer times than its call said.
    Count,
    /// An accepted post never ran.
    LostCall,
    /// A post or a wait went on only after a needless interrupt.
    LostWakeup,
    /// A call was refused for a reason that does not fit.
    Refusal,
    /// A CPU could not be taken down or brought up, for a reason other than that it was busy.
    Hotplug,
    /// Something was queued for a CPU when all had run.
    LeftOver,
    /// The platform's counters of calls sent and run do not add up.
    Counters,
}

/// How many kinds of faults there are.
pub const FAULTS: usize = 11;

/// Their names, in the order of their numbers.
pub(crate) const FAULT_NAMES: [&str; FAULTS] = [
    "wrong_cpu",
    "order",
    "memory_in",
    "memory_out",
    "count",
    "lost_call",
    "lost_wakeup",
    "refusal",
    "hotplug",
    "left_over",
    "counters",
];

/// One CPU, as a source and as a target; or a thread that is none.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Worker {
    /// Is it working? Set by the runner, cleared by the worker.
    pub(crate) running: AtomicU32,
    /// The state of its random numbers, kept while its CPU is down.
    pub(crate) rng: AtomicU64,
    /// Source: the number of its last post, from its task context and from its handlers.
    pub(crate) number: AtomicU64,
    pub(crate) handler_number: AtomicU64,
    /// Source: what was accepted, by its task context and by its handlers.
    pub(crate) accepted: AtomicU64,
    /// Target: posted functions that ran here.
    pub(crate) ran: AtomicU64,
    /// Target: phases of rendezvous that ran here without a call of their own.
    pub(crate) phases: AtomicU64,
    /// Target: the last number of each source, with the source.
    seen: [AtomicU64; SOURCES],
    /// Is this CPU in a region in which nothing may interrupt it?
    pub(crate) masked: AtomicU32,
    /// Source: how many calls back it asked for; and, doubled, the last that came, odd if it was refused.
    pub(crate) asked: AtomicU64,
    pub(crate) heard: AtomicU64,
    /// Source: what the function of an RPC is told, answers, and that it ran.
    pub(crate) rpc: [AtomicU64; 3],
    /// Source: its descriptor that posts itself, and how often it still shall.
    pub(crate) again: Again,
    pub(crate) again_left: AtomicU32,
    pub(crate) again_runs: AtomicU32,
    done: [AtomicU64; OPS],
    refused: [AtomicU64; OPS],
}

impl Worker {
    const fn new() -> Self {
        Self {
            running: AtomicU32::new(0),
            rng: AtomicU64::new(0),
            number: AtomicU64::new(0),
            handler_number: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            ran: AtomicU64::new(0),
            phases: AtomicU64::new(0),
            seen: [const { AtomicU64::new(0) }; SOURCES],
            masked: AtomicU32::new(0),
            asked: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            rpc: [const { AtomicU64::new(0) }; 3],
            again: Again::new(),
            again_left: AtomicU32::new(0),
            again_runs: AtomicU32::new(0),
            done: [const { AtomicU64::new(0) }; OPS],
            refused: [const { AtomicU64::new(0) }; OPS],
        }
    }

    /// As new, with this stream of random numbers.
    fn reset(&self, rng: u64) {
        // ORDERING: Relaxed, all of them — nobody works yet.
        self.running.store(0, Ordering::Relaxed);
        self.rng.store(rng, Ordering::Relaxed);
        let words = [
            &self.number,
            &self.handler_number,
            &self.accepted,
            &self.ran,
            &self.phases,
            &self.asked,
            &self.heard,
        ];
        let words = words.into_iter().chain(&self.seen).chain(&self.rpc);
        let words = words.chain(&self.done).chain(&self.refused);
        words.for_each(|word| word.store(0, Ordering::Relaxed));
        self.masked.store(0, Ordering::Relaxed);
        self.again_left.store(0, Ordering::Relaxed);
        self.again_runs.store(0, Ordering::Relaxed);
    }

    /// Target: may a function run here now? Asked by functions, on this CPU.
    pub(crate) fn may_interrupt(&self) -> bool {
        // ORDERING: Relaxed — written and read on one CPU.
        self.masked.load(Ordering::Relaxed) == 0
    }

    /// Counts an operation of this source.
    pub(crate) fn count(&self, op: Op, refused: u64) {
        // ORDERING: Relaxed — statistics.
        self.done[op as usize].fetch_add(1, Ordering::Relaxed);
        self.refused[op as usize].fetch_add(refused, Ordering::Relaxed);
    }

    /// How many of these operations it did, and how many calls in them were refused.
    pub(crate) fn counted(&self, op: usize) -> (u64, u64) {
        // ORDERING: Relaxed — statistics.
        (
            self.done[op].load(Ordering::Relaxed),
            self.refused[op].load(Ordering::Relaxed),
        )
    }

    /// Target: post number `number` of the source `tag` runs here. `false` if it or a later one
    /// already ran.
    pub(crate) fn see(&self, slot: usize, tag: u64, number: u64) -> bool {
        let new = tag << 48 | number;
        // ORDERING: Relaxed — written on this CPU only, by one function after another.
        let old = self.seen[slot].swap(new, Ordering::Relaxed);
        old >> 48 != new >> 48 || old < new
    }
}

/// What a run keeps, for `64 * W` CPUs and some threads that are none.
#[derive(Debug)]
pub struct Room<const W: usize> {
    busy: AtomicU32,
    lab: AtomicPtr<()>,
    pub(crate) stop: AtomicU32,
    pub(crate) rests: AtomicU32,
    faults: [AtomicU64; FAULTS],
    workers: [[Worker; 64]; W],
    foreign: [Worker; FOREIGNERS],
}

impl<const W: usize> Default for Room<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const W: usize> Room<W> {
    /// Free.
    pub const fn new() -> Self {
        Self {
            busy: AtomicU32::new(0),
            lab: AtomicPtr::new(ptr::null_mut()),
            stop: AtomicU32::new(0),
            rests: AtomicU32::new(0),
            faults: [const { AtomicU64::new(0) }; FAULTS],
            workers: [const { [const { Worker::new() }; 64] }; W],
            foreign: [const { Worker::new() }; FOREIGNERS],
        }
    }

    /// Takes the room for a run; `false` if another one has it.
    pub(crate) fn take<L>(&self, lab: &L, rng: impl Fn(u64) -> u64) -> bool {
        // ORDERING: Acquire — the last run's use is over; pairs with `leave`.
        if self.busy.swap(1, Ordering::Acquire) != 0 {
            return false;
        }
        for (part, worker) in (0..).zip(self.everyone()) {
            worker.reset(rng(part));
        }
        // ORDERING: Relaxed, here and below — workers start after this, by a post.
        self.faults
            .iter()
            .for_each(|fault| fault.store(0, Ordering::Relaxed));
        self.stop.store(0, Ordering::Relaxed);
        self.rests.store(0, Ordering::Relaxed);
        self.lab
            .store(ptr::from_ref(lab).cast_mut().cast(), Ordering::Relaxed);
        true
    }

    /// Gives the room back. What still runs finds no lab and only counts.
    pub(crate) fn leave(&self) {
        self.lab.store(ptr::null_mut(), Ordering::Relaxed);
        // ORDERING: Release — our use is over; pairs with `take`.
        self.busy.store(0, Ordering::Release);
    }

    /// The system, while a run goes on.
    ///
    /// # Safety
    /// 1. The room was taken with an `L`.
    pub(crate) unsafe fn lab<L>(&self) -> Option<&L> {
        // ORDERING: Relaxed — published by the post that brought us here.
        let lab = self.lab.load(Ordering::Relaxed).cast::<L>();
        // SAFETY: 1 — borrowed by the run until `leave`.
        unsafe { lab.as_ref() }
    }

    /// What is kept for a source; a CPU's handlers share with its task context.
    pub(super) fn worker(&self, source: Source) -> &Worker {
        match source.place() {
            Ok(cpu) => &self.workers.as_flattened()[cpu.index()],
            Err(index) => &self.foreign[index],
        }
    }

    /// All of them, those that are no CPU last.
    pub(crate) fn everyone(&self) -> impl Iterator<Item = &Worker> {
        self.workers.as_flattened().iter().chain(&self.foreign)
    }

    /// Notes a fault, unless all is right.
    #[expect(
        clippy::fn_params_excessive_bools,
        reason = "the condition that is checked, as of `assert!`"
    )]
    pub(crate) fn check(&self, right: bool, fault: Fault) {
        if !right {
            // ORDERING: Relaxed — a statistic.
            self.faults[fault as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each fault was found.
    pub(crate) fn faults(&self) -> [u64; FAULTS] {
        // ORDERING: Relaxed — statistics.
        core::array::from_fn(|i| self.faults[i].load(Ordering::Relaxed))
    }

    /// How many posts were accepted, and how many ran.
    pub(crate) fn posts(&self) -> (u64, u64) {
        // ORDERING: Acquire — what ran is over. What ran is read first: it never exceeds what was
        // accepted before.
        let ran = self.everyone().map(|w| w.ran.load(Ordering::Acquire)).sum();
        let accepted = self
            .everyone()
            .map(|w| w.accepted.load(Ordering::Acquire))
            .sum();
        (accepted, ran)
    }
}
