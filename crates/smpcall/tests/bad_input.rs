//! Boot parameters and CPU lists that are wrong: each a clear error, none a different machine.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
#![cfg(not(loom))]

use smpcall::{BootParams, CpuId, CpuMask};

/// What this build supports, in these tests.
const CAPACITY: u32 = 256;

/// The CPUs that bring-up starts and the bound of ids, or the operator's line.
fn parse(line: &str) -> Result<(u32, u32), String> {
    let params = BootParams::parse(line, CAPACITY).map_err(|bad| bad.to_string())?;
    Ok((params.max_cpus, params.nr_cpus))
}

#[track_caller]
fn refused(line: &str, reason: &str) {
    let token = line.split_ascii_whitespace().last().unwrap();
    let expected = format!("smpcall: bad parameter {token}: {reason}");
    assert_eq!(parse(line), Err(expected));
}

#[test]
fn a_parameter_without_a_number_is_refused() {
    refused("nr_cpus=", "a number is missing");
    refused("maxcpus=", "a number is missing");
    let bare = |name: &str| parse(name).unwrap_err();
    assert_eq!(
        bare("maxcpus"),
        "smpcall: bad parameter maxcpus=: a number is missing"
    );
    assert_eq!(
        bare("nr_cpus"),
        "smpcall: bad parameter nr_cpus=: a number is missing"
    );
}

#[test]
fn a_parameter_that_is_no_decimal_number_is_refused_as_a_whole() {
    for value in ["2junk", "abc", "-1", "+2", "0x10", "2,3", "1.5", "2=3", "١"] {
        refused(&format!("maxcpus={value}"), "not a decimal number");
        refused(&format!("nr_cpus={value}"), "not a decimal number");
    }
}

#[test]
fn a_number_that_does_not_fit_is_refused() {
    for value in [
        "99999999999",
        "4294967296",
        "340282366920938463463374607431768211456",
    ] {
        refused(&format!("maxcpus={value}"), "the number is too large");
        refused(&format!("nr_cpus={value}"), "the number is too large");
    }
    assert_eq!(parse("maxcpus=4294967295"), Ok((u32::MAX, CAPACITY)));
}

#[test]
fn a_machine_without_ids_is_refused_and_one_without_secondaries_is_not() {
    refused("nr_cpus=0", "there must be at least one CPU");
    assert_eq!(parse("maxcpus=0"), Ok((0, CAPACITY)));
    assert_eq!(parse("nosmp"), parse("maxcpus=0"));
}

#[test]
fn nosmp_stands_alone() {
    refused("nosmp=1", "takes no value");
    refused("nosmp=", "takes no value");
    assert_eq!(parse("nosmpx"), parse(""), "another word");
}

#[test]
fn the_last_of_a_name_wins_and_a_bad_one_is_never_passed_over() {
    assert_eq!(parse("maxcpus=2 nr_cpus=8 maxcpus=3 nr_cpus=4"), Ok((3, 4)));
    assert_eq!(parse("nosmp maxcpus=5"), Ok((5, CAPACITY)));
    assert_eq!(parse("maxcpus=5 nosmp"), Ok((0, CAPACITY)));
    let bad = "smpcall: bad parameter maxcpus=x: not a decimal number";
    assert_eq!(parse("maxcpus=x maxcpus=2"), Err(bad.to_owned()));
}

#[test]
fn what_is_not_ours_is_passed_over() {
    let line =
        "console=ttyS0 quiet  root=/dev/sda1 nr_cpusx=3 xmaxcpus=3 init=/bin/sh -- maxcpus=2\n";
    assert_eq!(parse(line), Ok((2, CAPACITY)));
    assert_eq!(parse(""), Ok((u32::MAX, CAPACITY)));
}

#[test]
fn ids_above_the_builds_maximum_are_cut_with_a_notice() {
    let params = BootParams::parse("nr_cpus=5000", CAPACITY).unwrap();
    assert_eq!(params.nr_cpus, CAPACITY);
    let notice = params.notice().map(|notice| notice.to_string());
    let expected = "smpcall: nr_cpus=5000 is more than this build supports, using 256";
    assert_eq!(notice.as_deref(), Some(expected));
    let fits = BootParams::parse("nr_cpus=5000 nr_cpus=256", CAPACITY).unwrap();
    assert!(fits.notice().is_none(), "the last one wins");
}

#[test]
fn a_malformed_cpu_list_names_the_part_at_fault() {
    let says = |list: &str| CpuMask::<4>::parse_list(list).unwrap_err().to_string();
    let no_number = "not a decimal number or a range of two";
    for (list, part) in [
        ("x", "x"),
        ("1,,2", ""),
        (",", ""),
        ("1,", ""),
        ("0-", "0-"),
        ("-3", "-3"),
        ("0-1-2", "0-1-2"),
        ("1 ,2", "1 "),
        ("0x1", "0x1"),
        ("+1", "+1"),
        ("0,99999999999999999999999", "99999999999999999999999"),
    ] {
        assert_eq!(
            says(list),
            format!("bad CPU list part `{part}`: {no_number}")
        );
    }
    let falls = "bad CPU list part `3-1`: the range ends below its start";
    assert_eq!(says("0,3-1"), falls);
    let beyond = "bad CPU list part `256`: the mask holds CPUs below 256";
    assert_eq!(says("255,256"), beyond);
    let huge = "bad CPU list part `0-18446744073709551615`: the mask holds CPUs below 256";
    assert_eq!(says("0-18446744073709551615"), huge);
}

#[test]
fn a_cpu_list_is_read_as_it_is_printed() {
    for list in ["", "0", "0-3,8", "1,3,5", "62-65,128,255", "0-255"] {
        let mask = CpuMask::<4>::parse_list(list).unwrap();
        assert_eq!(mask.to_string(), list);
    }
    assert_eq!(
        CpuMask::<4>::parse_list(" 3,1-2\n").unwrap().to_string(),
        "1-3"
    );
}

#[test]
fn a_mask_leaves_out_what_it_cannot_hold() {
    let mut mask = CpuMask::<1>::EMPTY;
    for id in [64, 65, u32::MAX] {
        let beyond = CpuId::new(id);
        assert!(!mask.insert(beyond) && !mask.contains(beyond) && !mask.remove(beyond));
        assert!(CpuMask::<1>::of(beyond).is_empty());
    }
    assert!(mask.insert(CpuId::new(63)) && !mask.insert(CpuId::new(63)));
    assert_eq!(CpuMask::<1>::first_n(1000).len(), 64);
}
