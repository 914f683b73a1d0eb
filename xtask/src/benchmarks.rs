//! `cargo xtask benchmarks`: writes the tables and the picture of docs/benchmarks.md.
//!
//! The text around them is written by people; what stands between `<!-- NAME: written by ... -->` and
//! `<!-- end -->` comes from a run, so that a later run on another computer replaces it whole. The counts
//! come from the record that `cargo xtask icount` checks, not from a run, and a test holds the two
//! together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::arch::Arch;
use crate::icount::{self, Figures};
use crate::test::Counts;

/// What `cargo xtask benchmarks` takes.
#[derive(Debug, Args)]
pub(crate) struct Benchmarks {
    /// Only these parts
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// How long each of the two timed runs measures, in seconds
    #[arg(long, default_value_t = 120)]
    seconds: u32,
}

/// A part of the document that is written by a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// `smpcall bench` without the other libraries
    Times,
    /// The same with them, and the picture
    Peers,
    /// Instructions on bare metal, from the record
    Counts,
    /// Instructions and IPIs on 2 to 255 CPUs, which takes minutes
    Scaling,
}

impl Part {
    const ALL: [Self; 4] = [Self::Times, Self::Peers, Self::Counts, Self::Scaling];

    /// Its name in the document.
    fn name(self) -> &'static str {
        match self {
            Self::Times => "times",
            Self::Peers => "peers",
            Self::Counts => "counts",
            Self::Scaling => "scaling",
        }
    }
}

/// The numbers of CPUs of the part about scaling.
const SCALE: [u32; 8] = [2, 4, 8, 16, 32, 64, 128, 255];

/// Writes the parts that were asked for, or all.
pub(crate) fn run(options: &Benchmarks) -> Result<Counts> {
    let mut sum = Counts::default();
    for part in Part::ALL {
        if !options.only.is_empty() && !options.only.contains(&part) {
            continue;
        }
        let table = match part {
            Part::Times => times(&measure(options.seconds, &[], &[])?),
            Part::Peers => {
                let picture = crate::workspace_root().join("docs/images/bench.svg");
                let picture = picture.to_str().context("the path is no text")?;
                let rows = measure(
                    options.seconds,
                    &["--features", "peers"],
                    &["--svg", picture],
                )?;
                times(&rows)
            }
            Part::Counts => counts(&icount::recorded()?),
            Part::Scaling => scaling(&mut sum)?,
        };
        write(part.name(), &table)?;
        sum.add(true.into());
    }
    Ok(sum)
}

/// Writes the counts anew; whoever records them does.
pub(crate) fn write_counts(figures: &Figures) -> Result<()> {
    write(Part::Counts.name(), &counts(figures))
}

/// Runs the program's bench; its rows.
fn measure(seconds: u32, features: &[&str], options: &[&str]) -> Result<Vec<Value>> {
    let output = Command::new("cargo")
        .current_dir(crate::workspace_root())
        .args(["run", "--release", "--package", "smpcall-cli"])
        .args(features)
        .args(["--", "bench", "--json", "--seconds", &seconds.to_string()])
        .args(options)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the bench failed");
    let text = String::from_utf8(output.stdout).context("its rows are no text")?;
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>()
        .context("a row is no JSON object")
}

/// A table for each placement: the rows of an operation together, the library's first.
fn times(rows: &[Value]) -> String {
    let mut text = String::new();
    for placement in ["near", "far", "smt"] {
        let here: Vec<&Value> = rows
            .iter()
            .filter(|row| row["placement"] == placement)
            .collect();
        if here.is_empty() {
            continue;
        }
        let mut names: Vec<&str> = Vec::new();
        for name in here.iter().filter_map(|row| row["name"].as_str()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "Placement `{placement}`:\n");
        text.push_str("| operation | who | median | p99 | of the limit | which is |\n");
        text.push_str("|---|---|---:|---:|---:|---|\n");
        for name in names {
            for row in here.iter().filter(|row| row["name"] == name) {
                text.push_str(&time_row(row));
            }
        }
        text.push('\n');
    }
    text
}

fn time_row(row: &Value) -> String {
    let word = |name: &str| row[name].as_str().unwrap_or_default();
    let figure = |name: &str| human_ns(row[name].as_f64().unwrap_or_default());
    let ratio = match (word("peer"), row["ratio_to_limit"].as_f64()) {
        ("limit", _) | (_, None) => String::new(),
        (_, Some(ratio)) => format!("{ratio:.2} x"),
    };
    let limit = if word("peer") == "limit" {
        String::new()
    } else {
        format!("`{}`", word("limit"))
    };
    format!(
        "| `{}` | {} | {} | {} | {ratio} | {limit} |\n",
        word("name"),
        word("peer"),
        figure("median_ns"),
        figure("p99_ns")
    )
}

fn human_ns(ns: f64) -> String {
    match ns {
        ns if ns < 100.0 => format!("{ns:.1} ns"),
        ns if ns < 10_000.0 => format!("{ns:.0} ns"),
        ns if ns < 10_000_000.0 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

/// Linux beside the recorded figures, an operation a row.
fn counts(figures: &Figures) -> String {
    let mut text = String::from(
        "| operation | Linux 6.1 | with `nohz=off` | aim | x86_64 | aarch64 | riscv64 |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for name in operations(figures) {
        let of = |arch: Arch| {
            list(icount::CPUS.iter().filter_map(|&cpus| {
                let key = (arch.name().to_owned(), name.to_owned(), cpus);
                figures.get(&key).copied()
            }))
        };
        let _ = writeln!(
            text,
            "| `{name}` | {} | {} | {} | {} | {} | {} |",
            list(icount::linux(name).into_iter().flatten()),
            list(icount::linux_nohz_off(name).into_iter().flatten()),
            list(
                icount::CPUS
                    .iter()
                    .filter_map(|&cpus| icount::aim_of(name, cpus))
            ),
            of(Arch::X86_64),
            of(Arch::Aarch64),
            of(Arch::Riscv64),
        );
    }
    text
}

/// The operations, in the order of the brief, then those that it does not have.
fn operations(figures: &Figures) -> Vec<&str> {
    let mut names = icount::operations();
    for (_, name, _) in figures.keys() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// `1 / 2 / 3`, or `1` if all are the same, or a dash.
fn list(figures: impl Iterator<Item = u64>) -> String {
    let mut figures: Vec<String> = figures.map(|figure| figure.to_string()).collect();
    figures.dedup();
    match figures.as_slice() {
        [] => "-".to_owned(),
        figures => figures.join(" / "),
    }
}

/// What an operation takes of a machine.
#[derive(Clone, Copy)]
struct Cost {
    instructions: u64,
    ipis: u64,
}

/// Boots the bench of x86_64 on each number of CPUs.
fn scaling(sum: &mut Counts) -> Result<String> {
    let mut table = String::from(
        "| CPUs | `single_idle` | `single_busy` | `many_idle` | a target | `many_busy` | a target \
         | `on_each_cpu_cond_half` | `kick_all_cpus_sync` | `all_to_all` | a call | its IPIs | its calls |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for cpus in SCALE {
        let records = icount::records(Arch::X86_64, cpus, sum)?;
        let costs: BTreeMap<&str, Cost> = records.iter().filter_map(cost).collect();
        let of = |name: &str| costs.get(name).copied().context("a row is missing");
        let others = u64::from(cpus) - 1;
        let calls = u64::from(cpus) * others;
        let (idle, busy) = (of("many_idle")?.instructions, of("many_busy")?.instructions);
        let all = of("all_to_all")?;
        let _ = writeln!(
            table,
            "| {cpus} | {} | {} | {idle} | {} | {busy} | {} | {} | {} | {} | {} | {} | {calls} |",
            of("single_idle")?.instructions,
            of("single_busy")?.instructions,
            idle / others,
            busy / others,
            of("on_each_cpu_cond_half")?.instructions,
            of("kick_all_cpus_sync")?.instructions,
            all.instructions,
            all.instructions / calls,
            all.ipis,
        );
    }
    Ok(table)
}

fn cost(record: &Value) -> Option<(&str, Cost)> {
    let cost = Cost {
        instructions: record["instructions"].as_u64()?,
        ipis: record["ipis"].as_u64()?,
    };
    Some((record["name"].as_str()?, cost))
}

fn file() -> PathBuf {
    crate::workspace_root().join("docs/benchmarks.md")
}

/// Replaces one part of the document.
fn write(part: &str, table: &str) -> Result<()> {
    let text = fs::read_to_string(file()).context("cannot read docs/benchmarks.md")?;
    fs::write(file(), replaced(&text, part, table)?).context("cannot write docs/benchmarks.md")
}

fn begin(part: &str) -> String {
    format!("<!-- {part}: written by cargo xtask benchmarks -->\n")
}

const END: &str = "\n<!-- end -->";

/// The document with another table in one of its parts.
fn replaced(text: &str, part: &str, table: &str) -> Result<String> {
    let begin = begin(part);
    let (before, rest) = text
        .split_once(&begin)
        .with_context(|| format!("docs/benchmarks.md has no part `{part}`"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("its part `{part}` has no end"))?;
    Ok(format!(
        "{before}{begin}\n{}\n{END}{after}",
        table.trim_end()
    ))
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use serde_json::json;

    use super::{counts, file, list, replaced, times};
    use crate::icount;

    #[test]
    fn the_document_has_the_counts_that_are_recorded() {
        let text = std::fs::read_to_string(file()).unwrap();
        let table = counts(&icount::recorded().unwrap());
        assert!(
            replaced(&text, "counts", &table).unwrap() == text,
            "run: cargo xtask benchmarks --only counts"
        );
    }

    #[test]
    fn a_part_is_replaced_and_nothing_else() {
        let text = "a\n<!-- x: written by cargo xtask benchmarks -->\n\nold\n\n<!-- end -->\nb\n";
        let new = replaced(text, "x", "| new |\n").unwrap();
        assert_eq!(new, text.replace("old", "| new |"));
        assert!(replaced(text, "y", "").is_err());
    }

    #[test]
    fn rows_of_an_operation_stand_together_by_placement() {
        let row = |name: &str, peer: &str, placement: &str| {
            json!({"name": name, "peer": peer, "placement": placement, "median_ns": 60.0,
                   "p99_ns": 12_345.0, "ratio_to_limit": 1.5, "limit": "one_line"})
        };
        let rows = [
            row("call", "smpcall", "near"),
            row("post", "smpcall", "near"),
            row("call", "kanal", "near"),
            row("one_line", "limit", "far"),
        ];
        let text = times(&rows);
        let at = |needle: &str| text.find(needle).unwrap();
        assert!(at("| `call` | smpcall | 60.0 ns | 12.3 us | 1.50 x | `one_line` |") < at("kanal"));
        assert!(at("kanal") < at("`post`") && at("`post`") < at("Placement `far`"));
        assert!(text.contains("| `one_line` | limit | 60.0 ns | 12.3 us |  |  |"));
    }

    #[test]
    fn equal_figures_are_said_once() {
        assert_eq!(list([5, 5, 5].into_iter()), "5");
        assert_eq!(list([1, 2].into_iter()), "1 / 2");
        assert_eq!(list([].into_iter()), "-");
    }
}
