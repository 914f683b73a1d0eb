//! Short torture runs: many more CPUs than this computer has, CPUs coming and going, both ways to
//! start it. The long ones are `smpcall torture`.
#![expect(clippy::missing_panics_doc, reason = "a test panics when it fails")]

use std::fmt;
use std::sync::Arc;

use smpcall_hosted::{CpuId, Hosted, HostedSmp, Machine, ROOM, WORDS};
use smpcall_torture::Lab;
use smpcall_torture::torture::op::OPS;
use smpcall_torture::torture::{FOREIGNERS, Op, Room, Summary, Torture};

/// A machine under torture.
struct Rack(Machine);

impl Lab<WORDS, ROOM> for Rack {
    type P = Hosted;

    fn smp(&self) -> &HostedSmp {
        &self.0
    }

    fn kicks(&self) -> u64 {
        self.smp().platform().kicks() + self.smp().platform().wakes()
    }

    fn threads(&self) -> usize {
        FOREIGNERS - 1
    }

    fn beside(&self, threads: usize, work: &(dyn Fn(usize) + Sync), lead: &mut dyn FnMut()) {
        std::thread::scope(|scope| {
            for i in 0..threads {
                scope.spawn(move || work(i));
            }
            lead();
        });
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        eprintln!("smpcall: {line}");
    }
}

fn rack(cpus: usize) -> Rack {
    Rack(Machine::builder().count(cpus).boot().expect("boots"))
}

/// Room for a run each.
static ROOMS: [Room<WORDS>; 5] = [const { Room::new() }; 5];

fn assert_clean(summary: &Summary) {
    eprintln!("{summary}");
    assert!(summary.ok, "{summary}");
    assert_eq!(summary.errors, 0);
    // A computer with far too much to do gets through a few dozen, which need not be of every kind.
    if summary.operations < ENOUGH {
        return;
    }
    for (name, done) in summary.by_operation {
        assert!(done > 0, "no {name} in {summary}");
    }
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
    let summary = torture.run(&rack(8), &ROOMS[0], &mut |_| ()).expect("runs");
    assert_clean(&summary);
}

#[test]
fn three_seconds_on_four_cpus_from_a_cpu_with_long_waits_and_rests_find_nothing() {
    let rack = Arc::new(rack(4));
    let torture = Torture {
        seed: 2,
        seconds: 3,
        stutter_ms: 50,
        long_wait_us: 2_000,
        ..Torture::default()
    };
    let on_cpu = Arc::clone(&rack);
    let run = move || torture.run(&*on_cpu, &ROOMS[1], &mut |_| ()).expect("runs");
    let job = rack.0.spawn_on(CpuId::new(0), run).expect("online");
    assert_clean(&job.join().expect("does not panic"));
}

#[test]
fn five_seconds_with_pre_emptive_delivery_find_nothing() {
    // SAFETY: 1, 2 — the torture's functions neither allocate, lock nor panic; 3, 4 — its jobs run on
    // their threads' stacks; 5 — nobody else uses the signal.
    let builder = unsafe { Machine::builder().count(8).preempt() };
    let rack = Rack(builder.boot().expect("boots"));
    let torture = Torture {
        seed: 3,
        seconds: 5,
        long_wait_us: 500,
        ..Torture::default()
    };
    let summary = torture.run(&rack, &ROOMS[4], &mut |_| ()).expect("runs");
    assert_clean(&summary);
    assert!(rack.0.platform().kicks() > 0, "busy CPUs were interrupted");
}

#[test]
fn a_run_of_one_kind_does_only_that() {
    let mut torture = Torture {
        seconds: 1,
        hotplug_interval_ms: 0,
        ..Torture::default()
    };
    torture.weights[Op::AllWait as usize] = Some(1);
    let summary = torture.run(&rack(3), &ROOMS[2], &mut |_| ()).expect("runs");
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
    assert!(torture.run(&rack(2), &ROOMS[3], &mut |_| ()).is_none());
}
