//! A waited call to a busy CPU that makes no poll points: pre-empted by a signal.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smpcall_hosted::{CpuId, CpuMask, Machine};

use crate::bench::Contender;
use crate::bench::lab::{Lab, stopped};
use crate::bench::limits::WAKE_UPS;
use crate::{Failure, host};

/// Between two calls, as between two signals of the limit.
const GAP: Duration = Duration::from_micros(20);

/// The row.
pub(crate) fn all(lab: &Lab) -> Result<Vec<Contender>, Failure> {
    let machine = Arc::new(preemptive(lab)?);
    let block = move |lab: &Lab| call_signal(lab, &machine);
    Ok(vec![Contender::new(
        "call_signal",
        "smpcall",
        "tgkill",
        block,
    )])
}

/// A machine of one CPU, on the computer's CPU of the responder, which idles meanwhile. Booted on a
/// thread that may use all CPUs: one of a machine may use its own alone.
fn preemptive(lab: &Lab) -> Result<Machine, Failure> {
    let host = host::host_cpu_of(&lab.machine, lab.responder).unwrap_or_default();
    let builder = Machine::builder().list(&CpuMask::of(CpuId::new(host)));
    // SAFETY: 1, 2 — the one function that is called adds two numbers; 3, 4 — the job is a loop on
    // its thread's stack; 5 — nothing else of this program uses the signal.
    let builder = unsafe { builder.preempt() };
    builder.boot().map_err(host::boot_failure)
}

fn call_signal(lab: &Lab, machine: &Arc<Machine>) -> Vec<f64> {
    let Some(cpu) = machine.online_cpus().first() else {
        panic!("a machine has a CPU");
    };
    let flags = Arc::new([const { AtomicBool::new(false) }; 2]);
    let theirs = Arc::clone(&flags);
    let job = machine
        .spawn_on(cpu, move || {
            let [running, stop] = &*theirs;
            // ORDERING: Release — pairs with the look below.
            running.store(true, Ordering::Release);
            while !stopped(stop) {}
        })
        .unwrap_or_else(|error| panic!("the responder is gone: {error}"));
    let [running, stop] = &*flags;
    // ORDERING: Acquire — as above.
    while !running.load(Ordering::Acquire) {
        lab.machine.poll();
    }
    let timed = |i| {
        lab.spin(GAP);
        lab.time_one(|| {
            let answer = machine.call(cpu, move || black_box(i) + 1);
            assert!(
                answer.is_ok_and(|answer| answer == i + 1),
                "the closure's result comes back"
            );
        })
    };
    let times = (0..2 * WAKE_UPS as u64).map(timed).collect();
    // ORDERING: Release — what the caller did is over.
    stop.store(true, Ordering::Release);
    if let Err(panic) = job.join() {
        std::panic::resume_unwind(panic);
    }
    times
}
