//! `cargo xtask examples`: runs every example of the library that runs on the host.
//!
//! An example is a program that a reader may copy, so it has to build, end, and end well. Those of
//! the bare-metal crate are kernel images, which the steps that boot them run.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::test::Counts;

/// Crates whose examples run on the host.
const CRATES: &[&str] = &["smpcall", "smpcall-hosted"];
/// No example takes nearly as long, even where many share the computer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs them all.
pub(crate) fn run() -> Result<Counts> {
    let mut counts = Counts::default();
    for package in CRATES {
        for name in names(package)? {
            let outcome = run_one(package, &name)?;
            match &outcome {
                Ok(()) => println!("ok: {package}: {name}"),
                Err(fault) => println!("FAILED: {package}: {name}: {fault}"),
            }
            counts.add(outcome.is_ok().into());
        }
    }
    Ok(counts)
}

/// The examples of a crate: its files, and its folders with a `main.rs`.
fn names(package: &str) -> Result<Vec<String>> {
    let folder = crate::workspace_root().join(format!("crates/{package}/examples"));
    let entries = fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_example =
            path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").is_file();
        if is_example {
            let name = path.file_stem().unwrap_or_default();
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds and runs one; what is wrong with it, if anything is.
fn run_one(package: &str, name: &str) -> Result<Result<(), String>> {
    let cargo = |what: &str| {
        let mut command = Command::new(crate::cargo_program());
        command
            .args([what, "--quiet", "--package", package, "--example", name])
            .current_dir(crate::workspace_root());
        command
    };
    // Building may take its time.
    if !cargo("build").status()?.success() {
        return Ok(Err("it does not build".into()));
    }
    let mut child = cargo("run")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    if status.is_some_and(|status| status.success()) {
        return Ok(Ok(()));
    }
    // A child that was killed may have left one of its own, which keeps the pipes.
    let Some(status) = status else {
        return Ok(Err(format!("it did not end within {PATIENCE:?}")));
    };
    let printed = [out, err].map(|reader| reader.join().unwrap_or_default());
    Ok(Err(format!("{status}; it printed:\n{}", printed.concat())))
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is shown.
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}
