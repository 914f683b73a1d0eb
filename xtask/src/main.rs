//! `cargo xtask`: every check, QEMU run and build of the workspace, each one command.

mod api;
mod apt;
mod arch;
mod benchmarks;
mod cc;
mod doc;
#[cfg(test)]
mod documented;
mod examples;
mod fuzz;
mod icount;
mod image;
mod install;
mod lanes;
mod links;
mod mutants;
mod protocol;
mod qemu;
mod qemu_pkg;
mod report;
mod sanitize;
mod sweep;
mod sysroot;
mod test;
mod tidy;
mod trace;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;
use arch::Arch;
use clap::{Parser, Subcommand};
use image::Image;
use sanitize::Sanitizer;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Checks, QEMU runs and builds of smpcall"
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Task {
    /// Runs every check there is; the last line is `N passed, N failed`
    Test {
        /// Only this step; may be given more than once
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
    },
    /// Runs the loom tests of the core
    Loom {
        /// Only tests whose name contains one of these
        filters: Vec<String>,
    },
    /// Runs whole machines of the core under shuttle, in orders that it draws
    Shuttle {
        /// How many orders of each kind: at random, and by priorities
        #[arg(long, default_value_t = protocol::ORDERS)]
        orders: u64,
    },
    /// Checks that every mutant is noticed by its test, and writes its row in the table of docs/testing.md
    Mutants {
        /// Only these mutants
        names: Vec<String>,
    },
    /// Runs the conformance cases and the torture under ThreadSanitizer, and a planted race
    Tsan,
    /// The same under AddressSanitizer, and a planted use of freed memory
    Asan,
    /// Fuzzes every parser for a time each, and prints the table of docs/testing.md
    Fuzz(fuzz::Fuzz),
    /// Checks the rules of the house
    Tidy,
    /// Runs every example that runs on the host
    Examples,
    /// Lists what the libraries offer, and names what no example shows; needs the step `doc`
    Api {
        /// Write the listing that docs/api keeps
        #[arg(long)]
        bless: bool,
    },
    /// Checks that what the documents point to is there
    Links,
    /// Prints what builds each bare-metal target, fetching what is missing
    Toolchain,
    /// Builds the kernel image, or an example of smpcall-metal; prints the ELF file's path
    BuildKernel {
        /// The architecture
        #[arg(long)]
        arch: Arch,
        /// An example of smpcall-metal instead of the kernel
        #[arg(long)]
        example: Option<String>,
    },
    /// Builds the C library and copies it, its headers and its pkg-config file to a folder
    InstallCapi {
        /// Such as /usr/local
        #[arg(long, value_name = "DIR")]
        prefix: PathBuf,
    },
    /// Boots each machine with as many CPUs as it takes, which lasts minutes
    Maxima {
        /// Only this architecture
        #[arg(long)]
        arch: Option<Arch>,
    },
    /// Interrupts the send paths at every instruction, and checks against a trace that none is left out
    Sweep {
        /// Only this architecture
        #[arg(long)]
        arch: Option<Arch>,
    },
    /// Runs the conformance cases with a tracer in the kernel, and counts what it costs switched off
    Trace {
        /// Only this architecture
        #[arg(long)]
        arch: Option<Arch>,
    },
    /// Counts the instructions of each operation, and compares them with their aims and the record
    Icount(icount::Icount),
    /// Measures, and writes the tables and the picture of docs/benchmarks.md
    Benchmarks(benchmarks::Benchmarks),
    /// Boots the kernel in QEMU and runs a suite there
    Qemu(qemu::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one task; the exit code is 0 fine, 1 a check failed, 2 usage.
fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Test { only } => return Ok(test::run(&only)),
        Task::Loom { filters } => return Ok(test::finish(protocol::loom(&filters)?)),
        Task::Shuttle { orders } => return Ok(test::finish(protocol::shuttle(orders)?)),
        Task::Mutants { names } => return Ok(test::finish(mutants::run(&names)?)),
        Task::Tsan => return Ok(test::finish(sanitize::run(Sanitizer::Thread)?)),
        Task::Asan => return Ok(test::finish(sanitize::run(Sanitizer::Address)?)),
        Task::Fuzz(options) => return Ok(test::finish(fuzz::run(&options)?)),
        Task::Tidy => return Ok(test::finish(tidy::check())),
        Task::Examples => return Ok(test::finish(examples::run()?)),
        Task::Api { bless } => {
            let kept = if bless {
                api::Kept::Bless
            } else {
                api::Kept::Check
            };
            return Ok(test::finish(api::run(kept)?));
        }
        Task::Links => return Ok(test::finish(links::check()?)),
        Task::Toolchain => {
            for arch in Arch::ALL {
                let toolchain = sysroot::Toolchain::find(arch)?;
                let emulator = qemu_pkg::find(arch)?;
                println!(
                    "{}: {}: {}",
                    arch.name(),
                    arch.target(),
                    toolchain.describe()
                );
                println!("{}: {}", arch.name(), emulator.display());
            }
        }
        Task::BuildKernel { arch, example } => {
            let image = example.as_deref().map_or(Image::Kernel, Image::Example);
            println!("{}", image::build(arch, image)?.display());
        }
        Task::InstallCapi { prefix } => {
            for file in install::capi(&prefix)? {
                println!("{}", file.display());
            }
        }
        Task::Maxima { arch } => return Ok(test::finish(lanes::maxima(arch)?)),
        Task::Sweep { arch } => return Ok(test::finish(on_each(arch, sweep::check)?)),
        Task::Trace { arch } => return Ok(test::finish(on_each(arch, trace::check)?)),
        Task::Icount(options) => return Ok(test::finish(icount::run(&options)?)),
        Task::Benchmarks(options) => return Ok(test::finish(benchmarks::run(&options)?)),
        Task::Qemu(options) => return qemu::run(&options),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a check on this architecture, or on all.
fn on_each(only: Option<Arch>, check: fn(Arch) -> Result<test::Counts>) -> Result<test::Counts> {
    let mut counts = test::Counts::default();
    for arch in Arch::ALL {
        if only.is_none_or(|only| only == arch) {
            counts.add(check(arch)?);
        }
    }
    Ok(counts)
}

/// The workspace's folder.
pub(crate) fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The cargo that runs this task.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Finds a program in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A command whose process the kernel kills when the thread that starts it ends, in whatever way.
pub(crate) fn killed_with_us(command: &mut Command) -> &mut Command {
    let kill = Some(rustix::process::Signal::KILL);
    // SAFETY: `pre_exec` wants a function that is async-signal-safe; this one is one system
    // call, without allocation and without a lock.
    unsafe { command.pre_exec(move || Ok(rustix::process::set_parent_process_death_signal(kill)?)) }
}
