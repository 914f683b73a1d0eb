//! Suite `fault`: what must not pass. `fault=NAME` says which way the machine goes wrong.
//!
//! No run of it passes: it shows that whoever watches notices, within a bounded time, and can say what
//! every CPU was doing. `cargo xtask test --only fault-x86_64` runs them all.
//!
//! | `fault=` | what the guest does |
//! |---|---|
//! | `reset` | resets itself; on x86_64 by a triple fault |
//! | `hang` | every CPU loops with interrupts off |
//! | `stuck` | CPU 1 loops in a called function, CPU 0 waits for it |
//! | `silent` | ends with code 0 and does not close its report |
//! | `linger` | closes its report and stays |
//! | `lie` | closes its report with `ok` and ends with code 3 |
//! | `access` | reads a page that is not mapped |
//! | `overflow` | uses its stack up |
//! | `panic` | panics in a function that is called on CPU 1 |

use core::hint::black_box;

use smpcall::CpuId;
use smpcall_metal::{println, raw};
use smpcall_torture::Check;
use smpcall_torture::report::Line;

use crate::kernel::{SMP, option};
use crate::suite::{Case, ensure};

/// The case, whose name says where the machine went wrong.
pub(crate) const CASES: &[Case] = &[Case {
    name: "this_run_fails",
    min_cpus: 2,
    run: fail,
}];

/// Who is made to do it, where it is not the boot CPU.
const VICTIM: CpuId = CpuId::new(1);

/// Goes wrong.
fn fail() -> Check {
    match option("fault") {
        Some("reset") => raw::reset(),
        Some("hang") => hang(),
        Some("stuck") => drop(SMP.call(VICTIM, || loop_for_ever())),
        Some("silent") => raw::exit(0),
        Some("linger") => linger(),
        Some("lie") => lie(),
        Some("access") => drop(raw::page_read()),
        Some("overflow") => drop(black_box(overflow(0))),
        Some("panic") => drop(SMP.call(VICTIM, || panic!("as was asked"))),
        _ => {}
    }
    ensure!(false, "nothing went wrong: {:?}", option("fault"));
    Ok(())
}

/// All CPUs.
fn hang() {
    drop(SMP.post_others(|_| loop_for_ever()));
    loop_for_ever()
}

/// With interrupts off. A name that the watcher finds in the image's symbols.
#[inline(never)]
fn loop_for_ever() -> ! {
    raw::irq_save();
    loop {
        raw::relax();
    }
}

/// The report is closed, and nothing follows.
fn linger() {
    println!("{}", Line::End(true));
    loop_for_ever()
}

/// The report says one thing, the exit code another.
fn lie() {
    println!("{}", Line::End(true));
    raw::exit(3)
}

/// Uses more stack each time.
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    if depth == u64::MAX {
        return depth;
    }
    overflow(depth + 1) + room[0]
}
