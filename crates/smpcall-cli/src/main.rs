//! The `smpcall` program: cross-CPU calls, seen and measured on this computer.
//!
//! Data goes to standard output, one JSON object a line with `--json`; progress and reports go to
//! standard error. Exit codes: 0 fine, 1 a check failed, 2 usage.
//!
//! | file | holds |
//! |---|---|
//! | `args.rs` | what the command line says |
//! | `output.rs` | rows as a table, JSON lines or CSV |
//! | `host.rs` | booting the machine that was asked for |
//! | `demo.rs`, `demo/` | every kind of call of the seed, checked |
//! | `cpus.rs` | the CPUs and how they hang together |
//! | `latency.rs`, `heatmap.rs` | the CPU x CPU table, and its picture |
//! | `svg.rs` | pictures for `--svg` and `--png` |
//! | `bench.rs`, `bench/` | against the limits of the hardware and against peers |
//! | `manual.rs` | completions for shells, manual pages |
//! | `torture.rs` | random operations, checked |
//! | `trace.rs`, `trace/` | a workload, recorded |

mod args;
mod bench;
mod cpus;
mod demo;
mod heatmap;
mod host;
mod latency;
mod manual;
mod output;
mod rack;
mod stats;
mod svg;
mod torture;
mod trace;

use std::fmt;
use std::io;
use std::panic;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, DemoOptions};

/// Did every check hold?
pub(crate) type Verdict = Result<bool, Failure>;

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for cannot be: exit code 2.
    Usage(String),
    /// It could be, and did not work: exit code 1.
    Trouble(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Trouble(message) => f.write_str(message),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Trouble(format!("writing the results failed: {error}"))
    }
}

impl From<smpcall::CallError> for Failure {
    fn from(error: smpcall::CallError) -> Self {
        Self::Trouble(format!("a call was refused: {error}"))
    }
}

fn main() -> ExitCode {
    end_quietly_on_a_closed_pipe();
    let args = Args::parse();
    // A panic has printed what is wrong: a check that failed.
    match panic::catch_unwind(|| run(&args)).unwrap_or(Ok(false)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("smpcall: {failure}");
            ExitCode::from(match failure {
                Failure::Usage(_) => 2,
                Failure::Trouble(_) => 1,
            })
        }
    }
}

fn run(args: &Args) -> Verdict {
    let demo = Command::Demo(DemoOptions::default());
    match args.command.as_ref().unwrap_or(&demo) {
        Command::Demo(options) => demo::run(&args.common, options),
        Command::Cpus => cpus::run(&args.common),
        Command::Latency(options) => latency::run(&args.common, options),
        Command::Bench(options) => bench::run(&args.common, options),
        Command::Torture(options) => torture::run(&args.common, options),
        Command::Completions { shell } => manual::completions(*shell),
        Command::Man { command } => manual::page(command.as_deref()),
        Command::Trace(options) => trace::run(&args.common, options),
    }
}

/// `smpcall ... | head` ends as any Unix program does, by the signal; the Rust runtime ignores it.
fn end_quietly_on_a_closed_pipe() {
    // SAFETY: the default action replaces the runtime's, before any other thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
