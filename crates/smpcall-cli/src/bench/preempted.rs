//! A waited call to a busy CPU that makes no poll points: pre-empted by a signal.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use smpcall_hosted::{CpuId, CpuMask, Machine};

use crate::bench::Contender;
use crate::bench::lab::{Lab, stopped};
use crate::bench::limits::WAKE_UPS;
use crate::host;

/// Between two calls, as between two signals of the limit.
const GAP: Duration = Duration::from_micros(20);

/// The row.
pub(crate) fn all() -> Vec<Contender> {
    let machine = OnceLock::new();
    let block = move |lab: &Lab| {
        let machine = machine.get_or_init(|| Arc::new(preemptive(lab)));
        call_signal(lab, machine)
    };
    vec![Contender::new("call_signal", "smpcall", "tgkill", block)]
}

/// A machine of one CPU, on the computer's CPU of the responder, which idles meanwhile.
fn preemptive(lab: &Lab) -> Machine {
    let host = host::host_cpu_of(&lab.machine, lab.responder).unwrap_or_default();
    let builder = Machine::builder().list(&CpuMask::of(CpuId::new(host)));
    // SAFETY: 1, 2 — the one function that is called adds two numbers; 3, 4 — the job is a loop on
    // its thread's stack; 5 — nothing else of this program uses the signal.
    let machine = unsafe { builder.preempt() }.boot();
    machine.unwrap_or_else(|error| panic!("no pre-emptive machine: {error}"))
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
