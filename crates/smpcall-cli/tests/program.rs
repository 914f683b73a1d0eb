//! The program as outside tools call it: names, fields and exit codes.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::CpuSet;
use serde_json::Value;
use smpcall_hosted::{CpuId, HostCpus};

#[path = "support/run.rs"]
mod run;

use run::{Run, reader, smpcall, wait};

fn allowed() -> Vec<u32> {
    let host = HostCpus::allowed().expect("the affinity mask is known");
    host.mask().iter().map(CpuId::get).collect()
}

fn ids(value: &Value) -> Vec<u64> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|id| id.as_u64().expect("a CPU's number"))
        .collect()
}

/// Every name of the seed that the demo has to show.
const SEED_NAMES: [&str; 12] = [
    "__smp_call_function_single",
    "cpu_down",
    "cpu_up",
    "generic_smp_call_function_single_interrupt",
    "kick_all_cpus_sync",
    "on_each_cpu",
    "on_each_cpu_cond",
    "on_each_cpu_mask",
    "smp_call_function",
    "smp_call_function_any",
    "smp_call_function_many",
    "smp_call_function_single",
];

fn check_demo(run: &Run) -> Vec<Value> {
    let calls = run.rows("call");
    for call in &calls {
        assert_eq!(call["ok"], true, "{call}");
        assert!(
            call["name"].is_string() && call["elapsed_ns"].is_u64(),
            "{call}"
        );
        assert!(call.get("result").is_some(), "{call}");
        assert_eq!(
            ids(&call["cpus"]).len(),
            ids(&call["host_cpus"]).len(),
            "{call}"
        );
    }
    let names: BTreeSet<_> = calls
        .iter()
        .filter_map(|call| call["seed_name"].as_str())
        .collect();
    for name in SEED_NAMES {
        assert!(names.contains(name), "the demo makes no {name}");
    }
    calls
}

#[test]
fn without_a_command_it_is_the_demo_and_every_call_ran_where_it_should() {
    let run = smpcall(&["--json"]).must_be(0);
    let calls = check_demo(&run);
    for call in &calls {
        assert_eq!(
            call["cpus"], call["host_cpus"],
            "without --cpus the ids are the computer's: {call}"
        );
    }
    let each = calls
        .iter()
        .find(|call| call["name"] == "on_each_cpu")
        .expect("on_each_cpu");
    let all: Vec<u64> = allowed().into_iter().map(u64::from).collect();
    assert_eq!(ids(&each["cpus"]), all);
    let pairs = run.rows("latency");
    assert_eq!(pairs.len(), all.len() * all.len());
}

#[test]
fn sixteen_cpus_share_what_there_is() {
    let run = smpcall(&["demo", "--cpus", "16", "--json"]).must_be(0);
    let calls = check_demo(&run);
    let allowed = allowed();
    let each = calls
        .iter()
        .find(|call| call["name"] == "on_each_cpu")
        .expect("on_each_cpu");
    assert_eq!(ids(&each["cpus"]), (0..16).collect::<Vec<_>>());
    let shared: Vec<u64> = (0..16)
        .map(|i| u64::from(allowed[i % allowed.len()]))
        .collect();
    assert_eq!(
        ids(&each["host_cpus"]),
        shared,
        "CPU i is pinned to the i-th allowed one"
    );
}

#[test]
fn on_one_allowed_cpu_the_demo_calls_itself_and_says_so() {
    let only = allowed()[0];
    let (json, human) = thread::spawn(move || {
        let mut set = CpuSet::new();
        set.set(only as usize);
        rustix::thread::sched_setaffinity(None, &set).expect("a thread may give CPUs up");
        (smpcall(&["--json"]), smpcall(&[]))
    })
    .join()
    .expect("the runs end");
    let calls = check_demo(&json.must_be(0));
    let here = u64::from(only);
    assert!(
        calls
            .iter()
            .all(|call| ids(&call["cpus"]).iter().all(|&cpu| cpu == here))
    );
    assert!(human.must_be(0).stdout.contains("every call is to itself"));
}

#[test]
fn a_list_names_real_cpus_and_a_range_of_one_is_one() {
    let last = allowed().last().copied().expect("a CPU");
    let run = smpcall(&["cpus", "--json", "--cpus", &format!("{last}-{last}")]).must_be(0);
    let rows = run.rows("cpu");
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["cpu"], &rows[0]["host_cpu"]),
        (&last.into(), &last.into())
    );
    assert_eq!(rows[0]["state"], "online");
}

#[test]
fn what_cannot_be_is_a_matter_of_usage() {
    let beyond = allowed().last().copied().expect("a CPU") + 1;
    let beyond = format!("{beyond}-{beyond}");
    let cases: [&[&str]; 15] = [
        &["torture", "--seconds", "0"],
        &["torture", "--weight", "kick=0"],
        &["torture", "--weight", "no_such_operation=1"],
        &["torture", "--cpus", "0"],
        &["--cpus", "0"],
        &["--cpus", &beyond],
        &["latency", "--cpus", &beyond],
        &["cpus", "--cpus", "99999"],
        &["--cpus", "two"],
        &["--cpus", "1-0"],
        &["--cpus", ""],
        &["bench", "--cpus", "1"],
        &["bench", "--seconds", "0"],
        &["bench", "--only", "nothing-has-this-name"],
        &["no-such-command"],
    ];
    for arguments in cases {
        let run = smpcall(arguments);
        assert_eq!(run.code, Some(2), "{arguments:?} printed {}", run.stderr);
        assert!(
            run.stdout.is_empty(),
            "{arguments:?}: data is not for complaints"
        );
        assert!(!run.stderr.is_empty(), "{arguments:?} says nothing");
    }
}

#[test]
fn torture_ends_with_a_line_that_adds_up() {
    let run = smpcall(&[
        "torture",
        "--json",
        "--cpus",
        "8",
        "--seconds",
        "2",
        "--seed",
        "7",
    ]);
    let run = run.must_be(0);
    let last = run.stdout.lines().last().expect("a last line");
    let row: Value = serde_json::from_str(last).expect("one JSON object");
    assert_eq!(
        (&row["type"], &row["ok"]),
        (&"torture".into(), &true.into())
    );
    assert_eq!(
        (&row["seed"], &row["seconds"], &row["cpus"]),
        (&7.into(), &2.into(), &8.into())
    );
    assert_eq!(row["errors"], 0);
    assert!(row["hotplug_cycles"].as_u64() > Some(0), "{row}");
    let kinds = row["by_operation"].as_object().expect("an object");
    let sum: u64 = kinds.values().filter_map(Value::as_u64).sum();
    assert_eq!(row["operations"].as_u64(), Some(sum), "{row}");
    assert!(sum > 0);
}

#[test]
fn torture_does_what_the_weights_say() {
    let weights = ["--weight", "single_wait=3", "--weight", "kick=1"];
    let run = smpcall(
        &[
            &["torture", "--json", "--cpus", "2", "--seconds", "1"],
            &weights[..],
        ]
        .concat(),
    );
    let run = run.must_be(0);
    let row = &run.rows("torture")[0];
    let kinds = row["by_operation"].as_object().expect("an object");
    for (name, count) in kinds {
        let wanted = ["single_wait", "kick"].contains(&name.as_str());
        assert_eq!(count.as_u64() > Some(0), wanted, "{name} in {row}");
    }
}

#[test]
fn help_and_version_are_data() {
    for arguments in [["--help"], ["--version"]] {
        assert!(!smpcall(&arguments).must_be(0).stdout.is_empty());
    }
}

#[test]
fn latency_has_a_row_for_each_pair() {
    let cpus = allowed();
    let list = format!("{0}-{0},{1}-{1}", cpus[0], cpus[cpus.len() - 1]);
    let run = smpcall(&["latency", "--json", "--seconds", "0.5", "--cpus", &list]).must_be(0);
    let rows = run.rows("latency");
    let pairs: BTreeSet<_> = rows
        .iter()
        .map(|row| (row["from"].as_u64(), row["to"].as_u64()))
        .collect();
    let two: BTreeSet<u64> = [cpus[0], cpus[cpus.len() - 1]]
        .into_iter()
        .map(u64::from)
        .collect();
    for from in &two {
        for to in &two {
            assert!(
                pairs.contains(&(Some(*from), Some(*to))),
                "no row from {from} to {to}"
            );
        }
    }
    for row in &rows {
        let (median, p99) = (row["median_ns"].as_f64(), row["p99_ns"].as_f64());
        assert!(
            median.is_some_and(|median| median > 0.0) && p99 >= median,
            "{row}"
        );
        assert!(row["samples"].as_u64() >= Some(16), "{row}");
    }
}

#[test]
fn csv_has_the_names_of_the_fields_first() {
    let run = smpcall(&["latency", "--csv", "--seconds", "0.2"]).must_be(0);
    let mut lines = run.stdout.lines();
    assert_eq!(lines.next(), Some("type,from,to,median_ns,p99_ns,samples"));
    assert_eq!(lines.count(), allowed().len().pow(2));
}

#[test]
fn output_that_nobody_reads_ends_the_program_without_a_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_smpcall"))
        .args(["latency", "--json", "--seconds", "0.2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let stderr = reader(child.stderr.take());
    wait(&mut child, &["latency"]);
    assert_eq!(stderr.join().expect("standard error is read"), "");
}

#[test]
fn no_colours_without_a_terminal() {
    let run = smpcall(&[]).must_be(0);
    assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'));
}

#[test]
fn bench_rows_have_their_names_placements_and_limits() {
    let run = smpcall(&["bench", "--json", "--seconds", "1"]);
    if allowed().len() < 2 {
        run.must_be(2);
        return;
    }
    let rows = run.rows("bench");
    for row in &rows {
        assert!(row["name"].is_string() && row["peer"].is_string(), "{row}");
        let placement = row["placement"].as_str();
        assert!(
            placement.is_some_and(|name| ["near", "far", "smt"].contains(&name)),
            "{row}"
        );
        for figure in ["median_ns", "p99_ns"] {
            assert!(
                row[figure].as_f64().is_some_and(|figure| figure > 0.0),
                "{row}"
            );
        }
        let ratio = row["ratio_to_limit"].as_f64();
        assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{row}");
    }
    // On a crowded computer the probes around a block may never agree; then it says so, and fails.
    if run.code == Some(1) {
        assert!(run.stderr.contains("no sample of"), "{}", run.stderr);
        return;
    }
    let run = run.must_be(0);
    let has = |name: &str, peer: &str| {
        rows.iter()
            .any(|row| row["name"] == name && row["peer"] == peer)
    };
    for name in [
        "one_line",
        "two_lines",
        "spsc64",
        "futex",
        "tgkill",
        "membarrier",
        "thread_flag",
    ] {
        assert!(has(name, "limit"), "no limit {name}: {}", run.stdout);
    }
    for name in [
        "call_polling",
        "call_polling_cold",
        "broadcast_two",
        "post",
        "call_parked",
        "call_poll_point",
        "call_signal",
        "call_any",
        "on_each_cpu_cond",
        "kick_all_cpus_sync",
        "all_to_all",
        "call_foreign",
        "interrupts_off",
    ] {
        assert!(has(name, "smpcall"), "no row {name}: {}", run.stdout);
    }
    assert!(has("call_polling", "seed_algorithm"));
}
