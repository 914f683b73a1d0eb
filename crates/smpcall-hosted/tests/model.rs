//! Random sequences of calls, posts, descriptors, masks and hotplug, run on a machine and on a
//! naive model side by side: the same answers, the same sets of CPUs, the same runs, and for each pair
//! of source and target the same order.
//!
//! The driver does one operation at a time, as this thread or through a CPU, lets everything that
//! can run do so, and compares. A CPU that holds its interrupts off collects what is posted to it, so
//! that lanes fill up, descriptors are busy and order shows. Failing sequences are shrunk and kept in
//! `tests/model.proptest-regressions`.
#![expect(clippy::missing_panics_doc, reason = "a test panics when it fails")]

#[path = "model/naive.rs"]
mod naive;
#[path = "model/puppet.rs"]
mod puppet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use naive::{Actor, Answer, Kind, Naive, Run, Source, Unsure};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use puppet::Puppets;
use smpcall_hosted::{CallError, CpuId, CpuMask, Csd, HotplugError, Machine, PostManyError, WORDS};

/// CPUs of the machine; operations name up to two more, which do not exist.
const CPUS: u32 = 5;
const SLOTS: usize = 3;

/// An operation.
#[derive(Debug, Clone)]
enum Op {
    Call(Actor, u32),
    CallAny(Actor, u8),
    CallMany(Actor, u8),
    CallEach(Actor, u8),
    CallCond(Actor, u8),
    Kick(Actor),
    Flush(Actor, u32),
    Task(Actor, u32),
    Post(Actor, u32),
    PostBurst(Actor, u32, u8),
    PostOnward(Actor, u32, u32),
    PostCsd(Actor, u32, usize),
    PostAny(Actor, u8),
    PostMany(Actor, u8),
    PostEach(Actor, u8),
    Mask(u32),
    Unmask(u32),
    Down(u32),
    Up(u32),
}

/// Any operation; posts and masks are frequent, for they make the longest stories.
fn op() -> impl Strategy<Value = Op> {
    let actor = || proptest::option::weighted(0.7, 0..CPUS);
    let target = || 0..CPUS + 2;
    let set = any::<u8>;
    prop_oneof![
        3 => (actor(), target()).prop_map(|(a, t)| Op::Call(a, t)),
        2 => (actor(), set()).prop_map(|(a, s)| Op::CallAny(a, s)),
        2 => (actor(), set()).prop_map(|(a, s)| Op::CallMany(a, s)),
        2 => (actor(), set()).prop_map(|(a, s)| Op::CallEach(a, s)),
        2 => (actor(), set()).prop_map(|(a, s)| Op::CallCond(a, s)),
        1 => actor().prop_map(Op::Kick),
        2 => (actor(), target()).prop_map(|(a, t)| Op::Flush(a, t)),
        2 => (actor(), target()).prop_map(|(a, t)| Op::Task(a, t)),
        5 => (actor(), target()).prop_map(|(a, t)| Op::Post(a, t)),
        2 => (actor(), target(), 20..40_u8).prop_map(|(a, t, n)| Op::PostBurst(a, t, n)),
        3 => (actor(), target(), target()).prop_map(|(a, t, o)| Op::PostOnward(a, t, o)),
        4 => (actor(), target(), 0..SLOTS).prop_map(|(a, t, s)| Op::PostCsd(a, t, s)),
        2 => (actor(), set()).prop_map(|(a, s)| Op::PostAny(a, s)),
        3 => (actor(), set()).prop_map(|(a, s)| Op::PostMany(a, s)),
        3 => (actor(), set()).prop_map(|(a, s)| Op::PostEach(a, s)),
        5 => (0..CPUS).prop_map(Op::Mask),
        3 => (0..CPUS).prop_map(Op::Unmask),
        2 => target().prop_map(Op::Down),
        3 => target().prop_map(Op::Up),
    ]
}

/// The error's name.
fn name(error: CallError) -> &'static str {
    match error {
        CallError::NoSuchCpu { .. } => "NoSuchCpu",
        CallError::Offline { .. } => "Offline",
        CallError::EmptyMask => "EmptyMask",
        CallError::InterruptsOff => "InterruptsOff",
        CallError::InHandler => "InHandler",
        CallError::Full { .. } => "Full",
        CallError::Busy => "Busy",
        _ => "unknown",
    }
}

fn mask(bits: u8) -> CpuMask {
    let mut words = [0; WORDS];
    words[0] = u64::from(bits);
    CpuMask::from_words(words)
}

fn set(mask: &CpuMask) -> BTreeSet<u32> {
    mask.iter().map(CpuId::get).collect()
}

fn done<T>(result: Result<T, CallError>) -> Answer {
    result.map_or_else(|error| Answer::Refused(name(error)), |_| Answer::Done)
}

/// The answer of a waited call to a set.
fn ran(result: Result<CpuMask, CallError>) -> Answer {
    let ran = |mask| Answer::Set(set(&mask), BTreeSet::new());
    result.map_or_else(|error| Answer::Refused(name(error)), ran)
}

/// The answer of a post to a set.
fn posted<F>(result: Result<CpuMask, PostManyError<F, WORDS>>) -> Answer {
    match result {
        Ok(posted) => Answer::Set(set(&posted), BTreeSet::new()),
        Err(error) => Answer::Set(set(&error.posted), set(&error.full)),
    }
}

/// What a logged function carries: the log, the machine, and one word.
#[derive(Clone, Copy)]
struct Note {
    log: &'static Mutex<Vec<Run>>,
    machine: &'static Machine,
    word: u64,
}

/// In the word's onward part: nowhere.
const NOWHERE: u32 = 0xffff;

impl Note {
    /// The function: writes down who sent it and where it ran, and posts onward if it shall.
    fn arrive(self) {
        let cpu = self.machine.current_cpu().map_or(u32::MAX, CpuId::get);
        let (source, tag) = (decode((self.word >> 48) as u32), self.word & 0xffff_ffff);
        let onward = (self.word >> 32) as u32 & NOWHERE;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(Run { source, cpu, tag });
        drop(log);
        if onward != NOWHERE {
            let source = u64::from(encode(Source::Handler(cpu)));
            let word = source << 48 | u64::from(NOWHERE) << 32 | tag;
            let next = Self { word, ..self };
            // A refusal is this function's own business; the model knows it too.
            let _ = self.machine.post(CpuId::new(onward), move || next.arrive());
        }
    }
}

/// The source as a number, for a note.
fn encode(source: Source) -> u32 {
    match source {
        Source::Foreign => 0,
        Source::Task(cpu) => 1 + 2 * cpu,
        Source::Handler(cpu) => 2 + 2 * cpu,
    }
}

fn decode(word: u32) -> Source {
    match word {
        0 => Source::Foreign,
        _ if word % 2 == 1 => Source::Task(word / 2),
        _ => Source::Handler(word / 2 - 1),
    }
}

/// A descriptor, as a way to post it.
struct Slot {
    /// The source of the post that is queued now, encoded.
    source: &'static AtomicU32,
    is_queued: Box<dyn Fn() -> bool>,
    post: &'static (dyn Fn(CpuId) -> Result<(), CallError> + Send + Sync),
}

impl Slot {
    fn new(puppets: &Puppets, slot: usize) -> Self {
        let source: &'static AtomicU32 = Box::leak(Box::default());
        let (log, machine) = (puppets.log, puppets.machine);
        let csd = Box::leak(Box::new(Csd::new(move || {
            // ORDERING: Relaxed — the post orders it.
            let from = u64::from(source.load(Ordering::Relaxed));
            let word = from << 48 | u64::from(NOWHERE) << 32 | slot_tag(slot);
            Note { log, machine, word }.arrive();
        })));
        let csd: &'static Csd<_> = csd;
        Self {
            source,
            is_queued: Box::new(|| csd.is_queued()),
            post: Box::leak(Box::new(|cpu| machine.post_static_csd(cpu, csd))),
        }
    }
}

/// The tag of a descriptor's runs; other tags count from 0.
fn slot_tag(slot: usize) -> u64 {
    1_000_000 + slot as u64
}

/// The machine and its model, side by side.
struct Pair<'a> {
    puppets: &'a mut Puppets,
    slots: &'a [Slot],
    naive: Naive,
    tags: u64,
}

impl Pair<'_> {
    /// A new function of this actor.
    fn note(&mut self, actor: Actor, cpu: u32, onward: Option<u32>) -> (Note, Run) {
        self.tags += 1;
        let source = actor.map_or(Source::Foreign, Source::Task);
        let from = u64::from(encode(source));
        let word = from << 48 | u64::from(onward.unwrap_or(NOWHERE)) << 32 | self.tags;
        let (log, machine) = (self.puppets.log, self.puppets.machine);
        let tag = self.tags;
        (Note { log, machine, word }, Run { source, cpu, tag })
    }

    /// Does one operation on both and compares.
    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let (machine, model) = self.act(op);
        prop_assert_eq!(machine, model, "the answer of {:?}", op);
        self.settle();
        self.compare(op)
    }

    /// Lets everything run that can: twice, for what runs may post onward.
    fn settle(&self) {
        for _ in 0..2 {
            for cpu in self.naive.online.difference(&self.naive.masked) {
                let flushed = self.puppets.machine.flush(CpuId::new(*cpu));
                flushed.expect("the CPU is online and this thread may wait");
            }
        }
    }

    /// The same runs, and for each source and target the same order.
    fn compare(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let ran = self.puppets.take_log();
        let wanted = self.naive.take_log(&ran);
        prop_assert_eq!(by_pair(&ran), by_pair(&wanted), "what ran after {:?}", op);
        let online = set(&self.puppets.machine.online_cpus());
        prop_assert_eq!(&online, &self.naive.online, "CPUs online after {:?}", op);
        Ok(())
    }

    /// An actor that is offline is replaced by this thread.
    fn actor(&self, actor: Actor) -> Actor {
        actor.filter(|cpu| self.naive.online.contains(cpu))
    }

    /// Makes the targets of a wait take calls, or it would never end.
    fn open(&mut self, actor: Actor, cpus: impl IntoIterator<Item = u32>) {
        if self.naive.may_wait(actor).is_ok() {
            for cpu in cpus {
                if Some(cpu) != actor && self.naive.masked.contains(&cpu) {
                    self.unmask(cpu);
                }
            }
        }
    }

    fn unmask(&mut self, cpu: u32) {
        self.puppets.tell(cpu, &"unmask", puppet::Strings::unmask);
        let flushed = self.puppets.machine.flush(CpuId::new(cpu));
        flushed.expect("the CPU is online and this thread may wait");
        self.naive.unmask(cpu, &self.puppets.log());
    }

    fn online_of(&self, bits: u8) -> BTreeSet<u32> {
        set(&mask(bits))
            .intersection(&self.naive.online)
            .copied()
            .collect()
    }

    /// Does one operation on both; the machine's answer and the model's.
    fn act(&mut self, op: &Op) -> (Answer, Answer) {
        match *op {
            Op::Call(actor, cpu) => self.call(self.actor(actor), cpu, op),
            Op::CallAny(actor, bits) => self.call_any(self.actor(actor), bits, op),
            Op::CallMany(actor, _) | Op::CallEach(actor, _) | Op::CallCond(actor, _) => {
                self.call_set(self.actor(actor), op)
            }
            Op::Kick(actor) => self.kick(self.actor(actor), op),
            Op::Flush(actor, cpu) => self.flush(self.actor(actor), cpu, op),
            Op::Task(actor, cpu) => self.task(self.actor(actor), cpu, op),
            Op::Post(actor, cpu) => self.post(self.actor(actor), cpu, None, op),
            Op::PostOnward(actor, cpu, onward) => {
                self.post(self.actor(actor), cpu, Some(onward), op)
            }
            Op::PostBurst(actor, cpu, n) => self.burst(self.actor(actor), cpu, n, op),
            Op::PostCsd(actor, cpu, slot) => self.post_csd(self.actor(actor), cpu, slot, op),
            Op::PostAny(actor, bits) => self.post_any(self.actor(actor), bits, op),
            Op::PostMany(actor, bits) | Op::PostEach(actor, bits) => {
                self.post_set(self.actor(actor), bits, op)
            }
            Op::Mask(cpu) => self.mask(cpu),
            Op::Unmask(cpu) => {
                if self.naive.masked.contains(&cpu) {
                    self.unmask(cpu);
                }
                (Answer::Done, Answer::Done)
            }
            Op::Down(cpu) => self.down(cpu),
            Op::Up(cpu) => self.up(cpu),
        }
    }

    fn call(&mut self, actor: Actor, cpu: u32, op: &Op) -> (Answer, Answer) {
        self.open(actor, [cpu]);
        let (note, run) = self.note(actor, cpu, None);
        let machine = self.puppets.machine;
        let call = move || {
            machine
                .call(CpuId::new(cpu), || note.arrive())
                .map_err(|r| r.error)
        };
        (
            done(self.puppets.act(actor, op, call)),
            self.naive.call(actor, run),
        )
    }

    fn call_any(&mut self, actor: Actor, bits: u8, op: &Op) -> (Answer, Answer) {
        let candidates = self.online_of(bits);
        let local = actor.filter(|cpu| candidates.contains(cpu));
        if local.is_none() {
            self.open(actor, candidates.iter().copied());
        }
        let (note, run) = self.note(actor, 0, None);
        let machine = self.puppets.machine;
        let call = move || {
            machine
                .call_any(&mask(bits), || note.arrive())
                .map_err(|r| r.error)
        };
        let got = self.puppets.act(actor, op, call).map(|(cpu, ())| cpu.get());
        let allowed = match local {
            Some(cpu) => Answer::OneOf(BTreeSet::from([cpu])),
            None => match self.naive.may_wait(actor) {
                Err(error) => Answer::Refused(error),
                Ok(()) if candidates.is_empty() => Answer::Refused("EmptyMask"),
                Ok(()) => Answer::OneOf(candidates),
            },
        };
        self.one_of(got, allowed, |naive, cpu| {
            drop(naive.call(actor, Run { cpu, ..run }));
        })
    }

    /// Compares a choice with what may be chosen, and lets the model run the one that was.
    fn one_of(
        &mut self,
        got: Result<u32, CallError>,
        allowed: Answer,
        run: impl FnOnce(&mut Naive, u32),
    ) -> (Answer, Answer) {
        match (got, &allowed) {
            (Ok(cpu), Answer::OneOf(cpus)) if cpus.contains(&cpu) => {
                run(&mut self.naive, cpu);
                (allowed.clone(), allowed)
            }
            (Ok(cpu), _) => (Answer::OneOf(BTreeSet::from([cpu])), allowed),
            (Err(error), _) => (Answer::Refused(name(error)), allowed),
        }
    }

    fn call_set(&mut self, actor: Actor, op: &Op) -> (Answer, Answer) {
        let (Op::CallMany(_, bits) | Op::CallEach(_, bits) | Op::CallCond(_, bits)) = *op else {
            unreachable!("a set is called by three operations")
        };
        let mut cpus = self.online_of(bits);
        if matches!(op, Op::CallMany(..)) {
            actor.map(|cpu| cpus.remove(&cpu));
        }
        self.open(actor, cpus.iter().copied());
        let (note, run) = self.note(actor, 0, None);
        let (machine, which) = (self.puppets.machine, op.clone());
        let call = move || {
            let (cpus, f) = (mask(bits), |_| note.arrive());
            let ran = match which {
                Op::CallMany(..) => machine.call_many(&cpus, f),
                Op::CallEach(..) => machine.on_each_cpu_mask(&cpus, f),
                _ => machine.on_each_cpu_cond(|cpu| cpus.contains(cpu), f),
            };
            ran.map_err(|refused| refused.error)
        };
        let got = ran(self.puppets.act(actor, op, call));
        (got, self.naive.call_set(actor, run.source, &cpus, run.tag))
    }

    fn kick(&mut self, actor: Actor, op: &Op) -> (Answer, Answer) {
        let mut cpus = self.naive.online.clone();
        actor.map(|cpu| cpus.remove(&cpu));
        self.open(actor, cpus.iter().copied());
        let machine = self.puppets.machine;
        let got = ran(self.puppets.act(actor, op, || machine.kick_all_cpus_sync()));
        let wanted = match self.naive.may_wait(actor) {
            Ok(()) => Answer::Set(cpus, BTreeSet::new()),
            Err(error) => Answer::Refused(error),
        };
        (got, wanted)
    }

    fn flush(&mut self, actor: Actor, cpu: u32, op: &Op) -> (Answer, Answer) {
        self.open(actor, [cpu]);
        let machine = self.puppets.machine;
        let got = done(
            self.puppets
                .act(actor, op, move || machine.flush(CpuId::new(cpu))),
        );
        let wanted = self
            .naive
            .may_wait(actor)
            .and_then(|()| self.naive.reach(cpu));
        (got, wanted.map_or_else(Answer::Refused, |()| Answer::Done))
    }

    fn task(&mut self, actor: Actor, cpu: u32, op: &Op) -> (Answer, Answer) {
        self.open(actor, [cpu]);
        let (note, run) = self.note(actor, cpu, None);
        let machine = self.puppets.machine;
        let task = move || machine.run_on_cpu(CpuId::new(cpu), move || note.arrive());
        let got = self
            .puppets
            .act(actor, op, move || task().map_err(|refused| refused.error));
        // It is refused with interrupts off even on the own CPU: it runs with interrupts on.
        let wanted = match self.naive.may_wait(actor) {
            Ok(()) => self.naive.call(actor, run),
            Err(error) => Answer::Refused(error),
        };
        (done(got), wanted)
    }

    fn post(&mut self, actor: Actor, cpu: u32, onward: Option<u32>, op: &Op) -> (Answer, Answer) {
        let (note, run) = self.note(actor, cpu, onward);
        let machine = self.puppets.machine;
        let post = move || machine.post(CpuId::new(cpu), move || note.arrive());
        let got = self
            .puppets
            .act(actor, op, move || post().map_err(|refused| refused.error));
        // What runs later runs on another CPU at the same time: one after another, please.
        self.settle();
        let kind = onward.map_or(Kind::Closure, Kind::Onward);
        let unsure = match got {
            Err(CallError::Full { .. }) => Unsure::Full,
            _ => Unsure::Room,
        };
        let wanted = self.naive.post(actor, run, kind, unsure);
        (
            done(got),
            wanted.map_or_else(Answer::Refused, |()| Answer::Done),
        )
    }

    /// Many posts at once: a masked target's lane fills up.
    fn burst(&mut self, actor: Actor, cpu: u32, n: u8, op: &Op) -> (Answer, Answer) {
        for _ in 0..n {
            let (got, wanted) = self.post(actor, cpu, None, op);
            if got != wanted {
                return (got, wanted);
            }
        }
        (Answer::Done, Answer::Done)
    }

    fn post_csd(&mut self, actor: Actor, cpu: u32, slot: usize, op: &Op) -> (Answer, Answer) {
        let source = actor.map_or(Source::Foreign, Source::Task);
        let Slot {
            source: word,
            is_queued,
            post,
        } = &self.slots[slot];
        if !is_queued() {
            // ORDERING: Relaxed — the post orders it; nobody else posts now.
            word.store(encode(source), Ordering::Relaxed);
        }
        let post = *post;
        let got = self.puppets.act(actor, op, move || post(CpuId::new(cpu)));
        let tag = slot_tag(slot);
        let wanted = self.naive.post(
            actor,
            Run { source, cpu, tag },
            Kind::Descriptor(slot),
            Unsure::Room,
        );
        (
            done(got),
            wanted.map_or_else(Answer::Refused, |()| Answer::Done),
        )
    }

    fn post_any(&mut self, actor: Actor, bits: u8, op: &Op) -> (Answer, Answer) {
        let candidates = self.online_of(bits);
        let local = actor.filter(|cpu| candidates.contains(cpu));
        let (note, run) = self.note(actor, 0, None);
        let machine = self.puppets.machine;
        let post = move || machine.post_any(&mask(bits), move || note.arrive());
        let got = self
            .puppets
            .act(actor, op, move || post().map_err(|refused| refused.error));
        if let Err(CallError::Full { cpu }) = got {
            let full = self.naive.post(
                actor,
                Run {
                    cpu: cpu.get(),
                    ..run
                },
                Kind::Closure,
                Unsure::Full,
            );
            let full = full.map_or_else(Answer::Refused, |()| Answer::Done);
            return (Answer::Refused("Full"), full);
        }
        let allowed = match local {
            Some(cpu) => Answer::OneOf(BTreeSet::from([cpu])),
            None if candidates.is_empty() => Answer::Refused("EmptyMask"),
            None => Answer::OneOf(candidates),
        };
        let run_there = |naive: &mut Naive, cpu| {
            let posted = naive.post(actor, Run { cpu, ..run }, Kind::Closure, Unsure::Room);
            assert_eq!(posted, Ok(()), "the machine accepted it");
        };
        self.one_of(got.map(CpuId::get), allowed, run_there)
    }

    fn post_set(&mut self, actor: Actor, bits: u8, op: &Op) -> (Answer, Answer) {
        let mut cpus = self.online_of(bits);
        let many = matches!(op, Op::PostMany(..));
        if many {
            actor.map(|cpu| cpus.remove(&cpu));
        }
        let (note, run) = self.note(actor, 0, None);
        let machine = self.puppets.machine;
        let post = move || {
            let (cpus, f) = (mask(bits), move |_| note.arrive());
            posted(match many {
                true => machine.post_many(&cpus, f),
                false => machine.post_each_mask(&cpus, f),
            })
        };
        let got = self.puppets.act(actor, op, post);
        let full = match &got {
            Answer::Set(_, full) => full.clone(),
            _ => BTreeSet::new(),
        };
        let wanted = self
            .naive
            .post_set(actor, run.source, &cpus, run.tag, &full);
        (got, wanted)
    }

    fn mask(&mut self, cpu: u32) -> (Answer, Answer) {
        if self.naive.online.contains(&cpu) {
            self.puppets.tell(cpu, &"mask", puppet::Strings::mask);
            self.naive.mask(cpu);
        }
        (Answer::Done, Answer::Done)
    }

    fn down(&mut self, cpu: u32) -> (Answer, Answer) {
        let wanted = match self.naive.reach(cpu) {
            Err("Offline") => Answer::Refused("AlreadyOffline"),
            Err(error) => Answer::Refused(error),
            Ok(()) if self.naive.online.len() == 1 => Answer::Refused("LastCpu"),
            Ok(()) => {
                // It leaves from its idle loop, so what it holds it lets go first.
                if self.naive.masked.contains(&cpu) {
                    self.unmask(cpu);
                }
                self.puppets.end(cpu);
                self.naive.online.remove(&cpu);
                Answer::Done
            }
        };
        (
            hotplug(self.puppets.machine.cpu_down(CpuId::new(cpu))),
            wanted,
        )
    }

    fn up(&mut self, cpu: u32) -> (Answer, Answer) {
        let got = hotplug(self.puppets.machine.cpu_up(CpuId::new(cpu)));
        let wanted = match self.naive.reach(cpu) {
            Err("Offline") => {
                self.puppets.start(cpu);
                self.naive.online.insert(cpu);
                Answer::Done
            }
            Err(error) => Answer::Refused(error),
            Ok(()) => Answer::Refused("AlreadyOnline"),
        };
        (got, wanted)
    }

    /// Everything is let go, every CPU is back: the next sequence begins here.
    fn reset(&mut self) -> Result<(), TestCaseError> {
        for cpu in 0..CPUS {
            self.step(&Op::Unmask(cpu))?;
            self.step(&Op::Up(cpu))?;
        }
        Ok(())
    }
}

fn hotplug(result: Result<(), HotplugError>) -> Answer {
    Answer::Refused(match result {
        Ok(()) => return Answer::Done,
        Err(HotplugError::NoSuchCpu) => "NoSuchCpu",
        Err(HotplugError::AlreadyOnline) => "AlreadyOnline",
        Err(HotplugError::AlreadyOffline) => "AlreadyOffline",
        Err(HotplugError::LastCpu) => "LastCpu",
        Err(HotplugError::Timeout) => "Timeout",
        Err(_) => "unknown",
    })
}

/// The runs of each source on each target, in their order.
fn by_pair(runs: &[Run]) -> BTreeMap<(Source, u32), Vec<u64>> {
    let mut pairs: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for run in runs {
        pairs
            .entry((run.source, run.cpu))
            .or_default()
            .push(run.tag);
    }
    pairs
}

#[test]
fn random_sequences_do_what_one_global_lock_would_do() {
    let mut puppets = Puppets::boot(CPUS);
    let slots: Vec<Slot> = (0..SLOTS).map(|slot| Slot::new(&puppets, slot)).collect();
    let puppets = std::cell::RefCell::new(&mut puppets);
    let seeds = FileFailurePersistence::Direct("tests/model.proptest-regressions");
    let mut config = ProptestConfig::with_cases(250);
    config.failure_persistence = Some(Box::new(seeds));
    config.max_shrink_iters = 2_000;
    config.max_shrink_time = 30_000;
    let sequences = proptest::collection::vec(op(), 1..50);
    let result = TestRunner::new(config).run(&sequences, |ops| {
        let mut puppets = puppets.borrow_mut();
        let mut pair = Pair {
            puppets: &mut puppets,
            slots: &slots,
            naive: Naive::new(CPUS),
            tags: 0,
        };
        let ended = ops.iter().try_for_each(|op| pair.step(op));
        ended.and(pair.reset())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
