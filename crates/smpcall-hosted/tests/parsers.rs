//! Each parser against one that is too simple to be wrong, on random input that is often nearly right.
//!
//! MADT and device tree have theirs in `smpcall-metal/tests`; `cargo xtask fuzz` runs all of them for longer.

use proptest::prelude::{
    Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use smpcall::{BootParams, CpuId, CpuMask};
use smpcall_torture::report::Line;
use smpcall_torture::torture::{Op, Torture};

#[path = "support/plain.rs"]
mod plain;

use plain::{CAPACITY, booted, decimal, listed};

type Mask = CpuMask<2>;

/// A number as an operator may write it.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0..140_u64).prop_map(|n| n.to_string()),
        1 => (0..140_u64).prop_map(|n| format!("{n:04}")),
        1 => any::<u128>().prop_map(|n| n.to_string()),
        1 => prop_oneof![Just(""), Just("+1"), Just("-1"), Just("0x1"), Just(" 1"), Just("١")]
            .prop_map(str::to_owned),
    ]
}

fn list() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => number(),
        3 => (number(), number()).prop_map(|(low, high)| format!("{low}-{high}")),
        1 => "[0-9,-]{0,6}",
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.join(","))
}

fn cmdline() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("maxcpus"),
        Just("nr_cpus"),
        Just("nosmp"),
        Just("maxcpus2"),
        Just("quiet"),
    ];
    let token = (name, prop::option::of(number())).prop_map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.to_owned(),
    });
    prop::collection::vec(token, 0..5).prop_map(|tokens| tokens.join(" "))
}

proptest! {
    #[test]
    fn cpu_lists_are_what_they_say(text in list()) {
        let parsed = Mask::parse_list(&text).ok();
        let cpus = parsed.map(|mask| mask.iter().map(|cpu| u64::from(cpu.get())).collect());
        prop_assert_eq!(cpus, listed(&text));
    }

    #[test]
    fn a_mask_reads_back_as_it_is_written(cpus in prop::collection::btree_set(0..CAPACITY as u32, 0..40)) {
        let mask: Mask = cpus.iter().copied().map(CpuId::new).collect();
        let text = mask.to_string();
        prop_assert_eq!(Mask::parse_list(&text), Ok(mask));
    }

    #[test]
    fn any_text_as_a_cpu_list_is_taken_or_refused(text in any::<String>()) {
        let taken = Mask::parse_list(&text).is_ok();
        prop_assert_eq!(taken, listed(&text).is_some());
    }

    #[test]
    fn boot_parameters_are_what_they_say(line in cmdline()) {
        let parsed = BootParams::parse(&line, CAPACITY as u32).ok();
        let said = parsed.map(|params| (params.max_cpus, params.nr_cpus, params.notice().is_some()));
        prop_assert_eq!(said, booted(&line));
    }

    #[test]
    fn a_bad_boot_parameter_is_one_line_that_names_it(line in any::<String>()) {
        if let Err(bad) = BootParams::parse(&line, CAPACITY as u32) {
            let said = bad.to_string();
            prop_assert!(said.contains(&format!("{}={}", bad.name, bad.value)), "{}", said);
            prop_assert!(!said.contains('\n'), "{}", said);
        }
    }

    #[test]
    fn a_line_of_the_report_reads_back_as_it_was_said(
        name in "[a-z_0-9]{1,20}", reason in "[ -~]{0,30}", n in any::<u64>(), m in any::<u64>(),
    ) {
        let reason = reason.trim();
        let lines = [
            Line::BroughtUp(n),
            Line::CaseStarts(&name),
            Line::CaseOk(&name),
            Line::CaseFailed(&name, reason),
            Line::Tally { passed: n, failed: m },
        ];
        for line in lines {
            let said = line.to_string();
            prop_assert_eq!(Line::parse(&said), Some(line));
        }
    }

    /// Silence and garbage are failures, so nothing but the closing line may be taken for it.
    #[test]
    fn only_the_closing_line_ends_a_report_well(line in "(smpcall: )?(end|ok|case| |x){0,4}") {
        let ends = Line::parse(&line) == Some(Line::End(true));
        prop_assert_eq!(ends, line.trim_end() == "smpcall: end ok");
    }

    #[test]
    fn any_line_is_read_without_a_panic(line in any::<String>()) {
        let _ = Line::parse(&line);
        let _ = Line::parse(&format!("smpcall: {line}"));
    }

    #[test]
    fn knobs_are_what_they_say_and_a_bad_one_is_named(
        name in prop_oneof![Just("seed"), Just("stutter_ms"), Just("weight_kick"), Just("other")],
        value in number(),
    ) {
        let words = format!("quiet {name}={value} --");
        let number = decimal(&value).filter(|&n| n <= 4_000_000_000).map(|n| n as u64);
        match Torture::default().with(&words) {
            Ok(torture) => {
                let kick = torture.weights[Op::Kick as usize].map(u64::from);
                let (seen, expected) = match name {
                    "seed" => (Some(torture.seed), number),
                    "stutter_ms" => (Some(torture.stutter_ms), number),
                    "weight_kick" => (kick, number),
                    _ => (kick, None),
                };
                prop_assert_eq!(seen, expected);
            }
            Err(bad) => {
                prop_assert!(number.is_none() && bad.name == name, "{}", bad);
                prop_assert!(bad.to_string().contains(name));
            }
        }
    }
}
