//! The life of a CPU's thread: pin, arrive, idle, leave.
//!
//! An idle CPU polls for a while, for a call to it then costs no system call; then it parks on its
//! doorbell word, which is a futex, and a sender wakes it.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use smpcall::{CpuId, StartError};

use crate::affinity;
use crate::local;
use crate::machine::Inner;
use crate::platform::refused;

/// Looks between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 64;
/// Looks that found calls before the thread asks whether something else wants it.
const CALLS_IN_A_ROW: u32 = 8;
/// The pause instructions after a call, about 20 ns each on the machines that were measured.
const PAUSES_AFTER_A_CALL: u32 = 1;

/// Starts the thread of a CPU; answers once it is pinned and about to arrive.
pub(crate) fn start(inner: &Arc<Inner>, cpu: CpuId) -> Result<(), StartError> {
    let host_cpu = inner
        .smp
        .platform()
        .host_cpu_of(cpu)
        .ok_or(StartError::NoSuchCpu)?;
    // A job that took its own CPU offline still is that CPU, and so is a thread that attached and
    // has not come to rest: there must be no second one.
    if !inner.is_at_rest(cpu) {
        return Err(StartError::Refused(i64::from(libc::EBUSY)));
    }
    let (pinned, answer) = mpsc::sync_channel(1);
    let machine = Arc::clone(inner);
    let thread = std::thread::Builder::new()
        .name(format!("smpcall/{cpu}"))
        .spawn(move || {
            let result = affinity::pin_to(host_cpu);
            let arrives = result.is_ok();
            machine.smp.platform().note_pinned(cpu);
            // The receiver waits below.
            let _ = pinned.send(result);
            if arrives {
                live(&machine, cpu);
            }
        })
        .map_err(|error| refused(&error))?;
    let result = answer
        .recv()
        .unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
    inner.keep_thread(cpu, thread);
    result.map_err(|error| refused(&error))
}

/// From arriving to leaving.
fn live(machine: &Inner, cpu: CpuId) {
    let smp = &machine.smp;
    local::become_cpu(smp.platform(), cpu.get());
    local::irqs_save();
    // Before it is online: who sees it online may send it a job.
    machine.jobs(cpu).open();
    if smp.online_this_cpu() {
        local::irqs_restore(true);
        while smp.is_online(cpu) && !leave(machine, cpu) {
            smp.run_tasks();
            // A task may have forgotten its guard.
            local::irqs_restore(true);
            machine.run_jobs(cpu);
            idle(machine, cpu);
        }
    }
    machine.jobs(cpu).close();
    local::resign();
}

/// Leaves if somebody wants it, after the jobs that were accepted; answers whether it is offline.
fn leave(machine: &Inner, cpu: CpuId) -> bool {
    let smp = &machine.smp;
    if !smp.is_asked_to_leave() && !machine.is_stopping() {
        return false;
    }
    if !machine.finish_jobs(cpu) {
        return true;
    }
    let left = smp.leave_if_asked() || (machine.is_stopping() && smp.offline_this_cpu().is_ok());
    if !left {
        // Who asked gave up: the CPU stays.
        machine.jobs(cpu).open();
    }
    left
}

/// Idles until something other than a call wants the thread.
fn idle(machine: &Inner, cpu: CpuId) {
    let smp = &machine.smp;
    let wanted = || {
        smp.is_asked_to_leave()
            || smp.has_tasks()
            || machine.has_jobs(cpu)
            || machine.is_stopping()
            // A job took the CPU offline.
            || !smp.is_online(cpu)
    };
    smp.idle_enter();
    let mut quiet_since = None;
    while !wanted() {
        if looks(machine) > 0 {
            quiet_since = None;
            continue;
        }
        let since = *quiet_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= machine.poll_time && !wanted() {
            smp.platform().look_where(cpu);
            smp.idle_park();
            quiet_since = None;
        }
    }
    smp.idle_exit();
}

/// Looks for calls some times, and runs what is there; answers how many looks found something.
///
/// Between two calls of a caller that goes on there is a cache line's way, and no time to read the
/// clock: hence some calls in a row before anything else is asked. A look in the moment in
/// which the caller writes its next call would take the line away under its hands, for a transfer more
/// each way: hence a pause after each call, shorter than the line's way to the caller and back. The
/// caller does the same (`relax.rs`).
fn looks(machine: &Inner) -> u32 {
    let mut found = 0;
    for _ in 0..LOOKS_PER_CLOCK {
        if machine.smp.idle_poll() {
            found += 1;
            if found == CALLS_IN_A_ROW {
                break;
            }
            (0..PAUSES_AFTER_A_CALL).for_each(|_| std::hint::spin_loop());
        }
    }
    found
}
