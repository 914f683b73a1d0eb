//! Ends the virtual machine, through QEMU's isa-debug-exit device, or resets it.

use core::arch::asm;

use qemu_exit::{QEMUExit, X86};
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

/// Where `-device isa-debug-exit,iobase=0xf4,iosize=0x04` listens.
const DEBUG_EXIT_PORT: u16 = 0xf4;

/// Ends the machine; QEMU's exit status is `(code << 1) | 1`. Without the device this CPU sleeps.
pub(crate) fn exit(code: u8) -> ! {
    // SAFETY: 1. Nothing but the debug-exit device uses the port on a PC.
    let device = unsafe { X86::new(DEBUG_EXIT_PORT, 1) };
    device.exit(u32::from(code))
}

/// Resets the machine by a triple fault: an exception, and no table that says who handles it.
pub(crate) fn reset() -> ! {
    let none = DescriptorTablePointer {
        limit: 0,
        base: VirtAddr::zero(),
    };
    // SAFETY: 1. No gate is valid, and none is needed: the next instruction is the last.
    unsafe { lidt(&none) };
    // SAFETY: 1. It raises an exception, which has no handler, and neither has that.
    unsafe { asm!("ud2", options(noreturn, nomem, nostack)) }
}
