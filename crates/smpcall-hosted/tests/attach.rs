//! Threads of the program as CPUs: attaching, serving, sleeping, leaving, and every way to misuse it.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::cell::RefCell;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use smpcall_hosted::{
    AttachError, Attached, CallError, CpuCallbacks, CpuId, CpuState, HotplugError, Machine,
    StartError,
};

#[path = "support/bed.rs"]
mod bed;
#[path = "support/child.rs"]
mod child;

use bed::Bed;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);
const CPU2: CpuId = CpuId::new(2);

/// No single wait of these tests takes as long.
const LIMIT: Duration = Duration::from_secs(60);

fn counter() -> &'static AtomicU32 {
    Box::leak(Box::default())
}

/// A machine of so many CPUs, none of which is there yet.
fn empty(cpus: usize) -> Bed {
    let builder = Machine::builder().count(cpus).only_attached();
    Bed::of(builder.reporter(|report| bed::log(report)))
}

/// Waits for what another thread does.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what}: not yet");
        std::thread::yield_now();
    }
}

/// Serves until told to stop or taken down, asleep in between; whoever says stop nudges after it.
fn serve_until(here: &Attached, stop: &AtomicBool) {
    while here.is_online() && !stop.load(Ordering::Acquire) {
        here.sleep(Some(LIMIT));
        here.serve();
    }
}

/// Runs `body` while these CPUs are attached threads that sleep and serve.
fn with_servers(bed: &Bed, cpus: &[CpuId], body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let ready = Barrier::new(cpus.len() + 1);
    std::thread::scope(|scope| {
        for &cpu in cpus {
            let (stop, ready) = (&stop, &ready);
            scope.spawn(move || {
                let here = bed.attach(cpu).expect("nobody else is this CPU");
                ready.wait();
                serve_until(&here, stop);
            });
        }
        ready.wait();
        body();
        stop.store(true, Ordering::Release);
        // One that has gone offline since needs no nudge.
        for &cpu in cpus {
            let _ = bed.nudge(cpu);
        }
    });
}

#[test]
fn a_thread_becomes_a_cpu_and_stops_being_one() {
    let bed = empty(3);
    assert!(bed.online_cpus().is_empty());
    assert_eq!(bed.current_cpu(), None);
    let here = bed.attach(CPU2).unwrap();
    assert_eq!((here.cpu(), bed.current_cpu()), (CPU2, Some(CPU2)));
    assert_eq!(bed.online_cpus().to_string(), "2");
    assert_eq!(bed.call(CPU2, || bed.current_cpu()).unwrap(), Some(CPU2));
    here.detach();
    assert_eq!(bed.current_cpu(), None);
    assert_eq!(bed.cpu_state(CPU2), CpuState::Offline);
    let refused = bed.call(CPU2, || ()).unwrap_err();
    assert_eq!(refused.error, CallError::Offline { cpu: CPU2 });
    // The same thread again, as another.
    drop(bed.attach(CPU0).unwrap());
    assert!(bed.online_cpus().is_empty());
}

#[test]
fn attached_threads_call_each_other_and_are_called_from_elsewhere() {
    let bed = empty(3);
    with_servers(&bed, &[CPU0, CPU1], || {
        let here = bed.attach(CPU2).unwrap();
        for n in 0..500 {
            let across = bed.call(CPU0, || n + 1).unwrap();
            assert_eq!(across, n + 1);
            let nested = bed.run_on_cpu(CPU1, || bed.call(CPU0, || n + 2).unwrap());
            assert_eq!(nested.unwrap(), n + 2);
        }
        let foreign = std::thread::scope(|scope| {
            let caller = scope.spawn(|| bed.call(CPU1, || bed.current_cpu()).unwrap());
            caller.join().unwrap()
        });
        assert_eq!(foreign, Some(CPU1));
        assert_eq!(here.on_each_cpu(|_| ()).unwrap().to_string(), "0-2");
    });
    assert!(bed.online_cpus().is_empty());
}

#[test]
fn started_and_attached_cpus_work_side_by_side() {
    let params = "maxcpus=2".parse_for(3);
    let builder = Machine::builder().count(3).params(params);
    let bed = Bed::of(builder.reporter(|report| bed::log(report)));
    assert_eq!(bed.online_cpus().to_string(), "0-1");
    let here = bed.attach(CPU2).unwrap();
    let job = bed.on(1, |machine| {
        // It waits until CPU 2 serves.
        machine.call(CPU2, || 7).map_err(|refused| refused.error)
    });
    let start = Instant::now();
    let answer = loop {
        if let Some(answer) = job.try_join() {
            break answer;
        }
        here.serve();
        assert!(start.elapsed() < LIMIT);
    };
    assert_eq!(answer.unwrap(), Ok(7));
    assert_eq!(bed.call_others(|_| ()).unwrap().to_string(), "0-1");
}

/// Boot parameters from a command line.
trait Parse {
    fn parse_for(&self, cpus: u32) -> smpcall_hosted::BootParams;
}

impl Parse for str {
    fn parse_for(&self, cpus: u32) -> smpcall_hosted::BootParams {
        smpcall_hosted::BootParams::parse(self, cpus).expect("good parameters")
    }
}

#[test]
fn an_id_in_use_is_busy_and_one_that_is_not_there_is_named() {
    let bed = Bed::new(2);
    let error = bed.attach(CPU1).unwrap_err();
    assert!(
        matches!(error, AttachError::Busy { cpu } if cpu == CPU1),
        "{error}"
    );
    assert_eq!(error.to_string(), "another thread is CPU 1");
    let error = bed.attach(CpuId::new(2)).unwrap_err();
    assert!(matches!(error, AttachError::NoSuchCpu { .. }), "{error}");
    let error = bed.attach(CpuId::new(1_000_000)).unwrap_err();
    assert_eq!(error.to_string(), "the machine has no CPU 1000000");
    bed.cpu_down(CPU1).unwrap();
    let here = bed.attach(CPU1).unwrap();
    let other = std::thread::scope(|scope| {
        let second = scope.spawn(|| bed.attach(CPU1).map(|_| ()).unwrap_err());
        second.join().unwrap()
    });
    assert!(matches!(other, AttachError::Busy { .. }), "{other}");
    assert_eq!(bed.cpu_up(CPU1), Err(HotplugError::AlreadyOnline));
    here.detach();
    // Its place is free for a pinned thread again.
    bed.cpu_up(CPU1).unwrap();
    assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
}

#[test]
fn a_thread_is_one_cpu_of_one_machine() {
    let (one, other) = (empty(2), empty(2));
    let here = one.attach(CPU0).unwrap();
    for machine in [&one, &other] {
        let error = machine.attach(CPU1).unwrap_err();
        assert!(matches!(error, AttachError::ThreadInUse), "{error}");
    }
    here.detach();
    let pinned = Bed::new(1);
    let job = pinned.on(0, move |_| other.attach(CPU1).map(|_| ()).unwrap_err());
    assert!(matches!(job.join().unwrap(), AttachError::ThreadInUse));
}

#[test]
fn what_was_accepted_runs_before_the_thread_is_no_cpu_any_more() {
    let bed = empty(2);
    let ran = counter();
    let count = || {
        ran.fetch_add(1, Ordering::Relaxed);
    };
    for round in 1..=50 {
        let (attached, posted) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            let cpu = scope.spawn(|| {
                let here = bed.attach(CPU1).unwrap();
                attached.wait();
                posted.wait();
                here.detach();
            });
            attached.wait();
            for _ in 0..10 {
                bed.post(CPU1, count).unwrap();
            }
            let job = bed.spawn_on(CPU1, count).unwrap();
            posted.wait();
            cpu.join().unwrap();
            job.join().unwrap();
        });
        assert_eq!(ran.load(Ordering::Relaxed), 11 * round);
    }
}

#[test]
fn a_waited_call_is_answered_by_the_thread_that_detaches() {
    let bed = empty(2);
    for _ in 0..200 {
        std::thread::scope(|scope| {
            let cpu = scope.spawn(|| drop(bed.attach(CPU1).unwrap()));
            let bed = &bed;
            let caller = scope.spawn(move || {
                let mut ran = 0_u32;
                while !cpu.is_finished() {
                    match bed.call(CPU1, || bed.current_cpu()) {
                        Ok(on) => {
                            assert_eq!(on, Some(CPU1));
                            ran += 1;
                        }
                        Err(refused) => {
                            assert_eq!(refused.error, CallError::Offline { cpu: CPU1 });
                        }
                    }
                }
                ran
            });
            caller.join().unwrap();
        });
    }
}

#[test]
fn a_forgotten_guard_leaves_its_cpu_online_until_the_thread_ends() {
    let bed = empty(2);
    let ran = counter();
    let (forgotten, posted) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let cpu = scope.spawn(|| {
            mem::forget(bed.attach(CPU1).unwrap());
            forgotten.wait();
            posted.wait();
        });
        forgotten.wait();
        assert_eq!(bed.cpu_state(CPU1), CpuState::Online);
        let count = || {
            ran.fetch_add(1, Ordering::Relaxed);
        };
        bed.post(CPU1, count).unwrap();
        let answer = scope.spawn(|| bed.call(CPU1, || bed.current_cpu()).map_err(|r| r.error));
        posted.wait();
        cpu.join().unwrap();
        // The destructor of the thread's local answered it, or had closed before it came.
        match answer.join().unwrap() {
            Ok(on) => assert_eq!(on, Some(CPU1)),
            Err(error) => assert_eq!(error, CallError::Offline { cpu: CPU1 }),
        }
    });
    assert_eq!(
        ran.load(Ordering::Relaxed),
        1,
        "the post was accepted, so it ran"
    );
    eventually("CPU 1 is offline", || {
        bed.cpu_state(CPU1) == CpuState::Offline
    });
    drop(bed.attach(CPU1).unwrap());
}

#[test]
fn a_thread_that_panics_takes_its_cpu_offline() {
    let bed = empty(2);
    let end = std::thread::scope(|scope| {
        let cpu = scope.spawn(|| {
            let _here = bed.attach(CPU1).unwrap();
            panic!("the program's own");
        });
        cpu.join()
    });
    assert!(end.is_err());
    assert_eq!(bed.cpu_state(CPU1), CpuState::Offline);
}

#[test]
fn a_guard_dropped_where_its_thread_cannot_leave_says_so_and_waits_for_the_threads_end() {
    thread_local! {
        static HERE: RefCell<Option<Attached>> = const { RefCell::new(None) };
    }
    let said = Arc::new(Mutex::new(Vec::new()));
    let saying = Arc::clone(&said);
    let builder = Machine::builder().count(2).only_attached();
    let bed = Bed::of(builder.reporter(move |report| {
        saying.lock().unwrap().push(report.to_string());
    }));
    let drops = || HERE.with(|here| drop(here.take()));
    for place in ["called function", "task", "job", "interrupts off"] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                HERE.set(Some(bed.attach(CPU1).unwrap()));
                match place {
                    "called function" => bed.call(CPU1, drops).unwrap(),
                    "interrupts off" => {
                        let _off = bed.irqs_off();
                        drops();
                    }
                    "job" => drop(
                        bed.spawn_on(CPU1, move || HERE.with(|h| drop(h.take())))
                            .unwrap(),
                    ),
                    _ => {
                        // The task is there when the CPU waits for one of its own.
                        let other = scope.spawn(|| bed.run_on_cpu(CPU1, drops).unwrap());
                        eventually("the task is queued", || bed.has_tasks());
                        assert!(bed.run_tasks());
                        other.join().unwrap();
                    }
                }
                if place == "job" {
                    let here = HERE.with(|here| here.take()).unwrap();
                    here.serve();
                    HERE.set(Some(here));
                } else {
                    assert_eq!(bed.current_cpu(), Some(CPU1), "{place}");
                }
            });
        });
        eventually(place, || bed.cpu_state(CPU1) == CpuState::Offline);
    }
    let said = said.lock().unwrap();
    let words = "CPU 1 was to detach where it cannot: it stays until its thread ends";
    assert_eq!(
        said.iter().filter(|line| *line == words).count(),
        3,
        "{said:?}"
    );
}

#[test]
fn interrupts_off_refuse_to_attach_and_a_detach_there_is_named() {
    const TEST: &str = "interrupts_off_refuse_to_attach_and_a_detach_there_is_named";
    if !child::is_child(TEST) {
        let end = child::run(TEST);
        assert!(
            end.said
                .contains("CPU 1 detaches inside a called function, a task or a job, or with")
        );
        return end.passed();
    }
    let bed = empty(2);
    let result = std::thread::scope(|scope| {
        let cpu = scope.spawn(|| {
            let here = bed.attach(CPU1).unwrap();
            let _off = bed.irqs_off();
            here.detach();
        });
        cpu.join()
    });
    assert!(result.is_err());
    eventually("the thread's end", || {
        bed.cpu_state(CPU1) == CpuState::Offline
    });
}

#[test]
fn cpu_down_takes_an_attached_thread_offline_when_it_serves() {
    let bed = empty(3);
    with_servers(&bed, &[CPU0, CPU1], || {
        let job = bed.spawn_on(CPU1, || 7).unwrap();
        bed.cpu_down(CPU1).unwrap();
        assert_eq!(job.join().unwrap(), 7, "it was accepted");
        assert_eq!(bed.cpu_state(CPU1), CpuState::Offline);
        // The thread is no CPU any more, and a pinned one takes its place.
        bed.cpu_up(CPU1).unwrap();
        assert_eq!(bed.call(CPU1, || bed.current_cpu()).unwrap(), Some(CPU1));
        bed.cpu_down(CPU1).unwrap();
    });
}

#[test]
fn a_guard_whose_cpu_was_taken_down_is_empty() {
    let bed = empty(3);
    with_servers(&bed, &[CPU0], || {
        let here = bed.attach(CPU1).unwrap();
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| bed.cpu_down(CPU1));
            let start = Instant::now();
            while here.is_online() {
                here.serve();
                assert!(start.elapsed() < LIMIT);
            }
            asker.join().unwrap().unwrap();
        });
        assert_eq!(bed.current_cpu(), None);
        assert!(!here.serve());
        assert!(here.prepare_to_sleep(), "nobody will call");
        // The thread is free for another CPU while the empty guard lives.
        let again = bed.attach(CPU2).unwrap();
        drop(here);
        assert_eq!(bed.current_cpu(), Some(CPU2));
        again.detach();
    });
}

#[test]
fn cpu_down_of_a_thread_that_does_not_serve_is_rolled_back() {
    let bed = empty(3);
    let (attached, over) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let here = bed.attach(CPU1).unwrap();
            attached.wait();
            over.wait();
            assert!(here.is_online());
            here.serve();
            assert!(here.is_online(), "who asked has given up");
        });
        attached.wait();
        let _here = bed.attach(CPU0).unwrap();
        assert_eq!(bed.cpu_down(CPU1), Err(HotplugError::Timeout));
        over.wait();
    });
}

#[test]
fn a_thread_that_detaches_while_it_is_asked_to_leave_does_both_at_once() {
    let bed = empty(2);
    let keeper = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let here = bed.attach(CPU0).unwrap();
            keeper.wait();
            keeper.wait();
            drop(here);
        });
        keeper.wait();
        for _ in 0..100 {
            let attached = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let here = bed.attach(CPU1).unwrap();
                    attached.wait();
                    here.detach();
                });
                attached.wait();
                let start = Instant::now();
                let result = bed.cpu_down(CPU1);
                assert!(
                    matches!(result, Ok(()) | Err(HotplugError::AlreadyOffline)),
                    "{result:?} after {:?}",
                    start.elapsed()
                );
            });
        }
        keeper.wait();
    });
}

#[test]
fn a_callback_that_refuses_leaves_the_thread_as_it_was() {
    static REFUSES: CpuCallbacks = CpuCallbacks {
        name: "refuses",
        prepare: |_| Err(-5),
        ..CpuCallbacks::NONE
    };
    let bed = empty(2);
    bed.register(&REFUSES).unwrap();
    let error = bed.attach(CPU1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the CPU did not come up: callback refuses refused with code -5"
    );
    assert_eq!(
        (bed.current_cpu(), bed.cpu_state(CPU1)),
        (None, CpuState::Offline)
    );
}

#[test]
fn a_job_that_takes_its_attached_cpu_offline_frees_the_thread() {
    let bed = empty(2);
    let here = bed.attach(CPU1).unwrap();
    std::thread::scope(|scope| {
        let machine = &bed;
        let (leaves, overtaken) = scope
            .spawn(|| {
                let leaves = machine.on(1, |machine| machine.offline_this_cpu());
                (leaves, machine.on(1, |_| 7))
            })
            .join()
            .unwrap();
        assert!(here.serve());
        assert_eq!(leaves.join().unwrap(), Ok(()));
        let why = overtaken.join().unwrap_err();
        assert_eq!(
            why.downcast_ref(),
            Some(&"the job's CPU went offline first")
        );
    });
    assert_eq!((here.is_online(), bed.current_cpu()), (false, None));
    let error = bed.cpu_up(CpuId::new(2)).unwrap_err();
    assert_eq!(error, HotplugError::NoSuchCpu);
    drop(bed.attach(CPU1).unwrap());
}

#[test]
fn a_pinned_thread_that_has_not_come_to_rest_keeps_its_id() {
    let bed = Bed::new(2);
    let gate = Arc::new(Barrier::new(2));
    let opens = Arc::clone(&gate);
    let job = bed.on(1, move |machine| {
        machine.offline_this_cpu().unwrap();
        opens.wait();
        opens.wait();
    });
    gate.wait();
    assert!(matches!(
        bed.attach(CPU1).unwrap_err(),
        AttachError::Busy { .. }
    ));
    gate.wait();
    job.join().unwrap();
    let start = Instant::now();
    let here = loop {
        match bed.attach(CPU1) {
            Ok(here) => break here,
            Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
        }
    };
    let busy = HotplugError::Start(StartError::Refused(i64::from(libc::EBUSY)));
    assert_ne!(bed.cpu_up(CPU1), Err(busy), "it is online, not busy");
    here.detach();
}

#[test]
fn a_machine_that_is_dropped_leaves_attached_threads_cpus() {
    let builder = Machine::builder().count(2).only_attached();
    let machine = Arc::new(builder.reporter(|_| ()).boot().unwrap());
    let here = machine.attach(CPU0).unwrap();
    let ready = Barrier::new(2);
    std::thread::scope(|scope| {
        let own = Arc::clone(&machine);
        let ready = &ready;
        let other = scope.spawn(move || {
            let here = own.attach(CPU1).unwrap();
            drop(own);
            ready.wait();
            here.call(CPU0, || 7).map_err(|refused| refused.error)
        });
        drop(machine);
        ready.wait();
        let start = Instant::now();
        while here.num_online_cpus() == 2 {
            here.serve();
            assert!(start.elapsed() < LIMIT);
        }
        assert_eq!(other.join().unwrap(), Ok(7));
    });
    here.detach();
}

#[test]
fn a_machine_is_dropped_by_a_thread_that_attached_to_it() {
    for _ in 0..20 {
        let builder = Machine::builder().count(3).params("maxcpus=2".parse_for(3));
        let machine = builder.reporter(|_| ()).boot().unwrap();
        let here = machine.attach(CPU2).unwrap();
        let ran = counter();
        machine
            .post(CPU1, || {
                ran.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        drop(machine);
        assert_eq!(ran.load(Ordering::Relaxed), 1);
        assert_eq!(here.online_cpus().to_string(), "2");
        assert_eq!(here.call(CPU2, || 7).unwrap(), 7);
    }
}
