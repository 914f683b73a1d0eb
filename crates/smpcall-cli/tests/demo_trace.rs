//! A recorded demo: a file that ui.perfetto.dev opens, whole, and counters that agree with it.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

#[path = "support/run.rs"]
mod run;

use run::smpcall;

/// The demo's trace, and the file that it was in.
fn recorded(cpus: &str) -> Value {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file: PathBuf = folder.join(format!("demo-{cpus}.json"));
    let path = file.to_str().expect("the folder's name is text");
    let run = smpcall(&["demo", "--cpus", cpus, "--json", "--perfetto", path]).must_be(0);
    assert!(!run.rows("call").is_empty(), "the demo's rows come as ever");
    let json = fs::read_to_string(&file).expect("the file is there");
    serde_json::from_str(&json).expect("it is JSON")
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} in {event}"))
}

/// Checks each event against the trace event format; answers how many there are of each phase, and
/// of each kind of instant.
fn check_schema(trace: &Value) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    let mut open: HashMap<u64, Vec<&str>> = HashMap::new();
    let (mut flows, mut last) = (HashSet::new(), 0.0);
    for event in trace["traceEvents"].as_array().expect("an array") {
        let (ph, name) = (text(event, "ph"), text(event, "name"));
        let thread = event["tid"].as_u64().expect("tid");
        assert!(event["pid"].is_u64(), "{event}");
        if ph == "M" {
            assert!(["process_name", "thread_name"].contains(&name), "{event}");
            assert!(event["args"]["name"].is_string(), "{event}");
            continue;
        }
        let ts = event["ts"].as_f64().expect("ts, in microseconds");
        assert!(ts >= last, "in the order of time: {event}");
        last = ts;
        assert!(event["cat"].is_string(), "{event}");
        let kind = match ph {
            "B" => {
                open.entry(thread).or_default().push(name);
                ph
            }
            "E" => {
                let entry = open.get_mut(&thread).and_then(Vec::pop);
                assert_eq!(entry, Some(name), "an exit has its entry: {event}");
                ph
            }
            "i" => {
                assert_eq!(text(event, "s"), "t", "an instant of its thread: {event}");
                assert!(event["args"]["to"].is_u64(), "{event}");
                name
            }
            "s" => {
                assert!(flows.insert(event["id"].as_u64()), "{event}");
                ph
            }
            "f" => {
                assert_eq!(text(event, "bp"), "e", "{event}");
                assert!(flows.remove(&event["id"].as_u64()), "{event}");
                ph
            }
            other => panic!("phase {other} is not one that is written: {event}"),
        };
        *counts.entry(kind.to_owned()).or_insert(0) += 1;
    }
    assert!(open.values().all(Vec::is_empty), "every entry has its exit");
    counts
}

/// What the counters of all CPUs or pairs sum up to.
fn sum(list: &Value, key: &str) -> u64 {
    let list = list.as_array().expect("a list");
    list.iter().map(|item| item[key].as_u64().expect(key)).sum()
}

#[test]
fn a_recorded_demo_is_valid_and_its_counters_agree_with_its_events() {
    for cpus in ["1", "3", "8"] {
        let trace = recorded(cpus);
        let counts = check_schema(&trace);
        let count = |kind: &str| counts.get(kind).copied().unwrap_or(0);
        let counters = &trace["smpcall"];
        assert_eq!(counters["lost"], 0);
        assert_eq!(sum(&counters["pairs"], "calls"), count("queue"), "{cpus}");
        assert_eq!(
            sum(&counters["pairs"], "refused"),
            count("refuse"),
            "{cpus}"
        );
        assert_eq!(
            sum(&counters["pairs"], "ipis_sent"),
            count("send"),
            "{cpus}"
        );
        assert_eq!(sum(&counters["cpus"], "ran"), count("B"), "{cpus}");
        let accepted = count("queue") - count("refuse");
        assert_eq!(accepted, count("B"), "what was accepted ran: {cpus} CPUs");
        assert!(count("B") >= 8, "each kind of call at least: {counts:?}");
    }
}
