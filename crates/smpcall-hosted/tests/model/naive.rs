//! The oracle: what a machine with one global lock, sets and queues would do.
//!
//! One operation happens at a time. A function runs at once on a CPU that takes calls, and waits
//! in its queue on one that holds its interrupts off.
//!
//! Two things it leaves to the machine: which of two lanes of a target a CPU's closure takes, so that there is
//! room for more than [`ROOM`] closures of several sources ([`Unsure`]); and in which order what waited from
//! different sources runs, which shows in what those functions post onward.

use std::collections::{BTreeMap, BTreeSet};

/// Posted closures that fit per target, at least.
pub(crate) const ROOM: usize = smpcall_hosted::ROOM;

/// Who acts: a foreign thread, or a CPU.
pub(crate) type Actor = Option<u32>;

/// Where a function came from: the order of one source to one target is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    /// The foreign thread.
    Foreign,
    /// A CPU's task context.
    Task(u32),
    /// A CPU's handler context.
    Handler(u32),
}

/// One run: whose function, on which CPU, which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    /// Who sent it.
    pub(crate) source: Source,
    /// Where it ran.
    pub(crate) cpu: u32,
    /// Which one.
    pub(crate) tag: u64,
}

/// What an operation answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done.
    Done,
    /// It was done by these CPUs; the second ones had no room.
    Set(BTreeSet<u32>, BTreeSet<u32>),
    /// It was done by one of these CPUs.
    OneOf(BTreeSet<u32>),
    /// The error's name.
    Refused(&'static str),
}

/// A function that waits on a CPU with its interrupts off.
#[derive(Debug, Clone)]
struct Item {
    run: Run,
    kind: Kind,
}

/// How a function travels, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A closure: takes room.
    Closure,
    /// A closure that posts onward to this CPU.
    Onward(u32),
    /// A descriptor: its number.
    Descriptor(usize),
}

/// What to take for the machine's answer to a post where it may give either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsure {
    /// There was room.
    Room,
    /// There was none.
    Full,
    /// Nobody has asked: the function may run or not.
    Either,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Naive {
    ids: u32,
    /// The CPUs that are online.
    pub(crate) online: BTreeSet<u32>,
    /// Those that hold their interrupts off.
    pub(crate) masked: BTreeSet<u32>,
    queues: BTreeMap<u32, Vec<Item>>,
    /// Descriptors that are queued.
    busy: BTreeSet<usize>,
    /// What has run since the last look.
    pub(crate) log: Vec<Run>,
    /// Runs that need not be: posts by functions that the machine may have refused.
    unsure: BTreeSet<Run>,
}

impl Naive {
    /// All CPUs are online and take calls.
    pub(crate) fn new(ids: u32) -> Self {
        Self {
            ids,
            online: (0..ids).collect(),
            masked: BTreeSet::new(),
            queues: BTreeMap::new(),
            busy: BTreeSet::new(),
            log: Vec::new(),
            unsure: BTreeSet::new(),
        }
    }

    /// Can the CPU be called? The error's name if not.
    pub(crate) fn reach(&self, cpu: u32) -> Result<(), &'static str> {
        match () {
            () if cpu >= self.ids => Err("NoSuchCpu"),
            () if !self.online.contains(&cpu) => Err("Offline"),
            () => Ok(()),
        }
    }

    /// May the actor wait?
    pub(crate) fn may_wait(&self, actor: Actor) -> Result<(), &'static str> {
        match actor {
            Some(cpu) if self.masked.contains(&cpu) => Err("InterruptsOff"),
            _ => Ok(()),
        }
    }

    /// Runs a function.
    fn run(&mut self, run: Run, kind: Kind) {
        if let Kind::Descriptor(slot) = kind {
            self.busy.remove(&slot);
        }
        self.log.push(run);
        if let Kind::Onward(to) = kind {
            let source = Source::Handler(run.cpu);
            let onward = Run {
                source,
                cpu: to,
                tag: run.tag,
            };
            // A refusal is the function's own business.
            let _ = self.post(Some(run.cpu), onward, Kind::Closure, Unsure::Either);
        }
    }

    /// Takes the runs since the last look, without those that need not be and are not in `ran`.
    pub(crate) fn take_log(&mut self, ran: &[Run]) -> Vec<Run> {
        let mut log = std::mem::take(&mut self.log);
        log.retain(|run| !self.unsure.contains(run) || ran.contains(run));
        log
    }

    /// Has a CPU that holds its interrupts off room for a closure? `None`: that depends on the lanes.
    fn has_room(&self, source: Source, cpu: u32) -> Option<bool> {
        let items = || self.queues.get(&cpu).into_iter().flatten();
        let closures = |of: &dyn Fn(Source) -> bool| {
            items()
                .filter(|item| !matches!(item.kind, Kind::Descriptor(_)))
                .filter(|item| of(item.run.source) && !self.unsure.contains(&item.run))
                .count()
        };
        let by_the_queue = closures(&|source| !matches!(source, Source::Task(_)));
        match () {
            () if items().count() < ROOM => Some(true),
            () if by_the_queue >= ROOM || closures(&|other| other == source) >= 2 * ROOM => {
                Some(false)
            }
            () => None,
        }
    }

    /// Posts a function; on the actor's own CPU it runs at once.
    pub(crate) fn post(
        &mut self,
        actor: Actor,
        run: Run,
        kind: Kind,
        unsure: Unsure,
    ) -> Result<(), &'static str> {
        if let Kind::Descriptor(slot) = kind
            && self.busy.contains(&slot)
        {
            return Err("Busy");
        }
        if actor == Some(run.cpu) {
            self.run(run, kind);
            return Ok(());
        }
        self.reach(run.cpu)?;
        if !self.masked.contains(&run.cpu) {
            self.run(run, kind);
            return Ok(());
        }
        match (kind, self.has_room(run.source, run.cpu), unsure) {
            (Kind::Descriptor(slot), ..) => drop(self.busy.insert(slot)),
            (_, Some(false), _) | (_, None, Unsure::Full) => return Err("Full"),
            (_, None, Unsure::Either) => drop(self.unsure.insert(run)),
            (_, Some(true), _) | (_, None, Unsure::Room) => {}
        }
        let queue = self.queues.entry(run.cpu).or_default();
        queue.push(Item { run, kind });
        Ok(())
    }

    /// Posts to a set: who will run it, and who had no room; `heard` are those of whom the machine said so.
    pub(crate) fn post_set(
        &mut self,
        actor: Actor,
        source: Source,
        cpus: &BTreeSet<u32>,
        tag: u64,
        heard: &BTreeSet<u32>,
    ) -> Answer {
        let (mut posted, mut full) = (BTreeSet::new(), BTreeSet::new());
        let (here, remote): (Vec<u32>, Vec<u32>) =
            cpus.iter().copied().partition(|&cpu| actor == Some(cpu));
        // The local one runs last.
        for cpu in remote.into_iter().chain(here) {
            let unsure = match heard.contains(&cpu) {
                true => Unsure::Full,
                false => Unsure::Room,
            };
            match self.post(actor, Run { source, cpu, tag }, Kind::Closure, unsure) {
                Ok(()) => posted.insert(cpu),
                Err("Full") => full.insert(cpu),
                Err(_) => false,
            };
        }
        Answer::Set(posted, full)
    }

    /// A waited call to one CPU, which takes calls.
    pub(crate) fn call(&mut self, actor: Actor, run: Run) -> Answer {
        let reached = match actor == Some(run.cpu) {
            true => Ok(()),
            false => self.may_wait(actor).and_then(|()| self.reach(run.cpu)),
        };
        match reached {
            Ok(()) => {
                self.run(run, Kind::Closure);
                Answer::Done
            }
            Err(error) => Answer::Refused(error),
        }
    }

    /// A waited call to a set, all of which take calls.
    pub(crate) fn call_set(
        &mut self,
        actor: Actor,
        source: Source,
        cpus: &BTreeSet<u32>,
        tag: u64,
    ) -> Answer {
        if let Err(error) = self.may_wait(actor) {
            return Answer::Refused(error);
        }
        for &cpu in cpus {
            self.run(Run { source, cpu, tag }, Kind::Closure);
        }
        Answer::Set(cpus.clone(), BTreeSet::new())
    }

    /// The CPU holds its interrupts off.
    pub(crate) fn mask(&mut self, cpu: u32) {
        self.masked.insert(cpu);
    }

    /// The CPU takes calls again, those that waited first: of each source in its order, and of several
    /// in the order in which they are in `ran`.
    pub(crate) fn unmask(&mut self, cpu: u32, ran: &[Run]) {
        self.masked.remove(&cpu);
        let mut waiting = self.queues.remove(&cpu).unwrap_or_default();
        while let Some(next) = first_to_run(&waiting, ran) {
            let item = waiting.remove(next);
            self.run(item.run, item.kind);
        }
    }
}

/// Of the first item of each source, the one that ran first; one that did not run comes last.
fn first_to_run(waiting: &[Item], ran: &[Run]) -> Option<usize> {
    let mut sources = BTreeSet::new();
    let firsts = waiting
        .iter()
        .enumerate()
        .filter(|(_, item)| sources.insert(item.run.source));
    let when = |item: &Item| ran.iter().position(|run| *run == item.run);
    firsts
        .min_by_key(|(_, item)| when(item).unwrap_or(usize::MAX))
        .map(|(at, _)| at)
}
