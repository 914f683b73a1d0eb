//! Every conformance case, on machines of 1, 2, 4, 16 and 64 CPUs and on some whose CPUs are attached
//! threads, started from a CPU and from a thread that is none; with pre-emptive delivery, from a CPU, the
//! cases that do not panic; with a tracer, those that look at it.
//!
//! One trial a case and machine, so that `cargo test -- posts` picks what it says. They run one
//! after another: a machine of 64 CPUs keeps a small computer busy enough, and the callbacks of
//! CPUs that come and go are plain functions that could not tell two machines apart.
#![expect(clippy::missing_panics_doc, reason = "a test panics when it fails")]

use std::fmt;
use std::panic;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;

use libtest_mimic::{Arguments, Failed, Trial};
use smpcall_hosted::{Hosted, HostedSmp, Machine, Payload, ROOM, WORDS};
use smpcall_torture::{Case, Lab, Needs, cases, run_case};

/// Where the CPUs of a machine come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Homes {
    /// Pinned threads of the machine's own, which poll and park.
    Started,
    /// Threads that attach, and sleep on their descriptors.
    Attached,
    /// Threads of the machine's own, which are interrupted by a signal where they are busy.
    Interrupted,
    /// As `Started`, with a tracer; for the cases that need one.
    Traced,
}

/// A machine under test; booted when the first case wants it.
struct Hosting {
    cpus: usize,
    homes: Homes,
    /// Never dropped: attached threads serve until the process ends.
    machine: OnceLock<&'static Machine>,
}

impl Hosting {
    fn machine(&self) -> &Machine {
        self.machine.get_or_init(|| {
            let builder = Machine::builder().count(self.cpus).reporter(|_| ());
            let builder = match self.homes {
                Homes::Started => builder,
                Homes::Traced => builder.trace(20_000),
                Homes::Attached => builder.only_attached(),
                // SAFETY: 1, 2 — the cases' functions neither allocate nor lock, and those that
                // panic are left out; 3, 4 — cases run on threads' stacks; 5 — nobody else uses it.
                Homes::Interrupted => unsafe { builder.preempt() },
            };
            let machine: &Machine = Box::leak(Box::new(builder.boot().expect("the machine boots")));
            if self.homes == Homes::Attached {
                attach_all(machine);
            }
            machine
        })
    }
}

/// Every CPU of the machine is a thread that attached, when this returns.
fn attach_all(machine: &'static Machine) {
    for cpu in &machine.present_cpus() {
        thread::spawn(move || {
            let here = machine.attach(cpu).expect("nobody else is this CPU");
            // A case may take it down; what comes up afterwards is a thread of the machine's.
            while here.is_online() {
                here.sleep(None);
                here.serve();
            }
        });
    }
    while machine.online_cpus() != machine.present_cpus() {
        thread::yield_now();
    }
}

impl Lab<WORDS, ROOM> for Hosting {
    type P = Hosted;

    fn smp(&self) -> &HostedSmp {
        self.machine()
    }

    fn kicks(&self) -> u64 {
        let platform = self.smp().platform();
        platform.kicks() + platform.wakes() + platform.signals()
    }

    fn is_traced(&self) -> bool {
        self.homes == Homes::Traced
    }

    /// A function that panics must not interrupt anything.
    fn catches_panics(&self) -> bool {
        self.homes != Homes::Interrupted
    }

    /// Once is enough: the library's deadlines do not depend on the number of CPUs.
    fn may_be_slow(&self) -> bool {
        self.cpus == 4 && self.homes == Homes::Started
    }

    fn panic_code(&self, panic: &Payload) -> Option<u64> {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied())?;
        text.rsplit(' ').next()?.parse().ok()
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        eprintln!("smpcall: {line}");
    }
}

/// Where the case's own code runs.
#[derive(Clone, Copy)]
enum From {
    Cpu,
    Foreign,
}

/// One case on one machine.
fn trial(lab: &Arc<Hosting>, from: From, case: Case<Hosting, WORDS, ROOM>) -> Trial {
    let place = match from {
        From::Cpu => "cpu",
        From::Foreign => "foreign",
    };
    let homes = match lab.homes {
        Homes::Started => "",
        Homes::Attached => "attached_",
        Homes::Interrupted => "pre_emptive_",
        Homes::Traced => "traced_",
    };
    let name = format!("{homes}{}_cpus::from_{place}::{}", lab.cpus, case.name);
    let lab = Arc::clone(lab);
    Trial::test(name, move || {
        let result = match from {
            From::Foreign => run_case(&*lab, &case),
            From::Cpu => {
                let machine = Arc::clone(&lab);
                let first = lab.smp().online_cpus().first().ok_or("no CPU is online")?;
                let job = lab
                    .machine()
                    .spawn_on(first, move || run_case(&*machine, &case));
                let ended = job.map_err(|error| error.to_string())?.join();
                ended.map_err(|_| "the case panicked")?
            }
        };
        result.map_err(|failure| Failed::from(failure.to_string()))
    })
}

fn main() -> ExitCode {
    #[cfg(smpcall_mutants)]
    if let Ok(name) = std::env::var("SMPCALL_MUTANT") {
        smpcall::choose_mutant(Box::leak(Box::new(&*name.leak())));
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    // Some cases panic on purpose; whatever else panics fails its trial with a message.
    if std::env::var_os("SMPCALL_SHOW_PANICS").is_none() {
        panic::set_hook(Box::new(|_| ()));
    }
    let mut trials = Vec::new();
    let started = [1, 2, 4, 16, 64].map(|cpus| (cpus, Homes::Started));
    let attached = [2, 5].map(|cpus| (cpus, Homes::Attached));
    let interrupted = [(4, Homes::Interrupted)];
    let traced = [(4, Homes::Traced)];
    let all = started.into_iter().chain(attached);
    for (cpus, homes) in all.chain(interrupted).chain(traced) {
        let lab = Arc::new(Hosting {
            cpus,
            homes,
            machine: OnceLock::new(),
        });
        let callers = [From::Cpu, From::Foreign];
        // How its calls are delivered does not depend on where the case's own code runs.
        let callers = match homes {
            Homes::Interrupted => &callers[..1],
            _ => &callers[..],
        };
        for &from in callers {
            let slow = |case: &Case<_, WORDS, ROOM>| {
                matches!(case.needs, Needs::Slow | Needs::SlowHotplug)
            };
            let fits = |case: &Case<_, WORDS, ROOM>| {
                let is_for_it = homes != Homes::Traced || case.needs == Needs::Trace;
                is_for_it
                    && case.fits(&*lab, cpus)
                    && !(slow(case) && matches!(from, From::Foreign))
            };
            trials.extend(cases().filter(fits).map(|case| trial(&lab, from, case)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
