//! `cargo xtask qemu`: boots the kernel in an emulator and says whether its suite passed.
//!
//! A run has passed if two witnesses agree: the exit code that the guest chose and the closing
//! line of its report. Whatever else happens (a triple fault, a hang, a guest that says nothing)
//! fails within a bounded time and tells what every CPU was doing.
//!
//! Neighbours: `qemu_pkg` finds the emulator, `image` builds the kernel, `report` judges lines;
//! below here, `machine` knows QEMU's arguments, `guest` the process, `dump` the registers.

mod dump;
mod guest;
mod machine;
mod qmp;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::arch::Arch;
use crate::image::{self, Image};
use crate::report::{Kind, Report};
use guest::{End, Guest, Limits};

/// What the kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// The cases
    Conformance,
    /// The counts of instructions, or times
    Bench,
    /// Random operations and hotplug
    Torture,
    /// The C library's cases, in a kernel that is in C
    Capi,
    /// A CPU that leaves and comes back a thousand times under fire
    Hotplug,
    /// Stale translations, and a shootdown
    Tlb,
    /// A timer's interrupt at each instruction of the send paths
    Sweep,
    /// Waits that are reported, and end
    Stall,
    /// The conformance cases with a tracer
    Trace,
    /// What nosmp, maxcpus= and nr_cpus= left out
    Limits,
    /// A few calls of each kind, for hundreds of CPUs
    Smoke,
    /// A machine that goes wrong: --append fault=hang and others
    Fault,
}

impl Suite {
    /// The name on the kernel's command line.
    fn name(self) -> &'static str {
        match self {
            Suite::Conformance => "conformance",
            Suite::Bench => "bench",
            Suite::Torture => "torture",
            Suite::Capi => "capi",
            Suite::Hotplug => "hotplug",
            Suite::Tlb => "tlb",
            Suite::Sweep => "sweep",
            Suite::Stall => "stall",
            Suite::Trace => "trace",
            Suite::Limits => "limits",
            Suite::Smoke => "smoke",
            Suite::Fault => "fault",
        }
    }

    /// The image that has it.
    fn image(self) -> Image<'static> {
        match self {
            Suite::Capi => Image::CKernel,
            Suite::Trace => Image::TracedKernel,
            _ => Image::Kernel,
        }
    }

    /// Does it consist of cases, of which some must have run?
    fn has_cases(self) -> bool {
        matches!(self, Suite::Conformance | Suite::Capi | Suite::Trace)
    }
}

/// The interrupt controller of aarch64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gic {
    /// GICv2, up to 8 CPUs
    #[value(name = "2")]
    V2,
    /// GICv3, up to 512 CPUs
    #[value(name = "3")]
    V3,
}

/// One run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The architecture
    #[arg(long)]
    pub arch: Arch,
    /// How many CPUs the machine has
    #[arg(long, default_value_t = 2)]
    pub smp: u32,
    /// What the kernel runs
    #[arg(long, value_enum, default_value_t = Suite::Conformance)]
    pub suite: Suite,
    /// More words for the kernel's command line, such as "nosmp maxcpus=2"
    #[arg(long, allow_hyphen_values = true)]
    pub append: Option<String>,
    /// How long the suite runs, if it is one that runs for a time
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Counts instructions: one instruction is one nanosecond, and CPUs take turns
    #[arg(long)]
    pub icount: bool,
    /// Only JSON records on standard output, everything else on standard error
    #[arg(long)]
    pub json: bool,
    /// All CPUs in turn on one host thread
    #[arg(long)]
    pub single_threaded: bool,
    /// Translates one instruction at a time, so that interrupts come at any of them
    #[arg(long)]
    pub one_insn_per_tb: bool,
    /// The interrupt controller of aarch64
    #[arg(long, value_enum, default_value_t = Gic::V3)]
    pub gic: Gic,
    /// The processor model, as QEMU names it, such as "max,-x2apic"
    #[arg(long)]
    pub cpu: Option<String>,
    /// Fails after so many seconds without output
    #[arg(long)]
    pub idle_limit: Option<u64>,
    /// Fails after so many seconds in all
    #[arg(long)]
    pub time_limit: Option<u64>,
    /// Boots an example of smpcall-metal instead of the kernel
    #[arg(long)]
    pub example: Option<String>,
    /// Boots this ELF file instead of the kernel
    #[arg(long, conflicts_with = "example")]
    pub kernel: Option<PathBuf>,
    /// Further arguments for QEMU
    #[arg(last = true)]
    pub extra: Vec<String>,
}

impl Options {
    /// A run of the conformance suite, as `cargo xtask test` makes it.
    pub(crate) fn conformance(arch: Arch, smp: u32) -> Options {
        Options {
            arch,
            smp,
            suite: Suite::Conformance,
            append: None,
            seconds: None,
            icount: false,
            json: false,
            single_threaded: false,
            one_insn_per_tb: false,
            gic: Gic::V3,
            cpu: None,
            idle_limit: None,
            time_limit: None,
            example: None,
            kernel: None,
            extra: Vec::new(),
        }
    }

    /// A short run of the torture, as `cargo xtask test` makes it.
    pub(crate) fn torture(arch: Arch, smp: u32, seconds: u64) -> Options {
        Options {
            suite: Suite::Torture,
            seconds: Some(seconds),
            ..Options::conformance(arch, smp)
        }
    }

    /// The limits of patience: more for many CPUs, which share the host's few.
    fn limits(&self) -> Limits {
        let (seconds, smp) = (self.seconds.unwrap_or(30), u64::from(self.smp));
        // One host thread gives each CPU its turn, and a case that waits takes many. One instruction
        // at a time, the firmware alone takes a minute on a computer that has more to do.
        let turns = match self {
            _ if self.one_insn_per_tb => 8,
            _ if self.single_threaded || self.icount => 4,
            _ => 1,
        };
        let idle = self.idle_limit.unwrap_or(turns * (30 + seconds + smp));
        let total = self.time_limit.unwrap_or(600 + 2 * seconds + 8 * smp);
        Limits {
            idle: Duration::from_secs(idle),
            total: Duration::from_secs(total),
        }
    }
}

/// The whole command; the exit code is 0 passed, 1 failed, 2 usage.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let maximum = machine::max_cpus(options);
    if options.smp == 0 || options.smp > maximum {
        let (arch, smp) = (options.arch.name(), options.smp);
        eprintln!(
            "xtask: --smp {smp}: {arch} has 1 to {maximum} CPUs here, the maximum is {maximum}"
        );
        return Ok(ExitCode::from(2));
    }
    let outcome = boot(options)?;
    Ok(if outcome.faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The guest's report.
    pub report: Report,
    /// Everything that is wrong; empty if the run passed.
    pub faults: Vec<String>,
    /// What the guest said.
    pub lines: Vec<String>,
    /// Where the CPUs were, if the machine had to be stopped.
    pub places: Vec<String>,
}

/// Builds the image, boots it, and watches it to its end.
pub(crate) fn boot(options: &Options) -> Result<Outcome> {
    let image = options
        .example
        .as_deref()
        .map_or(options.suite.image(), Image::Example);
    let kernel = match &options.kernel {
        Some(path) => path.clone(),
        None => image::build(options.arch, image)?,
    };
    let program = crate::qemu_pkg::find(options.arch)?;
    let socket = socket_path()?;
    let arguments = machine::arguments(options, &kernel, &socket);
    let mut guest = Guest::start(&program, &arguments, &socket)?;
    let mut report = Report::default();
    let mut lines = Vec::new();
    let end = guest.watch(options.limits(), |line| {
        let kind = report.line(line);
        lines.push(line.to_owned());
        if options.json && kind == Kind::Talk {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
        report.end.is_some()
    })?;
    drop(guest);
    let places = places(options, &end, &kernel)?;
    let mut faults = judge_end(options, &end);
    faults.extend(report.faults());
    let kernel_of_ours = options.kernel.is_none() && options.example.is_none();
    if kernel_of_ours && options.suite.has_cases() && report.passed + report.failed == 0 {
        faults.push("no case ran".to_owned());
    }
    if kernel_of_ours && options.suite == Suite::Torture && !report.tortured {
        faults.push("no torture ended".to_owned());
    }
    for fault in &faults {
        eprintln!(
            "xtask: {} with {} CPUs: {fault}",
            options.arch.name(),
            options.smp
        );
    }
    Ok(Outcome {
        report,
        faults,
        lines,
        places,
    })
}

/// What is wrong with the way in which the guest ended.
fn judge_end(options: &Options, end: &End) -> Vec<String> {
    match end {
        End::Exit(status) => match machine::guest_exit_code(options.arch, *status) {
            Some(0) => Vec::new(),
            Some(code) => vec![format!("the guest's exit code is {code}")],
            None => vec![format!("QEMU ended with {status}, not by the guest's wish")],
        },
        End::Stuck { why, .. } => vec![why.clone()],
    }
}

/// Tells where the CPUs of a machine were that had to be stopped; all registers go to a file.
fn places(options: &Options, end: &End, kernel: &Path) -> Result<Vec<String>> {
    let End::Stuck {
        registers: Some(registers),
        ..
    } = end
    else {
        return Ok(Vec::new());
    };
    let name = format!("qemu-registers-{}.txt", options.arch.name());
    let file = crate::apt::tools_dir().with_file_name(name);
    std::fs::write(&file, registers)?;
    eprintln!(
        "xtask: what every CPU was doing (registers: {}):",
        file.display()
    );
    let places = dump::describe(options.arch, registers, kernel);
    for line in &places {
        eprintln!("xtask:   {line}");
    }
    Ok(places)
}

/// A path for the monitor's socket, short enough for one.
fn socket_path() -> Result<PathBuf> {
    let dir = std::env::temp_dir();
    Ok(dir.join(format!("smpcall-qemu-{}.sock", std::process::id())))
}
