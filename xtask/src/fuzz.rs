//! `cargo xtask fuzz`: every parser on input that libFuzzer makes from what new code it reached, for a time each.
//!
//! The targets are the programs of `fuzz`, a package of its own that is built with instrumentation. The compiler
//! has LLVM's pass and stable opens it; libFuzzer comes with its crate as C++, so a compiler for that is
//! fetched if there is none. Seeds are in the repository, what a run finds is below `target/fuzz`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::apt;
use crate::cc;
use crate::test::Counts;

/// The programs of `fuzz`, and what each reads.
const TARGETS: [(&str, &str); 6] = [
    ("boot_params", "boot parameters"),
    ("cpulist", "CPU lists"),
    ("madt", "ACPI: RSDP, root table, MADT"),
    ("fdt", "device tree"),
    ("report", "lines of the report"),
    ("knobs", "knobs of the torture"),
];

/// What cargo-fuzz gives the compiler: counters for each edge, and the operands of comparisons.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What `cargo xtask fuzz` takes.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// How long each parser is fuzzed, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    seconds: u32,
    /// Only these: a program of the folder `fuzz`
    #[arg(value_parser = TARGETS.map(|(name, _)| name))]
    only: Vec<String>,
}

/// What came of one parser.
#[derive(Debug, PartialEq, Eq)]
struct Figures {
    executions: u64,
    /// Edges of the program that were reached, and how many it has.
    edges: (u64, u64),
    /// libFuzzer's features: edges by how often they ran, and comparisons.
    features: u64,
    corpus: u64,
}

/// Fuzzes and prints the table of `docs/testing.md`.
pub(crate) fn run(options: &Fuzz) -> Result<Counts> {
    let programs = build()?;
    let mut counts = Counts::default();
    let mut table = String::from(
        "| parser | executions | edges reached, of | features | corpus | crashes |\n|---|---|---|---|---|---|\n",
    );
    for (name, reads) in TARGETS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        println!("== {name}");
        let (figures, crash) = fuzz(&programs, name, options.seconds)?;
        counts.add(crash.is_none().into());
        let Figures {
            executions,
            edges: (reached, all),
            features,
            corpus,
        } = figures;
        let crashes = u8::from(crash.is_some());
        table += &format!(
            "| {reads} | {executions} | {reached}, {all} | {features} | {corpus} | {crashes} |\n"
        );
        if let Some(said) = crash {
            println!("{said}");
        }
    }
    print!("\n{table}");
    Ok(counts)
}

/// Builds the programs; answers their folder.
fn build() -> Result<PathBuf> {
    let version = apt::run(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    let root = crate::workspace_root();
    let target = root.join("target/fuzz");
    let status = Command::new(crate::cargo_program())
        // A target that is named keeps the flags away from what runs in the compiler.
        .args(["build", "--release", "--locked", "--target", host])
        .current_dir(root.join("fuzz"))
        .envs(cc::host_tools()?)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", FLAGS)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the programs of `fuzz` do not build");
    Ok(target.join(host).join("release"))
}

/// Runs one; what it said, if it crashed.
fn fuzz(programs: &Path, name: &str, seconds: u32) -> Result<(Figures, Option<String>)> {
    let root = crate::workspace_root();
    let corpus = root.join("target/fuzz/corpus").join(name);
    let crashes = root.join("target/fuzz/crashes").join(name);
    for folder in [&corpus, &crashes] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let output = Command::new(programs.join(name))
        .arg(format!("-max_total_time={seconds}"))
        .args(["-max_len=4096", "-timeout=20", "-rss_limit_mb=1024"])
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .arg(&corpus)
        .arg(root.join("fuzz/seeds").join(name))
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let figures = figures(&said).with_context(|| format!("{name} told no figures: {said}"))?;
    Ok((figures, (!output.status.success()).then_some(said)))
}

/// Reads the last line of libFuzzer's that has figures: `#100 DONE cov: 7 ft: 9 corp: 5/40b ...`.
fn figures(said: &str) -> Option<Figures> {
    let last = said.lines().rfind(|line| line.contains(" cov: "))?;
    let after = |line: &str, name: &str| -> Option<u64> {
        let rest = line.split_once(name)?.1.trim_start();
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    let tables = said.lines().find(|line| line.contains("PC tables"))?;
    Some(Figures {
        executions: after(last, "#")?,
        edges: (after(last, "cov:")?, after(tables, "PC tables (")?),
        features: after(last, "ft:")?,
        corpus: after(last, "corp:")?,
    })
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use std::ffi::OsString;

    use super::{Figures, TARGETS, figures};

    #[test]
    fn the_last_figures_are_read() {
        let said = "INFO: Loaded 1 PC tables (2106 PCs): 2106 [0x1,0x2),\n\
                    #2\tINITED cov: 40 ft: 41 corp: 1/1b exec/s: 0 rss: 27Mb\n\
                    #610448\tDONE   cov: 412 ft: 1804 corp: 321/12Kb lim: 2048 exec/s: 101741 rss: 28Mb\n";
        let expected = Figures {
            executions: 610_448,
            edges: (412, 2106),
            features: 1804,
            corpus: 321,
        };
        assert_eq!(figures(said), Some(expected));
        assert_eq!(figures("nothing"), None);
    }

    #[test]
    fn every_program_is_run_and_has_seeds() {
        let root = crate::workspace_root().join("fuzz");
        let names = |folder: &str| {
            let entries = std::fs::read_dir(root.join(folder)).expect("it is there");
            let stem = |path: std::path::PathBuf| path.file_stem().map(|stem| stem.to_owned());
            let mut names: Vec<_> = entries
                .filter_map(|entry| stem(entry.ok()?.path()))
                .collect();
            names.sort();
            names
        };
        let mut run: Vec<OsString> = TARGETS.map(|(name, _)| name.into()).to_vec();
        run.sort();
        assert_eq!(names("targets"), run);
        assert_eq!(names("seeds"), run);
    }
}
