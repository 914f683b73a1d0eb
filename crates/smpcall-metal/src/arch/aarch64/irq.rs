//! This CPU's interrupt mask, and the two ways to wait: `relax` in a loop, sleep until an interrupt.
//!
//! The mask is PSTATE.I. Each asm block is a compiler barrier as well (no `nomem`), so that accesses
//! to what the mask protects stay inside of it.

use core::arch::asm;

use aarch64_cpu::registers::{DAIF, Readable as _};

/// Whether interrupts were on; they are off now.
#[inline(always)]
pub(crate) fn save() -> bool {
    let on = enabled();
    // SAFETY: masks interrupts, and touches neither memory nor flags.
    unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
    on
}

/// Undoes a `save`.
#[inline(always)]
pub(crate) fn restore(on: bool) {
    if on {
        enable();
    }
}

/// Whether interrupts are on.
#[inline(always)]
pub(crate) fn enabled() -> bool {
    !DAIF.is_set(DAIF::I)
}

/// Interrupts on.
#[inline(always)]
pub(crate) fn enable() {
    // SAFETY: the vectors are installed before Rust code of the image runs, and their handlers
    // preserve everything that this code uses.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// A pause in a loop that waits for another CPU. Under single-threaded TCG it lets that CPU run.
#[inline(always)]
pub(crate) fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// Sleeps until an interrupt is pending, takes it, and returns with interrupts off.
///
/// Called with interrupts off, so that one that came after the caller's last look is still pending:
/// WFI does not wait then. The dsb is for real hardware, where WFI may stop the clock of a core whose
/// stores are still on their way; the isb is where the pending interrupt is taken at the latest.
#[inline(always)]
pub(crate) fn wait_for_interrupt() {
    // SAFETY: as in `enable`; interrupts are off again at the end.
    unsafe {
        asm!(
            "dsb sy",
            "wfi",
            "msr daifclr, #2",
            "isb",
            "msr daifset, #2",
            options(nostack, preserves_flags)
        );
    }
}
