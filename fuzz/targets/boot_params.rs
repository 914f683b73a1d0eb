//! Boot parameters: what they mean is what a simple parser says, and a bad one is named in one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smpcall::BootParams;

#[path = "../../crates/smpcall-hosted/tests/support/plain.rs"]
#[allow(dead_code, reason = "another target uses the rest")]
mod plain;

fuzz_target!(|line: &str| {
    let parsed = BootParams::parse(line, plain::CAPACITY as u32);
    let said = parsed
        .as_ref()
        .ok()
        .map(|params| (params.max_cpus, params.nr_cpus, params.notice().is_some()));
    assert_eq!(said, plain::booted(line));
    if let Err(bad) = parsed {
        let said = bad.to_string();
        assert!(said.contains(&format!("{}={}", bad.name, bad.value)));
        assert!(!said.contains('\n'));
    }
});
