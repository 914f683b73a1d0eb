//! The end of the virtual machine, with a code: semihosting's SYS_EXIT_EXTENDED.
//!
//! QEMU must have been told `-semihosting-config enable=on,target=native`; without it the call is an
//! unknown instruction. Then PSCI powers the machine off, which carries no code: the console says
//! what the code was, and that the host has not seen it.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{boot, console, irq, smp};

/// The code of an exit under way, plus one; 0 while there is none.
static EXITING: AtomicU32 = AtomicU32::new(0);

/// Ends the machine; `code` is QEMU's exit status.
pub(crate) fn exit(code: u8) -> ! {
    irq::save();
    // ORDERING: Relaxed - read on this CPU only, in a fault of the next line.
    EXITING.store(u32::from(code) + 1, Ordering::Relaxed);
    semihosting::process::exit(i32::from(code))
}

/// Whether the fault at `pc` is that of `exit`'s call, and nobody listens.
pub(super) fn without_debugger(esr: u64, pc: u64) -> bool {
    const UNKNOWN: u64 = 0;
    const HLT_0XF000: u32 = 0xd45e_0000;
    // ORDERING: Relaxed - of interest on the CPU that stored it.
    if esr >> 26 != UNKNOWN || EXITING.load(Ordering::Relaxed) == 0 {
        return false;
    }
    // SAFETY: an instruction was fetched from there.
    unsafe { (pc as *const u32).read() == HLT_0XF000 }
}

/// Ends the machine without a code, and says so.
pub(super) fn power_off() -> ! {
    // ORDERING: Relaxed - stored on this CPU.
    let code = EXITING.load(Ordering::Relaxed).saturating_sub(1);
    let _ = writeln!(
        console::Writer,
        "smpcall: exit code {code}, lost: QEMU was started without -semihosting-config enable=on"
    );
    smp::system_off();
    loop {
        irq::wait_for_interrupt();
    }
}

/// Resets the machine, through PSCI.
pub(crate) fn reset() -> ! {
    irq::save();
    smp::system_reset();
    boot::fail("the firmware refused SYSTEM_RESET")
}
