//! The serial port: a PL011 that the firmware or QEMU has set up.
//!
//! Two registers of it suffice, so this is shorter than the use of a driver. Writers take turns, so
//! that a piece stays in one piece; but not for ever: a CPU that died with the turn must not silence
//! the others. The port's own reports, of faults, do not ask for it.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use super::{Word, boot, irq};
use crate::fdt::Tree;

/// Data register; flag register, and its bit that says that the transmit queue is full.
const DR: u64 = 0x00;
const FR: u64 = 0x18;
const FR_TXFF: u32 = 1 << 5;

/// Where it is: until the device tree was read, where QEMU's virt has it, so that a boot without a
/// device tree can say so.
static BASE: Word = Word::new(0x0900_0000);

/// Whether somebody writes.
static BUSY: AtomicBool = AtomicBool::new(false);
/// How many looks at `BUSY` a writer grants the one before it.
const PATIENCE: u32 = 1 << 20;

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
    let were_on = irq::save();
    let have_turn = take_turn();
    send(bytes);
    if have_turn {
        // ORDERING: Release - the bytes are sent before the next writer's; pairs with `take_turn`.
        BUSY.store(false, Ordering::Release);
    }
    irq::restore(were_on);
}

/// Whether the turn came in time.
fn take_turn() -> bool {
    (0..PATIENCE).any(|_| {
        // ORDERING: Acquire - after the last writer's bytes; pairs with the Release in `write`.
        let busy = BUSY.swap(true, Ordering::Acquire);
        if busy {
            irq::relax();
        }
        !busy
    })
}

fn send(bytes: &[u8]) {
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

/// Formatted reports of this port's own, without a turn.
#[derive(Debug)]
pub(super) struct Writer;

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        send(text.as_bytes());
        Ok(())
    }
}
