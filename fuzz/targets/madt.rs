//! ACPI tables: whatever the bytes are, nothing panics and no entry yields two processors.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/smpcall-metal/src/madt.rs"]
#[allow(dead_code, reason = "how many bytes to read is its caller's business")]
mod madt;

fuzz_target!(|bytes: &[u8]| {
    let _ = (madt::root(bytes), madt::is_table(bytes, b"APIC"));
    // A checksum is seldom guessed: what it guards is read as well.
    let mut rsdp = bytes.to_vec();
    if let Some(checked) = rsdp.get_mut(..20) {
        checked[8] = 0;
        checked[8] = checked
            .iter()
            .fold(0, |sum: u8, &byte| sum.wrapping_sub(byte));
        let begins = checked.starts_with(b"RSD PTR ");
        assert_eq!(madt::root(&rsdp).is_some(), begins);
    }
    if let Some(length) = madt::length(bytes) {
        assert!(length >= madt::HEADER_LEN);
    }
    assert!(madt::addresses(bytes, 4).count() <= bytes.len() / 4);
    assert!(madt::addresses(bytes, 8).count() <= bytes.len() / 8);
    assert!(madt::processors(bytes).count() <= bytes.len() / 2);
});
