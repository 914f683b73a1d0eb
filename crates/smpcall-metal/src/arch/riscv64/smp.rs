//! Harts come and go through the SBI's hart state management (HSM, SBI 2.0 chapter 9).

use super::{boot, console, exit, ipi, irq, time};
use crate::StartError;
use core::arch::asm;
use core::fmt::Write as _;
use sbi_spec::hsm::hart_state;

unsafe extern "C" {
    /// In `boot.S`.
    fn smpcall_start_secondary();
}

/// The hart id of a logical CPU.
pub(super) fn hart_of(cpu: u32) -> Option<u64> {
    boot::info().hw_ids.get(cpu as usize).copied()
}

/// Asks the firmware to start `cpu`. Refused while it is on its way out: see [`is_stopped`].
pub(crate) fn start(cpu: u32) -> Result<(), StartError> {
    let hart = hart_of(cpu).ok_or(StartError::NoSuchCpu)?;
    // What was written for the new CPU is visible to its first load: the firmware wakes the hart by
    // a device write (o) after memory writes of its own (w).
    // SAFETY: A fence has no effect but order.
    unsafe { asm!("fence rw, ow", options(nostack)) };
    let entry = smpcall_start_secondary as *const () as usize;
    let answer = sbi_rt::hart_start(hart as usize, entry, cpu as usize);
    if answer.error == 0 {
        return Ok(());
    }
    match state(hart) {
        None | Some(hart_state::STOPPED) => Err(StartError::Firmware(answer.error as i64)),
        Some(_) => Err(StartError::AlreadyRunning),
    }
}

/// A started hart arrives here on its stack, `tp` set, translation on, interrupts off.
pub(super) extern "C" fn secondary(_hart: u64, cpu: u64) -> ! {
    time::interrupt_after(0);
    ipi::init_this_cpu(cpu as u32);
    irq::init();
    crate::__smpcall_secondary(cpu as u32)
}

/// Leaves. The firmware takes the hart back before it says so, and this stack is not used again.
pub(crate) fn stop_self() -> ! {
    irq::save();
    // It returns only if it failed.
    let refusal = sbi_rt::hart_stop();
    let _ = writeln!(console::Unlocked, "smpcall: hart_stop failed: {refusal:?}");
    exit::exit(1)
}

/// Whether the hart is stopped: its stack is free, and it may be started again.
pub(crate) fn is_stopped(cpu: u32) -> bool {
    hart_of(cpu).and_then(state) == Some(hart_state::STOPPED)
}

/// What the firmware says of a hart, if it knows it.
fn state(hart: u64) -> Option<usize> {
    let answer = sbi_rt::hart_get_status(hart as usize);
    (answer.error == 0).then_some(answer.value)
}
