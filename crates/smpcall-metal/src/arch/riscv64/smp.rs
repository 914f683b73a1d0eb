//! Harts come and go through the SBI's hart state management (HSM, SBI 2.0 chapter 9).

use super::{boot, exit, ipi, irq};
use crate::StartError;
use core::arch::asm;
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
    match answer.error {
        0 => Ok(()),
        error => Err(StartError::Firmware(error as i64)),
    }
}

/// A started hart arrives here on its stack, `tp` set, translation on, interrupts off.
pub(super) extern "C" fn secondary(_hart: u64, cpu: u64) -> ! {
    ipi::init_this_cpu(cpu as u32);
    irq::init();
    crate::__smpcall_secondary(cpu as u32)
}

/// Leaves. The firmware takes the hart back before it says so, and this stack is not used again.
pub(crate) fn stop_self() -> ! {
    irq::save();
    let refusal = sbi_rt::hart_stop();
    // hart_stop returns only if it failed.
    let _ = refusal;
    exit::exit(1)
}

/// Whether the hart is stopped: its stack is free, and it may be started again.
pub(crate) fn is_stopped(cpu: u32) -> bool {
    let Some(hart) = hart_of(cpu) else {
        return false;
    };
    let answer = sbi_rt::hart_get_status(hart as usize);
    answer.error == 0 && answer.value == hart_state::STOPPED
}
