//! `cargo xtask icount`: the instructions of each operation, against aims and against what they were.
//!
//! The kernel's bench runs under `-icount`, where a count repeats exactly as long as the image is the
//! same, so a count can be a test where a time cannot. A row fails if it is above its aim (a
//! share of what Linux takes, on x86_64) or above the figure that is recorded in `icount.txt` by more
//! than a compiler's whim. After a change that is meant to cost or to save, `--record` writes the
//! file anew, and the table of docs/benchmarks.md with it, and the change shows in review.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::arch::Arch;
use crate::qemu::{self, Options, Suite};
use crate::test::Counts;

/// What `cargo xtask icount` takes.
#[derive(Debug, Args)]
pub(crate) struct Icount {
    /// Only this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// These numbers of CPUs instead of the recorded ones; only rows that are recorded are checked
    #[arg(long, value_delimiter = ',')]
    smp: Vec<u32>,
    /// Writes what was counted to the file of recorded figures
    #[arg(long)]
    record: bool,
}

/// A row is `(architecture, operation, CPUs)`.
pub(crate) type Key = (String, String, u64);

/// Instructions by row.
pub(crate) type Figures = BTreeMap<Key, u64>;

/// What Linux 6.1 takes with 2, 4 and 8 CPUs, and the share of it that is our aim: one of so many.
/// DESIGN section 7 says how it was measured.
const LINUX: [(&str, [u64; 3], u64); 11] = [
    ("single_self", [83; 3], 3),
    ("single_idle", [1192; 3], 3),
    ("single_busy", [389; 3], 2),
    ("any_remote", [1251; 3], 3),
    ("many_idle", [1383, 3650, 8178], 3),
    ("many_busy", [580, 1241, 2557], 2),
    ("on_each_cpu", [1441, 3708, 8236], 3),
    ("on_each_cpu_cond_half", [1442, 2673, 5093], 3),
    ("kick_all_cpus_sync", [1411, 3676, 8200], 3),
    ("post_batch64_queue", [48; 3], 2),
    ("post_batch64_done", [97; 3], 2),
];
/// The same with `nohz=off`, the kindest configuration to it: an idle CPU's tick goes on, so that waking
/// it need not start the tick again. With the mitigations that are the default.
const LINUX_NOHZ_OFF: [(&str, [u64; 3]); 3] = [
    ("single_idle", [915; 3]),
    ("many_idle", [1106, 2811, 6223]),
    ("on_each_cpu", [1166, 2871, 6283]),
];
/// The numbers of CPUs of [`LINUX`], and the most that are recorded.
pub(crate) const CPUS: [u64; 3] = [2, 4, 8];

/// The operations that were counted in Linux.
pub(crate) fn operations() -> Vec<&'static str> {
    LINUX.iter().map(|(name, ..)| *name).collect()
}

/// What Linux takes for an operation, on each of [`CPUS`].
pub(crate) fn linux(name: &str) -> Option<[u64; 3]> {
    let row = LINUX.iter().find(|(row, ..)| *row == name)?;
    Some(row.1)
}

/// The same with `nohz=off`, where that was counted.
pub(crate) fn linux_nohz_off(name: &str) -> Option<[u64; 3]> {
    let row = LINUX_NOHZ_OFF.iter().find(|(row, _)| *row == name)?;
    Some(row.1)
}

/// How far above its recorded figure a row may be: another compiler's choice of what to inline.
pub(crate) fn tolerance(recorded: u64) -> u64 {
    (recorded / 16).max(4)
}

/// The numbers of CPUs that are recorded.
fn usual_cpus(arch: Arch) -> &'static [u32] {
    match arch {
        Arch::X86_64 => &[2, 4, 8],
        Arch::Aarch64 | Arch::Riscv64 => &[2, 4],
    }
}

/// The whole command.
pub(crate) fn run(options: &Icount) -> Result<Counts> {
    let mut sum = Counts::default();
    let mut counted = Figures::new();
    for arch in Arch::ALL {
        if options.arch.is_none_or(|only| only == arch) {
            let cpus = match options.smp.as_slice() {
                [] => usual_cpus(arch),
                cpus => cpus,
            };
            counted.extend(count(arch, cpus, &mut sum)?);
        }
    }
    if options.record {
        let mut all = recorded()?;
        all.extend(counted);
        std::fs::write(file(), text(&all)).context("cannot write the recorded figures")?;
        crate::benchmarks::write_counts(&all)?;
        return Ok(sum);
    }
    sum.add(judge(&counted)?);
    if options.smp.is_empty() {
        for key in missing(&counted)? {
            println!("recorded and not counted: {key:?}");
            sum.add(false.into());
        }
    }
    Ok(sum)
}

/// The recorded rows of the counted architectures that were not counted.
fn missing(counted: &Figures) -> Result<Vec<Key>> {
    let is_missing =
        |key: &Key| !counted.contains_key(key) && counted.keys().any(|(arch, ..)| *arch == key.0);
    Ok(recorded()?.into_keys().filter(is_missing).collect())
}

/// The step of `cargo xtask test` for one architecture.
pub(crate) fn check(arch: Arch) -> Result<Counts> {
    run(&Icount {
        arch: Some(arch),
        smp: Vec::new(),
        record: false,
    })
}

/// Boots the bench once for each number of CPUs, and once more for the first: a count repeats. A run that
/// failed is a failed check, and so is a row that differs.
fn count(arch: Arch, cpus: &[u32], sum: &mut Counts) -> Result<Figures> {
    let mut boot = |smp| rows(&records(arch, smp, sum)?);
    let mut figures = Figures::new();
    for &smp in cpus {
        figures.extend(boot(smp)?);
    }
    let again = cpus.first().map(|&smp| boot(smp)).transpose()?;
    let again = again.unwrap_or_default();
    let differ = |(key, figure): &(&Key, &u64)| figures.get(*key) != Some(*figure);
    let other = again.iter().filter(differ);
    other.clone().for_each(|(key, figure)| {
        println!(
            "{key:?}: {figure} in the second run, {:?} in the first",
            figures.get(key)
        );
    });
    let same = again.len() - other.count();
    println!(
        "{}: {same} of {} rows were the same in a second run",
        arch.name(),
        again.len()
    );
    sum.add((same == again.len()).into());
    Ok(figures)
}

/// Boots the bench once; its records. A run that failed is a failed check.
pub(crate) fn records(arch: Arch, smp: u32, sum: &mut Counts) -> Result<Vec<Value>> {
    let outcome = qemu::boot(&Options {
        suite: Suite::Bench,
        icount: true,
        ..Options::conformance(arch, smp)
    })?;
    sum.add(outcome.faults.is_empty().into());
    Ok(outcome.report.records)
}

/// The rows that a bench said.
pub(crate) fn rows(records: &[Value]) -> Result<Figures> {
    let row = |record| row(record).with_context(|| format!("not a record of icount: {record}"));
    records.iter().map(row).collect()
}

/// No operation takes so many instructions: a figure above this was below zero.
const MOST: u64 = 1 << 40;

/// A record of the bench.
fn row(record: &Value) -> Option<(Key, u64)> {
    let text = |name: &str| Some(record[name].as_str()?.to_owned());
    let key = (text("arch")?, text("name")?, record["cpus"].as_u64()?);
    let instructions = record["instructions"].as_u64()?;
    (instructions < MOST).then_some((key, instructions))
}

/// Compares each row with its aim and with what was recorded, and prints all.
fn judge(counted: &Figures) -> Result<Counts> {
    let recorded = recorded()?;
    let mut sum = Counts::default();
    println!("arch     operation             CPUs  counted recorded   aim");
    for (key, &figure) in counted {
        let ((arch, name, cpus), aim) = (key, aim(key));
        let was = recorded.get(key).copied();
        let verdict = match (was, aim) {
            (_, Some(aim)) if figure > aim => "above the aim",
            (Some(was), _) if figure > was + tolerance(was) => "more than recorded",
            (Some(was), _) if figure + tolerance(was) < was => {
                "less than recorded: cargo xtask icount --record"
            }
            _ => "",
        };
        let show = |figure: Option<u64>| figure.map_or("-".to_owned(), |figure| figure.to_string());
        println!(
            "{arch:8} {name:21} {cpus:4} {figure:8} {:>8} {:>5} {verdict}",
            show(was),
            show(aim)
        );
        let too_many = verdict.starts_with("above") || verdict.starts_with("more");
        sum.add((!too_many).into());
    }
    ensure!(!counted.is_empty(), "nothing was counted");
    Ok(sum)
}

/// The most instructions that a row may take, if it has an aim.
fn aim((arch, name, cpus): &Key) -> Option<u64> {
    aim_of(name, *cpus).filter(|_| arch == Arch::X86_64.name())
}

/// The most instructions that an operation may take on so many CPUs of x86_64.
pub(crate) fn aim_of(name: &str, cpus: u64) -> Option<u64> {
    let column = CPUS.iter().position(|at| *at == cpus)?;
    let (_, linux, share) = LINUX.iter().find(|(row, ..)| *row == name)?;
    Some(linux[column] / share)
}

/// The file of recorded figures.
fn file() -> PathBuf {
    crate::workspace_root().join("xtask/icount.txt")
}

/// What is recorded.
pub(crate) fn recorded() -> Result<Figures> {
    let text = std::fs::read_to_string(file()).context("cannot read the recorded figures")?;
    parse(&text)
}

/// The first lines of the file.
const HEADING: &str = "\
# Guest instructions of each operation under QEMU -icount, all CPUs together; see icount.rs.
# Written by: cargo xtask icount --record
";

fn text(figures: &Figures) -> String {
    let mut text = HEADING.to_owned();
    for ((arch, name, cpus), figure) in figures {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{arch} {name} {cpus} {figure}");
    }
    text
}

fn parse(text: &str) -> Result<Figures> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let mut words = line.split(' ');
        let mut word = || words.next().map(str::to_owned);
        let key = (word()?, word()?, word()?.parse().ok()?);
        Some((key, word()?.parse().ok()?))
    };
    lines
        .map(|line| row(line).with_context(|| format!("not a recorded figure: {line}")))
        .collect()
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{Figures, aim, judge, parse, recorded, text, tolerance};

    fn key(arch: &str, name: &str, cpus: u64) -> (String, String, u64) {
        (arch.into(), name.into(), cpus)
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let figures = recorded().unwrap();
        assert_eq!(parse(&text(&figures)).unwrap(), figures);
        assert!(parse("x86_64 single_idle two 188").is_err());
    }

    #[test]
    fn aims_are_shares_of_linux_on_x86_64_only() {
        assert_eq!(aim(&key("x86_64", "many_busy", 4)), Some(620));
        assert_eq!(aim(&key("x86_64", "single_self", 8)), Some(27));
        assert_eq!(aim(&key("x86_64", "many_busy", 16)), None);
        assert_eq!(aim(&key("riscv64", "many_busy", 4)), None);
    }

    #[test]
    fn a_row_above_what_was_recorded_fails_and_one_within_the_tolerance_passes() {
        let (key, was) = recorded().unwrap().pop_first().unwrap();
        let one = |figure| Figures::from([(key.clone(), figure)]);
        assert_eq!(judge(&one(was + tolerance(was))).unwrap().failed, 0);
        assert_eq!(judge(&one(was + tolerance(was) + 1)).unwrap().failed, 1);
    }

    #[test]
    fn a_row_above_its_aim_fails_although_nothing_is_recorded() {
        let above = Figures::from([(key("x86_64", "no_such_row", 2), 1)]);
        assert_eq!(judge(&above).unwrap().failed, 0);
        let above = Figures::from([(key("x86_64", "single_self", 2), 28)]);
        assert_eq!(judge(&above).unwrap().failed, 1);
    }
}
