//! Suite `stall`: waits so long that they are reported, and still end as they should.
//!
//! The reports are for whoever reads the console: `cargo xtask test --only stall-x86_64` reads who was waited
//! for, why, from which line, and that it ended.

use core::sync::atomic::{AtomicBool, Ordering};

use smpcall::{CpuId, CpuMask, Platform};
use smpcall_metal::{Metal, raw};
use smpcall_torture::Check;

use crate::kernel::SMP;
use crate::suite::{Case, crew, ensure, expect, wait};

/// The cases.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_cpu_that_is_stuck_in_a_called_function_is_reported",
        min_cpus: 2,
        run: in_function,
    },
    Case {
        name: "a_cpu_that_is_stuck_before_it_takes_the_call_is_reported",
        min_cpus: 2,
        run: before_it,
    },
];

/// Who is stuck.
const CULPRIT: CpuId = CpuId::new(1);
/// For how long: a wait is reported after the limit.
const STUCK_NS: u64 = Metal::STALL_LIMIT_NS + Metal::STALL_LIMIT_NS / 5;

/// The CPU that executes is stuck.
fn stuck() -> u64 {
    let start = raw::now_ns();
    while raw::now_ns() - start < STUCK_NS {
        raw::relax();
    }
    raw::now_ns() - start
}

fn in_function() -> Check {
    let called = SMP.call(CULPRIT, stuck);
    let took = expect("call", called.map_err(|refused| refused.error))?;
    ensure!(took >= STUCK_NS, "the function took {took} ns");
    Ok(())
}

fn before_it() -> Check {
    static MASKED: AtomicBool = AtomicBool::new(false);
    fn member() {
        raw::irq_save();
        // ORDERING: Relaxed — says when to call; the call orders what follows.
        MASKED.store(true, Ordering::Relaxed);
        stuck();
        raw::irq_enable();
    }
    let call = || {
        wait("CPU 1 is stuck", || MASKED.load(Ordering::Relaxed))?;
        let called = SMP.call(CULPRIT, raw::current_cpu);
        let there = expect("call", called.map_err(|refused| refused.error))?;
        ensure!(there == CULPRIT.get(), "it ran on CPU {there}");
        Ok(())
    };
    crew(&CpuMask::of(CULPRIT), member, call, || ())
}
