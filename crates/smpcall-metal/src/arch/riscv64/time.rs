//! Time: the `time` counter, which all harts share, and the SBI's one-shot timer.

use crate::fdt::Tree;
use core::sync::atomic::{AtomicU64, Ordering};
use riscv::register;

/// Ticks of `time` a second, until the device tree says otherwise: QEMU virt's.
static FREQUENCY: AtomicU64 = AtomicU64::new(10_000_000);

pub(super) fn init(tree: Tree<'_>) {
    if let Some(frequency) = tree.timebase_frequency() {
        // ORDERING: Relaxed — boot hart only; starting a hart orders it for the others.
        FREQUENCY.store(frequency, Ordering::Relaxed);
    }
}

/// The `time` counter. Coarse: 10 MHz on QEMU virt.
#[inline]
pub(crate) fn cycles() -> u64 {
    register::time::read() as u64
}

/// Nanoseconds since the counter was 0.
pub(crate) fn now_ns() -> u64 {
    const SECOND: u64 = 1_000_000_000;
    // ORDERING: Relaxed — constant since boot.
    let frequency = FREQUENCY.load(Ordering::Relaxed);
    let ticks = cycles();
    ticks / frequency * SECOND + ticks % frequency * SECOND / frequency
}

/// Instructions retired: under `-icount shift=0` those of all harts together, exactly.
#[inline]
pub(crate) fn instructions() -> u64 {
    register::instret::read() as u64
}

/// One interrupt on this CPU after `ticks` of [`cycles`]; 0 takes the request back.
///
/// Through the SBI even where the hart has Sstc: the firmware uses `stimecmp` itself then, and this
/// path is not hot. Masking STIE is the SBI's own way to clear a timer (SBI 2.0 section 6.1).
pub(crate) fn interrupt_after(ticks: u64) {
    disarm();
    if ticks == 0 {
        let _ = sbi_rt::set_timer(0);
        return;
    }
    let _ = sbi_rt::set_timer(cycles().saturating_add(ticks));
    // SAFETY: The trap entry serves the timer.
    unsafe { register::sie::set_stimer() };
}

/// No timer interrupt on this CPU until the next [`interrupt_after`].
///
/// STIP is pending from then on, masked: the deadline is past. `irq::relax` rests on that, so each
/// CPU calls `interrupt_after(0)` before it waits for anything.
pub(super) fn disarm() {
    // SAFETY: Masks an interrupt.
    unsafe { register::sie::clear_stimer() };
}
