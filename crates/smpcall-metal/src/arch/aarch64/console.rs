//! The serial port: a PL011 that the firmware or QEMU has set up.
//!
//! Two registers of it suffice, so this is shorter than the use of a driver. CPUs that write at the
//! same time interleave their bytes; the kernel above decides who writes when.

use core::fmt;

use super::{Word, boot, irq};
use crate::fdt::Tree;

/// Data register; flag register, and its bit that says that the transmit queue is full.
const DR: u64 = 0x00;
const FR: u64 = 0x18;
const FR_TXFF: u32 = 1 << 5;

/// Where it is: until the device tree was read, where QEMU's virt has it, so that a boot without a
/// device tree can say so.
static BASE: Word = Word::new(0x0900_0000);

/// Finds the port that `/chosen` names, else the first PL011.
pub(super) fn init(tree: Tree<'_>) {
    let is_pl011 = |device: &crate::fdt::Device<'_>| device.is_compatible("arm,pl011");
    let device = tree
        .stdout()
        .filter(is_pl011)
        .or_else(|| tree.find_compatible(&["arm,pl011"]));
    if let Some(region) = device.and_then(|device| device.regions().next()) {
        boot::map(region.base, region.size, boot::Memory::Device);
        BASE.set(region.base);
    }
}

/// Sends `bytes`.
pub(crate) fn write(bytes: &[u8]) {
    let base = BASE.get();
    let flags = (base + FR) as *const u32;
    let data = (base + DR) as *mut u32;
    for &byte in bytes {
        // SAFETY: the PL011's flag register, mapped as device memory.
        while unsafe { flags.read_volatile() } & FR_TXFF != 0 {
            irq::relax();
        }
        // SAFETY: the PL011's data register; a write sends a byte and has no effect on memory.
        unsafe { data.write_volatile(u32::from(byte)) };
    }
}

/// Formatted reports of this port's own.
#[derive(Debug)]
pub(super) struct Writer;

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write(text.as_bytes());
        Ok(())
    }
}
