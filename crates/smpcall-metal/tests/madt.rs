//! The ACPI reader on the host: well-formed tables answer, damaged ones never panic.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

#[path = "../src/madt.rs"]
mod madt;

use madt::{HEADER_LEN, Root};
use proptest::prelude::{any, prop, prop_assert, proptest};

/// A table with this body, its length and checksum right.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = vec![0; HEADER_LEN];
    table[..4].copy_from_slice(signature);
    table.extend_from_slice(body);
    let length = table.len() as u32;
    table[4..8].copy_from_slice(&length.to_le_bytes());
    table[9] = checksum(&table);
    table
}

/// What makes the bytes sum to zero, if added to one of them that is zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, &byte| sum.wrapping_sub(byte))
}

fn local_apic(id: u8, flags: u32) -> Vec<u8> {
    let mut entry = vec![0, 8, id, id];
    entry.extend(flags.to_le_bytes());
    entry
}

fn local_x2apic(id: u32, flags: u32) -> Vec<u8> {
    let mut entry = vec![9, 16, 0, 0];
    entry.extend(id.to_le_bytes());
    entry.extend(flags.to_le_bytes());
    entry.extend([0; 4]);
    entry
}

/// A MADT with these entries.
fn madt_of(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend(entries.concat());
    table(b"APIC", &body)
}

fn ids(madt: &[u8]) -> Vec<u32> {
    madt::processors(madt).collect()
}

/// An RSDP of this revision; its first checksum is right.
fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0smpcal".to_vec();
    rsdp.push(revision);
    rsdp.extend(rsdt.to_le_bytes());
    rsdp[8] = checksum(&rsdp);
    rsdp.extend(36_u32.to_le_bytes());
    rsdp.extend(xsdt.to_le_bytes());
    rsdp.extend([0; 4]);
    rsdp
}

#[test]
fn processors_of_both_kinds_are_found_in_order() {
    let io_apic = vec![1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];
    let entries = [
        local_apic(0, 1),
        local_apic(2, 1),
        io_apic,
        local_x2apic(256, 1),
        local_apic(1, 1),
    ];
    let madt = madt_of(&entries);
    assert!(madt::is_table(&madt, b"APIC"));
    assert_eq!(ids(&madt), [0, 2, 256, 1]);
}

#[test]
fn processors_that_are_disabled_or_place_holders_are_left_out() {
    let entries = [
        local_apic(0, 1),
        local_apic(1, 0),
        local_apic(2, 2),
        local_apic(0xff, 1),
        local_x2apic(u32::MAX, 1),
        local_x2apic(300, 0),
        local_x2apic(0xff, 1),
    ];
    assert_eq!(ids(&madt_of(&entries)), [0, 255]);
}

#[test]
fn an_entry_that_cannot_be_right_ends_the_list() {
    let too_short = vec![0, 1];
    assert_eq!(
        ids(&madt_of(&[local_apic(3, 1), too_short, local_apic(4, 1)])),
        [3]
    );
    let no_length = vec![0, 0];
    assert_eq!(
        ids(&madt_of(&[local_apic(3, 1), no_length, local_apic(4, 1)])),
        [3]
    );
    let over_the_end = vec![0, 200, 0, 0];
    assert_eq!(ids(&madt_of(&[local_apic(3, 1), over_the_end])), [3]);
}

#[test]
fn an_entry_too_short_for_its_type_is_skipped() {
    let short = vec![0, 4, 7, 7];
    assert_eq!(ids(&madt_of(&[short, local_apic(4, 1)])), [4]);
}

#[test]
fn the_root_is_the_xsdt_where_there_is_one() {
    assert_eq!(
        madt::root(&rsdp(2, 0x1000, 0x2000)),
        Some(Root::Xsdt(0x2000))
    );
    assert_eq!(madt::root(&rsdp(2, 0x1000, 0)), Some(Root::Rsdt(0x1000)));
    assert_eq!(
        madt::root(&rsdp(0, 0x1000, 0x2000)),
        Some(Root::Rsdt(0x1000))
    );
    assert_eq!(
        madt::root(&rsdp(0, 0x1000, 0)[..20]),
        Some(Root::Rsdt(0x1000))
    );
    assert_eq!(madt::root(&rsdp(0, 0x1000, 0)[..19]), None);
    assert_eq!(rsdp(0, 0x1000, 0).len(), madt::RSDP_LEN);
    let mut damaged = rsdp(0, 0x1000, 0);
    damaged[17] ^= 1;
    assert_eq!(madt::root(&damaged), None);
}

#[test]
fn a_root_table_lists_addresses_of_either_width() {
    let mut body = 0x1234_5678_u32.to_le_bytes().to_vec();
    body.extend([1, 0, 0, 0, 9]);
    let rsdt = table(b"RSDT", &body);
    assert_eq!(madt::length(&rsdt), Some(rsdt.len()));
    assert_eq!(
        madt::addresses(&rsdt, 4).collect::<Vec<_>>(),
        [0x1234_5678, 1]
    );
    assert_eq!(
        madt::addresses(&rsdt, 8).collect::<Vec<_>>(),
        [0x1_1234_5678]
    );
}

#[test]
fn a_damaged_table_is_refused() {
    let mut madt = madt_of(&[local_apic(0, 1)]);
    assert!(!madt::is_table(&madt, b"FACP"));
    assert!(!madt::is_table(&madt[..20], b"APIC"));
    madt[40] ^= 1;
    assert!(!madt::is_table(&madt, b"APIC"));
    madt[4..8].copy_from_slice(&35_u32.to_le_bytes());
    assert_eq!(madt::length(&madt), None);
    madt[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(madt::length(&madt), None);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = madt::root(&bytes);
        let _ = madt::length(&bytes);
        let _ = madt::is_table(&bytes, b"APIC");
        prop_assert!(madt::addresses(&bytes, 4).count() <= bytes.len() / 4);
        prop_assert!(madt::addresses(&bytes, 8).count() <= bytes.len() / 8);
        prop_assert!(madt::processors(&bytes).count() <= bytes.len() / 2);
    }

    #[test]
    fn a_damaged_madt_is_survived(
        cut in 0_usize..200, at in 0_usize..200, value in any::<u8>(), count in 0_u8..12,
    ) {
        let entries: Vec<_> = (0..count).map(|id| local_apic(id, 1)).collect();
        let mut madt = madt_of(&entries);
        madt.truncate(cut);
        if let Some(byte) = madt.get_mut(at) {
            *byte = value;
        }
        prop_assert!(madt::processors(&madt).count() <= usize::from(count) * 4);
    }
}
