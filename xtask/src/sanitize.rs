//! `cargo xtask tsan` and `asan`: the conformance cases and the torture under a sanitizer, and a planted bug that
//! it must find.
//!
//! rustup's toolchains carry the runtimes, and the switch opens on stable. The standard library is not built
//! again, for its sources are not there; so ThreadSanitizer does not see its fences, and what it takes for
//! races inside it is named in `tsan-suppressions.txt`. The core is generic, so all of it is compiled here.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt;
use crate::test::{Counts, run_tests};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sanitizer {
    /// Data races.
    Thread,
    /// Memory that is used after its end, or beyond it.
    Address,
}

impl Sanitizer {
    fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Address => "address",
        }
    }

    /// In the name of its runtime, and of its folder below `target`.
    fn short(self) -> &'static str {
        match self {
            Self::Thread => "tsan",
            Self::Address => "asan",
        }
    }

    /// The planted bug, and what the sanitizer says about it.
    fn planted(self) -> (&'static str, &'static str) {
        match self {
            Self::Thread => ("planted_data_race", "ThreadSanitizer: data race"),
            Self::Address => (
                "planted_use_after_free",
                "AddressSanitizer: heap-use-after-free",
            ),
        }
    }

    /// A `cargo test` of the hosted platform's test programs, in the sanitizer's own target folder.
    fn cargo(self, host: &str, tests: &[&str]) -> Command {
        let mut command = Command::new(crate::cargo_program());
        // A target that is named keeps the flags away from what runs in the compiler.
        command.args(["test", "--target", host, "--package", "smpcall-hosted"]);
        tests.iter().for_each(|test| {
            command.args(["--test", test]);
        });
        let root = crate::workspace_root();
        command
            .current_dir(root)
            .env("CARGO_TARGET_DIR", root.join("target").join(self.short()))
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", self.rustflags());
        let suppressions = root.join("crates/smpcall-hosted/tests/tsan-suppressions.txt");
        let options = format!("suppressions={}:history_size=4", suppressions.display());
        command.env("TSAN_OPTIONS", options);
        // Instances and descriptors that are kept for ever are meant to be.
        command.env("ASAN_OPTIONS", "detect_leaks=0");
        command
    }

    fn rustflags(self) -> String {
        // The standard library as it is, which was built without.
        let mixed = "-Cunsafe-allow-abi-mismatch=sanitizer";
        format!("-Zsanitizer={} {mixed}", self.name())
    }
}

/// All of it.
pub(crate) fn run(sanitizer: Sanitizer) -> Result<Counts> {
    let host = find_runtime(sanitizer)?;
    let mut counts = Counts::default();
    let mut cases = sanitizer.cargo(&host, &["conformance"]);
    // Machines of many CPUs show nothing more here, and take minutes.
    cases.args(["--", "--skip", "16_cpus", "--skip", "64_cpus"]);
    counts.add(run_tests(&mut cases)?);
    counts.add(run_tests(&mut sanitizer.cargo(&host, &["torture"]))?);
    counts.add(finds_planted(sanitizer, &host)?.into());
    Ok(counts)
}

/// Does it find the bug that is there to be found?
fn finds_planted(sanitizer: Sanitizer, host: &str) -> Result<bool> {
    let (test, said) = sanitizer.planted();
    let mut command = sanitizer.cargo(host, &["planted"]);
    command.args(["--", "--ignored", "--exact", test, "--nocapture"]);
    let output = command.output().context("cannot run cargo")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let found = !output.status.success() && stderr.contains(said) && stderr.contains(test);
    println!("{test}: {}", if found { "found" } else { "NOT FOUND" });
    if !found {
        print!("{stderr}");
    }
    Ok(found)
}

/// The compiler's own target, if the sanitizer's runtime came with it.
fn find_runtime(sanitizer: Sanitizer) -> Result<String> {
    let version = apt::run(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?.to_owned();
    let dir = apt::run(Command::new("rustc").args(["--print", "target-libdir"]))?;
    let dir = PathBuf::from(dir.trim());
    let runtime = format!("_rt.{}.a", sanitizer.short());
    let entries =
        std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    ensure!(
        names.any(|name| name.to_string_lossy().ends_with(&runtime)),
        "the Rust toolchain has no runtime of the {} sanitizer; rustup's has",
        sanitizer.name()
    );
    Ok(host)
}
