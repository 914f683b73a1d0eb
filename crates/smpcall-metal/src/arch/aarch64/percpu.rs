//! The logical id of the CPU that asks, in TPIDR_EL1: nothing else uses the register.

use core::arch::asm;

use aarch64_cpu::registers::{TPIDR_EL1, Writeable as _};

/// Makes the calling CPU logical CPU `cpu`.
pub(super) fn install(cpu: u32) {
    TPIDR_EL1.set(u64::from(cpu));
}

/// The logical id of the calling CPU.
///
/// By hand instead of through `aarch64-cpu`, whose reads are volatile: this one is pure, as a stack
/// never changes its CPU, so that the compiler may merge and drop it.
#[inline(always)]
pub(crate) fn current() -> u32 {
    let cpu: u64;
    // SAFETY: reads a register.
    unsafe {
        asm!("mrs {}, tpidr_el1", out(reg) cpu, options(pure, nomem, nostack, preserves_flags));
    }
    cpu as u32
}
