//! Guards, handles and descriptors that are forgotten, or dropped at the wrong moment.
//!
//! Nothing here may be undefined behaviour, and nothing may wait for ever: forgetting leaks, a
//! queued descriptor's drop waits, and where waiting is impossible the process stops with a message.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smpcall_hosted::{CallError, CpuId, Csd, Machine};

#[path = "support/bed.rs"]
mod bed;
#[path = "support/child.rs"]
mod child;

use bed::Bed;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

/// A flag that a busy job waits for.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Keeps this thread from taking calls until the gate opens.
    fn wait(&self) {
        while !self.0.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }
}

/// Keeps a CPU busy, taking no calls, until the gate opens; it is busy when this returns.
fn busy(bed: &Bed, cpu: u32, gate: &Gate) -> smpcall_hosted::JoinHandle<()> {
    let (started, gate) = (Gate::default(), gate.clone());
    let starts = started.clone();
    let job = bed.on(cpu, move |_| {
        starts.open();
        gate.wait();
    });
    started.wait();
    job
}

/// The other half of a test, in a process that must be aborted and say this before.
#[track_caller]
fn aborts_saying(test: &str, words: &str) {
    let end = child::run(test);
    assert_eq!(end.status.signal(), Some(libc::SIGABRT), "{end:?}");
    assert!(end.said.contains(words), "{end:?}");
}

/// A counter that a `'static` closure can carry in a word.
fn counter() -> &'static AtomicU32 {
    Box::leak(Box::new(AtomicU32::new(0)))
}

#[test]
fn a_forgotten_interrupt_guard_refuses_waiting_and_stops_nothing_else() {
    let bed = Bed::new(2);
    let refused = bed.on(1, |machine| {
        mem::forget(machine.irqs_off());
        machine.call(CPU0, || 1).map_err(|refused| refused.error)
    });
    assert_eq!(refused.join().unwrap(), Err(CallError::InterruptsOff));
    assert_eq!(bed.call(CPU1, || 2).unwrap(), 2, "it still takes calls");
    // Dropping the machine takes the CPU offline: it must get there.
}

#[test]
fn a_guard_forgotten_in_one_job_does_not_reach_the_next() {
    let bed = Bed::new(2);
    let forgets = bed.on(1, |machine| mem::forget(machine.irqs_off()));
    forgets.join().unwrap();
    let calls = bed.on(1, |machine| {
        machine.call(CPU0, || 3).map_err(|refused| refused.error)
    });
    assert_eq!(calls.join().unwrap(), Ok(3));
}

#[test]
fn a_guard_forgotten_in_a_called_function_does_not_reach_the_next_job() {
    let bed = Bed::new(2);
    let machine: &Machine = &bed;
    bed.call(CPU1, || mem::forget(machine.irqs_off())).unwrap();
    let calls = bed.on(1, |machine| {
        machine.call(CPU0, || 3).map_err(|refused| refused.error)
    });
    assert_eq!(calls.join().unwrap(), Ok(3));
}

#[test]
fn a_guard_forgotten_by_a_foreign_thread_hurts_nobody_else() {
    let bed = Bed::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| mem::forget(bed.irqs_off()));
    });
    assert_eq!(bed.call(CPU1, || 4).unwrap(), 4);
}

#[test]
fn guards_nest_and_may_be_dropped_in_any_order() {
    let bed = Bed::new(2);
    let job = bed.on(0, |machine| {
        let call = || machine.call(CPU1, || 5).map_err(|refused| refused.error);
        let (outer, inner) = (machine.irqs_off(), machine.irqs_off());
        drop(inner);
        let inside = call();
        drop(outer);
        (inside, call())
    });
    assert_eq!(job.join().unwrap(), (Err(CallError::InterruptsOff), Ok(5)));
}

#[test]
fn a_job_whose_handle_is_forgotten_runs() {
    let bed = Bed::new(2);
    let ran = counter();
    mem::forget(bed.on(1, move |_| ran.fetch_add(1, Ordering::Relaxed)));
    drop(bed.on(1, move |_| ran.fetch_add(1, Ordering::Relaxed)));
    // Jobs of a CPU run in turn.
    bed.on(1, |_| ()).join().unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 2);
}

#[test]
fn a_forgotten_machine_lives_on_until_the_process_ends() {
    const TEST: &str = "a_forgotten_machine_lives_on_until_the_process_ends";
    if !child::is_child(TEST) {
        return child::run(TEST).passed();
    }
    let machine = Machine::builder().count(2).boot().unwrap();
    let machine = mem::ManuallyDrop::new(machine);
    assert_eq!(machine.call(CPU1, || 6).unwrap(), 6);
}

#[test]
fn a_forgotten_queued_descriptor_runs_once() {
    let bed = Bed::new(2);
    let (gate, ran) = (Gate::default(), counter());
    let job = busy(&bed, 1, &gate);
    let csd = Box::pin(Csd::new(move || {
        ran.fetch_add(1, Ordering::Relaxed);
    }));
    bed.post_csd(CPU1, csd.as_ref()).unwrap();
    mem::forget(csd);
    gate.open();
    job.join().unwrap();
    bed.flush(CPU1).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn the_drop_of_a_queued_descriptor_waits_and_it_runs_once() {
    let bed = Bed::new(2);
    let (gate, ran) = (Gate::default(), counter());
    let job = busy(&bed, 1, &gate);
    let csd = Box::pin(Csd::new(move || {
        ran.fetch_add(1, Ordering::Relaxed);
    }));
    bed.post_csd(CPU1, csd.as_ref()).unwrap();
    std::thread::scope(|scope| {
        let dropper = scope.spawn(move || drop(csd));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!dropper.is_finished(), "it is still queued");
        gate.open();
    });
    job.join().unwrap();
    bed.flush(CPU1).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn a_cpu_that_drops_a_descriptor_takes_calls_while_it_waits() {
    let bed = Bed::new(3);
    let (gate, ran) = (Gate::default(), counter());
    let job = busy(&bed, 1, &gate);
    let dropper = bed.on(0, move |machine| {
        let csd = Box::pin(Csd::new(move || {
            ran.fetch_add(1, Ordering::Relaxed);
        }));
        machine.post_csd(CPU1, csd.as_ref()).unwrap();
    });
    assert_eq!(bed.call(CPU0, || 7).unwrap(), 7);
    gate.open();
    dropper.join().unwrap();
    job.join().unwrap();
    bed.flush(CPU1).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn a_descriptor_queued_here_can_be_dropped_here_with_interrupts_off() {
    let bed = Bed::new(2);
    let ran = counter();
    let job = bed.on(0, move |machine| {
        let csd = Box::pin(Csd::new(move || {
            ran.fetch_add(1, Ordering::Relaxed);
        }));
        let guard = machine.irqs_off();
        std::thread::scope(|scope| {
            scope.spawn(|| machine.post_csd(CPU0, csd.as_ref()).unwrap());
        });
        let queued = csd.is_queued();
        drop(csd);
        drop(guard);
        queued
    });
    assert!(job.join().unwrap(), "it was queued when it was dropped");
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn a_task_queued_here_can_be_dropped_here() {
    let bed = Bed::new(2);
    let ran = counter();
    let job = bed.on(0, move |machine| {
        let csd = Box::pin(Csd::new(move || {
            ran.fetch_add(1, Ordering::Relaxed);
        }));
        machine.post_task(CPU0, csd.as_ref()).unwrap();
    });
    job.join().unwrap();
    bed.on(0, |_| ()).join().unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

/// Queues two tasks on CPU 1, which is busy: the first drops the second, which counts. What is
/// returned holds the second until the first has taken it, and the count.
fn post_a_task_that_drops_the_next(
    bed: &Bed,
) -> (&'static Mutex<Option<Box<dyn Send>>>, &'static AtomicU32) {
    let next: &'static Mutex<Option<Box<dyn Send>>> = Box::leak(Box::new(Mutex::new(None)));
    let ran = counter();
    let first = Box::leak(Box::new(Csd::new(|| drop(next.lock().unwrap().take()))));
    let second = Box::pin(Csd::new(|| {
        ran.fetch_add(1, Ordering::Relaxed);
    }));
    bed.post_task(CPU1, Pin::static_ref(first)).unwrap();
    bed.post_task(CPU1, second.as_ref()).unwrap();
    *next.lock().unwrap() = Some(Box::new(second));
    (next, ran)
}

#[test]
fn a_task_dropped_by_a_task_before_it_runs_once() {
    let bed = Bed::new(2);
    let gate = Gate::default();
    let job = busy(&bed, 1, &gate);
    let (_, ran) = post_a_task_that_drops_the_next(&bed);
    gate.open();
    job.join().unwrap();
    bed.run_on_cpu(CPU1, || ()).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn a_task_dropped_by_a_task_before_it_runs_once_while_its_cpu_leaves() {
    for _ in 0..50 {
        let bed = Bed::new(2);
        let gate = Gate::default();
        let job = busy(&bed, 1, &gate);
        let (next, ran) = post_a_task_that_drops_the_next(&bed);
        std::thread::scope(|scope| {
            scope.spawn(|| bed.cpu_down(CPU1).unwrap());
            gate.open();
        });
        job.join().unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), 1);
        assert!(next.lock().unwrap().is_none(), "the first ran");
    }
}

#[test]
fn a_task_dropped_on_its_cpu_with_interrupts_off_aborts_and_is_named() {
    const TEST: &str = "a_task_dropped_on_its_cpu_with_interrupts_off_aborts_and_is_named";
    if !child::is_child(TEST) {
        return aborts_saying(
            TEST,
            "smpcall: fatal: a Csd that is queued as a task on CPU 1 was dropped",
        );
    }
    let bed = Bed::new(2);
    let job = bed.on(1, |machine| {
        let task: Pin<Box<Csd>> = Box::pin(Csd::new(|| ()));
        machine.post_task(CPU1, task.as_ref()).unwrap();
        let _off = machine.irqs_off();
        drop(task);
    });
    job.join().unwrap();
}

#[test]
fn a_queued_descriptor_dropped_in_a_called_function_aborts_and_is_named() {
    const TEST: &str = "a_queued_descriptor_dropped_in_a_called_function_aborts_and_is_named";
    if !child::is_child(TEST) {
        return aborts_saying(
            TEST,
            "smpcall: fatal: a Csd that is queued on CPU 1 was dropped inside a called function",
        );
    }
    let bed = Bed::new(2);
    let _job = busy(&bed, 1, &Gate::default());
    let csd = Box::pin(Csd::new(|| ()));
    bed.post_csd(CPU1, csd.as_ref()).unwrap();
    let _ = bed.call(CPU0, move || drop(csd));
}

#[test]
fn a_machine_dropped_on_its_own_cpu_aborts_and_is_named() {
    const TEST: &str = "a_machine_dropped_on_its_own_cpu_aborts_and_is_named";
    if !child::is_child(TEST) {
        return aborts_saying(
            TEST,
            "smpcall: fatal: a machine was dropped on its own CPU 1",
        );
    }
    let machine = Arc::new(Machine::builder().count(2).boot().unwrap());
    let own = Arc::clone(&machine);
    let gate = Gate::default();
    let opens = gate.clone();
    let job = machine.spawn_on(CPU1, move || {
        opens.wait();
        drop(own);
    });
    drop(machine);
    gate.open();
    let _ = job.unwrap().join();
}
