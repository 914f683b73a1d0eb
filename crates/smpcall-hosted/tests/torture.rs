//! Short torture runs: many more CPUs than this computer has, CPUs coming and going, both ways to
//! start it. The long ones are `smpcall torture`.
#![expect(clippy::missing_panics_doc, reason = "a test panics when it fails")]

use std::sync::Arc;

use smpcall_hosted::{CpuId, WORDS};
use smpcall_torture::torture::op::OPS;
use smpcall_torture::torture::{CannotRun, Op, Room, Summary, Torture};

#[path = "support/rack.rs"]
mod rack;

use rack::Delivery::{self, Cooperative, PreEmptive};
use rack::Rack;

/// Room for a run each.
static ROOMS: [Room<WORDS>; 8] = [const { Room::new() }; 8];

fn assert_clean(summary: &Summary, delivery: Delivery) {
    eprintln!("{summary}");
    assert!(summary.ok, "{summary}");
    assert_eq!(summary.errors, 0);
    // A computer with far too much to do gets through a few dozen, which need not be of every kind.
    if summary.operations < ENOUGH {
        return;
    }
    for (name, done) in summary.by_operation {
        let lacks = name == Op::Preempt.name() && delivery == Cooperative;
        assert_eq!(done > 0, !lacks, "{name} in {summary}");
    }
    let attach = Op::Attach as usize;
    let (tried, busy) = (summary.by_operation[attach].1, summary.refused[attach].1);
    assert!(tried > busy, "no thread became a CPU: {summary}");
    assert!(summary.hotplug_cycles > 0, "{summary}");
}

/// So many operations are of every kind, but for one time in millions.
const ENOUGH: u64 = 10_000;

#[test]
fn five_seconds_on_eight_cpus_from_a_foreign_thread_find_nothing() {
    let torture = Torture {
        seed: 1,
        seconds: 5,
        ..Torture::default()
    };
    let rack = Rack::new(8, Cooperative);
    let summary = torture.run(&rack, &ROOMS[0], &mut |_| ()).expect("runs");
    assert_clean(&summary, Cooperative);
}

#[test]
fn three_seconds_on_four_cpus_from_a_cpu_with_long_waits_and_rests_find_nothing() {
    let rack = Arc::new(Rack::new(4, Cooperative));
    let torture = Torture {
        seed: 2,
        seconds: 3,
        stutter_ms: 50,
        long_wait_us: 2_000,
        ..Torture::default()
    };
    let on_cpu = Arc::clone(&rack);
    let run = move || torture.run(&*on_cpu, &ROOMS[1], &mut |_| ()).expect("runs");
    let job = rack.machine.spawn_on(CpuId::new(0), run).expect("online");
    assert_clean(&job.join().expect("does not panic"), Cooperative);
}

#[test]
fn five_seconds_with_pre_emptive_delivery_find_nothing() {
    let rack = Rack::new(8, PreEmptive);
    let torture = Torture {
        seed: 3,
        seconds: 5,
        long_wait_us: 500,
        ..Torture::default()
    };
    let summary = torture.run(&rack, &ROOMS[4], &mut |_| ()).expect("runs");
    assert_clean(&summary, PreEmptive);
    assert!(
        rack.machine.platform().kicks() > 0,
        "busy CPUs were interrupted"
    );
}

#[test]
fn a_run_of_one_kind_does_only_that() {
    let mut torture = Torture {
        seconds: 1,
        hotplug_interval_ms: 0,
        ..Torture::default()
    };
    torture.weights[Op::AllWait as usize] = Some(1);
    let rack = Rack::new(3, Cooperative);
    let summary = torture.run(&rack, &ROOMS[2], &mut |_| ()).expect("runs");
    assert!(summary.ok, "{summary}");
    let all = summary.by_operation[Op::AllWait as usize];
    assert_eq!(all, ("all_wait", summary.operations));
}

#[test]
fn weights_of_zero_are_refused() {
    let torture = Torture {
        weights: [Some(0); OPS],
        ..Torture::default()
    };
    let rack = Rack::new(2, Cooperative);
    let refused = torture.run(&rack, &ROOMS[3], &mut |_| ()).err();
    assert_eq!(refused, Some(CannotRun::NoWeight));
}

/// A run of one kind of operation, under pre-emptive delivery.
fn only(op: Op, room: &'static Room<WORDS>) -> Summary {
    let mut torture = Torture {
        seconds: 2,
        foreigners: 3,
        hotplug_interval_ms: 5,
        ..Torture::default()
    };
    torture.weights[op as usize] = Some(1);
    let rack = Rack::new(4, PreEmptive);
    let summary = torture.run(&rack, room, &mut |_| ()).expect("runs");
    eprintln!("{summary}");
    assert!(summary.ok, "{summary}");
    summary
}

#[test]
fn cpus_that_compute_without_a_look_are_called_in_the_middle() {
    let summary = only(Op::Preempt, &ROOMS[5]);
    assert!(summary.operations > summary.refused[Op::Preempt as usize].1);
}

#[test]
fn threads_become_cpus_that_are_down_are_woken_and_stop_being_cpus() {
    let summary = only(Op::Attach, &ROOMS[6]);
    assert!(summary.operations > summary.refused[Op::Attach as usize].1);
    assert!(summary.posts > 0, "nobody was called back: {summary}");
}

#[test]
fn what_a_machine_lacks_is_refused_by_name() {
    let rack = Rack::new(2, Cooperative);
    let refused = |op: Op, torture: Torture| {
        let mut torture = torture;
        torture.weights[op as usize] = Some(1);
        let error = torture.run(&rack, &ROOMS[7], &mut |_| ()).err();
        error.expect("it cannot run").to_string()
    };
    let said = refused(Op::Preempt, Torture::default());
    assert_eq!(
        said,
        "preempt cannot be done here: busy CPUs are not interrupted, they look for calls"
    );
    let no_threads = Torture {
        foreigners: 0,
        ..Torture::default()
    };
    assert!(refused(Op::Attach, no_threads).contains("foreigners"));
    let no_hotplug = Torture {
        hotplug_interval_ms: 0,
        ..Torture::default()
    };
    assert!(refused(Op::Attach, no_hotplug).contains("hotplug_interval_ms"));
}
