//! What is around the calls: bring-up, CPUs that leave and come back, the receive side, and boot
//! parameters.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smpcall_hosted::{CpuCallbacks, CpuMask, WithoutClosure};

use super::witness::{WITNESS, note};
use super::{Call, Plan, Stage, fault};
use crate::Failure;
use crate::args::CpuChoice;
use crate::host;

/// The machine came up: asks each CPU where it is.
pub(super) fn bring_up(stage: &mut Stage<'_>, took: Duration) {
    let online = stage.online;
    let plan = Plan {
        seed_name: "smp_init",
        name: "Machine::boot",
        what: "each CPU asked by a call".into(),
        cpus: stage.machine.present_cpus(),
        result: json!(format!("Brought up {} CPUs", online.len())),
    };
    stage.call(plan, |machine| {
        machine
            .on_each_cpu(|_| note())
            .map_err(|error| error.to_string())?;
        Ok(json!(format!(
            "Brought up {} CPUs",
            machine.num_online_cpus()
        )))
    });
    stage.calls.iter_mut().for_each(|call| call.elapsed = took);
}

/// Hotplug and the receive side, on a CPU.
pub(super) fn make(stage: &mut Stage<'_>) {
    receive_side(stage);
    if stage.alone() {
        last_cpu_stays(stage);
    } else {
        leave_and_return(stage);
    }
}

/// A call that waits for a CPU with interrupts off runs when the CPU serves its queue.
fn receive_side(stage: &mut Stage<'_>) {
    let here = stage.here;
    let plan = Plan {
        seed_name: "generic_smp_call_function_single_interrupt",
        name: "handle_ipi",
        what: "what came while masked".into(),
        cpus: CpuMask::of(here),
        result: json!("pending, then run"),
    };
    stage.call(plan, |machine| {
        let guard = machine.irqs_off();
        let posted = std::thread::scope(|scope| {
            let outside = scope.spawn(|| machine.post(here, note));
            outside.join()
        });
        let waits = machine.has_pending() && WITNESS.seen().cpus.is_empty();
        machine.handle_ipi();
        let ran = !WITNESS.seen().cpus.is_empty();
        drop(guard);
        match posted {
            Ok(Ok(())) if waits && ran => Ok(json!("pending, then run")),
            Ok(Ok(())) => Err(format!("it was pending: {waits}; it ran: {ran}")),
            Ok(Err(refused)) => Err(refused.to_string()),
            Err(_) => Err("the posting thread panicked".into()),
        }
    });
}

/// The seed's notifier: noted on the CPU that comes or goes.
static CALLBACKS: CpuCallbacks = CpuCallbacks {
    name: "demo",
    starting: |_| note(),
    dying: |_| note(),
    ..CpuCallbacks::NONE
};

fn leave_and_return(stage: &mut Stage<'_>) {
    let there = stage.there;
    let alone = CpuMask::of(there);
    if let Err(error) = stage.machine.register(&CALLBACKS) {
        eprintln!("smpcall: the demo's callbacks were not taken: {error}");
    }
    let plan = |name, what: &str, cpus, result: &str| Plan {
        seed_name: name,
        name,
        what: what.into(),
        cpus,
        result: json!(result),
    };
    let down = plan("cpu_down", "its callback ran there", alone, "offline");
    stage.call(down, |machine| {
        machine
            .cpu_down(there)
            .map(|()| json!("offline"))
            .map_err(|error| error.to_string())
    });
    let refused = Plan {
        name: "call",
        ..plan(
            "smp_call_function_single",
            "offline: refused (-ENXIO)",
            CpuMask::EMPTY,
            &format!("CPU {there} is offline"),
        )
    };
    stage.call(refused, |machine| match machine.call(there, note) {
        Ok(()) => Err("it was not refused".into()),
        Err(refused) => Ok(json!(refused.to_string())),
    });
    let up = plan("cpu_up", "its callback ran there", alone, "online");
    stage.call(up, |machine| {
        machine
            .cpu_up(there)
            .map(|()| json!("online"))
            .map_err(|error| error.to_string())
    });
    let again = Plan {
        name: "call",
        ..plan(
            "smp_call_function_single",
            "waited, the CPU is back",
            alone,
            "back",
        )
    };
    stage.call(again, |machine| {
        let answer = machine.call(there, || {
            note();
            "back"
        });
        answer.map(Value::from).map_err(|error| error.to_string())
    });
}

/// With one CPU there is nobody to take down; it says so.
fn last_cpu_stays(stage: &mut Stage<'_>) {
    let here = stage.here;
    let refused = |name, result: &str| Plan {
        seed_name: name,
        name,
        what: "the only CPU: refused".into(),
        cpus: CpuMask::EMPTY,
        result: json!(result),
    };
    stage.call(
        refused("cpu_down", "a CPU cannot wait for its own end"),
        |machine| match machine.cpu_down(here) {
            Ok(()) => Err("it was not refused".into()),
            Err(error) => Ok(json!(error.to_string())),
        },
    );
    stage.call(
        refused("cpu_up", "it is online already"),
        |machine| match machine.cpu_up(here) {
            Ok(()) => Err("it was not refused".into()),
            Err(error) => Ok(json!(error.to_string())),
        },
    );
}

/// Boots further machines with a kernel's command line, and asks who is there.
pub(super) fn boot_parameters(
    stage: &mut Stage<'_>,
    cpus: Option<&CpuChoice>,
) -> Result<(), Failure> {
    let present = stage.machine.present_cpus();
    let first: CpuMask = present.iter().take(1).collect();
    let two: CpuMask = present.iter().take(2).collect();
    let last = present.last().map_or(0, |cpu| cpu.get());
    parameter(stage, cpus, "nosmp", "nosmp", "one CPU alone", first)?;
    parameter(stage, cpus, "maxcpus", "maxcpus=2", "two at most", two)?;
    let limit = format!("nr_cpus={}", last.max(1));
    let below = present
        .iter()
        .filter(|cpu| cpu.get() < last.max(1))
        .collect();
    parameter(stage, cpus, "nr_cpus", &limit, "ids end there", below)
}

fn parameter(
    stage: &mut Stage<'_>,
    cpus: Option<&CpuChoice>,
    seed_name: &'static str,
    cmdline: &str,
    what: &str,
    expected: CpuMask,
) -> Result<(), Failure> {
    if expected.is_empty() {
        // `--cpus 3-3`: no id is below a limit that leaves CPU 3 out.
        return Ok(());
    }
    let plan = Plan {
        seed_name,
        name: "BootParams::parse",
        what: format!("`{cmdline}`: {what}"),
        cpus: expected,
        result: json!(format!("Brought up {} CPUs", expected.len())),
    };
    WITNESS.clear();
    let start = Instant::now();
    let machine = host::boot_with(cpus, cmdline)?;
    let elapsed = start.elapsed();
    machine
        .on_each_cpu(|_| WITNESS.note_on(machine.current_cpu()))
        .without_closure()?;
    let result = json!(format!("Brought up {} CPUs", machine.num_online_cpus()));
    let seen = WITNESS.seen();
    let fault = fault(&machine, &plan, &Ok(result.clone()), &seen);
    stage.calls.push(Call {
        seed_name,
        name: plan.name,
        what: plan.what,
        seen,
        result,
        elapsed,
        fault,
    });
    Ok(())
}
