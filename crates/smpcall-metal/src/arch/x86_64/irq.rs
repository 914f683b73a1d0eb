//! This CPU's interrupt flag, and how it waits.
//!
//! Each `asm!` here but [`relax`] is a compiler barrier: memory accesses stay on their side.

use core::arch::asm;

/// The interrupt flag in RFLAGS.
const INTERRUPT_FLAG: u64 = 1 << 9;

unsafe extern "C" {
    /// In `trap.S`, where the IPI's entry knows this function's address.
    #[link_name = "wait_for_interrupt"]
    safe fn sti_hlt_cli();
}

/// Turns interrupts off; whether they were on.
#[inline]
pub(crate) fn save() -> bool {
    let flags: u64;
    // SAFETY: 1. Reading RFLAGS and clearing IF touch no memory but the stack.
    unsafe { asm!("pushfq", "cli", "pop {}", out(reg) flags) };
    flags & INTERRUPT_FLAG != 0
}

/// Undoes a [`save`].
#[inline]
#[expect(
    clippy::fn_params_excessive_bools,
    reason = "the answer of `save`, given back"
)]
pub(crate) fn restore(were_on: bool) {
    if were_on {
        enable();
    }
}

/// Whether interrupts are on.
#[inline]
pub(crate) fn enabled() -> bool {
    let flags: u64;
    // SAFETY: 1. Reading RFLAGS touches no memory but the stack.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    flags & INTERRUPT_FLAG != 0
}

/// Turns interrupts on.
#[inline]
pub(crate) fn enable() {
    // SAFETY: 1. The IDT is loaded before any Rust code but boot's runs (`trap::install`).
    unsafe { asm!("sti", options(nostack, preserves_flags)) };
}

/// One turn of a busy wait.
#[inline]
pub(crate) fn relax() {
    // SAFETY: 1. PAUSE is a hint.
    unsafe { asm!("pause", options(nomem, nostack, preserves_flags)) };
}

/// Sleeps until an interrupt is pending, takes it, and returns with interrupts off again.
///
/// The caller has them off, so that nothing comes between its last look for work and the sleep.
#[inline]
pub(crate) fn wait_for_interrupt() {
    sti_hlt_cli();
}
