//! `cargo xtask mutants`: breaks the library in one place after another and wants a test to notice.
//!
//! Two kinds. A weakened ordering is one of the edges of `docs/protocol.md`, and its loom test must fail. A bug
//! is one that a real system had, and a loom test or a conformance case must fail. One loom build and one of the
//! cases have all of them. What survives is a missing test. The table of `docs/testing.md` is written here: each
//! mutant, the test that kills it, the time that takes; a run of some replaces their rows.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::protocol::{edges, loom_command};
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
    Bug {
        mutant: "bug_completion_overwritten",
        story: "COCONUT-SVSM until May 2026: the count of who is still to run was stored, not adjusted, and a completion was lost",
        killer: Killer::Loom("e13_the_source_sees_what_both_targets_wrote"),
    },
    Bug {
        mutant: "bug_online_before_it_takes_calls",
        story: "ax-ipi on RK3588: a CPU counted as online before calls reached it",
        killer: Killer::Loom("e16_who_sees_a_cpu_online_is_not_refused"),
    },
    Bug {
        mutant: "bug_predicate_asked_for_another_cpu",
        story: "RT-Thread: the predicate was asked about the last remote CPU for the own one",
        killer: Killer::Case("the_predicate_is_asked_once_for_each_cpu_before_anything_runs"),
    },
    Bug {
        mutant: "bug_calls_queued_for_a_dead_cpu",
        story: "Linux 3.9: a descriptor was queued for a CPU that is offline, and its caller hung",
        killer: Killer::Loom("e1_close_returns_what_was_pushed_and_refuses_the_rest"),
    },
    Bug {
        mutant: "bug_waiters_serve_nobody",
        story: "ax-ipi on LoongArch: two CPUs that wait for each other and take no calls meanwhile",
        killer: Killer::Loom("two_cpus_that_call_each_other_both_finish"),
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
    let edges = edges()?;
    let mut known = edges.iter().flat_map(|edge| &edge.mutants);
    let bugs = || BUGS.iter().map(|bug| bug.mutant);
    let stranger = only
        .iter()
        .find(|name| !known.any(|it| it == *name) && !bugs().any(|it| it == **name));
    ensure!(stranger.is_none(), "no mutant is called {stranger:?}");
    let wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let mut rows = Vec::new();
    for edge in &edges {
        let mutants = edge.mutants.iter().map(String::as_str);
        let mutants: Vec<_> = mutants.filter(|name| wanted(name)).collect();
        let what = format!("E{}", edge.number);
        let tests = || loom_command(&edge.tests);
        kill_all(&tests, &mutants, &what, &mut rows)?;
    }
    for bug in BUGS.iter().filter(|bug| wanted(bug.mutant)) {
        let tests = || match bug.killer {
            Killer::Loom(test) => loom_command(&[test.to_owned()]),
            Killer::Case(case) => conformance(case),
        };
        kill_all(&tests, &[bug.mutant], bug.story, &mut rows)?;
    }
    write_table(&rows, only)?;
    let mut counts = Counts::default();
    rows.iter()
        .for_each(|row| counts.add((!row.tests.is_empty()).into()));
    Ok(counts)
}

/// The mutants that some tests notice; without any, the tests must pass. That first run builds, too.
fn kill_all(
    tests: &dyn Fn() -> Command,
    mutants: &[&str],
    what: &str,
    rows: &mut Vec<Killed>,
) -> Result<()> {
    if mutants.is_empty() {
        return Ok(());
    }
    let sound = output(&mut tests())?.tests_failed.is_empty();
    for mutant in mutants {
        let mut row = kill(
            mutant,
            what.to_owned(),
            tests().env("SMPCALL_MUTANT", mutant),
        )?;
        if !sound {
            println!("== the tests of {what} fail without a mutant");
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

/// A conformance case, in a build that has the bugs.
fn conformance(case: &str) -> Command {
    let mut command = Command::new(crate::cargo_program());
    let root = crate::workspace_root();
    command
        .args(["test", "--package", "smpcall-hosted"])
        .args(["--test", "conformance", "--", "--exact"])
        .arg(format!("4_cpus::from_foreign::{case}"))
        .current_dir(root)
        .env("CARGO_TARGET_DIR", root.join("target/mutants"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("SMPCALL_MUTANT")
        .env("RUSTFLAGS", "--cfg smpcall_mutants");
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

/// Writes the table of `docs/testing.md`: all of it, or the rows of those that were named.
fn write_table(rows: &[Killed], only: &[String]) -> Result<()> {
    let path = crate::workspace_root().join("docs/testing.md");
    let text = fs::read_to_string(&path).context("cannot read docs/testing.md")?;
    let (before, table, after) = parts(&text)?;
    let mut kept: Vec<(String, String)> = Vec::new();
    if !only.is_empty() {
        kept.extend(table.lines().filter_map(named_row));
    }
    for row in rows {
        let new = (row.mutant.clone(), row.line());
        match kept.iter_mut().find(|(name, _)| *name == row.mutant) {
            Some(old) => *old = new,
            None => kept.push(new),
        }
    }
    let rows: String = kept.into_iter().map(|(_, line)| line + "\n").collect();
    let head = "| mutant | breaks | killed by | seconds |\n|---|---|---|---|";
    fs::write(
        &path,
        format!("{before}{BEGIN}\n\n{head}\n{rows}\n{END}{after}"),
    )
    .context("cannot write docs/testing.md")
}

/// The document before the table, the table, and what follows.
fn parts(text: &str) -> Result<(&str, &str, &str)> {
    let (before, rest) = text
        .split_once(BEGIN)
        .context("docs/testing.md has no table")?;
    let (table, after) = rest.split_once(END).context("the table has no end")?;
    Ok((before, table, after))
}

/// A row of the table, with the mutant that it is about.
fn named_row(line: &str) -> Option<(String, String)> {
    let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
    Some((name.to_owned(), line.to_owned()))
}

impl Killed {
    /// Its row.
    fn line(&self) -> String {
        let short = |test: &String| format!("`{}`", test.rsplit("::").next().unwrap_or(test));
        let killers: Vec<String> = self.tests.iter().map(short).collect();
        let killers = match killers.as_slice() {
            [] => NOTHING.to_owned(),
            [first] => first.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        };
        let (mutant, what, seconds) = (&self.mutant, &self.what, self.seconds);
        format!("| `{mutant}` | {what} | {killers} | {seconds:.1} |")
    }
}

/// What kills a mutant that survives.
const NOTHING: &str = "**nothing**";

/// The bugs, by name.
pub(crate) fn bugs() -> impl Iterator<Item = &'static str> {
    BUGS.iter().map(|bug| bug.mutant)
}

/// The mutants that the table of `docs/testing.md` says are killed.
pub(crate) fn killed() -> Result<BTreeSet<String>> {
    let path = crate::workspace_root().join("docs/testing.md");
    let text = fs::read_to_string(&path).context("cannot read docs/testing.md")?;
    let (_, table, _) = parts(&text)?;
    let rows = table.lines().filter(|line| !line.contains(NOTHING));
    Ok(rows.filter_map(named_row).map(|(name, _)| name).collect())
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
