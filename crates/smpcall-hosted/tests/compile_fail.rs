//! What the compiler refuses: the bounds that keep safe code sound, one small program for each.
//!
//! Each program in `ui/` is built twice. As it stands it must build and run, so that nothing but the
//! marked lines can be at fault; with the feature `refused`, which swaps those lines in, it must not,
//! and the compiler must say every line of the `.stderr` file beside it, in that order. These files hold
//! the error's code and its first line only, so that they outlive a compiler's wording and
//! our own signatures.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "support/scratch.rs"]
mod scratch;

use scratch::Scratch;

fn ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui")
}

/// Builds the program both ways and compares.
fn check(case: &str) {
    let source = fs::read_to_string(ui().join(format!("{case}.rs"))).expect("the program");
    let expected = fs::read_to_string(ui().join(format!("{case}.stderr"))).expect("its errors");
    let scratch = Scratch::new("compile-fail", "");

    let right = scratch.build(case, &source, &[]);
    let said = String::from_utf8_lossy(&right.stderr);
    assert!(right.status.success(), "the program itself builds:\n{said}");
    let ran = scratch.run(case);
    assert!(ran.status.success(), "the program itself runs: {ran:?}");

    let wrong = scratch.build(case, &source, &["refused"]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success(), "{case} was accepted");
    let mut rest = &*said;
    for line in expected.lines() {
        let Some(at) = rest.find(line) else {
            panic!("the compiler did not say `{line}` but:\n{said}");
        };
        rest = &rest[at + line.len()..];
    }
}

/// One test for each program, and the list of them.
macro_rules! refused {
    ($($test:ident: $case:literal,)*) => {
        $(#[test] fn $test() { check($case); })*
        const CASES: &[&str] = &[$($case),*];
    };
}

refused! {
    a_call_that_captures_an_rc_is_refused: "call_captures_rc",
    a_result_that_is_not_send_is_refused: "call_returns_rc",
    a_result_that_outlives_what_it_borrows_is_refused: "call_returns_borrow",
    a_broadcast_that_shares_a_cell_is_refused: "broadcast_shares_cell",
    a_posted_closure_that_borrows_the_stack_is_refused: "post_borrows_stack",
    a_posted_closure_of_four_words_is_refused: "post_four_words",
    a_posted_broadcast_of_four_words_is_refused: "post_each_four_words",
    an_unpinned_descriptor_is_refused: "csd_unpinned",
    a_descriptor_that_is_not_static_is_refused: "csd_not_static",
    a_descriptor_that_could_move_is_not_pinned_by_a_mere_wrapper: "csd_pin_new",
    a_posted_descriptor_whose_closure_borrows_is_refused: "csd_borrows_stack",
    a_called_descriptor_that_shares_a_cell_is_refused: "csd_shares_cell",
    an_interrupts_off_guard_stays_on_its_thread: "guard_sent",
    an_attached_thread_keeps_its_guard: "attached_sent",
    waiting_with_interrupts_off_needs_the_guard: "irqs_off_call_without_guard",
    waiting_with_interrupts_off_needs_the_guard_alone: "irqs_off_call_shared_guard",
    a_job_that_borrows_the_stack_is_refused: "job_borrows_stack",
    a_reference_to_per_cpu_data_stays_inside_its_use: "per_cpu_reference_escapes",
    per_cpu_data_that_cannot_be_shared_is_not_lent_to_others: "per_cpu_get_cell",
    per_cpu_data_that_is_not_send_is_refused: "per_cpu_of_rc",
}

#[test]
fn every_program_is_listed() {
    let files = fs::read_dir(ui()).expect("the programs").flatten();
    let mut found: Vec<String> = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    let mut listed = CASES.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed);
}
