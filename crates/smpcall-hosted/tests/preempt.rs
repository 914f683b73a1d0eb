//! Pre-emptive delivery: what a signal may interrupt, what it must not, and what it leaves as it was.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use smpcall_hosted::{BootError, CpuId, JoinHandle, Machine, preempt_signal};

#[path = "support/bed.rs"]
mod bed;
#[path = "support/child.rs"]
mod child;
#[path = "support/rounds.rs"]
mod rounds;

use bed::Bed;
use rounds::rounds;

const CPU1: CpuId = CpuId::new(1);

fn builder(cpus: usize) -> smpcall_hosted::Builder {
    let builder = Machine::builder().count(cpus);
    // SAFETY: 1, 2 — the functions that these tests call use atomics and raw system calls only, but
    // for asserts that end the test; 3, 4 — jobs stand EINTR and run on threads' own stacks;
    // 5 — no other code of this process uses the signal but to the handler's own.
    unsafe { builder.reporter(|report| bed::log(report)).preempt() }
}

fn preemptive(cpus: usize) -> Bed {
    Bed::of(builder(cpus))
}

/// Loops without a poll point until it is told to stop.
fn spin(stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        std::hint::spin_loop();
    }
}

/// A job on CPU 1 that runs already.
fn started(bed: &Bed, job: impl FnOnce(&Machine) + Send + 'static) -> JoinHandle<()> {
    let running = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&running);
    let job = bed.on(1, move |machine| {
        theirs.store(true, Ordering::Release);
        job(machine);
    });
    while !running.load(Ordering::Acquire) {
        thread::yield_now();
    }
    job
}

#[test]
fn a_loop_without_poll_points_takes_every_kind_of_call() {
    let bed = preemptive(3);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let job = started(&bed, move |_| spin(&theirs));
    assert_eq!(bed.call(CPU1, || bed.current_cpu()).unwrap(), Some(CPU1));
    let posted = Arc::new(AtomicU32::new(0));
    let counts = Arc::as_ptr(&posted).addr();
    for _ in 0..20 {
        let count = move || {
            // SAFETY: the test holds the counter until the flush below.
            unsafe { &*std::ptr::with_exposed_provenance::<AtomicU32>(counts) }
                .fetch_add(1, Ordering::Relaxed);
        };
        let _ = Arc::as_ptr(&posted).expose_provenance();
        bed.post_wait(CPU1, count).unwrap();
    }
    bed.flush(CPU1).unwrap();
    assert_eq!(posted.load(Ordering::Relaxed), 20);
    assert_eq!(bed.on_each_cpu(|_| ()).unwrap().len(), 3);
    // From a CPU, by its mailbox line and by broadcast.
    let caller = bed.on(2, |machine| {
        assert_eq!(
            machine.call(CPU1, || machine.current_cpu()).unwrap(),
            Some(CPU1)
        );
        machine.call_others(|_| ()).unwrap().len()
    });
    assert_eq!(caller.join().unwrap(), 2);
    stop.store(true, Ordering::Release);
    job.join().unwrap();
}

#[test]
fn kick_all_cpus_sync_waits_for_no_poll_point() {
    let bed = preemptive(2);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let job = started(&bed, move |_| spin(&theirs));
    for _ in rounds(100) {
        assert!(bed.kick_all_cpus_sync().unwrap().contains(CPU1));
    }
    stop.store(true, Ordering::Release);
    job.join().unwrap();
}

#[test]
fn malloc_locks_and_masked_regions_stand_thousands_of_interruptions() {
    let bed = preemptive(2);
    let (stop, masked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let ledger = Arc::new(Mutex::new(HashMap::new()));
    let (their_stop, their_mask, their_ledger) =
        (Arc::clone(&stop), Arc::clone(&masked), Arc::clone(&ledger));
    let job = started(&bed, move |machine| {
        let mut turn = 0_u64;
        while !their_stop.load(Ordering::Acquire) {
            // Allocation and a lock: the handler must find neither in its way.
            let words: Vec<u64> = (0..turn % 60).collect();
            their_ledger.lock().unwrap().insert(turn % 50, words);
            let guard = machine.irqs_off();
            their_mask.store(true, Ordering::Relaxed);
            std::hint::black_box(&their_ledger);
            their_mask.store(false, Ordering::Relaxed);
            drop(guard);
            turn += 1;
        }
    });
    let inside = AtomicU64::new(0);
    for number in rounds(2_000) {
        let answer = bed.call(CPU1, || {
            inside.fetch_add(u64::from(masked.load(Ordering::Relaxed)), Ordering::Relaxed);
            number + 1
        });
        assert_eq!(answer.unwrap(), number + 1);
    }
    stop.store(true, Ordering::Release);
    job.join().unwrap();
    assert_eq!(inside.into_inner(), 0, "calls ran inside a masked region");
    let ledger = ledger.lock().unwrap();
    for words in ledger.values() {
        assert!(words.iter().copied().eq(0..words.len() as u64));
    }
}

#[test]
fn what_arrives_while_masked_runs_when_the_mask_ends_and_not_before() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    let bed = preemptive(2);
    let (ready, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (theirs, their_sent) = (Arc::clone(&ready), Arc::clone(&sent));
    let job = bed.on(1, move |machine| {
        let outer = machine.irqs_off();
        let inner = machine.irqs_off();
        theirs.store(true, Ordering::Release);
        spin(&their_sent);
        // The signal is pending by now: any system call takes it.
        thread::yield_now();
        assert_eq!(RAN.load(Ordering::Relaxed), 0, "masked");
        drop(inner);
        assert_eq!(RAN.load(Ordering::Relaxed), 0, "masked still");
        drop(outer);
        assert_eq!(RAN.load(Ordering::Relaxed), 8, "deferred, not lost");
    });
    spin(&ready);
    let before = bed.platform().kicks();
    for _ in 0..8 {
        let count = || {
            RAN.fetch_add(1, Ordering::Relaxed);
        };
        bed.post(CPU1, count).unwrap();
    }
    assert_eq!(bed.platform().kicks(), before + 1, "one signal for all");
    sent.store(true, Ordering::Release);
    job.join().unwrap();
}

#[test]
fn what_a_poll_point_served_is_not_run_again() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    let bed = preemptive(2);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let job = started(&bed, move |machine| {
        while !theirs.load(Ordering::Acquire) {
            machine.poll();
        }
    });
    let mut calls = 0;
    for _ in rounds(2_000) {
        calls += 1;
        let count = || RAN.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(bed.call(CPU1, count).unwrap(), calls);
    }
    stop.store(true, Ordering::Release);
    job.join().unwrap();
    assert_eq!(RAN.load(Ordering::Relaxed), calls);
}

#[test]
fn a_cpu_that_sleeps_in_a_read_takes_calls_there_and_the_read_goes_on() {
    let bed = preemptive(2);
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let job = started(&bed, move |_| {
        let mut word = [0; 4];
        reader.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"done");
    });
    for number in rounds(200) {
        assert_eq!(bed.call(CPU1, || number).unwrap(), number);
    }
    writer.write_all(b"done").unwrap();
    job.join().unwrap();
}

#[test]
fn errno_is_as_it_was() {
    fn errno() -> &'static AtomicU32 {
        // SAFETY: no precondition.
        let word = unsafe { libc::__errno_location() };
        // SAFETY: the thread's own word, which lives as long as the thread.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }
    let bed = preemptive(2);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let job = started(&bed, move |machine| {
        let mut turn = 1;
        while !theirs.load(Ordering::Acquire) {
            errno().store(turn, Ordering::Relaxed);
            let masked = turn % 2 == 0;
            let guard = masked.then(|| machine.irqs_off());
            (0..100).for_each(|_| std::hint::spin_loop());
            drop(guard);
            assert_eq!(errno().load(Ordering::Relaxed), turn);
            turn += 1;
        }
    });
    for _ in rounds(2_000) {
        let fails = || {
            // SAFETY: no memory is handed over; there is no such file.
            unsafe { libc::close(-1) };
            errno().load(Ordering::Relaxed)
        };
        assert_eq!(bed.call(CPU1, fails).unwrap(), libc::EBADF as u32);
    }
    stop.store(true, Ordering::Release);
    job.join().unwrap();
}

#[test]
fn cpus_that_call_each_other_without_poll_points_all_finish() {
    let bed = preemptive(4);
    let jobs: Vec<_> = (0..4)
        .map(|cpu| {
            bed.on(cpu, move |machine| {
                for turn in rounds(200) {
                    let turn = turn as u32;
                    let target = CpuId::new((cpu + 1 + turn % 3) % 4);
                    assert_eq!(machine.call(target, || turn).unwrap(), turn);
                    machine.post_wait(target, || ()).unwrap();
                    if turn.is_multiple_of(20) {
                        assert_eq!(machine.on_each_cpu(|_| ()).unwrap().len(), 4);
                    }
                }
            })
        })
        .collect();
    jobs.into_iter().for_each(|job| job.join().unwrap());
}

#[test]
fn a_called_function_may_post_on_and_does_not_wait() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    let bed = preemptive(3);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let job = started(&bed, move |_| spin(&theirs));
    let machine: &Machine = &bed;
    let refused = machine.call(CPU1, || {
        let count = || {
            RAN.fetch_add(1, Ordering::Relaxed);
        };
        let posted = machine.post(CpuId::new(2), count).is_ok();
        posted && machine.call(CpuId::new(2), || ()).is_err()
    });
    assert!(refused.unwrap());
    bed.flush(CpuId::new(2)).unwrap();
    assert_eq!(RAN.load(Ordering::Relaxed), 1);
    stop.store(true, Ordering::Release);
    job.join().unwrap();
}

#[test]
fn cpus_come_and_go_while_they_are_interrupted() {
    let bed = preemptive(3);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let job = started(&bed, move |_| spin(&theirs));
    let others = bed.on(0, |machine| {
        for _ in rounds(20) {
            machine.cpu_down(CpuId::new(2)).unwrap();
            machine.cpu_up(CpuId::new(2)).unwrap();
        }
    });
    let mut ran = 0;
    while others.try_join().is_none() {
        // CPU 2 may be gone; CPU 1 is always there.
        ran += u32::from(bed.call(CpuId::new(2), || ()).is_ok());
        bed.call(CPU1, || ()).unwrap();
    }
    bed.call(CpuId::new(2), || ()).unwrap();
    stop.store(true, Ordering::Release);
    job.join().unwrap();
    println!("{ran} calls reached the CPU that comes and goes");
}

#[test]
fn a_signal_that_the_booting_thread_blocked_reaches_the_cpus_all_the_same() {
    let blocked = thread::spawn(|| {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: room for a set, filled by the call.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
        // SAFETY: a full set; this thread ends below.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
        let bed = preemptive(2);
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let job = started(&bed, move |_| spin(&theirs));
        bed.call(CPU1, || stop.store(true, Ordering::Release))
            .unwrap();
        job.join().unwrap();
    });
    blocked.join().unwrap();
}

#[test]
fn a_stray_signal_runs_nothing_on_a_machine_that_did_not_ask_for_it() {
    // Installs the handler.
    let _preemptive = preemptive(1);
    let bed = Bed::new(2);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let thread_number = Arc::new(AtomicU32::new(0));
    let number = Arc::clone(&thread_number);
    let job = started(&bed, move |machine| {
        // SAFETY: no precondition.
        number.store(unsafe { libc::gettid() } as u32, Ordering::Release);
        spin(&theirs);
        assert!(machine.has_pending(), "it still waits for a poll point");
        machine.poll();
        assert!(!machine.has_pending());
    });
    while thread_number.load(Ordering::Acquire) == 0 {
        thread::yield_now();
    }
    static RAN: AtomicBool = AtomicBool::new(false);
    bed.post(CPU1, || RAN.store(true, Ordering::Release))
        .unwrap();
    let send = |thread: u32| {
        // SAFETY: the signal has the library's handler.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                std::process::id(),
                thread,
                preempt_signal(),
            )
        };
    };
    send(thread_number.load(Ordering::Acquire));
    // SAFETY: no precondition; this thread is no CPU.
    send(unsafe { libc::gettid() } as u32);
    thread::sleep(Duration::from_millis(20));
    assert!(!RAN.load(Ordering::Acquire), "no poll point has come");
    stop.store(true, Ordering::Release);
    job.join().unwrap();
    assert!(RAN.load(Ordering::Acquire));
}

#[test]
fn a_signal_that_somebody_else_handles_is_refused() {
    extern "C" fn theirs(_: libc::c_int) {}
    let signal = libc::SIGRTMAX() - 3;
    // SAFETY: a handler that does nothing, for a signal that nothing else here uses.
    unsafe {
        libc::signal(
            signal,
            theirs as extern "C" fn(libc::c_int) as libc::sighandler_t,
        )
    };
    // SAFETY: as `builder`; it does not boot.
    let refused = unsafe { builder(1).preempt_by(signal) }.boot().unwrap_err();
    assert!(matches!(refused, BootError::SignalTaken { signal: it } if it == signal));
    assert!(
        refused.to_string().contains("has a handler already"),
        "{refused}"
    );
}

#[test]
fn a_signal_that_takes_no_handler_is_named() {
    for signal in [0, 9, 1000] {
        // SAFETY: as `builder`; it does not boot.
        let refused = unsafe { builder(1).preempt_by(signal) }.boot().unwrap_err();
        let said = refused.to_string();
        assert!(
            said.starts_with(&format!("signal {signal} takes no handler: ")),
            "{said}"
        );
    }
}

#[test]
fn another_signal_serves_as_well_and_two_machines_share_one() {
    // SAFETY: as `builder`; nothing here uses urgent data of sockets.
    let first = Bed::of(unsafe { builder(2).preempt_by(libc::SIGURG) });
    // SAFETY: as above.
    let second = Bed::of(unsafe { builder(2).preempt_by(libc::SIGURG) });
    for bed in [&first, &second] {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let job = started(bed, move |_| spin(&theirs));
        bed.call(CPU1, || stop.store(true, Ordering::Release))
            .unwrap();
        job.join().unwrap();
    }
}

#[test]
fn without_room_for_signals_calls_wait_for_the_next_poll_point() {
    const TEST: &str = "without_room_for_signals_calls_wait_for_the_next_poll_point";
    if !child::is_child(TEST) {
        return child::run(TEST).passed();
    }
    let bed = preemptive(2);
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a limit to read; it is this process's own.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) };
    assert_eq!(set, 0);
    let polls = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let (their_polls, their_stop) = (Arc::clone(&polls), Arc::clone(&stop));
    let job = started(&bed, move |machine| {
        while !their_stop.load(Ordering::Acquire) {
            if their_polls.load(Ordering::Acquire) {
                machine.poll();
            }
        }
    });
    static RAN: AtomicBool = AtomicBool::new(false);
    bed.post(CPU1, || RAN.store(true, Ordering::Release))
        .unwrap();
    assert_eq!(bed.platform().undelivered_signals(), 1);
    assert!(!RAN.load(Ordering::Acquire));
    polls.store(true, Ordering::Release);
    bed.flush(CPU1).unwrap();
    assert!(RAN.load(Ordering::Acquire));
    stop.store(true, Ordering::Release);
    job.join().unwrap();
}

#[test]
fn a_thread_that_attached_is_interrupted_as_well_and_not_after_it_left() {
    // SAFETY: as `builder`.
    let machine = unsafe { Machine::builder().count(2).only_attached().preempt() };
    let bed = Bed::of(machine.reporter(|report| bed::log(report)));
    let attached = AtomicBool::new(false);
    let stop = AtomicBool::new(false);
    let gone = AtomicBool::new(false);
    thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let here = bed.attach(CPU1).unwrap();
            attached.store(true, Ordering::Release);
            spin(&stop);
            here.detach();
            // A loop that nobody may interrupt any more.
            spin(&gone);
        });
        spin(&attached);
        for number in rounds(200) {
            assert_eq!(bed.call(CPU1, || number).unwrap(), number);
        }
        bed.call(CPU1, || stop.store(true, Ordering::Release))
            .unwrap();
        // Until it has left, it answers.
        while bed.call(CPU1, || ()).is_ok() {}
        gone.store(true, Ordering::Release);
        busy.join().unwrap();
    });
}
