//! Waiting on threads: every wait of a CPU is a poll point, so that waits in a cycle end.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use smpcall_hosted::{CallError, CpuId, CpuMask, Csd, JoinHandle, Machine};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

/// Runs the same job on every CPU at once, and joins all.
fn on_all(bed: &Bed, job: impl Fn(&Machine, u32) + Copy + Send + 'static) {
    let cpus = bed.num_online_cpus() as u32;
    let together = Arc::new(Barrier::new(cpus as usize));
    let start = |cpu| {
        let together = Arc::clone(&together);
        bed.on(cpu, move |machine| {
            together.wait();
            job(machine, cpu);
        })
    };
    let jobs: Vec<JoinHandle<()>> = (0..cpus).map(start).collect();
    jobs.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn two_cpus_that_call_each_other_both_finish() {
    let bed = Bed::new(2);
    on_all(&bed, |machine, me| {
        let other = CpuId::new(1 - me);
        for n in 0..5_000 {
            assert_eq!(machine.call(other, || n + 1).unwrap(), n + 1);
        }
    });
}

#[test]
fn a_ring_of_cpus_that_call_the_next_all_finish() {
    for cpus in [3, 5, 16] {
        let bed = Bed::new(cpus);
        on_all(&bed, move |machine, me| {
            let next = CpuId::new((me + 1) % cpus as u32);
            for n in 0..200 {
                assert_eq!(machine.call(next, || n).unwrap(), n);
            }
        });
    }
}

#[test]
fn cpus_that_wait_for_each_other_with_interrupts_off_all_finish() {
    for cpus in [2, 5] {
        let bed = Bed::new(cpus);
        on_all(&bed, move |machine, me| {
            let next = CpuId::new((me + 1) % cpus as u32);
            let mut guard = machine.irqs_off();
            for n in 0..200 {
                let answer = machine.call_irqs_off(&mut guard, next, || n);
                assert_eq!(answer.unwrap(), n);
            }
        });
    }
}

#[test]
fn every_kind_of_wait_in_every_cpu_at_once_ends() {
    let bed = Bed::new(5);
    on_all(&bed, |machine, me| {
        let next = CpuId::new((me + 1) % 5);
        for _ in 0..100 {
            machine.call(next, || ()).unwrap();
            machine.on_each_cpu(|_| ()).unwrap();
            machine.call_csd(next, &Csd::new(|| ())).unwrap();
            machine.post_wait(next, || ()).unwrap();
            machine.flush(next).unwrap();
            machine.kick_all_cpus_sync().unwrap();
            machine.call_any(&CpuMask::of(next), || ()).unwrap();
        }
    });
}

#[test]
fn a_job_that_polls_takes_calls_and_posts_meanwhile() {
    let bed = Bed::new(2);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let started = Arc::new(Barrier::new(2));
    let starts = Arc::clone(&started);
    let job = bed.on(1, move |machine| {
        starts.wait();
        let mut drains = 0;
        while !stopped.load(Ordering::Acquire) {
            drains += u32::from(machine.poll());
        }
        drains
    });
    started.wait();
    assert_eq!(bed.call(CPU1, || bed.current_cpu()).unwrap(), Some(CPU1));
    let ends = || stop.store(true, Ordering::Release);
    bed.call(CPU1, ends).unwrap();
    assert!(
        job.join().unwrap() >= 1,
        "the calls came at its poll points"
    );
}

#[test]
fn a_poll_point_takes_nothing_with_interrupts_off_or_in_a_called_function() {
    let bed = Bed::new(2);
    static RAN: AtomicU32 = AtomicU32::new(0);
    let job = bed.on(1, |machine| {
        let guard = machine.irqs_off();
        let count = || {
            RAN.fetch_add(1, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| machine.post(CPU1, count).unwrap());
        });
        let off = machine.poll();
        drop(guard);
        let inside = machine.call(CPU1, || machine.poll()).unwrap();
        let before = RAN.load(Ordering::Relaxed);
        (
            off,
            inside,
            before,
            machine.poll(),
            RAN.load(Ordering::Relaxed),
        )
    });
    assert_eq!(job.join().unwrap(), (false, false, 0, true, 1));
    assert!(!bed.poll(), "a foreign thread has nothing to take");
}

#[test]
fn a_called_function_posts_to_a_cpu_that_waits_for_it() {
    let bed = Bed::new(2);
    static RAN: AtomicU32 = AtomicU32::new(0);
    let job = bed.on(0, |machine| {
        for n in 1..=1_000 {
            let posts_back = || {
                let count = || {
                    RAN.fetch_add(1, Ordering::Relaxed);
                };
                machine.post(CPU0, count).unwrap();
            };
            machine.call(CPU1, posts_back).unwrap();
            // What was posted to us is there when the call is over, and runs at a poll point.
            machine.poll();
            assert_eq!(RAN.load(Ordering::Relaxed), n);
        }
    });
    job.join().unwrap();
}

#[test]
fn a_called_function_may_not_wait_and_may_post_and_call_itself() {
    let bed = Bed::new(3);
    let machine: &Machine = &bed;
    let inside = || {
        let refused = |error| Err(error);
        let csd = Csd::new(|| ());
        let all = CpuMask::first_n(3);
        let waits = [
            machine.call(CPU0, || ()).or_else(|r| refused(r.error)),
            machine.call_csd(CPU0, &csd),
            machine
                .call_any(&CpuMask::of(CPU0), || ())
                .map(|_| ())
                .or_else(|r| refused(r.error)),
            machine
                .call_many(&all, |_| ())
                .map(|_| ())
                .or_else(|r| refused(r.error)),
            machine
                .on_each_cpu(|_| ())
                .map(|_| ())
                .or_else(|r| refused(r.error)),
            machine
                .run_on_cpu(CPU0, || ())
                .or_else(|r| refused(r.error)),
            machine.kick_all_cpus_sync().map(|_| ()),
            machine.flush(CPU0),
        ];
        assert_eq!(waits, [Err(CallError::InHandler); 8]);
        machine.post(CPU0, || ()).unwrap();
        machine.post_others(|_| ()).unwrap();
        machine.call(CPU1, || 7).unwrap()
    };
    assert_eq!(bed.call(CPU1, inside).unwrap(), 7);
    assert_eq!(
        bed.run_on_cpu(CPU1, || machine.call(CPU0, || 8).unwrap())
            .unwrap(),
        8
    );
}

#[test]
fn a_called_function_can_neither_poll_nor_leave_nor_idle() {
    let bed = Bed::new(2);
    let ran = AtomicU32::new(0);
    // Each of these, if it served, would run the very call that it is part of once more.
    let inside = || {
        ran.fetch_add(1, Ordering::Relaxed);
        bed.handle_ipi();
        bed.idle_poll();
        assert!(!bed.poll() && !bed.run_tasks() && !bed.leave_if_asked());
        assert!(!bed.online_this_cpu());
        assert!(bed.offline_this_cpu().is_err());
    };
    bed.call(CPU1, inside).unwrap();
    let machine: &Machine = &bed;
    std::thread::scope(|scope| {
        scope.spawn(|| machine.run_on_cpu(CPU0, || machine.call(CPU1, inside).unwrap()));
    });
    assert_eq!(ran.load(Ordering::Relaxed), 2);
}

#[test]
fn many_foreign_threads_call_at_once_and_each_gets_its_own_answer() {
    let bed = Bed::new(4);
    let each = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..16_u32 {
            let (bed, each) = (&bed, &each);
            scope.spawn(move || {
                for n in 0..200 {
                    let cpu = CpuId::new((thread + n) % 4);
                    let answer = bed.call(cpu, || (bed.current_cpu(), thread, n));
                    assert_eq!(answer.unwrap(), (Some(cpu), thread, n));
                    if n % 50 == 0 {
                        let count = |_| drop(each.fetch_add(1, Ordering::Relaxed).to_string());
                        assert_eq!(bed.on_each_cpu(count).unwrap().len(), 4);
                    }
                }
            });
        }
    });
    assert_eq!(each.into_inner(), 16 * 4 * 4);
}

#[test]
fn a_task_may_sleep_and_call_while_its_cpu_takes_calls_between() {
    let bed = Bed::new(3);
    let answer = bed.run_on_cpu(CPU1, || {
        std::thread::sleep(Duration::from_millis(5));
        bed.call(CPU0, || 1).unwrap() + bed.run_on_cpu(CPU0, || 2).unwrap()
    });
    assert_eq!(answer.unwrap(), 3);
}

/// A CPU that goes to sleep just as the call comes was not rung, for it seemed to poll: the local run
/// that waits for it must not come before the look that finds that out.
#[test]
fn a_local_run_may_wait_for_a_cpu_that_goes_to_sleep_just_then() {
    const IN_TIME: Duration = Duration::from_secs(10);
    // With no time to poll a CPU goes to sleep again and again.
    for (cpus, poll_time) in [(2, 25), (2, 0), (3, 0), (16, 0)] {
        let poll_time = Duration::from_micros(poll_time);
        let bed = Bed::of(Machine::builder().count(cpus).poll_time(poll_time));
        let job = bed.on(0, move |machine| {
            for n in 0..3_000_u64 {
                // From well before to well after the end of the polling.
                let idle = Duration::from_nanos(n % 500 * 100);
                let start = Instant::now();
                while start.elapsed() < idle {
                    std::hint::spin_loop();
                }
                let several = (0..cpus.min(3) as u32).map(CpuId::new).collect::<CpuMask>();
                let met = AtomicUsize::new(0);
                let late = AtomicBool::new(false);
                let meet = |_| {
                    met.fetch_add(1, Ordering::Relaxed);
                    let start = Instant::now();
                    while met.load(Ordering::Relaxed) < several.len() {
                        std::thread::yield_now();
                        if start.elapsed() > IN_TIME {
                            late.store(true, Ordering::Relaxed);
                            return;
                        }
                    }
                };
                machine.on_each_cpu_mask(&several, meet).unwrap();
                assert!(!late.into_inner(), "turn {n} of {cpus} CPUs: nobody came");
            }
        });
        job.join().unwrap();
    }
}
