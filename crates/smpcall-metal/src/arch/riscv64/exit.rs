//! Ends the virtual machine: the SiFive test finisher, or the SBI's system reset where there is none.

use super::irq;
use crate::fdt::Tree;
use core::sync::atomic::{AtomicU64, Ordering};
use qemu_exit::QEMUExit as _;

/// The finisher's address; 0 before [`init`] or if there is none.
static FINISHER: AtomicU64 = AtomicU64::new(0);

pub(super) fn init(tree: Tree<'_>) {
    let device = tree.find_compatible(&["sifive,test1", "sifive,test0"]);
    if let Some(region) = device.and_then(|device| device.regions().next()) {
        // ORDERING: Relaxed — boot hart only; starting a hart orders it for the others.
        FINISHER.store(region.base, Ordering::Relaxed);
    }
}

/// Ends the machine; QEMU exits with `code`.
pub(crate) fn exit(code: u8) -> ! {
    irq::save();
    // ORDERING: Relaxed — constant since boot.
    let address = FINISHER.load(Ordering::Relaxed);
    if address == 0 {
        power_off(code);
    }
    // SAFETY: The device tree says that the finisher is there.
    let finisher = unsafe { qemu_exit::RISCV64::new(address) };
    match code {
        0 => finisher.exit_success(),
        code => finisher.exit(u32::from(code)),
    }
}

/// The SBI knows two reasons only, and QEMU makes no exit code of them.
fn power_off(code: u8) -> ! {
    if code == 0 {
        sbi_rt::system_reset(sbi_rt::Shutdown, sbi_rt::NoReason);
    } else {
        sbi_rt::system_reset(sbi_rt::Shutdown, sbi_rt::SystemFailure);
    }
    loop {
        riscv::asm::wfi();
    }
}

/// Resets the machine, through the SBI.
pub(crate) fn reset() -> ! {
    irq::save();
    let refusal = sbi_rt::system_reset(sbi_rt::ColdReboot, sbi_rt::NoReason);
    panic!("the firmware refused a reset: {refusal:?}")
}
