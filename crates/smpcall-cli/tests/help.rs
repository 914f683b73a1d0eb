//! What the program tells of itself: help, completions, manual pages; and colours.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};

#[path = "support/run.rs"]
mod run;

use run::smpcall;

const COMMANDS: [&str; 6] = ["demo", "cpus", "latency", "bench", "torture", "trace"];

#[test]
fn every_command_explains_itself_and_gives_examples() {
    let all = smpcall(&["--help"]).must_be(0).stdout;
    for command in COMMANDS {
        assert!(
            all.contains(&format!("\n  {command} ")),
            "{command} is not listed"
        );
        let help = smpcall(&[command, "--help"]).must_be(0).stdout;
        for part in ["Examples:\n", "--cpus <LIST|N>", "--json", "--csv"] {
            assert!(help.contains(part), "{command}: no {part} in:\n{help}");
        }
        let brief = smpcall(&[command, "-h"]).must_be(0).stdout;
        assert!(
            brief.len() < help.len(),
            "{command}: --help tells no more than -h"
        );
    }
    assert!(all.contains("Exit codes: 0 fine, 1 a check failed, 2 usage."));
}

#[test]
fn completions_know_every_command_in_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = smpcall(&["completions", shell]).must_be(0).stdout;
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: no {command}");
        }
    }
    smpcall(&["completions", "no-such-shell"]).must_be(2);
}

#[test]
fn the_manual_has_a_page_for_the_program_and_one_for_each_command() {
    let page = smpcall(&["man"]).must_be(0).stdout;
    assert!(
        page.contains(".TH smpcall 1") && page.contains("SUBCOMMANDS"),
        "{page}"
    );
    for command in COMMANDS {
        let page = smpcall(&["man", command]).must_be(0).stdout;
        assert!(page.contains(&format!(".TH smpcall-{command} 1")), "{page}");
        assert!(
            page.contains("\\-\\-cpus"),
            "{command}: the common options are missing"
        );
    }
    let run = smpcall(&["man", "no-such-command"]).must_be(2);
    assert!(run.stderr.contains("no-such-command"), "{}", run.stderr);
}

/// What a terminal of the program's own shows.
fn on_a_terminal(no_color: Option<&str>) -> String {
    let (mut master, mut slave) = (0, 0);
    let nothing = std::ptr::null_mut();
    // SAFETY: both numbers are written, the rest may be left out.
    let opened = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            nothing,
            nothing.cast(),
            nothing.cast(),
        )
    };
    assert_eq!(opened, 0, "a terminal can be had");
    // SAFETY: new, and owned by nobody else.
    let mut master = unsafe { File::from_raw_fd(master) };
    // SAFETY: as above.
    let slave = unsafe { File::from_raw_fd(slave) };
    let mut command = Command::new(env!("CARGO_BIN_EXE_smpcall"));
    command
        .args(["latency", "--cpus", "2", "--seconds", "0.1"])
        .stdout(Stdio::from(slave))
        .stderr(Stdio::null())
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR");
    if let Some(value) = no_color {
        command.env("NO_COLOR", value);
    }
    let mut child = command.spawn().expect("the program starts");
    // The command holds the other end until here; without it the end can be read.
    drop(command);
    let mut shown = Vec::new();
    let mut part = [0; 4096];
    // A terminal that nobody holds any more answers with an error.
    while let Ok(length @ 1..) = master.read(&mut part) {
        shown.extend_from_slice(&part[..length]);
    }
    run::wait(&mut child, &["latency on a terminal"]);
    String::from_utf8(shown).expect("the program prints UTF-8")
}

#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    assert!(on_a_terminal(None).contains("\u{1b}[38;5;"));
    assert!(
        on_a_terminal(Some("")).contains("\u{1b}[38;5;"),
        "an empty value asks for nothing"
    );
    assert!(!on_a_terminal(Some("1")).contains('\u{1b}'));
}

#[test]
fn json_and_csv_have_the_same_fields() {
    let rows = smpcall(&["cpus", "--cpus", "3", "--json"])
        .must_be(0)
        .rows("cpu");
    let csv = smpcall(&["cpus", "--cpus", "3", "--csv"]).must_be(0).stdout;
    let header: Vec<&str> = csv.lines().next().expect("a header").split(',').collect();
    let fields = rows[0].as_object().expect("an object").keys();
    assert!(fields.eq(header.iter()), "{header:?} and {}", rows[0]);
    assert_eq!((rows.len(), csv.lines().count()), (3, 4));
}

#[test]
fn every_json_line_is_an_object_with_a_type_and_its_times_are_numbers() {
    let commands: [&[&str]; 5] = [
        &["demo"],
        &["cpus"],
        &["latency", "--seconds", "0.1"],
        &["trace", "--rounds", "1"],
        &["torture", "--seconds", "1"],
    ];
    for command in commands {
        let run = smpcall(&[command, &["--cpus", "2", "--json"]].concat()).must_be(0);
        assert!(!run.stdout.is_empty(), "{command:?} says nothing");
        for line in run.stdout.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let fields = row.as_object().expect("an object");
            assert!(fields["type"].is_string(), "{line}");
            for (name, value) in fields.iter().filter(|(name, _)| name.ends_with("_ns")) {
                assert!(value.is_number(), "{name} in {line}");
            }
        }
        assert!(
            !run.stderr.contains("\"type\""),
            "{command:?}: data is for standard output"
        );
    }
}
