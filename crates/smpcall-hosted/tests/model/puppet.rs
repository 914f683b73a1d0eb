//! The machine under test, its CPUs as puppets: each does in its task context what it is told, with
//! interrupts on or off, and takes calls while it waits for the next word.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use smpcall_hosted::{CpuId, Hosted, IrqsOff, Machine};

use crate::naive::Run;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a CPU is told to do; `false` ends the puppet.
type Word = Box<dyn FnOnce(&mut Strings) -> bool + Send>;

/// What a puppet holds.
pub(crate) struct Strings {
    machine: &'static Machine,
    guard: Option<IrqsOff<'static, Hosted>>,
}

impl Strings {
    /// Turns interrupts off, until the next [`Self::unmask`].
    pub(crate) fn mask(&mut self) {
        self.guard.get_or_insert_with(|| self.machine.irqs_off());
    }

    /// Turns interrupts on, and takes what came.
    pub(crate) fn unmask(&mut self) {
        self.guard = None;
        self.machine.poll();
    }
}

/// The machine and its strings.
pub(crate) struct Puppets {
    /// The machine, for ever.
    pub(crate) machine: &'static Machine,
    /// What ran, in order.
    pub(crate) log: &'static Mutex<Vec<Run>>,
    words: Vec<Option<Sender<Word>>>,
}

impl fmt::Debug for Puppets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.machine.fmt(f)
    }
}

impl Puppets {
    /// Boots a machine.
    pub(crate) fn boot(cpus: u32) -> Self {
        let machine = Machine::builder()
            .count(cpus as usize)
            .boot()
            .expect("boots");
        let mut puppets = Self {
            machine: Box::leak(Box::new(machine)),
            log: Box::leak(Box::default()),
            words: (0..cpus).map(|_| None).collect(),
        };
        (0..cpus).for_each(|cpu| puppets.start(cpu));
        puppets
    }

    /// Starts the puppet of a CPU that is online.
    pub(crate) fn start(&mut self, cpu: u32) {
        let (sender, words) = channel();
        let machine = self.machine;
        let job = machine.spawn_on(CpuId::new(cpu), move || obey(machine, &words));
        // Its end is asked for by a word, and nobody waits for its result.
        drop(job.expect("the CPU is online"));
        self.words[cpu as usize] = Some(sender);
    }

    /// Ends the puppet of a CPU.
    pub(crate) fn end(&mut self, cpu: u32) {
        if let Some(sender) = self.words[cpu as usize].take() {
            sender.send(Box::new(|_| false)).expect("the puppet lives");
        }
    }

    /// Does something in the task context of a CPU, or on this thread, and waits for the answer.
    pub(crate) fn act<R: Send + 'static>(
        &self,
        actor: Option<u32>,
        what: &dyn fmt::Debug,
        act: impl FnOnce() -> R + Send + 'static,
    ) -> R {
        match actor {
            None => act(),
            Some(cpu) => self.tell(cpu, what, |_| act()),
        }
    }

    /// Tells a CPU's puppet something, and waits for the answer.
    pub(crate) fn tell<R: Send + 'static>(
        &self,
        cpu: u32,
        what: &dyn fmt::Debug,
        act: impl FnOnce(&mut Strings) -> R + Send + 'static,
    ) -> R {
        let (answer, answered) = channel();
        let word: Word = Box::new(move |strings| {
            // The driver waits for it below, unless it gave up.
            let _ = answer.send(act(strings));
            true
        });
        let sender = self.words[cpu as usize]
            .as_ref()
            .expect("the CPU has a puppet");
        sender.send(word).expect("the puppet lives");
        answered.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            let states: Vec<_> = (0..self.words.len() as u32)
                .map(|cpu| self.machine.cpu_state(CpuId::new(cpu)))
                .collect();
            panic!("{what:?} on CPU {cpu}: {error}; the CPUs are {states:?}")
        })
    }

    /// What has run since it was last taken.
    pub(crate) fn log(&self) -> Vec<Run> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    /// Takes what has run since the last look.
    pub(crate) fn take_log(&self) -> Vec<Run> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The life of a puppet.
fn obey(machine: &'static Machine, words: &Receiver<Word>) {
    let mut strings = Strings {
        machine,
        guard: None,
    };
    loop {
        match words.try_recv() {
            Ok(word) => {
                if !word(&mut strings) {
                    return;
                }
            }
            Err(TryRecvError::Empty) => {
                machine.poll();
                machine.run_tasks();
                std::thread::yield_now();
            }
            Err(TryRecvError::Disconnected) => return,
        }
    }
}
