//! Interrupts on this hart: `sstatus.SIE`, and waiting for one.
//!
//! By hand rather than through the `riscv` crate where reading and clearing in one instruction, or
//! reading and acknowledging, is what makes the path short.

use core::arch::asm;

/// `sstatus.SIE`.
const SIE: usize = 1 << 1;
/// `sip.SSIP`, `sie.SSIE`: the supervisor software interrupt.
const SOFTWARE: usize = 1 << 1;

/// This hart takes IPIs from now on, whenever interrupts are on; one from an earlier life is dropped.
pub(super) fn init() {
    // SAFETY: The hart is not yet a target, so no IPI of this life can be lost; SIE is off.
    unsafe {
        asm!("csrci sip, {s}", "csrw sie, {s}", s = const SOFTWARE, options(nostack));
    }
}

/// `sip.STIP`, `sie.STIE`: the supervisor timer interrupt.
const TIMER: usize = 1 << 5;

/// Turns interrupts off; returns whether they were on.
#[inline]
pub(crate) fn save() -> bool {
    let old: usize;
    // SAFETY: Clearing SIE is sound anywhere. Not `nomem`: accesses stay on their side of it.
    unsafe { asm!("csrrci {}, sstatus, {}", out(reg) old, const SIE, options(nostack)) };
    old & SIE != 0
}

/// Turns interrupts on again if `were_on`.
#[inline]
pub(crate) fn restore(were_on: bool) {
    if were_on {
        enable();
    }
}

/// Whether interrupts are on.
#[inline]
pub(crate) fn enabled() -> bool {
    let status: usize;
    // SAFETY: Reading sstatus has no effect.
    unsafe { asm!("csrr {}, sstatus", out(reg) status, options(nomem, nostack)) };
    status & SIE != 0
}

/// Turns interrupts on.
#[inline]
pub(crate) fn enable() {
    // SAFETY: The trap entry is installed before the first Rust code runs on a hart.
    unsafe { asm!("csrsi sstatus, {}", const SIE, options(nostack)) };
}

/// One turn of a wait.
///
/// A `wfi` that cannot sleep: the timer interrupt, which is pending for ever while no timer is armed
/// (`time::disarm`), is enabled in `sie` around it, with SIE off so that it is not taken. To a
/// processor that is a nop; to QEMU with one thread for all CPUs it is the only way to say "next
/// CPU, please": `pause` merely ends a translation block there, and the waiting CPU keeps the thread
/// for its slice of 100 ms (10^8 instructions with `-icount`). While a timer is armed `wfi` would
/// sleep until it fires, so the turn is a `pause` then.
#[inline]
pub(crate) fn relax() {
    // SAFETY: STIE and SIE are as before afterwards, and SIE is off while STIE is not. Setting the old
    // sstatus again changes nothing but SIE.
    unsafe {
        asm!(
            "csrrci {status}, sstatus, {sie}",
            "csrrs  {enabled}, sie, {timer}",
            "and    {armed}, {enabled}, {timer}",
            "beqz   {armed}, 2f",
            ".4byte 0x0100000f", // pause (Zihintpause): a hint, so fine on any hart
            "j      3f",
            "2:",
            "wfi",
            "csrw   sie, {enabled}",
            "3:",
            "csrs   sstatus, {status}",
            status = out(reg) _, enabled = out(reg) _, armed = out(reg) _,
            timer = in(reg) TIMER, sie = const SIE, options(nostack),
        );
    }
}

/// With interrupts off: sleeps until an interrupt is pending, takes it, returns with them off.
///
/// `wfi` ends when an interrupt that `sie` enables is pending, whatever SIE says (privileged ISA
/// 3.3.3), so nothing is lost between the caller's last look and the sleep. A pending IPI is
/// acknowledged and served by a plain call, which saves the trap and its sixteen saved registers.
#[inline]
pub(crate) fn wait_for_interrupt() {
    let pending: usize;
    // SAFETY: Reads sip and clears SSIP; whoever clears it serves the IPI, which follows. The fence
    // is that of `trap.S`, for the same reason.
    unsafe {
        asm!(
            "wfi",
            "csrrci {}, sip, {}",
            "fence io, rw",
            out(reg) pending, const SOFTWARE, options(nostack),
        );
    }
    if pending & SOFTWARE != 0 {
        crate::__smpcall_ipi();
    } else {
        take_pending();
    }
}

/// Opens a window of one instruction for what else is pending: interrupts are evaluated right after a
/// write to sstatus (privileged ISA 3.1.9).
fn take_pending() {
    // SAFETY: The caller expects handlers to run here; SIE is off again at the end.
    unsafe { asm!("csrsi sstatus, {s}", "csrci sstatus, {s}", s = const SIE, options(nostack)) };
}
