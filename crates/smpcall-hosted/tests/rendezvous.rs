//! Rendezvous: phases in lock step, many at once, panics, and laggards by name.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smpcall_hosted::{CallError, CpuId, CpuMask, JoinHandle, Machine};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

/// Counts who came through each phase, and checks in each that all came through the one before.
#[derive(Default)]
struct Steps([AtomicUsize; 3]);

impl Steps {
    fn run(
        &self,
        machine: &Machine,
        cpus: &CpuMask,
        expected: usize,
    ) -> Result<CpuMask, CallError> {
        let step = |phase: usize| {
            if phase > 0 {
                assert_eq!(self.0[phase - 1].load(Ordering::Relaxed), expected);
            }
            assert_eq!(
                self.0
                    .get(phase + 1)
                    .map_or(0, |s| s.load(Ordering::Relaxed)),
                0
            );
            self.0[phase].fetch_add(1, Ordering::Relaxed);
        };
        machine.rendezvous(cpus, |_| step(0), |_| step(1), |_| step(2))
    }
}

#[test]
fn the_phases_go_in_lock_step() {
    for cpus in [1, 2, 4, 24] {
        let bed = Bed::new(cpus);
        let all = bed.online_cpus();
        for _ in 0..10 {
            assert_eq!(Steps::default().run(&bed, &all, cpus).unwrap(), all);
        }
        let from_cpu = bed.on(0, move |machine| {
            let all = machine.online_cpus();
            let mut others = all;
            others.remove(CpuId::new(0));
            for _ in 0..10 {
                assert_eq!(Steps::default().run(machine, &all, cpus).unwrap(), all);
                let ran = Steps::default().run(machine, &others, cpus - 1).unwrap();
                assert_eq!(ran, others);
            }
        });
        from_cpu.join().unwrap();
        assert!(
            Steps::default()
                .run(&bed, &CpuMask::EMPTY, 0)
                .unwrap()
                .is_empty()
        );
    }
}

#[test]
fn every_cpu_at_once_beside_calls_broadcasts_and_hotplug() {
    let bed = Bed::new(4);
    let stop = Arc::new(AtomicBool::new(false));
    let job = |cpu: u32| {
        let stop = Arc::clone(&stop);
        bed.on(cpu, move |machine| {
            let mut rounds = 0;
            while rounds < 20 || !stop.load(Ordering::Acquire) {
                let all = machine.online_cpus();
                let gone = AtomicUsize::new(0);
                let ran = machine.rendezvous(
                    &all,
                    |_| (),
                    |_| {
                        gone.fetch_add(1, Ordering::Relaxed);
                    },
                    |_| (),
                );
                assert_eq!(ran.unwrap().len(), gone.load(Ordering::Relaxed));
                machine.on_each_cpu(|_| ()).unwrap();
                // Refused while it is down.
                let _ = machine
                    .call(CpuId::new((cpu + 1) % 4), || ())
                    .map_err(CallError::from);
                rounds += 1;
            }
        })
    };
    let jobs: Vec<JoinHandle<()>> = (0..3).map(job).collect();
    for _ in 0..10 {
        bed.cpu_down(CpuId::new(3)).unwrap();
        let all = bed.online_cpus();
        bed.rendezvous(&all, |_| (), |_| (), |_| ()).unwrap();
        bed.cpu_up(CpuId::new(3)).unwrap();
    }
    stop.store(true, Ordering::Release);
    jobs.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn a_panic_in_setup_cancels_the_action_and_reaches_the_caller() {
    let bed = Bed::new(4);
    let all = bed.online_cpus();
    let (acted, torn_down) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let meet = || {
        bed.rendezvous(
            &all,
            |cpu| assert!(cpu.get() < 2, "number {cpu}"),
            |_| {
                acted.fetch_add(1, Ordering::Relaxed);
            },
            |_| {
                torn_down.fetch_add(1, Ordering::Relaxed);
            },
        )
    };
    let payload = panic::catch_unwind(AssertUnwindSafe(meet)).unwrap_err();
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "number 2");
    assert_eq!(acted.load(Ordering::Relaxed), 0);
    assert_eq!(torn_down.load(Ordering::Relaxed), 2);
    // The lock is free, and the CPUs live.
    assert_eq!(Steps::default().run(&bed, &all, 4).unwrap(), all);
}

#[test]
fn a_called_function_cannot_call_a_rendezvous() {
    let bed = Bed::new(2);
    let all = bed.online_cpus();
    let meet = || bed.rendezvous(&all, |_| (), |_| (), |_| ()).unwrap_err();
    assert_eq!(bed.call(CpuId::new(1), meet).unwrap(), CallError::InHandler);
    let refused = bed.on(0, |machine| {
        let _guard = machine.irqs_off();
        machine.rendezvous(&machine.online_cpus(), |_| (), |_| (), |_| ())
    });
    assert_eq!(refused.join().unwrap(), Err(CallError::InterruptsOff));
}

#[test]
fn who_lags_and_who_holds_the_turn_are_named() {
    let reports = Arc::new(Mutex::new(Vec::<String>::new()));
    let kept = Arc::clone(&reports);
    let builder = Machine::builder()
        .count(3)
        .stall_limit(Duration::from_millis(50));
    let bed = Bed::of(builder.reporter(move |report| {
        bed::log(report);
        kept.lock().unwrap().push(report.to_string());
    }));
    let gate = Arc::new(AtomicBool::new(false));
    let (opens, started) = (Arc::clone(&gate), Instant::now());
    let first = bed.on(0, move |machine| {
        let lags = |cpu: CpuId| {
            while cpu.get() == 2 && !opens.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        };
        machine
            .rendezvous(&machine.online_cpus(), |_| (), lags, |_| ())
            .unwrap();
    });
    std::thread::scope(|scope| {
        let said = |part: &str| {
            reports
                .lock()
                .unwrap()
                .iter()
                .any(|said| said.contains(part))
        };
        while !said("CPU 0 has waited") && started.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        let second = scope.spawn(|| {
            let none = CpuMask::EMPTY;
            bed.rendezvous(&none, |_| (), |_| (), |_| ()).unwrap();
        });
        let holds = "a foreign thread has waited";
        while !said(holds) && started.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        gate.store(true, Ordering::Release);
        first.join().unwrap();
        second.join().unwrap();
        let all = reports.lock().unwrap().join("\n");
        assert!(said("for CPU 2, which is running this request"), "{all}");
        assert!(
            said("for CPU 0, which takes part in another rendezvous"),
            "{all}"
        );
    });
}
