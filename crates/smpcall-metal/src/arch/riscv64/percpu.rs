//! The logical id of this CPU, in `tp`.
//!
//! `boot.S` installs it (`mv tp, a1`), the trap entry leaves it alone, and compiled Rust never
//! touches `tp`: the psABI reserves it for thread-local storage, which a bare-metal image has none of.

use core::arch::asm;

/// The CPU that runs this: one instruction, none at all where the compiler can use `tp` in place.
#[inline]
pub(crate) fn current() -> u32 {
    let id: usize;
    // SAFETY: Copies a register. Not `pure`: an image with threads may move between two calls.
    unsafe { asm!("mv {}, tp", out(reg) id, options(nomem, nostack, preserves_flags)) };
    id as u32
}
