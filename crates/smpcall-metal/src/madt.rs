//! ACPI, as far as it takes to find the processors: RSDP, root table, MADT.
//!
//! Pure functions over bytes, so that the host can test and fuzz them; who reads the bytes from
//! physical memory is the port's business. Firmware is not trusted: whatever the bytes are, these
//! functions neither panic nor read outside their slice, and they yield at most one id per entry.

/// The header that every table begins with.
pub(crate) const HEADER_LEN: usize = 36;
/// The length of an RSDP with its 64-bit part.
pub(crate) const RSDP_LEN: usize = 36;

/// Where an RSDP says the root table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// A root table of 32-bit addresses.
    Rsdt(u64),
    /// A root table of 64-bit addresses.
    Xsdt(u64),
}

/// Reads an RSDP; prefers the XSDT if there is one.
pub(crate) fn root(rsdp: &[u8]) -> Option<Root> {
    if rsdp.get(..8)? != b"RSD PTR " || !sums_to_zero(rsdp.get(..20)?) {
        return None;
    }
    let revision = *rsdp.get(15)?;
    let xsdt = u64_at(rsdp, 24).filter(|&address| revision >= 2 && address != 0);
    match xsdt {
        Some(address) => Some(Root::Xsdt(address)),
        None => Some(Root::Rsdt(u64::from(u32_at(rsdp, 16)?))),
    }
}

/// The length that a table's header claims, if it can be true.
pub(crate) fn length(header: &[u8]) -> Option<usize> {
    let length = u32_at(header, 4)? as usize;
    (HEADER_LEN..1 << 20).contains(&length).then_some(length)
}

/// Whether a whole table has this signature and a good checksum.
pub(crate) fn is_table(table: &[u8], signature: &[u8; 4]) -> bool {
    table.len() >= HEADER_LEN && table[..4] == *signature && sums_to_zero(table)
}

/// The addresses in a root table, whose entries are `width` bytes: 4 for the RSDT, 8 for the XSDT.
pub(crate) fn addresses(root: &[u8], width: usize) -> impl Iterator<Item = u64> {
    let entries = root.get(HEADER_LEN..).unwrap_or(&[]);
    entries.chunks_exact(width).map(move |bytes| {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    })
}

/// The APIC ids of a MADT's usable processors, in its order, repeated if it repeats them.
///
/// Entries of type 0 (local APIC) and type 9 (local x2APIC) count if their enabled flag is set;
/// an id of all ones is a place holder. Parsing ends at the first entry that cannot be right.
pub(crate) fn processors(madt: &[u8]) -> impl Iterator<Item = u32> {
    let mut rest = madt.get(HEADER_LEN + 8..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let length = usize::from(*rest.get(1)?);
        if length < 2 {
            return None;
        }
        let entry = rest.get(..length)?;
        rest = &rest[length..];
        Some(processor(entry))
    })
    .flatten()
}

/// The APIC id of one entry, if it is a usable processor's.
fn processor(entry: &[u8]) -> Option<u32> {
    let (id, none, flags) = match entry[0] {
        0 => (u32::from(*entry.get(3)?), 0xff, u32_at(entry, 4)?),
        9 => (u32_at(entry, 4)?, u32::MAX, u32_at(entry, 8)?),
        _ => return None,
    };
    (flags & 1 == 1 && id != none).then_some(id)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .fold(0, |sum: u8, &byte| sum.wrapping_add(byte))
        == 0
}
