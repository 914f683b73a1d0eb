//! `smpcall trace` and the pictures, from outside.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

#[path = "support/run.rs"]
mod run;

use run::smpcall;

/// A file of this test's own.
fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn text(name: &Path) -> &str {
    name.to_str().expect("the path is UTF-8")
}

#[test]
fn trace_tells_every_event_and_counts_by_pair() {
    let run = smpcall(&["trace", "--cpus", "3", "--rounds", "2", "--json"]).must_be(0);
    let (events, pairs) = (run.rows("event"), run.rows("pair"));
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!(of("entry"), of("exit"), "all have returned");
    let times: Vec<_> = events
        .iter()
        .map(|event| event["time_ns"].as_u64())
        .collect();
    assert!(times.is_sorted() && times[0].is_some());
    let calls: u64 = pairs.iter().filter_map(|pair| pair["calls"].as_u64()).sum();
    assert_eq!(calls as usize, of("queue"));
    let ipis: u64 = pairs
        .iter()
        .filter_map(|pair| pair["ipis_sent"].as_u64())
        .sum();
    assert_eq!(ipis as usize, of("ipi"));
    for name in ["look_up", "note", "drain_cache", "reload"] {
        let ends = format!("::{name}");
        let named = |event: &&Value| {
            event["function"]
                .as_str()
                .is_some_and(|f| f.ends_with(&ends))
        };
        assert!(
            events.iter().any(|event| named(&event)),
            "no event of {name}"
        );
    }
}

#[test]
fn the_perfetto_file_has_the_waits_of_the_callers() {
    let path = file("trace.json");
    let arguments = [
        "trace",
        "--cpus",
        "2",
        "--rounds",
        "1",
        "--perfetto",
        text(&path),
    ];
    smpcall(&arguments).must_be(0);
    let json = fs::read_to_string(&path).expect("the file is there");
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    let events = json["traceEvents"].as_array().expect("events");
    let waits: BTreeSet<_> = events
        .iter()
        .filter(|event| event["ph"] == "X")
        .filter_map(|event| event["name"].as_str())
        .collect();
    for name in [
        "call",
        "on_each_cpu_cond",
        "on_each_cpu",
        "kick_all_cpus_sync",
    ] {
        assert!(waits.contains(name), "no wait of {name}: {waits:?}");
    }
}

#[test]
fn pictures_are_written_as_svg_and_png() {
    for command in ["trace", "latency"] {
        let (svg, png) = (
            file(&format!("{command}.svg")),
            file(&format!("{command}.png")),
        );
        let mut arguments = vec![
            command,
            "--cpus",
            "2",
            "--svg",
            text(&svg),
            "--png",
            text(&png),
        ];
        if command == "latency" {
            arguments.extend(["--seconds", "0.1"]);
        }
        smpcall(&arguments).must_be(0);
        let svg = fs::read_to_string(&svg).expect("the picture is there");
        assert!(svg.starts_with("<svg ") && svg.contains("CPU"), "{command}");
        let png = fs::read(&png).expect("the picture is there");
        assert!(png.starts_with(b"\x89PNG"), "{command}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_before_the_work() {
    let beyond = "/nonexistent/folder/file";
    for arguments in [
        ["trace", "--perfetto", beyond],
        ["trace", "--svg", beyond],
        ["latency", "--png", beyond],
    ] {
        let run = smpcall(&arguments).must_be(2);
        assert!(run.stdout.is_empty(), "{arguments:?}");
        let named = run.stderr.contains(beyond) && run.stderr.contains(arguments[1]);
        assert!(named, "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn events_that_found_no_room_are_a_failed_check_that_says_what_to_do() {
    let run = smpcall(&["trace", "--cpus", "2", "--rounds", "20", "--events", "5"]).must_be(1);
    assert!(run.stderr.contains("--events"), "{}", run.stderr);
}

#[test]
fn one_cpu_is_traced_calling_itself() {
    let run = smpcall(&["trace", "--cpus", "1", "--json"]).must_be(0);
    let pairs = run.rows("pair");
    assert!(
        pairs
            .iter()
            .any(|pair| pair["from"] == 0 && pair["to"] == 0)
    );
}
