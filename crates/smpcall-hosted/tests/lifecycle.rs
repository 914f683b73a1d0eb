//! A machine's life: which CPUs it gets, how they come and go, and what is left when it ends.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use smpcall_hosted::{
    BootError, CpuCallbacks, CpuId, CpuMask, CpuState, HostCpus, HotplugError, Machine, StartError,
    host_cpu,
};

#[path = "support/bed.rs"]
mod bed;
#[path = "support/child.rs"]
mod child;

use bed::Bed;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

fn counter() -> &'static AtomicU32 {
    Box::leak(Box::default())
}

#[test]
fn by_default_cpus_have_their_real_ids_and_run_there() {
    let bed = Bed::of(Machine::builder());
    let allowed = *HostCpus::allowed().unwrap().mask();
    assert_eq!(bed.online_cpus(), allowed);
    let ran = bed.on_each_cpu(|cpu| assert_eq!(host_cpu(), cpu.get()));
    assert_eq!(ran.unwrap(), allowed);
}

#[test]
fn a_list_names_real_cpus() {
    for cpu in HostCpus::allowed().unwrap().mask() {
        let bed = Bed::of(Machine::builder().list(&CpuMask::of(cpu)));
        assert_eq!(bed.call(cpu, host_cpu).unwrap(), cpu.get());
        assert_eq!(bed.nr_cpu_ids(), cpu.get() + 1);
        assert_eq!(bed.num_online_cpus(), 1);
    }
}

#[test]
fn more_cpus_than_the_computer_has_share_those_that_are_allowed() {
    let allowed: Vec<u32> = HostCpus::allowed()
        .unwrap()
        .mask()
        .iter()
        .map(CpuId::get)
        .collect();
    let bed = Bed::new(64);
    let shared = |cpu: CpuId| allowed[cpu.index() % allowed.len()];
    let ran = bed.on_each_cpu(|cpu| assert_eq!(host_cpu(), shared(cpu)));
    assert_eq!(ran.unwrap().to_string(), "0-63");
    for cpu in &bed.online_cpus() {
        assert_eq!(bed.platform().host_cpu_of(cpu), Some(shared(cpu)));
        assert_eq!(bed.call(cpu, || bed.current_cpu()).unwrap(), Some(cpu));
    }
}

#[test]
fn a_machine_that_is_booted_on_a_cpu_of_another_has_the_processs_cpus_not_its_own() {
    let bed = Bed::new(2);
    let allowed = *HostCpus::allowed().unwrap().mask();
    let inner = bed.on(1, |_| {
        let all = Machine::builder().reporter(|_| ()).boot();
        all.map(|machine| machine.online_cpus())
    });
    assert_eq!(inner.join().unwrap().unwrap(), allowed);
}

#[test]
fn two_machines_share_a_process_and_know_their_own_cpus() {
    let (one, other) = (Bed::new(2), Bed::new(3));
    let seen = one.call(CPU1, || (one.current_cpu(), other.current_cpu()));
    assert_eq!(seen.unwrap(), (Some(CPU1), None));
    // A CPU of one is a foreign thread to the other.
    let across = one.run_on_cpu(CPU0, || other.call(CPU1, || other.current_cpu()).unwrap());
    assert_eq!(across.unwrap(), Some(CPU1));
    drop(one);
    assert_eq!(other.on_each_cpu(|_| ()).unwrap().len(), 3);
}

#[test]
fn what_was_posted_before_the_end_runs_before_the_end() {
    for _ in 0..20 {
        let bed = Bed::new(3);
        let (ran, gate) = (counter(), Arc::new(Barrier::new(2)));
        let opens = Arc::clone(&gate);
        drop(bed.on(1, move |_| opens.wait()));
        let count = || {
            ran.fetch_add(1, Ordering::Relaxed);
        };
        for _ in 0..20 {
            bed.post(CPU1, count).unwrap();
            bed.post(CPU0, count).unwrap();
        }
        gate.wait();
        drop(bed);
        assert_eq!(ran.load(Ordering::Relaxed), 40);
    }
}

#[test]
fn a_job_that_the_end_overtakes_says_so() {
    let machine = Machine::builder().count(2).boot().unwrap();
    let gate = Arc::new(Barrier::new(2));
    let opens = Arc::clone(&gate);
    let busy = move || {
        opens.wait();
        opens.wait();
    };
    let first = machine.spawn_on(CPU1, busy).unwrap();
    gate.wait();
    let second = machine.spawn_on(CPU1, || 7).unwrap();
    std::thread::scope(|scope| {
        let end = scope.spawn(move || drop(machine));
        std::thread::sleep(Duration::from_millis(20));
        gate.wait();
        end.join().unwrap();
    });
    first.join().unwrap();
    // It ran, or its handle says that it did not; nobody waits for ever.
    match second.join() {
        Ok(answer) => assert_eq!(answer, 7),
        Err(why) => assert_eq!(
            why.downcast_ref(),
            Some(&"the job's CPU went offline first")
        ),
    }
}

#[test]
fn a_cpu_goes_and_comes_back_two_hundred_times_while_others_call_it() {
    let bed = Bed::new(3);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers = [(); 2].map(|()| {
            scope.spawn(|| {
                let (mut ran, mut refused) = (0_u32, 0_u32);
                let own = AtomicU32::new(0);
                while !stop.load(Ordering::Acquire) {
                    match bed.call(CPU1, || own.fetch_add(1, Ordering::Relaxed)) {
                        Ok(_) => ran += 1,
                        Err(_offline) => refused += 1,
                    }
                }
                assert_eq!(
                    own.into_inner(),
                    ran,
                    "each accepted call ran once, no other did"
                );
                (ran, refused)
            })
        });
        for _ in 0..200 {
            bed.cpu_down(CPU1).unwrap();
            assert_eq!(bed.cpu_state(CPU1), CpuState::Offline);
            bed.cpu_up(CPU1).unwrap();
            assert_eq!(bed.cpu_state(CPU1), CpuState::Online);
        }
        stop.store(true, Ordering::Release);
        for caller in callers {
            println!("ran, refused: {:?}", caller.join().unwrap());
        }
    });
    assert_eq!(
        bed.call(CPU1, host_cpu).unwrap(),
        bed.platform().host_cpu_of(CPU1).unwrap()
    );
}

#[test]
fn a_cpu_whose_thread_is_still_there_is_not_started_twice() {
    let bed = Bed::new(3);
    let gate = Arc::new(Barrier::new(2));
    let opens = Arc::clone(&gate);
    let job = bed.on(1, move |machine| {
        machine.offline_this_cpu().unwrap();
        opens.wait();
        opens.wait();
    });
    gate.wait();
    assert_eq!(bed.cpu_state(CPU1), CpuState::Offline);
    let busy = StartError::Refused(i64::from(libc::EBUSY));
    assert_eq!(bed.cpu_up(CPU1), Err(HotplugError::Start(busy)));
    gate.wait();
    job.join().unwrap();
    // Its thread ends a moment after the job.
    let start = Instant::now();
    while bed.cpu_up(CPU1).is_err() {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::yield_now();
    }
    assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
}

#[test]
fn what_a_leaving_cpu_accepted_runs_exactly_once() {
    let bed = Bed::new(3);
    for _ in 0..50 {
        let (ran, mut accepted) = (counter(), 0);
        let posts = || {
            for _ in 0..100 {
                let count = || {
                    ran.fetch_add(1, Ordering::Relaxed);
                };
                accepted += u32::from(bed.post(CPU1, count).is_ok());
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| bed.cpu_down(CPU1).unwrap());
            scope.spawn(posts);
        });
        assert_eq!(ran.load(Ordering::Relaxed), accepted);
        bed.cpu_up(CPU1).unwrap();
    }
}

#[test]
fn a_callback_that_refuses_leaves_the_cpu_offline_and_the_next_try_free() {
    static REFUSES: AtomicBool = AtomicBool::new(true);
    static DEAD: AtomicU32 = AtomicU32::new(0);
    static COUNTS: CpuCallbacks = CpuCallbacks {
        name: "counts",
        dead: |_| drop(DEAD.fetch_add(1, Ordering::Relaxed).to_string()),
        ..CpuCallbacks::NONE
    };
    static REFUSER: CpuCallbacks = CpuCallbacks {
        name: "refuser",
        prepare: |_| {
            if REFUSES.load(Ordering::Relaxed) {
                Err(-12)
            } else {
                Ok(())
            }
        },
        ..CpuCallbacks::NONE
    };
    let bed = Bed::new(2);
    bed.cpu_down(CPU1).unwrap();
    bed.register(&COUNTS).unwrap();
    bed.register(&REFUSER).unwrap();
    let error = bed.cpu_up(CPU1).unwrap_err();
    assert_eq!(
        error,
        HotplugError::Callback {
            name: "refuser",
            code: -12
        }
    );
    assert_eq!(error.to_string(), "callback refuser refused with code -12");
    assert_eq!(
        DEAD.load(Ordering::Relaxed),
        1,
        "what had been prepared was undone"
    );
    assert_eq!(bed.cpu_state(CPU1), CpuState::Offline);
    REFUSES.store(false, Ordering::Relaxed);
    bed.cpu_up(CPU1).unwrap();
    assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
}

#[test]
fn a_child_process_runs_while_the_machine_does() {
    let bed = Bed::new(4);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                let child = Command::new("true").status().expect("the child runs");
                assert!(child.success());
            }
        });
        for n in 0..2_000 {
            assert_eq!(bed.call(CpuId::new(n % 4), || n).unwrap(), n);
        }
    });
    let from_a_cpu = bed.run_on_cpu(CPU1, || Command::new("true").status());
    assert!(from_a_cpu.unwrap().expect("the child runs").success());
}

/// How many threads this process has.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Waits until there are so many threads: one that was joined is listed a moment longer.
#[track_caller]
fn comes_back_to(count: usize) {
    let start = Instant::now();
    while threads() != count {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{} threads",
            threads()
        );
        std::thread::yield_now();
    }
}

#[test]
fn a_machine_that_ends_leaves_no_thread() {
    const TEST: &str = "a_machine_that_ends_leaves_no_thread";
    if !child::is_child(TEST) {
        return child::run(TEST).passed();
    }
    let before = threads();
    for cpus in [1, 5, 64] {
        let machine = Machine::builder().count(cpus).boot().unwrap();
        assert_eq!(threads(), before + cpus);
        if cpus > 1 {
            machine.cpu_down(CPU1).unwrap();
            machine.cpu_up(CPU1).unwrap();
        }
        drop(machine);
        comes_back_to(before);
    }
}

/// Lets this process start only a few threads more, as nobody in particular.
fn allow_few_threads(more: u64) {
    // No limit binds root, so this process becomes somebody who has no other.
    let nobody: libc::uid_t = 59_999;
    // SAFETY: no pointers.
    let user = unsafe { libc::geteuid() };
    if user == 0 {
        // SAFETY: no pointers; the C library changes all threads.
        let changed = unsafe { libc::setresuid(nobody, nobody, nobody) };
        assert_eq!(changed, 0);
    }
    let limit = libc::rlimit {
        rlim_cur: threads() as u64 + more,
        rlim_max: threads() as u64 + more,
    };
    // SAFETY: the kernel reads the limit, which is alive.
    let limited = unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) };
    assert_eq!(limited, 0);
}

#[test]
fn a_boot_that_fails_half_way_takes_down_what_was_up() {
    const TEST: &str = "a_boot_that_fails_half_way_takes_down_what_was_up";
    if !child::is_child(TEST) {
        return child::run(TEST).passed();
    }
    allow_few_threads(5);
    let before = threads();
    for _ in 0..3 {
        let error = Machine::builder().count(64).boot().unwrap_err();
        let BootError::Cpu { cpu, .. } = &error else {
            panic!("{error}");
        };
        assert!(*cpu <= CpuId::new(5), "{error}");
        assert!(
            error.to_string().contains("temporarily unavailable"),
            "{error}"
        );
        comes_back_to(before);
    }
}
