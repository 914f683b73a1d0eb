//! CPU lists: what is taken is what a simple parser takes, and reads back as it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smpcall::CpuMask;

#[path = "../../crates/smpcall-hosted/tests/support/plain.rs"]
#[allow(dead_code, reason = "another target uses the rest")]
mod plain;

fuzz_target!(|text: &str| {
    let parsed = CpuMask::<2>::parse_list(text);
    let cpus = parsed
        .as_ref()
        .ok()
        .map(|mask| mask.iter().map(|cpu| u64::from(cpu.get())).collect());
    assert_eq!(cpus, plain::listed(text));
    match parsed {
        Ok(mask) => assert_eq!(CpuMask::parse_list(&mask.to_string()), Ok(mask)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
