//! The logical id of the CPU that asks: one load relative to GS.
//!
//! The GS base points at this CPU's entry of a constant table. `boot.S` sets it before the first
//! Rust instruction of each CPU, so `current` needs no ordering against an installation.

use core::arch::asm;

use crate::MAX_CPUS;

/// Entry `i` holds `i`. `boot.S` points the GS base of CPU `i` at it.
pub(super) static CPU_IDS: [u32; MAX_CPUS] = ids();

const fn ids() -> [u32; MAX_CPUS] {
    let mut ids = [0; MAX_CPUS];
    let mut cpu = 0;
    while cpu < MAX_CPUS {
        ids[cpu] = cpu as u32;
        cpu += 1;
    }
    ids
}

/// The logical id of this CPU.
///
/// Code does not move between CPUs here, so the compiler may reuse an answer (`pure`, `nomem`).
#[inline]
pub(crate) fn current() -> u32 {
    let cpu: u32;
    // SAFETY: 1. GS points at an entry of `CPU_IDS` on every CPU that runs Rust code.
    unsafe {
        asm!("mov {:e}, gs:[0]", out(reg) cpu, options(pure, nomem, nostack, preserves_flags));
    }
    cpu
}
