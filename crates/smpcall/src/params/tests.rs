//! The command line: what is read, what is refused, and in which words.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use super::{BadParam, BootParams, Reason};

const CAPACITY: u32 = 256;

fn parse(cmdline: &str) -> Result<BootParams, BadParam<'_>> {
    BootParams::parse(cmdline, CAPACITY)
}

fn refused(cmdline: &str) -> Reason {
    parse(cmdline).unwrap_err().reason
}

#[test]
fn an_empty_or_foreign_command_line_limits_nothing() {
    for cmdline in [
        "",
        " \t\n",
        "quiet console=ttyS0 cpus=3 xmaxcpus=1 maxcpusx=1 nosmpx",
    ] {
        assert_eq!(
            parse(cmdline),
            Ok(BootParams::unlimited(CAPACITY)),
            "{cmdline:?}"
        );
    }
}

#[test]
fn the_last_one_wins() {
    assert_eq!(parse("maxcpus=3 maxcpus=2").unwrap().max_cpus, 2);
    assert_eq!(parse("nosmp maxcpus=2").unwrap().max_cpus, 2);
    assert_eq!(parse("maxcpus=2 nosmp").unwrap().max_cpus, 0);
    assert_eq!(parse("nr_cpus=8 nr_cpus=4").unwrap().nr_cpus, 4);
}

#[test]
fn a_bad_value_is_refused_even_if_a_good_one_follows() {
    assert_eq!(refused("maxcpus=x maxcpus=2"), Reason::NotDecimal);
}

#[test]
fn nosmp_is_maxcpus_zero_and_stands_alone() {
    assert_eq!(parse("nosmp"), parse("maxcpus=0"));
    assert_eq!(refused("nosmp="), Reason::TakesNoValue);
    assert_eq!(refused("nosmp=1"), Reason::TakesNoValue);
}

#[test]
fn a_number_is_the_whole_token_and_decimal() {
    assert_eq!(parse("maxcpus=007").unwrap().max_cpus, 7);
    for value in [
        "2junk", "junk", "-1", "+1", "0x2", "1.0", "2=3", "\u{661}", "1_0", "=2",
    ] {
        let cmdline = format!("maxcpus={value}");
        assert_eq!(refused(&cmdline), Reason::NotDecimal, "{cmdline}");
        let cmdline = format!("nr_cpus={value}");
        assert_eq!(refused(&cmdline), Reason::NotDecimal, "{cmdline}");
    }
}

#[test]
fn a_missing_number_is_named() {
    for cmdline in ["maxcpus", "maxcpus=", "nr_cpus", "nr_cpus=", "maxcpus= 2"] {
        assert_eq!(refused(cmdline), Reason::Missing, "{cmdline}");
    }
}

#[test]
fn a_number_beyond_32_bits_is_too_large() {
    assert_eq!(parse("maxcpus=4294967295").unwrap().max_cpus, u32::MAX);
    for number in ["4294967296", "99999999999", "99999999999999999999999999"] {
        assert_eq!(
            refused(&format!("maxcpus={number}")),
            Reason::TooLarge,
            "{number}"
        );
        assert_eq!(
            refused(&format!("nr_cpus={number}")),
            Reason::TooLarge,
            "{number}"
        );
    }
}

#[test]
fn nr_cpus_is_at_least_one_and_clamped_with_a_notice() {
    assert_eq!(refused("nr_cpus=0"), Reason::Zero);
    let exact = parse("nr_cpus=256").unwrap();
    assert_eq!((exact.nr_cpus, exact.clamped_from), (256, None));
    assert!(exact.notice().is_none());
    let cut = parse("nr_cpus=257").unwrap();
    assert_eq!((cut.nr_cpus, cut.clamped_from), (256, Some(257)));
    assert_eq!(
        cut.notice().unwrap().to_string(),
        "smpcall: nr_cpus=257 is more than this build supports, using 256"
    );
    // A later value that fits takes the notice back.
    assert!(parse("nr_cpus=257 nr_cpus=2").unwrap().notice().is_none());
}

#[test]
fn the_message_is_one_line_that_names_parameter_and_reason() {
    let lines = [
        (
            "nr_cpus=",
            "smpcall: bad parameter nr_cpus=: a number is missing",
        ),
        (
            "nr_cpus=0",
            "smpcall: bad parameter nr_cpus=0: there must be at least one CPU",
        ),
        (
            "nr_cpus=-1",
            "smpcall: bad parameter nr_cpus=-1: not a decimal number",
        ),
        (
            "maxcpus=abc",
            "smpcall: bad parameter maxcpus=abc: not a decimal number",
        ),
        (
            "maxcpus=99999999999",
            "smpcall: bad parameter maxcpus=99999999999: the number is too large",
        ),
        (
            "nosmp=yes",
            "smpcall: bad parameter nosmp=yes: takes no value",
        ),
    ];
    for (cmdline, line) in lines {
        assert_eq!(parse(cmdline).unwrap_err().to_string(), line);
    }
}
