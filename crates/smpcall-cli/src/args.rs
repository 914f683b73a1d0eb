//! What the command line says.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use smpcall_hosted::CpuMask;
use smpcall_torture::torture::{FOREIGNERS, Op};

use crate::svg::Pictures;

/// Runs functions on other CPUs and shows what happens.
///
/// smpcall is Linux's kernel/smp.c as a library: call a function on one CPU, on any of a set, on
/// many, on all, or on those that match a predicate; wait for it or not; while CPUs come and go. This
/// program boots a machine whose CPUs are threads, each pinned to a CPU of this computer,
/// and lets them call each other.
#[derive(Debug, Parser)]
#[command(name = "smpcall", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  smpcall                           every kind of call, checked, and the latency table
  smpcall --cpus 16                 the same on 16 CPUs that share the ones there are
  smpcall latency --svg map.svg     who is how far from whom, as a picture
  smpcall bench --seconds 30        calls against the limits of the hardware
  smpcall torture --cpus 8 --seed 1 everything at once, for 10 s, checked
  smpcall trace --perfetto t.json   what happened when, for ui.perfetto.dev
  smpcall help COMMAND              more of one command

Data goes to standard output, progress and reports to standard error.
Exit codes: 0 fine, 1 a check failed, 2 usage.";

const DEMO_EXAMPLES: &str = "\
Examples:
  smpcall                          on every CPU that this process may use
  smpcall demo --cpus 0-1          on CPUs 0 and 1 alone
  smpcall demo --perfetto d.json   a recording of the calls, for ui.perfetto.dev
  smpcall demo --json | jq 'select(.ok == false)'
                                   what went wrong; nothing, let us hope";

const CPUS_EXAMPLES: &str = "\
Examples:
  smpcall cpus                     the CPUs that this process may use
  taskset -c 1 smpcall cpus        CPU 1 alone: the affinity mask decides
  smpcall cpus --cpus 8 --csv      where 8 CPUs would be pinned";

const LATENCY_EXAMPLES: &str = "\
Examples:
  smpcall latency                  the table in the terminal
  smpcall latency --svg map.svg --png map.png
                                   the same as pictures
  smpcall latency --cpus 0-3,8 --seconds 20 --json
                                   longer, on some CPUs, one JSON object a pair";

const BENCH_EXAMPLES: &str = "\
Examples:
  smpcall bench                    on the first two CPUs, for 10 s
  smpcall bench --cpus 0-0,6-6 --only call
                                   calls between CPUs 0 and 6 and their limits
  smpcall bench --svg bench.svg    how many times its limit each row takes, as a picture
  cargo run --release --features peers -- bench
                                   with the other libraries";

const TORTURE_EXAMPLES: &str = "\
Examples:
  smpcall torture --cpus 16 --seconds 60
  smpcall torture --seed 7         the choices of an earlier run again
  smpcall torture --weight single_wait=10 --weight kick=1 --hotplug-interval-ms 0
                                   two kinds of calls, no CPU goes";

const TRACE_EXAMPLES: &str = "\
Examples:
  smpcall trace --svg timeline.svg --rounds 1
  smpcall trace --perfetto trace.json
                                   then open it in ui.perfetto.dev
  smpcall trace --json | jq 'select(.kind == \"ipi\")'
                                   every interrupt that was sent";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  smpcall completions bash > ~/.local/share/bash-completion/completions/smpcall
  smpcall completions zsh  > ~/.zfunc/_smpcall
  smpcall completions fish > ~/.config/fish/completions/smpcall.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  smpcall man | man -l -           read it
  smpcall man latency > smpcall-latency.1";

/// Where help lists what every command takes.
const COMMON: &str = "Options of every command";

/// What every command takes.
#[derive(Debug, Group)]
pub(crate) struct Common {
    /// Which CPUs: a count (`16`), or a list of this computer's CPUs (`0-3,8`)
    ///
    /// A bare number is a count: the CPUs are 0 to N-1 and share the allowed ones in turn if there
    /// are fewer. A list has a `-` or a `,` and names real CPUs: `3-3` is CPU 3 alone. Without
    /// it: every CPU that this process may use.
    #[arg(long, global = true, help_heading = COMMON, value_name = "LIST|N", allow_hyphen_values = true)]
    pub(crate) cpus: Option<CpuChoice>,
    /// Print one JSON object a line; times are numbers called `*_ns`
    #[arg(long, global = true, help_heading = COMMON, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Print comma-separated values with a header
    #[arg(long, global = true, help_heading = COMMON)]
    pub(crate) csv: bool,
}

/// What to do; without a command, `demo`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make every kind of call, check where each really ran, and measure the way between the CPUs
    ///
    /// One CPU makes every call that kernel/smp.c has, one after the other. The function that is called
    /// notes which CPU it finds itself to be, and asks the kernel which CPU of the computer that is; a
    /// call is right if exactly the CPUs that had to run it did so, once each, where they are pinned,
    /// and the right answer came back. CPUs also go offline and come back.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoOptions),
    /// Show the CPUs: node, package, core, SMT siblings, shared cache, state
    ///
    /// A CPU is a thread that is pinned to a CPU of the computer. What the kernel does not tell,
    /// in some containers for one, stays empty.
    #[command(after_help = CPUS_EXAMPLES)]
    Cpus,
    /// Measure a waited call from every CPU to every CPU
    ///
    /// Each call is timed on the CPU that makes it, from before the call until its result is back, less
    /// what reading the clock costs. A CPU that calls itself runs the function inline. The
    /// table is coloured from near to far; pairs that share a core or a cache are nearer.
    #[command(after_help = LATENCY_EXAMPLES)]
    Latency(LatencyOptions),
    /// Measure calls against the limits of the hardware, and against other ways to do it
    ///
    /// Two CPUs, pinned. Blocks of samples of everything that is compared take turns, and between
    /// two blocks a cache line is handed to and fro: that tells how far apart the CPUs are
    /// at the moment (near, far, smt), for a hypervisor moves them about. A block counts only if both
    /// looks around it agree, and figures are compared within one placement only.
    ///
    /// With the cargo feature `peers`: std mpsc, crossbeam-channel, kanal, flume, rtrb, rayon, tokio.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchOptions),
    /// Make random calls of every kind on every CPU at once, while CPUs go and come back, and check all
    ///
    /// The operations, weights and knobs are those of Linux's scftorture and more. Each called function
    /// checks where it runs, in which order, and what it sees; at the end everything that was
    /// accepted must have run, once.
    #[command(after_help = TORTURE_EXAMPLES)]
    Torture(TortureOptions),
    /// Record a short workload: who called whom, who waited, which interrupts were sent
    ///
    /// The first CPU makes a call of each kind, several rounds; the second one calls it back. The table
    /// counts calls and interrupts by pair of CPUs. --perfetto writes a file that ui.perfetto.dev
    /// opens, --svg a timeline, --json every event.
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceOptions),
    /// Print a script that completes this program's options in a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print this program's manual page, or that of one command
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The command; without it, the program's own page
        command: Option<String>,
    },
}

/// What `latency` takes.
#[derive(Debug, Group)]
pub(crate) struct LatencyOptions {
    /// Calls per pair of CPUs; fewer if the time is up
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) samples: u32,
    /// Roughly how long to measure, in seconds
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) seconds: f64,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
}

/// What `bench` takes.
#[derive(Debug, Group)]
pub(crate) struct BenchOptions {
    /// How long to measure, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Only the rows whose name contains this (their limits are measured as well)
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
}

/// How a CPU that computes hears of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Delivery {
    /// A signal interrupts it at any instruction
    PreEmptive,
    /// It takes them where it looks for them; there is no operation `preempt` then
    Cooperative,
}

/// What `torture` takes.
#[derive(Debug, Group)]
pub(crate) struct TortureOptions {
    /// How long, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seconds: u64,
    /// What all choices are made from: the same seed makes the same ones; another one each time if left out
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How often a kind of operation is chosen; those that are not named then never are
    #[arg(long = "weight", value_name = "NAME=WEIGHT", value_parser = crate::torture::weight)]
    pub(crate) weights: Vec<(Op, u32)>,
    /// How many threads that are no CPU make calls too
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(..FOREIGNERS as u64))]
    pub(crate) foreigners: u64,
    /// Before the work begins, in milliseconds
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub(crate) holdoff_ms: u64,
    /// Between two rows of figures while it runs, in seconds; 0: none but the last
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub(crate) stat_interval: u64,
    /// How a CPU that computes hears of calls
    #[arg(long, value_enum, default_value_t = Delivery::PreEmptive)]
    pub(crate) delivery: Delivery,
    /// Count calls by pairs of CPUs, and check at the end that those sent are those that ran
    #[arg(long)]
    pub(crate) counters: bool,
    /// Between taking a CPU down and bringing it back, in milliseconds; 0: none goes
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub(crate) hotplug_interval_ms: u64,
    /// Before the first CPU goes, in milliseconds
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub(crate) hotplug_holdoff_ms: u64,
    /// Work for so many milliseconds, then rest for so many; 0: no rests
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub(crate) stutter_ms: u64,
    /// A few functions take up to so many microseconds; 0: none does
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000_000))]
    pub(crate) long_wait_us: u64,
}

/// What `demo` takes.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct DemoOptions {
    /// Record the calls as a JSON file for ui.perfetto.dev, and leave the latency table out
    #[arg(long, value_name = "FILE")]
    pub(crate) perfetto: Option<PathBuf>,
}

/// What `trace` takes.
#[derive(Debug, Group)]
pub(crate) struct TraceOptions {
    /// How often each kind of call is made
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rounds: u32,
    /// Room for so many events of each CPU; later ones are lost, which is a failed check
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) events: u32,
    /// Write the events as a JSON file for ui.perfetto.dev and chrome://tracing
    #[arg(long, value_name = "FILE")]
    pub(crate) perfetto: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pictures: Pictures,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("a number of seconds above 0, at most a day".into()),
    }
}

/// What `--cpus` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CpuChoice {
    /// CPUs 0 to N-1, sharing the allowed ones.
    Count(usize),
    /// These CPUs of the computer.
    List(CpuMask),
}

impl FromStr for CpuChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains(['-', ',']) {
            let cpus = CpuMask::parse_list(text).map_err(|error| error.to_string())?;
            return Ok(Self::List(cpus));
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(0) => Err("a machine has at least one CPU".into()),
            Ok(count) if digits && count <= CpuMask::CAPACITY => Ok(Self::Count(count)),
            Err(_) if !digits => Err("neither a count (16) nor a list (0-3,8)".into()),
            _ => Err(format!("at most {} CPUs", CpuMask::CAPACITY)),
        }
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    /// What is wrong with a command as a reader would type it.
    fn fault(command: &str) -> Option<String> {
        let words = command.split('|').next()?.split('>').next()?;
        let words = words.replace("COMMAND", "latency").replace("SHELL", "bash");
        match Args::try_parse_from(words.split_whitespace()) {
            Ok(_) => None,
            // Help and version end the program as well, but well.
            Err(error) if error.exit_code() == 0 => None,
            Err(error) => Some(format!("`{command}`: {error}")),
        }
    }

    #[test]
    fn every_example_of_the_help_can_be_typed() {
        let help = [
            EXAMPLES,
            DEMO_EXAMPLES,
            CPUS_EXAMPLES,
            LATENCY_EXAMPLES,
            BENCH_EXAMPLES,
            TORTURE_EXAMPLES,
            TRACE_EXAMPLES,
            COMPLETIONS_EXAMPLES,
            MAN_EXAMPLES,
        ];
        let lines = help.iter().flat_map(|examples| examples.lines());
        // Two blanks set off what it does; one does behind a long command.
        let commands = lines.filter_map(|line| {
            let command = line.strip_prefix("  ")?;
            let command = command.split("  ").next()?;
            command.starts_with("smpcall").then_some(command)
        });
        let commands: Vec<_> = commands
            .map(|command| {
                command
                    .split(" everything at once")
                    .next()
                    .unwrap_or(command)
            })
            .collect();
        assert!(commands.len() > 20, "{commands:?}");
        let faults: Vec<_> = commands.into_iter().filter_map(fault).collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn every_command_of_the_documents_can_be_typed() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let documents = [
            "README.md",
            "docs/benchmarks.md",
            "docs/testing.md",
            "docs/tour.md",
            "docs/comparison.md",
            "docs/guide-thread-per-core.md",
            "crates/smpcall-cli/README.md",
        ];
        let mut faults = Vec::new();
        let mut seen = 0;
        for document in documents {
            let text = std::fs::read_to_string(root.join(document)).expect(document);
            for code in text.split('`') {
                let code = code.replace('\n', " ");
                let run = code
                    .strip_prefix("cargo run --release -- ")
                    .map(|rest| format!("smpcall {rest}"));
                let command = run.unwrap_or(code);
                if command.starts_with("smpcall ") && !command.contains("error: ") {
                    seen += 1;
                    faults.extend(fault(&command).map(|fault| format!("{document}: {fault}")));
                }
            }
        }
        assert!(seen > 10, "only {seen} commands");
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    #[test]
    fn a_bare_number_is_a_count_and_a_list_has_a_dash_or_a_comma() {
        assert_eq!("16".parse(), Ok(CpuChoice::Count(16)));
        let three = CpuMask::parse_list("3").unwrap();
        assert_eq!("3-3".parse(), Ok(CpuChoice::List(three)));
        let list = CpuMask::parse_list("0-1,4").unwrap();
        assert_eq!("0-1,4".parse(), Ok(CpuChoice::List(list)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "0",
            "+3",
            "x",
            "-1",
            "1-",
            "3-1",
            ",",
            "99999",
            "0-99999",
            "99999999999999999999999",
        ] {
            assert!(text.parse::<CpuChoice>().is_err(), "`{text}` was taken");
        }
    }
}
