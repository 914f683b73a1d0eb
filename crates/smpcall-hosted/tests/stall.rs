//! Waits that take long are reported: who holds them up, in what, for how long, and that it ended.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smpcall_hosted::{CpuId, CpuMask, JoinHandle, Machine};

#[path = "support/bed.rs"]
#[expect(dead_code, reason = "these tests build their own machines")]
mod bed;

use bed::Bed;

const CPU1: CpuId = CpuId::new(1);
const LIMIT: Duration = Duration::from_millis(50);

/// What was reported, in order.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<String>>>);

impl Reports {
    /// A machine that reports here.
    fn bed(&self, cpus: usize, limit: Duration) -> Bed {
        let kept = self.clone();
        Bed::of(
            Machine::builder()
                .count(cpus)
                .stall_limit(limit)
                .reporter(move |report| {
                    bed::log(report);
                    kept.all().push(report.to_string());
                }),
        )
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a report that has all of this; answers it, or what was said instead: the test lets
    /// go whom it holds before it looks.
    fn wait_for(&self, parts: &[&str]) -> String {
        let started = Instant::now();
        loop {
            let all = self.all().clone();
            if let Some(found) = all
                .iter()
                .find(|said| parts.iter().all(|p| said.contains(p)))
            {
                return found.clone();
            }
            if started.elapsed() > Duration::from_secs(60) {
                return format!("nobody said {parts:?}: {all:#?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Opens to let go who is stuck.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Spins, taking no calls.
    fn gets_stuck(&self) {
        while !self.0.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }
}

/// CPU `cpu` is in its own task context, taking no calls, until the gate opens.
fn busy(bed: &Bed, cpu: u32, gate: &Gate) -> JoinHandle<()> {
    let started = Gate::default();
    let (starts, gate) = (started.clone(), gate.clone());
    let job = bed.on(cpu, move |_| {
        starts.open();
        gate.gets_stuck();
    });
    started.gets_stuck();
    job
}

static RELEASED: AtomicBool = AtomicBool::new(false);

fn function_x() {
    while !RELEASED.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
}

#[test]
fn a_cpu_stuck_in_this_request_is_named_with_the_function_and_recovery_is_announced() {
    let reports = Reports::default();
    let bed = reports.bed(2, LIMIT);
    let caller = bed.on(0, |machine| machine.call(CPU1, function_x).unwrap());
    let said = reports.wait_for(&["CPU 0 has waited", "for CPU 1", "running this request"]);
    RELEASED.store(true, Ordering::Release);
    caller.join().unwrap();
    assert!(said.contains("stall::function_x`"), "{said}");
    assert!(said.contains("tests/stall.rs"), "the caller: {said}");
    assert!(said.contains("interrupted once more"), "{said}");
    let said = reports.wait_for(&["CPU 1 answered CPU 0 after"]);
    assert!(said.starts_with("CPU 1"), "{said}");
    assert!(!said.contains(" 0 ms"), "{said}");
}

#[test]
fn a_cpu_stuck_in_an_earlier_request_is_named_with_that_one() {
    let reports = Reports::default();
    let bed = reports.bed(2, LIMIT);
    let gate = Gate::default();
    let started = Gate::default();
    let stuck = Box::new((started.clone(), gate.clone()));
    let get_stuck = move || {
        stuck.0.open();
        stuck.1.gets_stuck();
    };
    bed.post(CPU1, get_stuck).unwrap();
    // A waited call that comes before the post is taken overtakes it.
    started.gets_stuck();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| bed.call(CPU1, || 7).unwrap());
        let parts = ["a foreign thread has waited", "running an earlier request"];
        let said = reports.wait_for(&parts);
        gate.open();
        assert_eq!(caller.join().unwrap(), 7);
        let name = "a_cpu_stuck_in_an_earlier_request_is_named_with_that_one::{{closure}}`";
        assert!(said.contains(name), "{said}");
    });
    let said = reports.wait_for(&["CPU 1 answered a foreign thread"]);
    assert!(said.starts_with("CPU 1"), "{said}");
}

#[test]
fn a_cpu_stuck_before_it_takes_the_call_takes_no_calls() {
    let reports = Reports::default();
    let bed = reports.bed(2, LIMIT);
    let gate = Gate::default();
    let job = busy(&bed, 1, &gate);
    let kicks = bed.platform().kicks();
    let caller = bed.on(0, |machine| machine.call(CPU1, || 7).unwrap());
    let said = reports.wait_for(&["for CPU 1, which takes no calls"]);
    // The intervals double, from 50 ms: a few reports a second, not twenty.
    std::thread::sleep(Duration::from_millis(1000));
    let kicks = bed.platform().kicks() - kicks;
    gate.open();
    assert_eq!(caller.join().unwrap(), 7);
    job.join().unwrap();
    assert!(said.starts_with("CPU 0"), "{said}");
    assert!(!said.contains('`'), "it runs nothing for others: {said}");
    let all = reports.all().clone();
    let repeats = all.iter().filter(|said| said.contains("takes no calls"));
    let repeats = repeats.count() as u64;
    assert!((1..=7).contains(&repeats), "{all:#?}");
    assert!(
        (2..=2 + repeats).contains(&kicks),
        "{kicks}: the call's, one for each of {repeats} reports, and perhaps the job's"
    );
    let said = reports.wait_for(&["CPU 1 answered CPU 0"]);
    assert!(said.starts_with("CPU 1"), "{said}");
}

#[test]
fn a_broadcast_names_the_cpu_that_lags() {
    let reports = Reports::default();
    let bed = reports.bed(4, LIMIT);
    for from_cpu in [true, false] {
        reports.all().clear();
        let gate = Gate::default();
        let lags = gate.clone();
        let laggard = move |cpu: CpuId| {
            if cpu.get() == 2 {
                lags.gets_stuck();
            }
        };
        std::thread::scope(|scope| {
            let caller = if from_cpu {
                let job = bed.on(0, move |machine| {
                    machine.on_each_cpu(laggard).unwrap();
                });
                scope.spawn(move || job.join().unwrap())
            } else {
                scope.spawn(|| {
                    bed.on_each_cpu(laggard).unwrap();
                })
            };
            let said = reports.wait_for(&["for CPU 2", "running this request"]);
            gate.open();
            caller.join().unwrap();
            assert!(
                said.contains("a_broadcast_names_the_cpu_that_lags"),
                "{said}"
            );
        });
        let said = reports.wait_for(&["CPU 2 answered"]);
        assert!(said.starts_with("CPU 2"), "{said}");
    }
}

#[test]
fn who_waits_for_the_lock_of_hotplug_is_told_which_cpu_comes_or_goes() {
    let reports = Reports::default();
    let bed = reports.bed(3, LIMIT);
    let gate = Gate::default();
    let job = busy(&bed, 1, &gate);
    std::thread::scope(|scope| {
        let down = scope.spawn(|| bed.cpu_down(CPU1));
        while bed.cpu_state(CPU1) != smpcall_hosted::CpuState::GoingDown {
            std::thread::yield_now();
        }
        let waits = scope.spawn(|| bed.cpu_down(CpuId::new(2)));
        let said = reports.wait_for(&["for CPU 1, which is coming up or going down"]);
        gate.open();
        // It gave up if the computer had too much to do meanwhile.
        let _ = down.join().unwrap();
        waits.join().unwrap().unwrap();
        assert!(said.starts_with("a foreign thread has waited"), "{said}");
    });
    job.join().unwrap();
}

#[test]
fn who_waits_for_room_is_told_which_cpu_has_none() {
    let reports = Reports::default();
    let bed = reports.bed(2, LIMIT);
    let gate = Gate::default();
    let job = busy(&bed, 1, &gate);
    while bed.post(CPU1, || ()).is_ok() {}
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| bed.post_wait(CPU1, || ()).unwrap());
        let said = reports.wait_for(&["for CPU 1, which has no room for another post"]);
        gate.open();
        caller.join().unwrap();
        assert!(said.starts_with("a foreign thread has waited"), "{said}");
    });
    job.join().unwrap();
}

#[test]
fn a_limit_of_zero_reports_nothing() {
    let reports = Reports::default();
    let bed = reports.bed(2, Duration::ZERO);
    let gate = Gate::default();
    let job = busy(&bed, 1, &gate);
    let opens = gate.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            opens.open();
        });
        bed.call(CPU1, || ()).unwrap();
        bed.on_each_cpu_mask(&CpuMask::first_n(2), |_| ()).unwrap();
    });
    job.join().unwrap();
    assert!(reports.all().iter().all(|said| !said.contains("waited")));
}

#[test]
fn past_the_second_limit_the_process_ends_and_says_why() {
    const CHILD: &str = "SMPCALL_STALL_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let machine = Machine::builder()
            .count(2)
            .stall_limit(LIMIT)
            .stall_abort(3 * LIMIT)
            .boot()
            .unwrap();
        let _ = machine.call(CPU1, || Gate::default().gets_stuck());
        unreachable!("the wait never ends");
    }
    let name = "past_the_second_limit_the_process_ends_and_says_why";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    let ended = child.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success(), "{said}");
    assert!(
        said.contains("fatal: a foreign thread has waited"),
        "{said}"
    );
    assert!(said.contains("which is past the limit"), "{said}");
}

/// A CPU that waits for a task sleeps meanwhile, and so does a thread that is none.
#[test]
fn a_cpu_that_does_not_come_to_its_tasks_is_named_and_recovery_is_announced() {
    let reports = Reports::default();
    let bed = reports.bed(2, LIMIT);
    let gate = Gate::default();
    let job = busy(&bed, 1, &gate);
    let (from_cpu, from_thread) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| bed.run_on_cpu(CPU1, || 2).unwrap());
        let cpu = bed.on(0, |machine| machine.run_on_cpu(CPU1, || 1).unwrap());
        let cause = [
            "for CPU 1",
            "has not come to its tasks",
            "interrupted once more",
        ];
        let of_cpu = reports.wait_for(&[&["CPU 0 has waited"], &cause[..]].concat());
        let of_thread = reports.wait_for(&[&["a foreign thread has waited"], &cause[..]].concat());
        gate.open();
        assert_eq!((cpu.join().unwrap(), thread.join().unwrap()), (1, 2));
        (of_cpu, of_thread)
    });
    job.join().unwrap();
    assert!(
        from_cpu.contains("tests/stall.rs"),
        "the caller: {from_cpu}"
    );
    assert!(from_thread.contains("tests/stall.rs"), "{from_thread}");
    let recovered = reports.wait_for(&["CPU 1 answered"]);
    assert!(!recovered.starts_with("nobody"), "{recovered}");
}

/// Tasks may take long: one that has begun is nobody's fault. One report may be on its way when it begins.
#[test]
fn a_task_that_takes_long_is_not_reported() {
    let reports = Reports::default();
    let bed = reports.bed(2, LIMIT);
    let kept = reports.clone();
    let slow = move || {
        let before = kept.all().len();
        std::thread::sleep(20 * LIMIT);
        kept.all().len() - before
    };
    let from_thread = bed.run_on_cpu(CPU1, slow.clone()).unwrap();
    let cpu = bed.on(0, move |machine| machine.run_on_cpu(CPU1, slow).unwrap());
    let said = [from_thread, cpu.join().unwrap()];
    assert!(said.iter().all(|&n| n <= 1), "{:#?}", reports.all());
}
