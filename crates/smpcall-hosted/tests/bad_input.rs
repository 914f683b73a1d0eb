//! Wrong CPUs, full lanes and machines that cannot be: clear errors, and nothing lost or left behind.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use smpcall_hosted::{
    BootError, BootParams, CallError, CpuId, CpuMask, Csd, HostCpus, HotplugError, Machine, ROOM,
    Refused, host_cpu,
};

#[path = "support/bed.rs"]
mod bed;
#[path = "support/child.rs"]
mod child;

use bed::Bed;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

/// The error of every call to this CPU; each must refuse, and hand back a closure that still runs.
#[track_caller]
fn every_call_says(machine: &Machine, cpu: CpuId, expected: CallError) {
    fn back<F: FnOnce() -> R, R>(refused: Refused<F>) -> CallError {
        let error = refused.error;
        refused.into_closure()();
        error
    }
    let csd = Box::pin(Csd::new(|| ()));
    let errors = [
        machine.call(cpu, || ()).map_err(back).err(),
        machine.run_on_cpu(cpu, || ()).map_err(back).err(),
        machine.post(cpu, || ()).map_err(back).err(),
        machine.post_wait(cpu, || ()).map_err(back).err(),
        machine.call_csd(cpu, &csd).err(),
        machine.post_csd(cpu, csd.as_ref()).err(),
        machine.post_task(cpu, csd.as_ref()).err(),
        machine.flush(cpu).err(),
        machine.nudge(cpu).err(),
        machine.spawn_on(cpu, || ()).err(),
        {
            let mut guard = machine.irqs_off();
            machine
                .call_irqs_off(&mut guard, cpu, || ())
                .map_err(back)
                .err()
        },
    ];
    assert_eq!(errors, [Some(expected); 11]);
    assert!(!csd.is_queued(), "it is free again");
}

/// As [`every_call_says`], from a foreign thread and from a CPU.
#[track_caller]
fn everybody_hears(bed: &Bed, cpu: CpuId, expected: CallError) {
    every_call_says(bed, cpu, expected);
    let job = bed.on(0, move |machine| every_call_says(machine, cpu, expected));
    job.join().unwrap();
}

#[test]
fn a_cpu_out_of_range_is_no_such_cpu() {
    let bed = Bed::new(3);
    for id in [3, 63, 64, 1023, 1024, 4096, u32::MAX] {
        let cpu = CpuId::new(id);
        let expected = CallError::NoSuchCpu { cpu, nr_cpu_ids: 3 };
        everybody_hears(&bed, cpu, expected);
        assert_eq!(bed.cpu_up(cpu), Err(HotplugError::NoSuchCpu));
        assert_eq!(bed.cpu_down(cpu), Err(HotplugError::NoSuchCpu));
        assert_eq!(
            expected.to_string(),
            format!("no such CPU: {id} (ids are below 3)")
        );
    }
}

#[test]
fn an_offline_cpu_is_refused_by_name_and_left_out_of_masks() {
    let bed = Bed::new(3);
    bed.cpu_down(CPU1).unwrap();
    everybody_hears(&bed, CPU1, CallError::Offline { cpu: CPU1 });
    assert_eq!(
        CallError::Offline { cpu: CPU1 }.to_string(),
        "CPU 1 is offline"
    );
    let ran = bed.on_each_cpu(|cpu| assert_ne!(cpu, CPU1)).unwrap();
    assert_eq!(ran.to_string(), "0,2");
    assert_eq!(bed.post_each(|_| ()).unwrap().to_string(), "0,2");
    assert_eq!(bed.cpu_down(CPU1), Err(HotplugError::AlreadyOffline));
}

#[test]
fn the_last_cpu_cannot_leave_and_none_can_take_itself_down() {
    let bed = Bed::new(2);
    let own = bed.on(1, |machine| machine.cpu_down(CPU1));
    assert_eq!(own.join().unwrap(), Err(HotplugError::Myself));
    bed.cpu_down(CPU0).unwrap();
    assert_eq!(bed.cpu_down(CPU1), Err(HotplugError::LastCpu));
    assert_eq!(bed.cpu_up(CPU1), Err(HotplugError::AlreadyOnline));
}

#[test]
fn an_empty_mask_is_fine_for_many_and_an_error_for_any() {
    let bed = Bed::new(3);
    bed.cpu_down(CPU1).unwrap();
    let never = || panic!("nobody was asked");
    for cpus in [
        CpuMask::EMPTY,
        CpuMask::of(CPU1),
        CpuMask::of(CpuId::new(900)),
    ] {
        assert!(bed.call_many(&cpus, |_| never()).unwrap().is_empty());
        assert!(bed.on_each_cpu_mask(&cpus, |_| never()).unwrap().is_empty());
        assert!(bed.post_many(&cpus, move |_| never()).unwrap().is_empty());
        assert!(
            bed.post_each_mask(&cpus, move |_| never())
                .unwrap()
                .is_empty()
        );
        let error = bed.call_any(&cpus, never).map(|_| ()).unwrap_err().error;
        assert_eq!(error, CallError::EmptyMask);
        let error = bed.post_any(&cpus, never).unwrap_err().error;
        assert_eq!(error, CallError::EmptyMask);
    }
    assert!(
        bed.on_each_cpu_cond(|_| false, |_| never())
            .unwrap()
            .is_empty()
    );
    assert!(
        bed.post_each_cond(|_| false, move |_| never())
            .unwrap()
            .is_empty()
    );
}

/// Runs `f` while CPU 1 is busy and its lane is full of posts that count.
fn with_full_lane(f: impl FnOnce(&Bed, &'static AtomicU32)) -> u32 {
    let bed = Bed::new(2);
    let ran: &AtomicU32 = Box::leak(Box::default());
    let gate = Arc::new(Barrier::new(2));
    let opens = Arc::clone(&gate);
    let job = bed.on(1, move |_| {
        opens.wait();
        opens.wait();
    });
    gate.wait();
    for _ in 0..ROOM {
        let count = || {
            ran.fetch_add(1, Ordering::Relaxed);
        };
        bed.post(CPU1, count).unwrap();
    }
    f(&bed, ran);
    gate.wait();
    job.join().unwrap();
    bed.flush(CPU1).unwrap();
    ran.load(Ordering::Relaxed)
}

#[test]
fn a_full_lane_hands_the_closure_back_and_loses_nothing() {
    let ran = with_full_lane(|bed, ran| {
        let full = CallError::Full { cpu: CPU1 };
        let count = || {
            ran.fetch_add(100, Ordering::Relaxed);
        };
        let refused = bed.post(CPU1, count).unwrap_err();
        assert_eq!(refused.error, full);
        assert_eq!(refused.to_string(), "the lane of CPU 1 is full");
        assert_eq!(ran.load(Ordering::Relaxed), 0, "neither run nor dropped");
        refused.into_closure()();
        assert_eq!(ran.load(Ordering::Relaxed), 100);
        let any = bed.post_any(&CpuMask::of(CPU1), || ());
        assert_eq!(any.unwrap_err().error, full);
        // A descriptor brings its own room, and a waited call needs none.
        let csd = Box::pin(Csd::new(count));
        bed.post_csd(CPU1, csd.as_ref()).unwrap();
        assert_eq!(bed.post_csd(CPU1, csd.as_ref()), Err(CallError::Busy));
        std::mem::forget(csd);
    });
    assert_eq!(ran, ROOM as u32 + 200);
}

#[test]
fn a_posted_broadcast_names_the_full_lanes_and_reaches_the_others() {
    let ran = with_full_lane(|bed, ran| {
        let count = move |_| {
            ran.fetch_add(1000, Ordering::Relaxed);
        };
        let error = bed.post_each(count).unwrap_err();
        assert_eq!(error.to_string(), "the lanes of CPUs 1 are full");
        assert_eq!(
            (error.posted, error.full),
            (CpuMask::of(CPU0), CpuMask::of(CPU1))
        );
        bed.flush(CPU0).unwrap();
        assert_eq!(ran.load(Ordering::Relaxed), 1000);
    });
    assert_eq!(ran, ROOM as u32 + 1000);
}

#[test]
fn waiting_for_room_is_refused_where_waiting_is_impossible() {
    let ran = with_full_lane(|bed, _| {
        let job = bed.on(0, |machine| {
            let post = || {
                machine
                    .post_wait(CPU1, || ())
                    .map_err(|refused| refused.error)
            };
            let guard = machine.irqs_off();
            assert_eq!(post(), Err(CallError::InterruptsOff));
            drop(guard);
            assert_eq!(machine.call(CPU0, post).unwrap(), Err(CallError::InHandler));
        });
        job.join().unwrap();
    });
    assert_eq!(ran, ROOM as u32);
}

#[test]
fn waiting_for_room_waits() {
    let bed = Bed::new(2);
    static RAN: AtomicU32 = AtomicU32::new(0);
    let posts = 20 * ROOM as u32;
    let count = || {
        RAN.fetch_add(1, Ordering::Relaxed);
    };
    let job = bed.on(0, move |machine| {
        for _ in 0..posts {
            machine.post_wait(CPU1, count).unwrap();
        }
        machine.flush(CPU1).unwrap();
    });
    (0..posts).for_each(|_| bed.post_wait(CPU1, count).unwrap());
    job.join().unwrap();
    bed.flush(CPU1).unwrap();
    assert_eq!(RAN.load(Ordering::Relaxed), 2 * posts);
}

#[test]
fn a_machine_that_cannot_be_is_refused_by_name() {
    let says = |builder: smpcall_hosted::Builder| builder.boot().unwrap_err().to_string();
    let machine = Machine::builder;
    assert_eq!(says(machine().count(0)), "a machine has at least one CPU");
    assert_eq!(
        says(machine().list(&CpuMask::EMPTY)),
        "a machine has at least one CPU"
    );
    let too_many = says(machine().count(1025));
    assert_eq!(
        too_many,
        "1025 CPUs are more than this build supports (1024)"
    );
    let allowed = *HostCpus::allowed().unwrap().mask();
    let strange = CpuId::new(1023);
    assert!(!allowed.contains(strange), "no test computer has so many");
    let refused = says(machine().list(&CpuMask::of(strange)));
    let expected = format!("CPU 1023 is not one that this process may use ({allowed})");
    assert_eq!(refused, expected);
}

/// What a machine of four has online with this command line.
fn online_with(line: &str) -> String {
    let params = BootParams::parse(line, 1024).unwrap();
    let bed = Bed::of(Machine::builder().count(4).params(params));
    bed.online_cpus().to_string()
}

#[test]
fn boot_parameters_limit_what_comes_up() {
    assert_eq!(online_with("nosmp"), "0");
    assert_eq!(online_with("maxcpus=0"), "0");
    assert_eq!(online_with("maxcpus=1"), "0");
    assert_eq!(online_with("maxcpus=3"), "0-2");
    assert_eq!(online_with("nr_cpus=2"), "0-1");
    assert_eq!(online_with("nr_cpus=2 maxcpus=9"), "0-1");
    assert_eq!(online_with(""), "0-3");
}

#[test]
fn a_later_cpu_up_may_exceed_maxcpus_and_not_nr_cpus() {
    let params = BootParams::parse("maxcpus=1 nr_cpus=2", 1024).unwrap();
    let bed = Bed::of(Machine::builder().count(4).params(params));
    assert_eq!(
        bed.call(CPU1, || ()).unwrap_err().error,
        CallError::Offline { cpu: CPU1 }
    );
    bed.cpu_up(CPU1).unwrap();
    assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
    assert_eq!(bed.cpu_up(CpuId::new(2)), Err(HotplugError::NoSuchCpu));
    assert_eq!(bed.nr_cpu_ids(), 2);
}

/// Leaves this process one CPU of those that it may use, and answers which.
fn keep_last_cpu() -> CpuId {
    let last = HostCpus::allowed().unwrap().mask().last().unwrap();
    let mut set = rustix::thread::CpuSet::new();
    set.set(last.index());
    rustix::thread::sched_setaffinity(None, &set).unwrap();
    last
}

#[test]
fn a_process_with_one_cpu_gets_a_machine_of_it_by_its_real_id() {
    const TEST: &str = "a_process_with_one_cpu_gets_a_machine_of_it_by_its_real_id";
    if !child::is_child(TEST) {
        return child::run(TEST).passed();
    }
    let last = keep_last_cpu();
    let bed = Bed::of(Machine::builder());
    assert_eq!(bed.online_cpus(), CpuMask::of(last));
    assert_eq!(bed.call(last, host_cpu).unwrap(), last.get());
    let only = last.get().checked_sub(1).map(CpuId::new);
    if let Some(below) = only {
        let error = bed.call(below, || ()).unwrap_err().error;
        assert_eq!(error, CallError::Offline { cpu: below });
    }
    let four = Bed::new(4);
    let here = |_| assert_eq!(host_cpu(), last.get());
    assert_eq!(four.on_each_cpu(here).unwrap().to_string(), "0-3");
    let nothing = BootParams::parse("nr_cpus=1", 1024).unwrap();
    let booted = Machine::builder().params(nothing).boot();
    if last > CPU0 {
        assert!(matches!(booted, Err(BootError::NoCpus)), "{booted:?}");
    }
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

/// From here on, this thread and those that it starts may not pin anything.
fn forbid_pinning() {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let skip_unless = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut program = [
        step(load, 0, 0),
        step(skip_unless, 1, libc::SYS_sched_setaffinity as u32),
        step(answer, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(answer, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: a flag of this thread, without pointers.
    let no_new_privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(no_new_privileges, 0);
    // SAFETY: the kernel copies the program, which is alive.
    let filtered = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(filtered, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_process_that_may_not_pin_gets_a_clear_error_and_keeps_no_thread() {
    const TEST: &str = "a_process_that_may_not_pin_gets_a_clear_error_and_keeps_no_thread";
    if !child::is_child(TEST) {
        return child::run(TEST).passed();
    }
    forbid_pinning();
    let before = threads();
    for _ in 0..3 {
        let error = Machine::builder().count(4).boot().unwrap_err().to_string();
        let expected = "CPU 0 did not start: pinning or starting its thread failed: \
                        Operation not permitted (os error 1)";
        assert_eq!(error, expected);
        comes_back_to(before);
    }
}
