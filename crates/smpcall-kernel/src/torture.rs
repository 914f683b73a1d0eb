//! Random operations on every CPU for a time, while CPUs are stopped and started again.
//!
//! The run is that of `smpcall_torture`, as the program `smpcall torture` makes it; the boot CPU is the
//! runner. Its knobs are words of the command line: `seed=`, `seconds=`, `hotplug_interval_ms=`,
//! `weight_kick=` and so on. How it goes is talk; the figures are the last record.

use smpcall_metal::{WORDS, println};
use smpcall_torture::torture::{Room, Torture};

use crate::lab::Machine;

/// Runs it; answers whether there was no fault.
pub(crate) fn run(cmdline: &str) -> bool {
    static ROOM: Room<WORDS> = Room::new();
    let default = Torture {
        progress_ms: 5_000,
        ..Torture::default()
    };
    let torture = match default.with(cmdline) {
        Ok(torture) => torture,
        Err(bad) => {
            println!("{bad}");
            return false;
        }
    };
    let summary = torture.run(&Machine, &ROOM, &mut |now| {
        println!(
            "torture: {} s, {} operations, {} hotplug cycles, {} errors, {} CPUs online",
            now.elapsed_ns / 1_000_000_000,
            now.operations,
            now.hotplug_cycles,
            now.errors,
            now.online
        );
    });
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => {
            println!("torture: {error}");
            return false;
        }
    };
    println!("{summary}");
    summary.ok
}
