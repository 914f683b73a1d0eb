//! `cargo xtask test`: every check there is, in the order in which they are cheap to fail.
//!
//! A check is one line of [`STEPS`]. Each prints a heading, its own output, and its counts and
//! time; the last line of all is `N passed, N failed`, the sum. One that cannot run has failed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::arch::Arch::{Aarch64, Riscv64, X86_64};
use crate::image::{self, Image};
use crate::sysroot::Toolchain;
use crate::{
    api, cc, examples, icount, install, lanes, links, protocol, qemu, sanitize, sweep, tidy, trace,
};

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

/// All checks: add one by adding a line.
const STEPS: &[(&str, Run)] = &[
    ("fmt", Run::Cargo("fmt --all --check")),
    (
        "clippy",
        Run::Cargo("clippy --workspace --all-targets --features smpcall-cli/peers -- -D warnings"),
    ),
    ("tidy", Run::Here(|| Ok(tidy::check()))),
    ("links", Run::Here(links::check)),
    ("doc", Run::Here(doc)),
    ("api", Run::Here(|| api::run(api::Kept::Promise))),
    (
        "package",
        Run::Cargo("package --workspace --no-verify --allow-dirty --quiet"),
    ),
    ("test", Run::Tests("test --workspace --no-fail-fast")),
    ("examples", Run::Here(examples::run)),
    ("install-capi", Run::Here(install::check)),
    ("loom", Run::Here(|| protocol::loom(&[]))),
    ("shuttle", Run::Here(|| protocol::shuttle(protocol::ORDERS))),
    (
        "tsan",
        Run::Here(|| sanitize::run(sanitize::Sanitizer::Thread)),
    ),
    (
        "asan",
        Run::Here(|| sanitize::run(sanitize::Sanitizer::Address)),
    ),
    ("build-x86_64", Run::Builds(X86_64)),
    ("build-aarch64", Run::Builds(Aarch64)),
    ("build-riscv64", Run::Builds(Riscv64)),
    ("boot-x86_64-1", Run::Boots(X86_64, 1)),
    ("boot-x86_64-2", Run::Boots(X86_64, 2)),
    ("boot-x86_64-4", Run::Boots(X86_64, 4)),
    ("boot-x86_64-8", Run::Boots(X86_64, 8)),
    ("boot-aarch64-1", Run::Boots(Aarch64, 1)),
    ("boot-aarch64-2", Run::Boots(Aarch64, 2)),
    ("boot-aarch64-4", Run::Boots(Aarch64, 4)),
    ("boot-aarch64-8", Run::Boots(Aarch64, 8)),
    ("boot-riscv64-1", Run::Boots(Riscv64, 1)),
    ("boot-riscv64-2", Run::Boots(Riscv64, 2)),
    ("boot-riscv64-4", Run::Boots(Riscv64, 4)),
    ("capi-x86_64-4", Run::BootsC(X86_64, 4)),
    ("capi-aarch64-4", Run::BootsC(Aarch64, 4)),
    ("capi-riscv64-4", Run::BootsC(Riscv64, 4)),
    ("boot-riscv64-8", Run::Boots(Riscv64, 8)),
    ("single-x86_64", Run::Lanes(lanes::single, X86_64)),
    ("single-aarch64", Run::Lanes(lanes::single, Aarch64)),
    ("single-riscv64", Run::Lanes(lanes::single, Riscv64)),
    ("limits-x86_64", Run::Lanes(lanes::limits, X86_64)),
    ("limits-aarch64", Run::Lanes(lanes::limits, Aarch64)),
    ("limits-riscv64", Run::Lanes(lanes::limits, Riscv64)),
    ("absent-x86_64", Run::Lanes(lanes::absent, X86_64)),
    ("absent-aarch64", Run::Lanes(lanes::absent, Aarch64)),
    ("absent-riscv64", Run::Lanes(lanes::absent, Riscv64)),
    ("hotplug-x86_64", Run::Lanes(lanes::hotplug, X86_64)),
    ("hotplug-aarch64", Run::Lanes(lanes::hotplug, Aarch64)),
    ("hotplug-riscv64", Run::Lanes(lanes::hotplug, Riscv64)),
    ("fault-x86_64", Run::Lanes(lanes::fault, X86_64)),
    ("fault-aarch64", Run::Lanes(lanes::fault, Aarch64)),
    ("fault-riscv64", Run::Lanes(lanes::fault, Riscv64)),
    ("stall-x86_64", Run::Lanes(lanes::stall, X86_64)),
    ("stall-aarch64", Run::Lanes(lanes::stall, Aarch64)),
    ("stall-riscv64", Run::Lanes(lanes::stall, Riscv64)),
    ("minimal-x86_64", Run::Lanes(lanes::minimal, X86_64)),
    ("minimal-aarch64", Run::Lanes(lanes::minimal, Aarch64)),
    ("minimal-riscv64", Run::Lanes(lanes::minimal, Riscv64)),
    ("icount-x86_64", Run::Lanes(icount::check, X86_64)),
    ("icount-aarch64", Run::Lanes(icount::check, Aarch64)),
    ("icount-riscv64", Run::Lanes(icount::check, Riscv64)),
    ("trace-x86_64", Run::Lanes(trace::check, X86_64)),
    ("trace-aarch64", Run::Lanes(trace::check, Aarch64)),
    ("trace-riscv64", Run::Lanes(trace::check, Riscv64)),
    ("sweep-x86_64", Run::Lanes(sweep::check, X86_64)),
    ("sweep-aarch64", Run::Lanes(sweep::check, Aarch64)),
    ("sweep-riscv64", Run::Lanes(sweep::check, Riscv64)),
    ("torture-x86_64-4", Run::Tortures(X86_64)),
    ("torture-aarch64-4", Run::Tortures(Aarch64)),
    ("torture-riscv64-4", Run::Tortures(Riscv64)),
];

/// Runs the steps that are named, or all; the exit code is 1 if anything failed, 2 for a bad name.
pub(crate) fn run(only: &[String]) -> ExitCode {
    let unknown = only
        .iter()
        .find(|name| STEPS.iter().all(|(step, _)| step != name));
    if let Some(name) = unknown {
        let names: Vec<_> = STEPS.iter().map(|(step, _)| *step).collect();
        eprintln!(
            "xtask: no step is called {name}; there are {}",
            names.join(" ")
        );
        return ExitCode::from(2);
    }
    let mut sum = Counts::default();
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            let counts = timed(name, *step);
            sum.add(counts);
            if counts.failed > 0 {
                failed.push(*name);
            }
        }
    }
    if !failed.is_empty() {
        println!(
            "\nfailed: {}; one alone: cargo xtask test --only STEP",
            failed.join(" ")
        );
    }
    finish(sum)
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
fn timed(name: &str, step: Run) -> Counts {
    println!("\n== {name}");
    let started = Instant::now();
    let counts = perform(step).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        false.into()
    });
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "== {name}: {} passed and {} failed in {seconds:.1} s",
        counts.passed, counts.failed
    );
    counts
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

/// The documentation builds without a warning, dead links inside it among them.
fn doc() -> Result<Counts> {
    let host = cargo("doc --workspace --no-deps --exclude smpcall-kernel")
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()?;
    // On the host the bare-metal crate is empty.
    let mut counts = Counts::from(host.success());
    let metal = Toolchain::find(X86_64)?
        .cargo(X86_64, "doc")
        .args(["--no-deps", "--package", "smpcall-metal", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()?;
    counts.add(metal.success().into());
    Ok(counts)
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
fn cargo(words: &str) -> Command {
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
    use super::{Counts, STEPS, count};

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
    fn steps_have_different_names() {
        let mut names: Vec<_> = STEPS.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
