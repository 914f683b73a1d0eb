//! `cargo xtask mutants`: breaks the library in one place after another and wants a test to notice.
//!
//! Two kinds. A weakened ordering is one of the edges of `docs/protocol.md`, and its loom test must fail. A bug
//! is one that a real system had, and a loom test or a conformance case must fail. One loom build has all of
//! them; for a conformance case each is a build of its own. What survives is a missing test. A run of all of them writes the table of
//! `docs/testing.md`: each mutant, the test that kills it, the time that takes.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::protocol::{Edge, edges, loom_command};
use crate::test::Counts;

/// A bug that a real system had.
struct Bug {
    mutant: &'static str,
    /// Whose, and what it did there.
    story: &'static str,
    killer: Killer,
}

/// What notices a bug.
#[derive(Clone, Copy)]
enum Killer {
    /// A loom test.
    Loom(&'static str),
    /// A conformance case, on machines of 4 and 64 CPUs.
    Case(&'static str),
}

/// In the code by `mutant!`; the stories are those of systems that were read before this was written.
const BUGS: &[Bug] = &[
    Bug {
        mutant: "bug_posts_lost_with_their_cpu",
        story: "Linux until 3.16: a dying CPU's queue was not flushed",
        killer: Killer::Loom("a_post_to_a_cpu_that_leaves_runs_once_or_comes_back"),
    },
    Bug {
        mutant: "bug_csd_freed_after_its_run",
        story: "Linux until 4.1: an asynchronous descriptor could not queue itself again",
        killer: Killer::Case("a_callback_queues_its_own_descriptor_again"),
    },
    Bug {
        mutant: "bug_bell_taken_after_the_drain",
        story: "ax-ipi on RISC-V: the pending bit was cleared after the drain, and wake-ups were lost",
        killer: Killer::Loom("e11_a_request_to_a_cpu_that_opens_is_retracted_or_run_once"),
    },
    Bug {
        mutant: "bug_posts_before_waited_calls",
        story: "Linux until 5.8: callers that wait stood behind those that do not",
        killer: Killer::Case("a_waited_call_overtakes_posts_in_the_same_drain"),
    },
    Bug {
        mutant: "bug_newest_first",
        story: "the lock-free list of Linux is last in, first out: it must be turned round",
        killer: Killer::Loom("calls_of_one_sender_run_in_their_order_and_once"),
    },
    Bug {
        mutant: "bug_kick_to_a_rung_cpu",
        story: "Linux until 4.13: interrupts to CPUs whose queues were not empty",
        killer: Killer::Loom("two_rings_of_a_quiet_cpu_kick_once"),
    },
];

/// One mutant's end.
struct Killed {
    mutant: String,
    /// The edge, or the bug's story.
    what: String,
    /// The tests that failed; none: it survived.
    tests: Vec<String>,
    seconds: f64,
}

/// Runs every mutant, or those that are named; each must be noticed.
pub(crate) fn run(only: &[String]) -> Result<Counts> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let mut rows = Vec::new();
    for edge in edges()? {
        kill_by_loom(&edge, &wanted, &mut rows)?;
    }
    for bug in BUGS.iter().filter(|bug| wanted(bug.mutant)) {
        let mut command = match bug.killer {
            Killer::Loom(test) => {
                let mut command = loom_command(&[test.to_owned()]);
                command.env("SMPCALL_MUTANT", bug.mutant);
                command
            }
            Killer::Case(case) => conformance(bug.mutant, case),
        };
        rows.push(kill(bug.mutant, bug.story.to_owned(), &mut command)?);
    }
    if only.is_empty() {
        write_table(&rows)?;
    }
    let mut counts = Counts::default();
    rows.iter()
        .for_each(|row| counts.add((!row.tests.is_empty()).into()));
    Ok(counts)
}

/// The mutants of one edge; its tests must pass without any.
fn kill_by_loom(edge: &Edge, wanted: &dyn Fn(&str) -> bool, rows: &mut Vec<Killed>) -> Result<()> {
    let mutants: Vec<&String> = edge.mutants.iter().filter(|name| wanted(name)).collect();
    if mutants.is_empty() {
        return Ok(());
    }
    let sound = output(&mut loom_command(&edge.tests))?
        .tests_failed
        .is_empty();
    for mutant in mutants {
        let mut command = loom_command(&edge.tests);
        command.env("SMPCALL_MUTANT", mutant);
        let mut row = kill(mutant, format!("E{}", edge.number), &mut command)?;
        if !sound {
            println!("== the tests of E{} fail without a mutant", edge.number);
            row.tests.clear();
        }
        rows.push(row);
    }
    Ok(())
}

/// Runs the tests that should notice.
fn kill(mutant: &str, what: String, command: &mut Command) -> Result<Killed> {
    println!("== mutant {mutant}");
    let start = Instant::now();
    let Output {
        said,
        tests_failed: tests,
    } = output(command)?;
    let seconds = start.elapsed().as_secs_f64();
    match tests.first() {
        Some(test) => println!("== mutant {mutant}: noticed by {test} in {seconds:.1} s"),
        None => println!("{said}\n== mutant {mutant}: NOT NOTICED"),
    }
    Ok(Killed {
        mutant: mutant.to_owned(),
        what,
        tests,
        seconds,
    })
}

/// A conformance case with a bug built in.
fn conformance(mutant: &str, case: &str) -> Command {
    let mut command = Command::new(crate::cargo_program());
    let root = crate::workspace_root();
    command
        .args(["test", "--package", "smpcall-hosted"])
        .args(["--test", "conformance", "--"])
        .arg(format!("4_cpus::from_foreign::{case}"))
        .current_dir(root)
        .env("CARGO_TARGET_DIR", root.join("target/mutants"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", format!("--cfg smpcall_mutant=\"{mutant}\""));
    command
}

/// What a run of tests said, and which of them failed.
struct Output {
    said: String,
    tests_failed: Vec<String>,
}

/// Runs tests; a build that fails fails here.
fn output(command: &mut Command) -> Result<Output> {
    let output = command.output().context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !said.contains("running ") {
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::bail!("no test ran: {error}");
    }
    let mut tests_failed = failed_tests(&said);
    // A process that dies says no more which test it was in.
    if tests_failed.is_empty() && !output.status.success() {
        tests_failed.push(DIED.to_owned());
    }
    Ok(Output { said, tests_failed })
}

/// Stands for the tests of a process that died in one of them.
const DIED: &str = "its tests' process dies";

/// The names in the lines `test NAME ... FAILED`.
fn failed_tests(said: &str) -> Vec<String> {
    let names = said.lines().filter_map(|line| line.strip_prefix("test "));
    names
        .filter_map(|line| line.split_once(" ... "))
        .filter(|(_, end)| end.trim() == "FAILED")
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}

const BEGIN: &str = "<!-- written by cargo xtask mutants -->";
const END: &str = "<!-- end -->";

/// Replaces the table of `docs/testing.md`.
fn write_table(rows: &[Killed]) -> Result<()> {
    let path = crate::workspace_root().join("docs/testing.md");
    let text = fs::read_to_string(&path).context("cannot read docs/testing.md")?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("docs/testing.md has no table")?;
    let (_, after) = rest.split_once(END).context("the table has no end")?;
    let mut table =
        String::from("\n| mutant | breaks | killed by | seconds |\n|---|---|---|---|\n");
    for row in rows {
        let short = |test: &String| format!("`{}`", test.rsplit("::").next().unwrap_or(test));
        let killers: Vec<String> = row.tests.iter().map(short).collect();
        let killers = match killers.as_slice() {
            [] => "**nothing**".to_owned(),
            [first] => first.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        };
        let (mutant, what, seconds) = (&row.mutant, &row.what, row.seconds);
        // A string takes everything.
        let _ = writeln!(table, "| `{mutant}` | {what} | {killers} | {seconds:.1} |");
    }
    fs::write(&path, format!("{before}{BEGIN}\n{table}\n{END}{after}"))
        .context("cannot write docs/testing.md")
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::failed_tests;

    #[test]
    fn the_tests_that_failed_are_named_and_no_others() {
        let said = "running 2 tests\ntest a::loom::e1_x ... ok\ntest a::loom::e1_y ... FAILED\n\
                    test result: FAILED. 1 passed; 1 failed\n";
        assert_eq!(failed_tests(said), ["a::loom::e1_y"]);
    }
}
