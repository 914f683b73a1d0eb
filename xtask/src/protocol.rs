//! The table of ordering edges in `docs/protocol.md`, the loom runs that hold it to account, and shuttle's.
//!
//! A row is `| E# | what | sides | test | mutant |`. The test is a loom test of the core; each
//! mutant weakens the edge (`SMPCALL_MUTANT` chooses one in a build that has them all), and a
//! mutant that no test of its row notices is a failure: the edge is then not needed or not tested.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::test::{Counts, run_tests};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The number after the E.
    pub number: u32,
    /// Loom tests of this edge.
    pub tests: Vec<String>,
    /// What weakens it.
    pub mutants: Vec<String>,
}

/// Reads the table.
pub(crate) fn edges() -> Result<Vec<Edge>> {
    let path = crate::workspace_root().join("docs/protocol.md");
    let text = fs::read_to_string(&path).context("cannot read docs/protocol.md")?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Reads one line; `None` if it is no row.
fn parse(line: &str) -> Option<Edge> {
    let cells: Vec<&str> = line
        .trim()
        .strip_prefix('|')?
        .split('|')
        .map(str::trim)
        .collect();
    let [number, _what, _sides, tests, mutants, ..] = cells[..] else {
        return None;
    };
    let number = number
        .trim_matches(['*', '`'])
        .strip_prefix('E')?
        .parse()
        .ok()?;
    Some(Edge {
        number,
        tests: names(tests),
        mutants: names(mutants),
    })
}

/// The identifiers in a cell; a dash is none.
fn names(cell: &str) -> Vec<String> {
    let words = cell.split(|letter: char| !(letter.is_alphanumeric() || "_:".contains(letter)));
    words
        .filter(|word| word.contains('_'))
        .map(str::to_owned)
        .collect()
}

/// A loom run of the core's tests that match `filters`, in its own target folder.
pub(crate) fn loom_command(filters: &[String]) -> Command {
    let mut command = Command::new(crate::cargo_program());
    command.args([
        "test",
        "--package",
        "smpcall",
        "--release",
        "--lib",
        "--no-fail-fast",
        "--",
    ]);
    // With `--cfg loom` only models are tests, so no filter means all of them.
    command.args(filters);
    command
        .env("RUSTFLAGS", "--cfg loom")
        .env_remove("SMPCALL_MUTANT");
    command.env(
        "CARGO_TARGET_DIR",
        crate::workspace_root().join("target/loom"),
    );
    command
}

/// Runs the loom tests.
pub(crate) fn loom(filters: &[String]) -> Result<Counts> {
    run_tests(&mut loom_command(filters))
}

/// Orders of each kind that the step of `cargo xtask test` draws for a model: seconds in all.
pub(crate) const ORDERS: u64 = 1_000;

/// Runs the models of whole machines under shuttle, in so many orders at random and as many by priorities.
pub(crate) fn shuttle(orders: u64) -> Result<Counts> {
    let mut command = Command::new(crate::cargo_program());
    command
        .args(["test", "--package", "smpcall", "--release", "--lib", "--"])
        .args(["hotplug::shuttles", "--nocapture", "--test-threads", "1"])
        .env("RUSTFLAGS", "--cfg shuttle")
        .env("SMPCALL_SHUTTLE", orders.to_string())
        .env(
            "CARGO_TARGET_DIR",
            crate::workspace_root().join("target/shuttle"),
        );
    run_tests(&mut command)
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{Edge, parse};

    #[test]
    fn rows_are_read_and_other_lines_are_not() {
        let row = "| E7 | ring to drain | a → b | `e7_ring_is_seen` | `e7_ring_relaxed`, `e7_x` |";
        let expected = Edge {
            number: 7,
            tests: vec!["e7_ring_is_seen".into()],
            mutants: vec!["e7_ring_relaxed".into(), "e7_x".into()],
        };
        assert_eq!(parse(row), Some(expected));
        assert_eq!(parse("| E# | what | sides | test | mutant |"), None);
        assert_eq!(parse("|---|---|---|---|---|"), None);
        assert_eq!(parse("E7 is an edge"), None);
        assert_eq!(
            parse("| E8 | x | y | e8_t | — |").map(|edge| edge.mutants),
            Some(vec![])
        );
    }
}
