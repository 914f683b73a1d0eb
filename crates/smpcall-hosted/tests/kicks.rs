//! How often a CPU is kicked or woken: counted, for each costs an interrupt or a system call.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use smpcall_hosted::{CpuId, CpuMask, Csd, JoinHandle, Machine};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

const CPU1: CpuId = CpuId::new(1);

/// Kicks and wakes so far.
fn rings(machine: &Machine) -> u64 {
    machine.platform().kicks() + machine.platform().wakes()
}

/// What `f` cost.
fn cost(machine: &Machine, f: impl FnOnce()) -> u64 {
    let before = rings(machine);
    f();
    rings(machine) - before
}

/// CPU 1 is busy, taking no calls, until the flag is set.
fn busy(bed: &Bed) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let gate = Arc::new(AtomicBool::new(false));
    let started = Arc::new(Barrier::new(2));
    let (opens, starts) = (Arc::clone(&gate), Arc::clone(&started));
    let job = bed.on(1, move |_| {
        starts.wait();
        while !opens.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    });
    started.wait();
    (gate, job)
}

#[test]
fn a_busy_cpu_is_kicked_once_for_all_that_comes_until_it_looks() {
    let bed = Bed::new(3);
    let (gate, job) = busy(&bed);
    static CSD: Csd = Csd::new(|| ());
    static TASK: Csd = Csd::new(|| ());
    assert_eq!(cost(&bed, || bed.post(CPU1, || ()).unwrap()), 1);
    let more = || {
        (0..8).for_each(|_| bed.post(CPU1, || ()).unwrap());
        bed.post_static_csd(CPU1, &CSD).unwrap();
        bed.post_task(CPU1, Pin::static_ref(&TASK)).unwrap();
        bed.post_many(&CpuMask::of(CPU1), |_| ()).unwrap();
        bed.nudge(CPU1).unwrap();
    };
    assert_eq!(cost(&bed, more), 0, "it was rung already");
    let elsewhere = bed.on(2, move |machine| {
        machine.post(CPU1, || ()).unwrap();
    });
    let joined = || {
        elsewhere.join().unwrap();
    };
    // The job may have cost CPU 2 a wake-up.
    assert!(
        cost(&bed, joined) <= 1,
        "another source need not kick either"
    );
    gate.store(true, Ordering::Release);
    job.join().unwrap();
}

#[test]
fn a_waited_call_to_a_cpu_that_was_rung_kicks_nobody() {
    let bed = Bed::new(2);
    let (gate, job) = busy(&bed);
    bed.post(CPU1, || ()).unwrap();
    let before = rings(&bed);
    std::thread::scope(|scope| {
        let waiters = [(); 4].map(|()| scope.spawn(|| bed.call(CPU1, || 7).unwrap()));
        // Time to queue for all, and then some.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(rings(&bed), before, "it was rung already");
        gate.store(true, Ordering::Release);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 7);
        }
    });
    job.join().unwrap();
}

#[test]
fn a_polling_cpu_is_neither_kicked_nor_woken() {
    let allowed = smpcall_hosted::HostCpus::allowed().unwrap();
    let first: CpuMask = allowed.mask().iter().take(1).collect();
    let polls_for_ever = Machine::builder()
        .list(&first)
        .poll_time(Duration::from_secs(3600))
        .reporter(|report| bed::log(report));
    let bed = Bed::of(polls_for_ever);
    let cpu = first.first().unwrap();
    // Until it has come to its idle loop, it is kicked.
    let started = Instant::now();
    while cost(&bed, || bed.call(cpu, || ()).unwrap()) > 0 {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it never polls"
        );
    }
    let calls = || {
        for _ in 0..1000 {
            bed.call(cpu, || ()).unwrap();
            bed.post(cpu, || ()).unwrap();
            bed.on_each_cpu(|_| ()).unwrap();
            bed.flush(cpu).unwrap();
        }
    };
    assert_eq!(cost(&bed, calls), 0);
}

#[test]
fn a_parked_cpu_is_woken_once_for_a_call() {
    let bed = Bed::new(16);
    for _ in 0..50 {
        bed.flush(CPU1).unwrap();
        // Time to park; one that has not is cheaper still.
        std::thread::sleep(Duration::from_millis(1));
        assert!(cost(&bed, || bed.call(CPU1, || ()).unwrap()) <= 1);
    }
}

/// Each CPU broadcasts while all the others do and nobody looks; what that cost in kicks and wakes.
fn simultaneous_broadcasts(cpus: usize) -> u64 {
    let bed = Bed::new(cpus);
    let start = Arc::new(Barrier::new(cpus + 1));
    let published = Arc::new(AtomicUsize::new(0));
    let job = |cpu: u32| {
        let (start, published) = (Arc::clone(&start), Arc::clone(&published));
        bed.on(cpu, move |machine| {
            let me = machine.current_cpu().unwrap();
            start.wait();
            start.wait();
            let here = |cpu| {
                if cpu == me {
                    // The local run comes after the requests went out, and takes no calls.
                    published.fetch_add(1, Ordering::AcqRel);
                    while published.load(Ordering::Acquire) < cpus {
                        std::thread::yield_now();
                    }
                }
            };
            assert_eq!(machine.on_each_cpu(here).unwrap().len(), cpus);
        })
    };
    let jobs: Vec<JoinHandle<()>> = (0..cpus as u32).map(job).collect();
    start.wait();
    let before = rings(&bed);
    start.wait();
    jobs.into_iter().for_each(|job| job.join().unwrap());
    rings(&bed) - before
}

#[test]
fn simultaneous_broadcasts_kick_each_busy_cpu_at_most_once() {
    for cpus in [2, 3, 4, 8, 16, 40] {
        let rings = simultaneous_broadcasts(cpus);
        println!("{cpus} CPUs broadcast at once: {rings} kicks and wake-ups");
        assert!(rings <= cpus as u64, "{rings} for {cpus} CPUs");
    }
}

#[test]
fn a_call_that_a_poll_point_takes_in_time_rings_nobody() {
    let bed = Bed::new(2);
    let stop = Arc::new(AtomicBool::new(false));
    let started = Arc::new(Barrier::new(2));
    let (stops, starts) = (Arc::clone(&stop), Arc::clone(&started));
    let job = bed.on(1, move |machine| {
        starts.wait();
        while !stops.load(Ordering::Acquire) {
            machine.poll();
        }
    });
    // An idle CPU would cost nothing either.
    started.wait();
    // Not from here: a thread that is no CPU has no line, and rings for each of its calls.
    let caller = bed.on(0, |machine| {
        let in_time = || cost(machine, || assert_eq!(machine.call(CPU1, || 7).unwrap(), 7)) == 0;
        let start = Instant::now();
        let mut row = 0;
        while row < 3 && start.elapsed() < Duration::from_secs(60) {
            row = if in_time() { row + 1 } else { 0 };
        }
        row
    });
    let row = caller.join().unwrap();
    stop.store(true, Ordering::Release);
    job.join().unwrap();
    assert_eq!(
        row, 3,
        "of each three calls of a minute one rang for a CPU that looks all the time"
    );
}
