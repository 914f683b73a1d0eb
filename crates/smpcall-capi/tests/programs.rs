//! C and C++ programs, compiled as a user would and run.
//!
//! The conformance program is the one that runs inside the QEMU kernel as well; its cases say by
//! name what they show. Every program is linked with what pkg-config answers.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::path::Path;

use smpcall_torture::report::Line;

#[path = "support/cc.rs"]
mod cc;
#[path = "support/run.rs"]
mod run;

use cc::{C99, CXX17};
use run::{End, run};

/// The conformance program's sources.
const CONFORMANCE: &[&str] = &[
    "tests/c/harness.c",
    "tests/c/masks.c",
    "tests/c/calls.c",
    "tests/c/contexts.c",
    "tests/c/callers.c",
    "tests/c/hosted_main.c",
];

/// How many cases there are where there are enough CPUs.
const CASES: u64 = 40;

/// Runs the conformance program and judges its report.
fn conformance(program: &Path, cpus: &str, variables: &[(&str, &str)]) -> u64 {
    let end = run(program, &[cpus], variables);
    assert!(end.status.success(), "{end:#?}");
    let mut passed = 0;
    let mut closed = false;
    for line in end.stdout.lines().filter_map(Line::parse) {
        match line {
            Line::CaseOk(_) => passed += 1,
            Line::CaseFailed(name, why) => panic!("{name}: {why}\n{}", end.stderr),
            Line::End(ok) => closed = ok,
            _ => {}
        }
    }
    assert!(closed, "the report has no good end: {end:#?}");
    passed
}

#[test]
fn the_conformance_program_passes_in_c99() {
    let program = cc::c_program("conformance-c99", &[C99, &["-O2"]], CONFORMANCE);
    assert_eq!(conformance(&program, "4", &[]), CASES);
    assert_eq!(conformance(&program, "2", &[]), CASES);
    // With one CPU, only the cases that need no second one.
    let alone = conformance(&program, "1", &[]);
    assert!((20..CASES).contains(&alone), "{alone}");
    // More than the computer has.
    assert_eq!(conformance(&program, "65", &[]), CASES);
}

#[test]
fn the_conformance_program_passes_as_cxx17() {
    let program = cc::cxx_program(
        "conformance-cxx17",
        &[CXX17, &["-O2", "-x", "c++"]],
        CONFORMANCE,
    );
    assert_eq!(conformance(&program, "4", &[]), CASES);
}

#[test]
fn the_conformance_program_passes_under_the_address_and_undefined_behaviour_sanitizers() {
    let flags = &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = cc::c_program("conformance-asan", &[C99, flags], CONFORMANCE);
    // An instance to which descriptors were posted stays in memory on purpose.
    let quiet = [("ASAN_OPTIONS", "detect_leaks=0:abort_on_error=0")];
    assert_eq!(conformance(&program, "4", &quiet), CASES);
}

/// The program says `ok` at its end, and nothing else on standard output.
fn says_ok(end: &End) {
    assert!(
        end.status.success() && end.stdout.ends_with("ok\n"),
        "{end:#?}"
    );
}

#[test]
fn a_machine_lives_and_dies_and_refuses_misuse() {
    let program = cc::c_program("lifecycle", &[C99, &["-O2"]], &["tests/c/lifecycle.c"]);
    let end = run(&program, &[], &[]);
    says_ok(&end);
    // What returns nothing says what was wrong, and with what.
    for function in [
        "__smp_call_function_single",
        "smp_call_function_many",
        "on_each_cpu_mask",
        "on_each_cpu_cond",
        "kick_all_cpus_sync",
        "call_function_init",
        "setup_nr_cpu_ids",
        "smp_init",
    ] {
        let line = format!("smpcall: {function}: no machine is booted, so no CPU is online");
        assert!(
            end.stderr.lines().any(|said| said == line),
            "{line}: {end:#?}"
        );
    }
    let foreign = "smp_processor_id: this thread is no CPU";
    assert_eq!(
        end.stderr.matches(foreign).count(),
        1,
        "said once: {end:#?}"
    );
    let parameter = "smpcall: bad parameter nr_cpus=0: there must be at least one CPU";
    assert!(end.stderr.lines().any(|said| said == parameter), "{end:#?}");
}

#[test]
fn an_exception_that_leaves_a_called_function_ends_the_process_by_name() {
    let program = cc::cxx_program("throws", &[CXX17], &["tests/c/throws.cpp"]);
    for arguments in [&[] as &[&str], &["posted"]] {
        let end = run(&program, arguments, &[]);
        assert!(
            !end.status.success() && end.stdout == "calling\n",
            "{end:#?}"
        );
        assert!(end.stderr.contains("foreign exception"), "{end:#?}");
    }
}

#[test]
fn the_examples_run() {
    let c = cc::c_program("counters", &[C99, &["-O2"]], &["examples/counters.c"]);
    let end = run(&c, &[], &[]);
    assert!(
        end.status.success() && end.stdout == "6000 events\n",
        "{end:#?}"
    );
    let cxx = cc::cxx_program("lambda", &[CXX17, &["-O2"]], &["examples/lambda.cpp"]);
    let end = run(&cxx, &[], &[]);
    assert!(end.status.success(), "{end:#?}");
    assert_eq!(end.stdout, "100 keys, key42 is 42\n");
}

#[test]
fn the_program_of_the_guide_runs() {
    let guide = cc::home().join("../../docs/c.md");
    let guide = std::fs::read_to_string(guide).expect("the guide");
    let (_, from) = guide
        .split_once("```c\n")
        .expect("it begins with a program");
    let (text, _) = from.split_once("```").expect("which ends");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hello.c");
    std::fs::write(&path, text).expect("a scratch file");
    let source = path.to_str().expect("a path in UTF-8");
    let program = cc::c_program("hello", &[C99], &[source]);
    let end = run(&program, &[], &[]);
    assert!(end.status.success(), "{end:#?}");
    assert_eq!(end.stdout, "ran on CPU 2\n");
}
