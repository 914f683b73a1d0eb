//! This machine as the conformance cases see it.

use core::fmt;

use smpcall_metal::{Metal, WORDS, println};
use smpcall_torture::Lab;

use crate::kernel::{Kernel, SMP};

/// Room for posted closures per target: the core's default.
pub(crate) const ROOM: usize = 8;

/// The machine.
pub(crate) struct Machine;

impl Lab<WORDS, ROOM> for Machine {
    type P = Metal;

    fn smp(&self) -> &Kernel {
        &SMP
    }

    fn kicks(&self) -> u64 {
        Metal::ipis_sent()
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        println!("{line}");
    }
}

/// Runs the conformance cases; answers whether all passed.
pub(crate) fn conformance() -> bool {
    smpcall_torture::run_all(&Machine, |_| true, &mut |line| println!("{line}")).ok()
}
