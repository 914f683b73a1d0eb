//! Runs of the kernel beyond the plain boots: what it must refuse, what it must survive, and what its
//! watcher must notice.
//!
//! A lane is one boot and what is expected of it: that it passes or fails, lines that the guest says,
//! words in what the runner finds wrong. Each lane counts as one check. The functions here are
//! steps of `cargo xtask test`, each for one architecture; [`maxima`] is a command of its own.

use std::time::Instant;

use anyhow::Result;

use crate::arch::Arch;
use crate::image::{self, Image};
use crate::qemu::{self, Gic, Options, Outcome, Suite};
use crate::test::Counts;

/// What a lane's run must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// It passes.
    Passes,
    /// It fails, and this is among what is wrong.
    Fails(&'static str),
}

/// One boot.
#[derive(Debug)]
struct Lane {
    options: Options,
    expect: Expect,
    /// What the guest says: parts of its lines.
    says: Vec<String>,
    /// What it must not say.
    never: Vec<&'static str>,
    /// What is said of where the CPUs were.
    places: Vec<&'static str>,
}

impl Lane {
    /// A run that passes, with these words on the kernel's command line.
    fn new(arch: Arch, smp: u32, suite: Suite, words: &str) -> Lane {
        Lane {
            options: Options {
                suite,
                append: Some(words.to_owned()),
                ..Options::conformance(arch, smp)
            },
            expect: Expect::Passes,
            says: Vec::new(),
            never: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The guest says this, too.
    fn says(mut self, line: impl Into<String>) -> Lane {
        self.says.push(line.into());
        self
    }

    /// Runs it; prints what is not as expected.
    fn run(&self) -> Result<Counts> {
        let (arch, options) = (self.options.arch.name(), &self.options);
        let words = options.append.as_deref().unwrap_or_default();
        let threads = if options.single_threaded {
            ", one thread"
        } else {
            ""
        };
        println!("-- {arch}, {} CPUs{threads}: {words}", options.smp);
        let outcome = qemu::boot(options)?;
        let wrong = self.judge(&outcome);
        for what in &wrong {
            eprintln!("xtask: {arch} with {} CPUs, {words}: {what}", options.smp);
        }
        Ok(wrong.is_empty().into())
    }

    /// What is not as expected.
    fn judge(&self, outcome: &Outcome) -> Vec<String> {
        let mut wrong = Vec::new();
        let faults = outcome.faults.join("; ");
        match self.expect {
            Expect::Passes if !outcome.faults.is_empty() => wrong.push("it failed".to_owned()),
            Expect::Passes => {}
            Expect::Fails(_) if outcome.faults.is_empty() => wrong.push("it passed".to_owned()),
            Expect::Fails(why) if !faults.contains(why) => {
                wrong.push(format!("`{why}` is not what was wrong: {faults}"));
            }
            Expect::Fails(_) => {}
        }
        let said = |part: &str| outcome.lines.iter().any(|line| line.contains(part));
        let silent = self.says.iter().filter(|part| !said(part));
        wrong.extend(silent.map(|part| format!("it did not say `{part}`")));
        let loud = self.never.iter().filter(|part| said(part));
        wrong.extend(loud.map(|part| format!("it said `{part}`")));
        let places = outcome.places.join("\n");
        let unseen = self.places.iter().filter(|part| !places.contains(*part));
        wrong.extend(unseen.map(|part| format!("`{part}` is not where a CPU was")));
        wrong
    }
}

/// Runs lanes with one build of the kernel, and counts those that are as expected.
fn run(arch: Arch, lanes: Vec<Lane>) -> Result<Counts> {
    let kernel = image::build(arch, Image::Kernel)?;
    let mut counts = Counts::default();
    for mut lane in lanes {
        lane.options.kernel = Some(kernel.clone());
        counts.add(lane.run()?);
    }
    Ok(counts)
}

/// `nosmp`, `maxcpus=`, `nr_cpus=`, and values that are none.
pub(crate) fn limits(arch: Arch) -> Result<Counts> {
    // Words, and the CPUs that are online and possible after the start.
    const GOOD: &[(&str, &str, &str)] = &[
        ("nosmp", "0", "0-3"),
        ("maxcpus=0", "0", "0-3"),
        ("maxcpus=2", "0-1", "0-3"),
        ("nosmp maxcpus=1 maxcpus=3", "0-2", "0-3"),
        ("nr_cpus=3", "0-2", "0-2"),
        ("nr_cpus=3 maxcpus=2", "0-1", "0-2"),
        ("nr_cpus=4096", "0-3", "0-3"),
    ];
    const BAD: &[(&str, &str)] = &[
        ("maxcpus=2junk", "not a decimal number"),
        ("maxcpus=-1", "not a decimal number"),
        ("maxcpus=", "a number is missing"),
        ("maxcpus=4294967296", "the number is too large"),
        ("nr_cpus=0", "there must be at least one CPU"),
        ("nr_cpus=0x4", "not a decimal number"),
        ("nosmp=1", "takes no value"),
    ];
    let good = GOOD.iter().map(|(words, online, possible)| {
        let count = online.bytes().last().map_or(0, |digit| digit - b'0') + 1;
        let lane = Lane::new(arch, 4, Suite::Limits, words)
            .says(format!("smpcall: Brought up {count} CPUs"))
            .says(format!(
                "smpcall: possible {possible}, present {possible}, online {online}"
            ));
        match *words {
            "nr_cpus=4096" => lane.says("smpcall: nr_cpus=4096 is more than this build supports"),
            _ => lane,
        }
    });
    let bad = BAD.iter().map(|(word, reason)| Lane {
        expect: Expect::Fails("the guest's exit code is 1"),
        never: vec!["Brought up", "smpcall: running", "passed"],
        ..Lane::new(arch, 4, Suite::Conformance, word)
            .says(format!("smpcall: bad parameter {word}: {reason}"))
    });
    let alone = Lane::new(arch, 4, Suite::Conformance, "nosmp").says("smpcall: Brought up 1 CPUs");
    run(arch, good.chain(bad).chain([alone]).collect())
}

/// A CPU that is on the list and not in the machine.
pub(crate) fn absent(arch: Arch) -> Result<Counts> {
    let (id, why) = match arch {
        Arch::X86_64 => (200, "it did not answer in time"),
        Arch::Aarch64 => (77, "refused with code"),
        Arch::Riscv64 => (9, "refused with code"),
    };
    let lane = Lane::new(arch, 4, Suite::Hotplug, &format!("cycles=10 absent={id}"));
    let lane = lane
        .says("smpcall: Brought up 4 CPUs")
        .says("smpcall: CPU 4 did not come up:")
        .says(why)
        .says("a_cpu_that_never_comes_is_reported_and_rolled_back ok");
    run(arch, vec![lane])
}

/// CPU 1 leaves and comes back under fire: a hundred times with a host thread for each CPU, a
/// thousand times with one for all.
pub(crate) fn hotplug(arch: Arch) -> Result<Counts> {
    let parallel = Lane::new(arch, 4, Suite::Hotplug, "cycles=100");
    let mut in_turn = Lane::new(arch, 4, Suite::Hotplug, "cycles=1000");
    in_turn.options.single_threaded = true;
    run(arch, vec![parallel, in_turn])
}

/// The cases with one host thread for all CPUs. Eight CPUs take minutes so: that is a command of its
/// own, `cargo xtask qemu --smp 8 --single-threaded`.
pub(crate) fn single(arch: Arch) -> Result<Counts> {
    let lane = |smp| {
        let mut lane = Lane::new(arch, smp, Suite::Conformance, "");
        lane.options.single_threaded = true;
        lane
    };
    run(arch, [1, 2, 4].map(lane).into())
}

/// The examples: a kernel for beginners, and a TLB shootdown.
pub(crate) fn minimal(arch: Arch) -> Result<Counts> {
    let mut counts = Counts::default();
    for (example, says) in [
        ("minimal", "smpcall: end ok"),
        ("tlb_shootdown", "100 shootdowns on CPUs 0,2: 0 times"),
    ] {
        let mut lane = Lane::new(arch, 4, Suite::Conformance, "").says(says);
        lane.options.example = Some(example.to_owned());
        counts.add(lane.run()?);
    }
    Ok(counts)
}

/// Waits that are reported, with a clock of a microsecond an instruction: five seconds pass at once.
pub(crate) fn stall(arch: Arch) -> Result<Counts> {
    let mut lane = Lane::new(arch, 2, Suite::Stall, "")
        .says("ms for CPU 1, which is running a request; called from crates/smpcall-kernel/src/stall.rs")
        .says("ms for CPU 1, which takes no calls; called from crates/smpcall-kernel/src/stall.rs")
        .says("smpcall: CPU 1 answered CPU 0 after ")
        .says("smpcall: 2 passed, 0 failed");
    lane.options.single_threaded = true;
    lane.options.extra = vec!["-icount".to_owned(), "shift=10,sleep=off".to_owned()];
    run(arch, vec![lane])
}

/// Machines that go wrong.
pub(crate) fn fault(arch: Arch) -> Result<Counts> {
    let lane = |fault: &str, why| Lane {
        expect: Expect::Fails(why),
        ..Lane::new(arch, 2, Suite::Fault, &format!("fault={fault}"))
    };
    let code = "the guest's exit code is 1";
    let lanes = vec![
        Lane {
            places: vec!["CPU 0: ", "CPU 1: "],
            ..lane("reset", "it reset itself")
        },
        lane("silent", "the guest never said `smpcall: end ok`"),
        Lane {
            places: vec!["loop_for_ever"],
            ..lane("linger", "it stays after its closing line")
        },
        lane("lie", "the guest's exit code is 3"),
        lane("access", code).says("address 0x"),
        lane("overflow", code),
        lane("panic", code)
            .says("smpcall: panic on CPU 1: panicked at crates/smpcall-kernel/src/fault.rs"),
    ];
    let mut counts = run(arch, lanes)?;
    counts.add(mute(arch)?);
    counts.add(hangs(arch)?);
    Ok(counts)
}

/// A machine that never begins: not one byte comes.
fn mute(arch: Arch) -> Result<Counts> {
    let mut lane = Lane {
        expect: Expect::Fails("no output for 3 s"),
        places: vec!["CPU 0"],
        ..Lane::new(arch, 2, Suite::Fault, "fault=none")
    };
    lane.options.idle_limit = Some(3);
    lane.options.extra = vec!["-S".to_owned()];
    run(arch, vec![lane])
}

/// Machines that hang: patience is short at first, and longer if the guest had not come that far.
fn hangs(arch: Arch) -> Result<Counts> {
    let mut counts = Counts::default();
    let kernel = image::build(arch, Image::Kernel)?;
    for fault in ["hang", "stuck"] {
        let attempt = |patience: u64| -> Result<(Lane, Outcome)> {
            let mut lane = Lane {
                expect: Expect::Fails(""),
                places: vec!["CPU 0", "1: ", "loop_for_ever"],
                ..Lane::new(arch, 2, Suite::Fault, &format!("fault={fault}"))
            };
            // A stalled call is reported after 5 s, and again after 10 more.
            lane.options.idle_limit = Some(patience);
            lane.options.time_limit = Some(patience + 5);
            lane.options.kernel = Some(kernel.clone());
            if fault == "stuck" {
                lane.says.push("ms for CPU 1, which is running".to_owned());
            }
            println!("-- {}, 2 CPUs: fault={fault}", arch.name());
            let outcome = qemu::boot(&lane.options)?;
            Ok((lane, outcome))
        };
        let mut wrong = Vec::new();
        for patience in [7, 30, 120] {
            let (lane, outcome) = attempt(patience)?;
            wrong = lane.judge(&outcome);
            if wrong.is_empty() {
                break;
            }
        }
        for what in &wrong {
            eprintln!("xtask: {}, fault={fault}: {what}", arch.name());
        }
        counts.add(wrong.is_empty().into());
    }
    Ok(counts)
}

/// Each machine with as many CPUs as it takes, on one architecture or on all: a few calls of each kind. A
/// table of how long each took comes last.
pub(crate) fn maxima(only: Option<Arch>) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut table = Vec::new();
    for arch in Arch::ALL
        .into_iter()
        .filter(|&arch| only.is_none_or(|only| only == arch))
    {
        let kernel = image::build(arch, Image::Kernel)?;
        for (machine, mut lane) in largest(arch) {
            let count = lane.options.smp;
            lane.options.kernel = Some(kernel.clone());
            lane.says.push(format!("smpcall: Brought up {count} CPUs"));
            let started = Instant::now();
            let passed = lane.run()?;
            let seconds = started.elapsed().as_secs_f64();
            let verdict = if passed.failed == 0 {
                "passed"
            } else {
                "FAILED"
            };
            table.push(format!(
                "{:8} {machine:16} {count:4} CPUs {seconds:6.1} s {verdict}",
                arch.name()
            ));
            counts.add(passed);
        }
    }
    println!("\nThe largest machines, boot to power-off:");
    table.iter().for_each(|row| println!("{row}"));
    Ok(counts)
}

/// The largest machines of an architecture, by interrupt controller.
fn largest(arch: Arch) -> Vec<(&'static str, Lane)> {
    let smoke = |smp, words| Lane::new(arch, smp, Suite::Smoke, words);
    match arch {
        Arch::X86_64 => vec![
            ("xAPIC", smoke(255, "apic=xapic")),
            ("x2APIC", smoke(288, "apic=x2apic")),
        ],
        Arch::Aarch64 => {
            let mut version_2 = Lane::new(arch, 8, Suite::Conformance, "");
            version_2.options.gic = Gic::V2;
            vec![("GICv2", version_2), ("GICv3", smoke(512, ""))]
        }
        Arch::Riscv64 => {
            // All harts share one host thread (`machine::PARALLEL_HARTS`), and nothing is said from
            // the firmware's last line until the last hart is up.
            let mut lane = smoke(128, "");
            lane.options.idle_limit = Some(600);
            vec![("OpenSBI", lane)]
        }
    }
}
