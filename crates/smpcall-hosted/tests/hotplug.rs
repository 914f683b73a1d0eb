//! The way up and down of CPUs when callbacks panic, when two want the same, and what is reported.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Instant;

use smpcall_hosted::{
    BootParams, CallError, CpuCallbacks, CpuId, CpuMask, CpuState, HostCpus, HotplugError, Machine,
};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

/// A machine whose reports are kept.
fn kept(cpus: usize, params: &str) -> (Bed, Arc<Mutex<Vec<String>>>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let saying = Arc::clone(&said);
    let params = BootParams::parse(params, 1024).expect("good parameters");
    let builder = Machine::builder().count(cpus).params(params);
    let bed = Bed::of(builder.reporter(move |report| {
        bed::log(report);
        saying.lock().unwrap().push(report.to_string());
    }));
    (bed, said)
}

#[test]
fn a_boot_says_how_many_cpus_it_brought_up() {
    let (_bed, said) = kept(5, "maxcpus=3");
    assert_eq!(*said.lock().unwrap(), ["Brought up 3 CPUs"]);
}

#[test]
fn a_boot_says_that_nr_cpus_was_cut() {
    let (bed, said) = kept(2, "nr_cpus=4096");
    assert_eq!(bed.num_online_cpus(), 2);
    let said = said.lock().unwrap();
    let notice = "nr_cpus=4096 is more than this build supports, using 1024";
    assert_eq!(*said, [notice, "Brought up 2 CPUs"]);
}

#[test]
fn a_prepare_that_panics_is_undone_and_the_panic_goes_on_in_the_caller() {
    static PANICS: AtomicBool = AtomicBool::new(true);
    static DEAD: AtomicU32 = AtomicU32::new(0);
    static COUNTS: CpuCallbacks = CpuCallbacks {
        name: "counts",
        dead: |_| {
            DEAD.fetch_add(1, Ordering::Relaxed);
        },
        ..CpuCallbacks::NONE
    };
    static PANICKER: CpuCallbacks = CpuCallbacks {
        name: "panicker",
        prepare: |_| {
            assert!(!PANICS.load(Ordering::Relaxed), "prepare panics");
            Ok(())
        },
        ..CpuCallbacks::NONE
    };
    let bed = Bed::new(2);
    bed.cpu_down(CPU1).unwrap();
    bed.register(&COUNTS).unwrap();
    bed.register(&PANICKER).unwrap();
    let up = panic::catch_unwind(AssertUnwindSafe(|| bed.cpu_up(CPU1)));
    let why = up.unwrap_err();
    assert_eq!(why.downcast_ref(), Some(&"prepare panics"));
    assert_eq!(
        DEAD.load(Ordering::Relaxed),
        1,
        "what was prepared was undone"
    );
    assert_eq!(bed.cpu_state(CPU1), CpuState::Offline);
    PANICS.store(false, Ordering::Relaxed);
    bed.cpu_up(CPU1).unwrap();
    assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
}

#[test]
fn callbacks_that_can_refuse_nothing_are_reported_when_they_panic() {
    static PANICS: CpuCallbacks = CpuCallbacks {
        name: "panics",
        starting: |_| panic!("starting panics"),
        dying: |_| panic!("dying panics"),
        dead: |_| panic!("dead panics"),
        ..CpuCallbacks::NONE
    };
    let (bed, said) = kept(2, "maxcpus=1");
    bed.register(&PANICS).unwrap();
    for _ in 0..3 {
        bed.cpu_up(CPU1).unwrap();
        assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
        bed.cpu_down(CPU1).unwrap();
        assert_eq!(bed.cpu_state(CPU1), CpuState::Offline);
    }
    let said = said.lock().unwrap();
    for words in ["starting panics", "dying panics", "dead panics"] {
        let line = format!("a function that ran on CPU 1 panicked: {words}");
        assert_eq!(
            said.iter().filter(|said| **said == line).count(),
            3,
            "{said:?}"
        );
    }
}

#[test]
fn a_cpu_that_leaves_by_itself_while_it_is_asked_to_leaves_at_once() {
    // No two threads are made to meet here: rounds enough that some do.
    let bed = Bed::new(2);
    let mut asked = 0;
    for _ in 0..100 {
        let together = Arc::new(Barrier::new(2));
        let meets = Arc::clone(&together);
        let leaves = bed.on(1, move |machine| {
            meets.wait();
            machine.offline_this_cpu()
        });
        together.wait();
        let down = bed.cpu_down(CPU1);
        assert!(
            matches!(down, Ok(()) | Err(HotplugError::AlreadyOffline)),
            "nobody waits until the time is up: {down:?}"
        );
        asked += u32::from(down.is_ok());
        assert_eq!(leaves.join().unwrap(), Ok(()));
        let start = Instant::now();
        // Its thread ends a moment after the job.
        while bed.cpu_up(CPU1).is_err() {
            assert!(start.elapsed().as_secs() < 60);
            std::thread::yield_now();
        }
    }
    println!("asked in time in {asked} rounds of 100");
}

#[test]
fn jobs_that_were_accepted_run_before_their_cpu_leaves() {
    let bed = Bed::new(2);
    for _ in 0..20 {
        let gate = Arc::new(Barrier::new(2));
        let opens = Arc::clone(&gate);
        let busy = bed.on(1, move |_| {
            opens.wait();
            opens.wait();
        });
        gate.wait();
        let jobs: Vec<_> = (0..10).map(|n| bed.on(1, move |_| n)).collect();
        std::thread::scope(|scope| {
            let down = scope.spawn(|| bed.cpu_down(CPU1));
            gate.wait();
            down.join().unwrap().unwrap();
        });
        busy.join().unwrap();
        for (n, job) in jobs.into_iter().enumerate() {
            assert_eq!(job.try_join().expect("before it was offline").unwrap(), n);
        }
        let refused = bed.spawn_on(CPU1, || ()).unwrap_err();
        assert_eq!(refused, CallError::Offline { cpu: CPU1 });
        bed.cpu_up(CPU1).unwrap();
        assert_eq!(bed.on(1, |_| 7).join().unwrap(), 7);
    }
}

#[test]
fn jobs_behind_one_that_takes_its_cpu_offline_are_handed_an_end() {
    let bed = Bed::new(2);
    let gate = Arc::new(Barrier::new(2));
    let opens = Arc::clone(&gate);
    let leaves = bed.on(1, move |machine| {
        opens.wait();
        opens.wait();
        machine.offline_this_cpu()
    });
    gate.wait();
    let behind: Vec<_> = (0..10).map(|n| bed.on(1, move |_| n)).collect();
    gate.wait();
    assert_eq!(leaves.join().unwrap(), Ok(()));
    for job in behind {
        let why = job.join().unwrap_err();
        assert_eq!(
            why.downcast_ref(),
            Some(&"the job's CPU went offline first")
        );
    }
    let start = Instant::now();
    while bed.cpu_up(CPU1).is_err() {
        assert!(start.elapsed().as_secs() < 60);
        std::thread::yield_now();
    }
    assert_eq!(
        bed.on(1, |_| 7).join().unwrap(),
        7,
        "none of them came back"
    );
}

#[test]
fn no_job_is_accepted_for_a_cpu_that_does_not_exist() {
    let bed = Bed::new(2);
    let error = bed.spawn_on(CpuId::new(u32::MAX), || ()).unwrap_err();
    assert!(matches!(error, CallError::NoSuchCpu { .. }), "{error}");
}

#[test]
fn interrupts_stay_off_until_the_last_guard_goes_in_whatever_order() {
    let bed = Bed::new(2);
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let seen = bed.on(1, move |machine| {
            let mut guards = [(); 3].map(|()| Some(machine.irqs_off()));
            let refused = order.map(|n| {
                guards[n] = None;
                machine.call(CPU0, || ()).map_err(|refused| refused.error)
            });
            (
                refused,
                machine.call(CPU0, || 7).map_err(|refused| refused.error),
            )
        });
        let off = Err(CallError::InterruptsOff);
        assert_eq!(
            seen.join().unwrap(),
            ([off, off, Ok(())], Ok(7)),
            "{order:?}"
        );
    }
}

#[test]
fn a_guard_that_outlives_a_forgotten_one_ends_no_later_region() {
    let bed = Bed::new(2);
    thread_local! {
        static KEPT: std::cell::RefCell<Option<Box<dyn std::any::Any>>> =
            const { std::cell::RefCell::new(None) };
    }
    let machine: &'static Machine = Box::leak(Box::new(
        Machine::builder().count(2).reporter(|_| ()).boot().unwrap(),
    ));
    let keeps = machine.spawn_on(CPU1, || KEPT.set(Some(Box::new(machine.irqs_off()))));
    keeps.unwrap().join().unwrap();
    let later = machine.spawn_on(CPU1, || {
        let own = machine.irqs_off();
        KEPT.set(None);
        let inside = machine.call(CPU0, || ()).map_err(|refused| refused.error);
        drop(own);
        (
            inside,
            machine.call(CPU0, || 7).map_err(|refused| refused.error),
        )
    });
    let seen = later.unwrap().join().unwrap();
    assert_eq!(seen, (Err(CallError::InterruptsOff), Ok(7)));
    assert_eq!(bed.on_each_cpu(|_| ()).unwrap(), CpuMask::first_n(2));
}

#[test]
fn a_called_function_that_idles_is_told_so() {
    let bed = Bed::new(2);
    let machine: &Machine = &bed;
    let idle = |name| match name {
        "enter" => machine.idle_enter(),
        "park" => machine.idle_park(),
        "arm" => assert!(!machine.arm(), "it panics before"),
        _ => machine.idle_until(|| true),
    };
    for name in ["enter", "park", "arm", "until"] {
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            machine
                .call(CPU1, || idle(name))
                .map_err(|refused| refused.error)
        }));
        let why = panicked.expect_err(name);
        let words = why.downcast_ref::<String>().cloned();
        let words = words.or_else(|| why.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        let words = words.expect("a message");
        assert!(words.contains("idles in"), "{name}: {words}");
        assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
    }
    let off = bed.on(1, |machine| {
        let _off = machine.irqs_off();
        machine.idle_enter();
    });
    let why = off.join().unwrap_err();
    let words = why.downcast_ref::<String>().expect("a message");
    assert!(
        words.starts_with("CPU 1 idles inside a called function or with"),
        "{words}"
    );
}

#[test]
fn machines_that_wait_for_each_other_serve_each_other() {
    let cpus = HostCpus::allowed().unwrap().mask().len().min(2);
    let (one, other) = (Arc::new(Bed::new(cpus)), Arc::new(Bed::new(cpus)));
    let calls = |from: &Arc<Bed>, to: &Arc<Bed>| {
        let to = Arc::clone(to);
        from.on(0, move |_| {
            for n in 0..50 {
                assert_eq!(to.call(CPU0, || n).unwrap(), n);
                assert_eq!(to.run_on_cpu(CPU0, || n + 1).unwrap(), n + 1);
            }
        })
    };
    let jobs = [calls(&one, &other), calls(&other, &one)];
    jobs.into_iter().for_each(|job| job.join().unwrap());
}
