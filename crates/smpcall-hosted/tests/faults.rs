//! What the semantics promise while the interrupts below the core are bad, CPUs are slow or die, and starts
//! fail.
//!
//! The whole torture runs over each fault of the wire: its checks are the promise. What a run of random
//! operations cannot show (who is named, who goes on) has a test of its own.
#![expect(clippy::missing_panics_doc, reason = "a test panics when it fails")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use smpcall::{CpuId, CpuState, HotplugError};
use smpcall_torture::torture::{Fault, Op, Room, Summary, Torture, op};

#[path = "support/child.rs"]
#[expect(dead_code, reason = "the child here never passes")]
mod child;
#[path = "faults/wire.rs"]
mod wire;

use wire::{Faults, Rig, WORDS};

const CPU1: CpuId = CpuId::new(1);
const CPU2: CpuId = CpuId::new(2);

/// Longer than anything takes on a computer with far too much to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// One machine at a time: they are busy enough.
static ALONE: Mutex<()> = Mutex::new(());

/// A second of torture on four CPUs.
fn tortured(faults: Faults, knobs: &str) -> (Rig, Summary) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let room: &'static Room<WORDS> = Box::leak(Box::new(Room::new()));
    let rig = Rig::new(4, faults, Duration::ZERO);
    let torture = Torture {
        seconds: 1,
        foreigners: 1,
        ..Torture::default()
    };
    let torture = torture.with(knobs).expect("the knobs are right");
    let summary = torture.run(&rig, room, &mut |_| ()).expect("runs");
    eprintln!("{summary}");
    assert!(summary.operations > 0);
    (rig, summary)
}

/// A run in which nothing at all goes wrong.
fn assert_stands(faults: Faults) {
    let (rig, summary) = tortured(faults, "");
    assert!(
        summary.ok,
        "{summary}; reported: {:#?}",
        rig.wire().reports()
    );
}

/// Waits for what must come.
fn wait(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_good_wire_is_stood() {
    assert_stands(Faults::default());
}

#[test]
fn late_interrupts_that_overtake_each_other_are_stood() {
    assert_stands(Faults {
        late: 300,
        late_us: 2_000,
        ..Faults::default()
    });
}

#[test]
fn interrupts_that_come_twice_are_stood() {
    assert_stands(Faults {
        twice: 500,
        ..Faults::default()
    });
}

#[test]
fn stray_interrupts_are_stood() {
    assert_stands(Faults {
        stray: 500,
        ..Faults::default()
    });
}

#[test]
fn a_slow_cpu_is_stood() {
    assert_stands(Faults {
        slow_cpu: Some(1),
        ..Faults::default()
    });
}

#[test]
fn starts_that_are_late_or_lead_nowhere_are_stood() {
    assert_stands(Faults {
        dead_starts: 2,
        slow_start_ms: 30,
        ..Faults::default()
    });
}

#[test]
fn everything_at_once_is_stood() {
    assert_stands(Faults {
        late: 200,
        late_us: 1_000,
        twice: 200,
        stray: 200,
        slow_cpu: Some(2),
        slow_start_ms: 5,
        ..Faults::default()
    });
}

/// Who waits interrupts once more, so every wait ends; a post that nobody waits for comes with the
/// next interrupt. No call is lost, run twice or early.
#[test]
fn lost_interrupts_delay_calls_and_lose_none() {
    let faults = Faults {
        lost: 50,
        ..Faults::default()
    };
    let mut knobs = String::from("patience_ms=300");
    // Nothing attaches here.
    for op in op::ALL.into_iter().filter(|&op| op != Op::Attach) {
        knobs += &format!(" weight_{}={}", op.name(), op.default_weight(4));
    }
    let (rig, summary) = tortured(faults, &knobs);
    assert!(
        rig.wire().lost.load(Ordering::Relaxed) > 0,
        "nothing was lost"
    );
    let late = summary.by_fault[Fault::LostWakeup as usize].1;
    assert_eq!(
        summary.errors, late,
        "more than wake-ups was lost: {summary}"
    );
}

#[test]
fn a_wait_interrupts_again_until_one_arrives() {
    let rig = Rig::new(2, Faults::default(), Duration::ZERO);
    // The first one and two of the stall reports'.
    rig.wire().lose(CPU1, 3);
    assert_eq!(rig.smp.call(CPU1, || 7).expect("online"), 7);
    let reports = rig.wire().reports();
    let recovered = |said: &String| said.contains("CPU 1 answered a foreign thread");
    assert!(reports.iter().any(recovered), "{reports:#?}");
}

static STUCK: AtomicBool = AtomicBool::new(true);

fn function_that_is_stuck() -> u32 {
    while STUCK.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
    9
}

/// The CPU is as dead as can be: in the middle of a call, taking no interrupt. Nobody gets an answer early,
/// the others go on, it cannot leave, and when it comes back to life everything ends as promised.
#[test]
fn a_cpu_that_dies_in_the_middle_of_a_call_is_named_and_holds_up_nobody_else() {
    let rig = Rig::new(3, Faults::default(), Duration::ZERO);
    let (smp, wire) = (rig.smp, rig.wire());
    let waiter =
        std::thread::spawn(move || smp.call(CPU1, function_that_is_stuck).expect("online"));
    let named = |said: &String| {
        said.contains("for CPU 1, which is running this request")
            && said.contains("function_that_is_stuck")
    };
    wait("the dead CPU is named", || wire.reports().iter().any(named));
    let ran = AtomicU32::new(0);
    for _ in 0..100 {
        smp.call(CPU2, || ran.fetch_add(1, Ordering::Relaxed))
            .expect("online");
    }
    assert_eq!(ran.load(Ordering::Relaxed), 100);
    assert_eq!(smp.cpu_down(CPU1), Err(HotplugError::Timeout));
    assert_eq!(smp.cpu_state(CPU1), CpuState::Online);
    assert!(
        !waiter.is_finished(),
        "the call came back before its function ended"
    );
    static POSTED: AtomicU32 = AtomicU32::new(0);
    let count = || {
        POSTED.fetch_add(1, Ordering::Relaxed);
    };
    smp.post(CPU1, count).expect("there is room");
    assert_eq!(POSTED.load(Ordering::Relaxed), 0);
    STUCK.store(false, Ordering::Release);
    assert_eq!(waiter.join().expect("does not panic"), 9);
    wait("what was posted to it runs", || {
        POSTED.load(Ordering::Relaxed) == 1
    });
    smp.cpu_down(CPU1).expect("leaves now");
}

#[test]
fn a_cpu_that_dies_for_good_ends_the_process_at_the_limit_and_is_named() {
    const TEST: &str = "a_cpu_that_dies_for_good_ends_the_process_at_the_limit_and_is_named";
    if child::is_child(TEST) {
        let rig = Rig::new(2, Faults::default(), Duration::from_millis(100));
        let forever = || loop {
            std::thread::park();
        };
        let never: Result<(), _> = rig.smp.call(CPU1, forever);
        unreachable!("the call came back: {:?}", never.is_ok());
    }
    let end = child::run(TEST);
    assert!(!end.status.success(), "{end:?}");
    let named = [
        "wire: fatal",
        "for CPU 1",
        "is running this request",
        "past the limit",
    ];
    assert!(named.iter().all(|part| end.said.contains(part)), "{end:?}");
}

#[test]
fn a_start_that_leads_nowhere_is_undone_and_the_late_cpu_is_turned_away() {
    let faults = Faults {
        slow_start_ms: 0,
        ..Faults::default()
    };
    let rig = Rig::new(2, faults, Duration::ZERO);
    rig.smp.cpu_down(CPU1).expect("leaves");
    let nobody = || Ok(());
    assert_eq!(rig.smp.cpu_up_by(CPU1, nobody), Err(HotplugError::Timeout));
    assert_eq!(rig.smp.cpu_state(CPU1), CpuState::Offline);
    assert!(rig.smp.call(CPU1, || ()).is_err());
    assert!(
        !rig.arrives_uncalled(CPU1),
        "a CPU that nobody waits for was let in"
    );
    rig.smp.cpu_up(CPU1).expect("the next start works");
    assert_eq!(rig.smp.call(CPU1, || 3).expect("online"), 3);
}
