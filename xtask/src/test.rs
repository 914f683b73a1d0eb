//! `cargo xtask test`: every check there is, those first that are cheap to fail.
//!
//! A check is one line of [`STEPS`]. Each prints a heading, its own output, and its counts and
//! time; the last line of all is `N passed, N failed`, the sum. One that cannot run, or panics, has failed.
//! Those that use one core run two at a time: see `beside`.

mod beside;

use std::io::{BufRead, BufReader, Write};
use std::panic::catch_unwind;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use crate::arch::Arch;
use crate::arch::Arch::{Aarch64, Riscv64, X86_64};
use crate::image::{self, Image};
use crate::{
    api, cc, doc, examples, icount, install, lanes, links, protocol, qemu, sanitize, sweep, tidy,
    trace,
};
use Turn::{Alone, Beside};

/// How many checks passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that passed.
    pub passed: u64,
    /// Those that failed.
    pub failed: u64,
}

impl Counts {
    /// Adds another sum.
    pub(crate) fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl From<bool> for Counts {
    /// One check that passed or failed.
    fn from(passed: bool) -> Counts {
        Counts {
            passed: u64::from(passed),
            failed: u64::from(!passed),
        }
    }
}

/// How a check is run.
#[derive(Debug, Clone, Copy)]
enum Run {
    /// A cargo command that passes by its exit code.
    Cargo(&'static str),
    /// A cargo command whose `test result:` lines are counted.
    Tests(&'static str),
    /// A function here that counts for itself.
    Here(fn() -> Result<Counts>),
    /// The kernel image builds.
    Builds(Arch),
    /// The kernel boots with so many CPUs and its cases pass.
    Boots(Arch, u32),
    /// The same with the kernel that is in C.
    BootsC(Arch, u32),
    /// The kernel boots with four CPUs and stands the torture for a few seconds.
    Tortures(Arch),
    /// Several boots, and what is expected of each.
    Lanes(fn(Arch) -> Result<Counts>, Arch),
}

/// What else may run during a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing: it uses all cores, or its CPUs are threads that would wait for each other.
    Alone,
    /// A step of another architecture: it uses one core, and waits for no time that this could make short.
    Beside,
}

/// A check.
#[derive(Debug)]
struct Step {
    /// What `--only` calls it.
    name: &'static str,
    turn: Turn,
    run: Run,
}

impl Run {
    /// The architecture whose target folder it uses.
    fn arch(self) -> Option<Arch> {
        match self {
            Run::Cargo(_) | Run::Tests(_) | Run::Here(_) => None,
            Run::Builds(arch)
            | Run::Boots(arch, _)
            | Run::BootsC(arch, _)
            | Run::Tortures(arch)
            | Run::Lanes(_, arch) => Some(arch),
        }
    }
}

/// All checks, in the order in which they begin: add one by adding a line. Neighbours that are
/// [`Turn::Beside`] run at a time: the kernels first, for the others boot them, then what lasts longest.
const STEPS: &[Step] = &[
    step("fmt", Alone, Run::Cargo("fmt --all --check")),
    step(
        "clippy",
        Alone,
        Run::Cargo("clippy --workspace --all-targets --features smpcall-cli/peers -- -D warnings"),
    ),
    step("tidy", Alone, Run::Here(|| Ok(tidy::check()))),
    step("links", Alone, Run::Here(links::check)),
    step("doc", Alone, Run::Here(doc::check)),
    step("api", Alone, Run::Here(|| api::run(api::Kept::Promise))),
    step(
        "package",
        Alone,
        Run::Cargo("package --workspace --no-verify --allow-dirty --quiet"),
    ),
    step("test", Alone, Run::Tests("test --workspace --no-fail-fast")),
    step("examples", Alone, Run::Here(examples::run)),
    step("install-capi", Alone, Run::Here(install::check)),
    step("loom", Alone, Run::Here(|| protocol::loom(&[]))),
    step(
        "shuttle",
        Alone,
        Run::Here(|| protocol::shuttle(protocol::ORDERS)),
    ),
    step(
        "tsan",
        Alone,
        Run::Here(|| sanitize::run(sanitize::Sanitizer::Thread)),
    ),
    step(
        "asan",
        Alone,
        Run::Here(|| sanitize::run(sanitize::Sanitizer::Address)),
    ),
    step("build-x86_64", Beside, Run::Builds(X86_64)),
    step("build-aarch64", Beside, Run::Builds(Aarch64)),
    step("build-riscv64", Beside, Run::Builds(Riscv64)),
    step("trace-x86_64", Beside, Run::Lanes(trace::check, X86_64)),
    step("trace-aarch64", Beside, Run::Lanes(trace::check, Aarch64)),
    step("trace-riscv64", Beside, Run::Lanes(trace::check, Riscv64)),
    step("sweep-x86_64", Beside, Run::Lanes(sweep::check, X86_64)),
    step("sweep-aarch64", Beside, Run::Lanes(sweep::check, Aarch64)),
    step("sweep-riscv64", Beside, Run::Lanes(sweep::check, Riscv64)),
    step("single-x86_64", Beside, Run::Lanes(lanes::single, X86_64)),
    step("single-aarch64", Beside, Run::Lanes(lanes::single, Aarch64)),
    step("single-riscv64", Beside, Run::Lanes(lanes::single, Riscv64)),
    step("fault-x86_64", Beside, Run::Lanes(lanes::fault, X86_64)),
    step("fault-aarch64", Beside, Run::Lanes(lanes::fault, Aarch64)),
    step("fault-riscv64", Beside, Run::Lanes(lanes::fault, Riscv64)),
    step("capi-x86_64-4", Beside, Run::BootsC(X86_64, 4)),
    step("capi-aarch64-4", Beside, Run::BootsC(Aarch64, 4)),
    step("capi-riscv64-4", Beside, Run::BootsC(Riscv64, 4)),
    step("absent-x86_64", Beside, Run::Lanes(lanes::absent, X86_64)),
    step("absent-aarch64", Beside, Run::Lanes(lanes::absent, Aarch64)),
    step("absent-riscv64", Beside, Run::Lanes(lanes::absent, Riscv64)),
    step("icount-x86_64", Beside, Run::Lanes(icount::check, X86_64)),
    step("icount-aarch64", Beside, Run::Lanes(icount::check, Aarch64)),
    step("icount-riscv64", Beside, Run::Lanes(icount::check, Riscv64)),
    step("minimal-x86_64", Beside, Run::Lanes(lanes::minimal, X86_64)),
    step(
        "minimal-aarch64",
        Beside,
        Run::Lanes(lanes::minimal, Aarch64),
    ),
    step(
        "minimal-riscv64",
        Beside,
        Run::Lanes(lanes::minimal, Riscv64),
    ),
    step("stall-x86_64", Beside, Run::Lanes(lanes::stall, X86_64)),
    step("stall-aarch64", Beside, Run::Lanes(lanes::stall, Aarch64)),
    step("stall-riscv64", Beside, Run::Lanes(lanes::stall, Riscv64)),
    step("boot-x86_64-1", Alone, Run::Boots(X86_64, 1)),
    step("boot-x86_64-2", Alone, Run::Boots(X86_64, 2)),
    step("boot-x86_64-4", Alone, Run::Boots(X86_64, 4)),
    step("boot-x86_64-8", Alone, Run::Boots(X86_64, 8)),
    step("boot-aarch64-1", Alone, Run::Boots(Aarch64, 1)),
    step("boot-aarch64-2", Alone, Run::Boots(Aarch64, 2)),
    step("boot-aarch64-4", Alone, Run::Boots(Aarch64, 4)),
    step("boot-aarch64-8", Alone, Run::Boots(Aarch64, 8)),
    step("boot-riscv64-1", Alone, Run::Boots(Riscv64, 1)),
    step("boot-riscv64-2", Alone, Run::Boots(Riscv64, 2)),
    step("boot-riscv64-4", Alone, Run::Boots(Riscv64, 4)),
    step("boot-riscv64-8", Alone, Run::Boots(Riscv64, 8)),
    step("limits-x86_64", Alone, Run::Lanes(lanes::limits, X86_64)),
    step("limits-aarch64", Alone, Run::Lanes(lanes::limits, Aarch64)),
    step("limits-riscv64", Alone, Run::Lanes(lanes::limits, Riscv64)),
    step("hotplug-x86_64", Alone, Run::Lanes(lanes::hotplug, X86_64)),
    step(
        "hotplug-aarch64",
        Alone,
        Run::Lanes(lanes::hotplug, Aarch64),
    ),
    step(
        "hotplug-riscv64",
        Alone,
        Run::Lanes(lanes::hotplug, Riscv64),
    ),
    step("torture-x86_64-4", Alone, Run::Tortures(X86_64)),
    step("torture-aarch64-4", Alone, Run::Tortures(Aarch64)),
    step("torture-riscv64-4", Alone, Run::Tortures(Riscv64)),
];

/// A line of the table.
const fn step(name: &'static str, turn: Turn, run: Run) -> Step {
    Step { name, turn, run }
}

/// Is there a step of this name?
#[cfg(test)]
pub(crate) fn is_step(name: &str) -> bool {
    STEPS.iter().any(|step| step.name == name)
}

/// Runs the steps that are named one after the other, or all; the exit code is 1 if anything failed,
/// 2 for a bad name.
pub(crate) fn run(only: &[String]) -> ExitCode {
    let unknown = only
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != *name));
    if let Some(name) = unknown {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        eprintln!(
            "xtask: no step is called {name}; there are {}",
            names.join(" ")
        );
        return ExitCode::from(2);
    }
    let ended = if only.is_empty() {
        all(STEPS)
    } else {
        let named = STEPS
            .iter()
            .filter(|step| only.iter().any(|name| name == step.name));
        named.map(timed).collect()
    };
    let mut sum = Counts::default();
    ended.iter().for_each(|(_, counts)| sum.add(*counts));
    let failed = ended.iter().filter(|(_, counts)| counts.failed > 0);
    let failed: Vec<_> = failed.map(|(name, _)| *name).collect();
    if !failed.is_empty() {
        println!(
            "\nfailed: {}; one alone: cargo xtask test --only STEP",
            failed.join(" ")
        );
    }
    finish(sum)
}

/// Runs steps in their order, neighbours that may at a time; each with its counts.
fn all(steps: &[Step]) -> Vec<(&'static str, Counts)> {
    let mut ended = Vec::new();
    for group in steps.chunk_by(|a, b| a.turn == b.turn) {
        match group[0].turn {
            Alone => ended.extend(group.iter().map(timed)),
            Beside => ended.extend(beside::run(group)),
        }
    }
    ended
}

/// Prints the closing line of any counted task.
pub(crate) fn finish(sum: Counts) -> ExitCode {
    println!("\n{} passed, {} failed", sum.passed, sum.failed);
    if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one step under its heading.
fn timed(step: &Step) -> (&'static str, Counts) {
    let name = step.name;
    println!("\n== {name}");
    let started = Instant::now();
    // A panic has said where and why.
    let outcome =
        catch_unwind(|| perform(step.run)).unwrap_or_else(|_| Err(anyhow!("it panicked")));
    let counts = outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        false.into()
    });
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "== {name}: {} passed and {} failed in {seconds:.1} s",
        counts.passed, counts.failed
    );
    (name, counts)
}

/// Runs one step.
fn perform(step: Run) -> Result<Counts> {
    match step {
        Run::Cargo(words) => Ok(cargo(words).status()?.success().into()),
        Run::Tests(words) => run_tests(cargo(words).envs(cc::host_tools()?)),
        Run::Here(check) => check(),
        Run::Builds(arch) => {
            println!("{}", image::build(arch, Image::Kernel)?.display());
            Ok(true.into())
        }
        Run::Lanes(lanes, arch) => lanes(arch),
        Run::Tortures(arch) => {
            let outcome = qemu::boot(&qemu::Options::torture(arch, 4, 5))?;
            Ok(outcome.faults.is_empty().into())
        }
        Run::Boots(arch, smp) => boot(&qemu::Options::conformance(arch, smp)),
        Run::BootsC(arch, smp) => boot(&qemu::Options {
            suite: qemu::Suite::Capi,
            ..qemu::Options::conformance(arch, smp)
        }),
    }
}

/// Boots a kernel and counts its cases.
fn boot(options: &qemu::Options) -> Result<Counts> {
    let outcome = qemu::boot(options)?;
    let (passed, failed) = (outcome.report.passed, outcome.report.failed);
    // The run as a whole is one more check, unless a case already failed for it.
    let whole = match failed {
        0 => outcome.faults.is_empty().into(),
        _ => Counts::default(),
    };
    Ok(Counts {
        passed: passed + whole.passed,
        failed: failed + whole.failed,
    })
}

/// A cargo command, from its words.
pub(crate) fn cargo(words: &str) -> Command {
    let mut command = Command::new(crate::cargo_program());
    command
        .args(words.split_whitespace())
        .current_dir(crate::workspace_root());
    command
}

/// Runs a cargo test, showing its output and counting its `test result:` lines.
pub(crate) fn run_tests(command: &mut Command) -> Result<Counts> {
    command
        .current_dir(crate::workspace_root())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo")?;
    let mut counts = Counts::default();
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let mut out = std::io::stdout().lock();
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        counts.add(count(&String::from_utf8_lossy(&line)));
    }
    let status = child.wait()?;
    // A run that failed without a failed test did not build; one without tests tested nothing.
    if (!status.success() && counts.failed == 0) || counts == Counts::default() {
        counts.failed += 1;
    }
    Ok(counts)
}

/// The counts in a line `test result: ok. 3 passed; 0 failed; ...`.
fn count(line: &str) -> Counts {
    let Some(result) = line.strip_prefix("test result: ") else {
        return Counts::default();
    };
    let number = |name: &str| {
        let words: Vec<&str> = result
            .split([' ', ';', '.'])
            .filter(|word| !word.is_empty())
            .collect();
        let at = words
            .iter()
            .position(|word| *word == name)?
            .checked_sub(1)?;
        words[at].parse().ok()
    };
    Counts {
        passed: number("passed").unwrap_or(0),
        failed: number("failed").unwrap_or(0),
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::Turn::{Alone, Beside};
    use super::{Counts, Run, STEPS, all, count, step};

    #[test]
    fn result_lines_are_counted_and_others_are_not() {
        let line =
            "test result: FAILED. 31 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out";
        assert_eq!(
            count(line),
            Counts {
                passed: 31,
                failed: 2
            }
        );
        assert_eq!(count("test a ... ok"), Counts::default());
    }

    #[test]
    fn steps_have_different_names_and_those_beside_others_an_architecture() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
        let mut beside = STEPS.iter().filter(|step| step.turn == Beside);
        assert!(beside.all(|step| step.run.arch().is_some()));
    }

    #[test]
    fn a_step_that_panics_is_counted_as_failed_and_the_others_still_run() {
        let fine = Run::Here(|| Ok(true.into()));
        let ended = all(&[
            step("before", Alone, fine),
            step("broken", Alone, Run::Here(|| panic!("as a step may"))),
            step("after", Alone, fine),
        ]);
        let (passed, failed) = (true.into(), false.into());
        assert_eq!(
            ended,
            [("before", passed), ("broken", failed), ("after", passed)]
        );
    }
}
