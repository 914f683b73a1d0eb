//! Tasks that wait for tasks: the may-sleep lane never waits for itself.
#![expect(clippy::missing_panics_doc, reason = "a test panics when it fails")]

use std::sync::Arc;
use std::time::Duration;

use smpcall_hosted::{CpuId, Machine};

/// Runs `test` on a thread of its own, and fails if it takes longer than a minute.
fn bounded(test: impl FnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        // The receiver waits below.
        let _ = done.send(());
    });
    match finished.recv_timeout(Duration::from_secs(60)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("a task waits for ever"),
        _ => thread.join().expect("the test passes"),
    }
}

#[test]
fn cpus_that_run_tasks_on_each_other_all_finish() {
    bounded(|| {
        let machine = Arc::new(Machine::builder().count(4).boot().expect("boots"));
        let jobs: Vec<_> = (0..4_u32)
            .map(|me| {
                let shared = Arc::clone(&machine);
                let next = CpuId::new((me + 1) % 4);
                let job = move || {
                    let mut sum = 0;
                    for i in 0..200_u64 {
                        sum += shared
                            .run_on_cpu(next, || i)
                            .expect("the next CPU is online");
                    }
                    sum
                };
                machine.spawn_on(CpuId::new(me), job).expect("online")
            })
            .collect();
        for job in jobs {
            assert_eq!(job.join().expect("no panic"), 199 * 200 / 2);
        }
    });
}

#[test]
fn a_task_that_waits_lets_the_tasks_behind_it_run() {
    bounded(|| {
        let machine = Arc::new(Machine::builder().count(2).boot().expect("boots"));
        let one = CpuId::new(1);
        // Three threads queue tasks on CPU 1 that each wait for a task on CPU 0, which waits for one
        // on CPU 1: the innermost is always behind the outer ones in CPU 1's queue.
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let machine = Arc::clone(&machine);
                std::thread::spawn(move || {
                    for _ in 0..100 {
                        let on_zero = || machine.run_on_cpu(one, || 7).expect("online");
                        let on_one = || machine.run_on_cpu(CpuId::new(0), on_zero).expect("online");
                        assert_eq!(machine.run_on_cpu(one, on_one).expect("online"), 7);
                    }
                })
            })
            .collect();
        callers
            .into_iter()
            .for_each(|caller| caller.join().expect("no panic"));
    });
}
