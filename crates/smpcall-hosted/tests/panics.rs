//! Panics in what others run for us: who gets them, and that the CPUs live on.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use smpcall_hosted::{CpuId, CpuMask, Csd, JoinHandle, Machine};

#[path = "support/bed.rs"]
mod bed;
#[path = "support/scratch.rs"]
mod scratch;

use bed::Bed;
use scratch::Scratch;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

/// A payload of our own.
#[derive(Debug, PartialEq, Eq)]
struct Payload(u32);

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("a drop panics");
    }
}

/// The payload that comes out of `f`, which must panic with one of ours.
#[track_caller]
fn payload_of<R>(f: impl FnOnce() -> R) -> Payload {
    let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) else {
        panic!("it did not panic");
    };
    *payload.downcast().expect("our own payload")
}

fn explode(with: u32) {
    panic::panic_any(Payload(with));
}

/// Both CPUs answer.
#[track_caller]
fn lives(machine: &Machine) {
    for cpu in [CPU0, CPU1] {
        assert_eq!(
            machine.call(cpu, || machine.current_cpu()).unwrap(),
            Some(cpu)
        );
    }
    assert_eq!(machine.on_each_cpu(|_| ()).unwrap(), machine.present_cpus());
}

/// A machine whose reports come out of a channel, one line each.
fn with_reports(cpus: usize) -> (Bed, mpsc::Receiver<String>) {
    let (reports, lines) = mpsc::channel();
    let report = move |line: &dyn Display| {
        bed::log(line);
        // The test may have enough.
        let _ = reports.send(line.to_string());
    };
    let bed = Bed::of(Machine::builder().count(cpus).reporter(report));
    assert_eq!(reported(&lines), format!("Brought up {cpus} CPUs"));
    (bed, lines)
}

/// The next report, which must come.
#[track_caller]
fn reported(lines: &mpsc::Receiver<String>) -> String {
    lines
        .recv_timeout(Duration::from_secs(60))
        .expect("a report")
}

#[test]
fn a_panic_reaches_the_foreign_thread_that_called() {
    let bed = Bed::new(2);
    assert_eq!(payload_of(|| bed.call(CPU1, || explode(1))), Payload(1));
    let cpus = CpuMask::of(CPU1);
    assert_eq!(
        payload_of(|| bed.call_any(&cpus, || explode(2))),
        Payload(2)
    );
    assert_eq!(
        payload_of(|| bed.run_on_cpu(CPU1, || explode(3))),
        Payload(3)
    );
    let csd = Csd::new(|| explode(4));
    assert_eq!(payload_of(|| bed.call_csd(CPU1, &csd)), Payload(4));
    assert!(!csd.is_queued(), "the descriptor is free again");
    let called = |_| explode(5);
    assert_eq!(payload_of(|| bed.call_many(&cpus, called)), Payload(5));
    lives(&bed);
}

#[test]
fn a_panic_reaches_the_cpu_that_called() {
    let bed = Bed::new(2);
    let job = bed.on(0, |machine| {
        assert_eq!(payload_of(|| machine.call(CPU1, || explode(1))), Payload(1));
        let big = [7_u64; 32];
        let by_address = || explode(big.len() as u32);
        assert_eq!(payload_of(|| machine.call(CPU1, by_address)), Payload(32));
        assert_eq!(
            payload_of(|| machine.run_on_cpu(CPU1, || explode(3))),
            Payload(3)
        );
        let csd = Csd::new(|| explode(4));
        assert_eq!(payload_of(|| machine.call_csd(CPU1, &csd)), Payload(4));
        let mut guard = machine.irqs_off();
        let off = || machine.call_irqs_off(&mut guard, CPU1, || explode(5));
        assert_eq!(payload_of(off), Payload(5));
        drop(guard);
        assert_eq!(
            machine.call(CPU1, || 6).unwrap(),
            6,
            "the context is as it was"
        );
    });
    job.join().unwrap();
    lives(&bed);
}

#[test]
fn a_panic_of_a_call_to_oneself_leaves_the_context_as_it_was() {
    let bed = Bed::new(2);
    let job = bed.on(1, |machine| {
        assert_eq!(payload_of(|| machine.call(CPU1, || explode(1))), Payload(1));
        let csd = Csd::new(|| explode(2));
        assert_eq!(payload_of(|| machine.call_csd(CPU1, &csd)), Payload(2));
        // A context that stayed a handler's, or kept interrupts off, would refuse this.
        assert_eq!(machine.call(CPU0, || 3).unwrap(), 3);
    });
    job.join().unwrap();
    lives(&bed);
}

/// A broadcast whose CPUs from 1 on panic: the caller gets CPU 1's after all have finished.
fn broadcast(machine: &Machine, finished: &AtomicU32) {
    let cpus = machine.online_cpus().len() as u32;
    let f = |cpu: CpuId| {
        // The first in CPU order is the last in time.
        let late = if cpu == CPU1 { 50 } else { 0 };
        std::thread::sleep(Duration::from_millis(late));
        finished.fetch_add(1, Ordering::Relaxed);
        if cpu >= CPU1 {
            explode(cpu.get());
        }
    };
    assert_eq!(payload_of(|| machine.on_each_cpu(f)), Payload(1));
    assert_eq!(finished.load(Ordering::Relaxed), cpus, "all have run");
}

/// The CPUs whose panics were reported.
fn reported_cpus(lines: &mpsc::Receiver<String>, count: usize) -> Vec<String> {
    let mut cpus: Vec<String> = (0..count)
        .map(|_| reported(lines))
        .map(|line| {
            let cpu = line.split_once("CPU ").expect("names the CPU").1;
            cpu.chars().take_while(char::is_ascii_digit).collect()
        })
        .collect();
    cpus.sort_by_key(|cpu| cpu.parse::<u32>().unwrap());
    cpus
}

#[test]
fn a_broadcast_from_a_cpu_continues_the_panic_of_the_lowest_and_reports_the_others() {
    for cpus in [2, 4, 9] {
        let (bed, lines) = with_reports(cpus);
        let job = bed.on(0, |machine| broadcast(machine, &AtomicU32::new(0)));
        job.join().unwrap();
        let others: Vec<String> = (2..cpus).map(|cpu| cpu.to_string()).collect();
        assert_eq!(reported_cpus(&lines, cpus - 2), others);
        lives(&bed);
    }
}

#[test]
fn a_broadcast_from_a_foreign_thread_continues_the_panic_of_the_lowest() {
    for cpus in [2, 5, 40] {
        let (bed, lines) = with_reports(cpus);
        broadcast(&bed, &AtomicU32::new(0));
        let others: Vec<String> = (2..cpus).map(|cpu| cpu.to_string()).collect();
        assert_eq!(reported_cpus(&lines, cpus - 2), others);
        lives(&bed);
    }
}

#[test]
fn a_local_panic_of_a_broadcast_waits_for_the_remote_ones() {
    for cpus in [2, 4] {
        let bed = Bed::new(cpus);
        let job = bed.on(0, move |machine| {
            let remote = AtomicU32::new(0);
            let f = |cpu| {
                if cpu == CPU0 {
                    explode(0);
                }
                std::thread::sleep(Duration::from_millis(50));
                remote.fetch_add(1, Ordering::Relaxed);
            };
            assert_eq!(payload_of(|| machine.on_each_cpu(f)), Payload(0));
            assert_eq!(remote.load(Ordering::Relaxed), cpus as u32 - 1);
        });
        job.join().unwrap();
        lives(&bed);
    }
}

#[test]
fn a_panic_in_a_predicate_queues_nothing() {
    let bed = Bed::new(4);
    static RAN: AtomicU32 = AtomicU32::new(0);
    let count = |_| {
        RAN.fetch_add(1, Ordering::Relaxed);
    };
    let wanted = |cpu: CpuId| {
        if cpu >= CpuId::new(2) {
            explode(cpu.get());
        }
        true
    };
    assert_eq!(
        payload_of(|| bed.on_each_cpu_cond(wanted, count)),
        Payload(2)
    );
    assert_eq!(payload_of(|| bed.post_each_cond(wanted, count)), Payload(2));
    let job = bed.on(0, move |machine| {
        assert_eq!(
            payload_of(|| machine.on_each_cpu_cond(wanted, count)),
            Payload(2)
        );
        assert_eq!(
            payload_of(|| machine.post_each_cond(wanted, count)),
            Payload(2)
        );
        assert_eq!(
            machine.call(CPU1, || 1).unwrap(),
            1,
            "the context is as it was"
        );
    });
    job.join().unwrap();
    bed.online_cpus()
        .iter()
        .for_each(|cpu| bed.flush(cpu).unwrap());
    assert_eq!(RAN.load(Ordering::Relaxed), 0);
    lives(&bed);
}

#[test]
fn a_posted_panic_is_reported_and_the_cpu_lives_on() {
    let (bed, lines) = with_reports(2);
    bed.post(CPU1, || panic!("posted {}", 1)).unwrap();
    assert_eq!(
        reported(&lines),
        "a function that ran on CPU 1 panicked: posted 1"
    );
    static CSD: Csd = Csd::new(|| panic!("posted 2"));
    bed.post_static_csd(CPU1, &CSD).unwrap();
    assert_eq!(
        reported(&lines),
        "a function that ran on CPU 1 panicked: posted 2"
    );
    bed.post_task(CPU1, Pin::static_ref(&CSD)).unwrap();
    assert_eq!(
        reported(&lines),
        "a function that ran on CPU 1 panicked: posted 2"
    );
    bed.post_each(|_| panic!("posted 3")).unwrap();
    let mut both = [reported(&lines), reported(&lines)];
    both.sort();
    assert_eq!(both[0], "a function that ran on CPU 0 panicked: posted 3");
    assert_eq!(both[1], "a function that ran on CPU 1 panicked: posted 3");
    lives(&bed);
}

#[test]
fn a_panic_of_a_post_to_oneself_is_reported_too() {
    let (bed, lines) = with_reports(2);
    let job = bed.on(1, |machine| {
        machine.post(CPU1, || panic!("inline")).unwrap();
        machine.call(CPU0, || 1).unwrap()
    });
    assert_eq!(job.join().unwrap(), 1, "it did not reach the poster");
    assert_eq!(
        reported(&lines),
        "a function that ran on CPU 1 panicked: inline"
    );
    lives(&bed);
}

#[test]
fn a_panic_in_the_drop_of_what_a_call_captured_reaches_the_caller() {
    let bed = Bed::new(2);
    let grenade = Grenade;
    let call = || bed.call(CPU1, move || drop(grenade));
    assert!(panic::catch_unwind(AssertUnwindSafe(call)).is_err());
    lives(&bed);
}

#[test]
fn a_panic_in_the_drop_of_what_a_post_captured_is_reported() {
    let (bed, lines) = with_reports(2);
    let grenade = Grenade;
    bed.post(CPU1, move || drop(grenade)).unwrap();
    assert!(reported(&lines).contains("a drop panics"));
    lives(&bed);
}

#[test]
fn a_panic_in_the_drop_of_a_result_is_the_callers_own() {
    let bed = Bed::new(2);
    let dropped = || drop(bed.call(CPU1, || Grenade));
    assert!(panic::catch_unwind(AssertUnwindSafe(dropped)).is_err());
    lives(&bed);
}

#[test]
fn a_panic_in_the_drop_of_a_payload_stays_where_it_is() {
    let (bed, lines) = with_reports(2);
    bed.post(CPU1, || panic::panic_any(Grenade)).unwrap();
    assert_eq!(
        reported(&lines),
        "a function that ran on CPU 1 panicked: (no message)"
    );
    lives(&bed);
}

#[test]
fn a_panic_in_a_job_stays_in_its_handle() {
    let bed = Bed::new(2);
    let job: JoinHandle<()> = bed.on(1, |_| explode(9));
    let payload = job.join().unwrap_err().downcast::<Payload>();
    assert_eq!(*payload.unwrap(), Payload(9));
    lives(&bed);
}

#[test]
fn a_panic_in_the_drop_of_a_result_that_nobody_wants_does_not_end_the_cpu() {
    let bed = Bed::new(2);
    let (handle_is_gone, wait) = mpsc::channel();
    let handle = bed.on(1, move |_| {
        // Otherwise the result may be dropped here, with the handle.
        let _ = wait.recv();
        Grenade
    });
    drop(handle);
    handle_is_gone.send(()).unwrap();
    bed.on(1, |_| ()).join().unwrap();
    lives(&bed);
}

#[test]
fn a_reporter_that_panics_does_not_end_the_cpu() {
    static CALLED: AtomicBool = AtomicBool::new(false);
    let report = |_: &dyn Display| {
        CALLED.store(true, Ordering::Relaxed);
        panic!("the reporter panics");
    };
    let bed = Bed::of(Machine::builder().count(2).reporter(report));
    CALLED.store(false, Ordering::Relaxed);
    bed.post(CPU1, || panic!("posted")).unwrap();
    bed.flush(CPU1).unwrap();
    assert!(CALLED.load(Ordering::Relaxed));
    lives(&bed);
}

#[test]
fn with_panic_abort_a_panic_in_a_called_function_aborts() {
    use std::os::unix::process::ExitStatusExt;
    let scratch = Scratch::new("panic-abort", "[profile.dev]\npanic = \"abort\"");
    let source = "use smpcall_hosted::{CpuId, Machine};\n\nfn main() {\n    \
        let machine = Machine::builder().count(2).boot().unwrap();\n    \
        let _ = machine.call(CpuId::new(1), || panic!(\"called\"));\n}\n";
    let built = scratch.build("panic_abort", source, &[]);
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let end = scratch.run("panic_abort");
    assert_eq!(end.status.signal(), Some(libc::SIGABRT), "{end:?}");
    assert!(
        String::from_utf8_lossy(&end.stderr).contains("called"),
        "{end:?}"
    );
}
