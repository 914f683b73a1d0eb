//! This machine as the conformance cases see it.

use core::fmt;

use smpcall::Platform as _;
use smpcall_metal::{Metal, WORDS, println};
use smpcall_torture::report::Line;
use smpcall_torture::{Lab, Tally};

use crate::kernel::{Kernel, SMP, flag};

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

    fn interrupts(&self) -> bool {
        true
    }

    fn may_be_slow(&self) -> bool {
        flag("slow")
    }

    fn is_traced(&self) -> bool {
        // The suite `trace` is the only one whose image keeps events.
        Metal.tracer().is_some()
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        println!("{line}");
    }
}

/// Runs the conformance cases; `slow` on the command line: those too that wait for deadlines.
pub(crate) fn conformance() -> Tally {
    smpcall_torture::run_all(&Machine, |_| true, &mut |line| {
        // The kernel's own cases follow, and the sum after them.
        if !matches!(line, Line::Tally { .. }) {
            println!("{line}");
        }
    })
}
