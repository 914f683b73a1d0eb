//! What others do to the process: children, forks, affinity from outside. The machine goes on.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smpcall_hosted::{BootError, CpuId, CpuMask, HostCpus, Machine, host_cpu};

#[path = "support/bed.rs"]
mod bed;
#[path = "support/child.rs"]
mod child;

use bed::Bed;

const CPU0: CpuId = CpuId::new(0);
const CPU1: CpuId = CpuId::new(1);

/// Puts a thread on one CPU of the computer, as `taskset -p` does.
fn move_thread(thread: libc::pid_t, host: CpuId) {
    // SAFETY: all zero is an empty set.
    let mut set = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: a set, and an id that the kernel told us.
    unsafe { libc::CPU_SET(host.index(), &mut set) };
    // SAFETY: the kernel reads the set.
    let moved = unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &raw const set) };
    assert_eq!(moved, 0, "{}", std::io::Error::last_os_error());
}

/// Waits for what a CPU's thread does.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: not yet");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_thread_that_is_moved_from_outside_goes_on_and_says_so_once() {
    let allowed = *HostCpus::allowed().unwrap().mask();
    let said = Arc::new(Mutex::new(Vec::new()));
    let saying = Arc::clone(&said);
    let builder = Machine::builder().count(2);
    let bed = Bed::of(builder.reporter(move |report| {
        bed::log(report);
        saying.lock().unwrap().push(report.to_string());
    }));
    let home = bed.platform().host_cpu_of(CPU1).unwrap();
    let Some(other) = allowed.iter().find(|host| host.get() != home) else {
        eprintln!("one CPU: there is nowhere to move to");
        return;
    };
    assert!(bed.platform().moved().is_empty());
    // SAFETY: no precondition.
    let thread = bed.call(CPU1, || unsafe { libc::gettid() }).unwrap();
    move_thread(thread, other);
    for n in 0..100 {
        let answer = bed.call(CPU1, || (n, host_cpu())).unwrap();
        assert_eq!(answer, (n, other.get()));
    }
    eventually("CPU 1 has seen where it is", || {
        // It looks when it goes to sleep, so it must have had something to wake up for.
        bed.call(CPU1, || ()).unwrap();
        bed.platform().moved() == CpuMask::of(CPU1)
    });
    let words = format!(
        "CPU 1 runs on the computer's CPU {other} instead of {home}: somebody changed its \
         affinity, or that CPU went offline"
    );
    eventually("the report", || said.lock().unwrap().contains(&words));
    bed.cpu_down(CPU1).unwrap();
    bed.cpu_up(CPU1).unwrap();
    assert_eq!(bed.call(CPU1, host_cpu).unwrap(), home, "pinned anew");
    let said = said.lock().unwrap();
    assert_eq!(
        said.iter().filter(|line| **line == words).count(),
        1,
        "{said:?}"
    );
}

#[test]
fn a_process_that_loses_cpus_goes_on_with_those_that_are_left() {
    const TEST: &str = "a_process_that_loses_cpus_goes_on_with_those_that_are_left";
    if !child::is_child(TEST) {
        return child::run(TEST).passed();
    }
    let allowed = *HostCpus::allowed().unwrap().mask();
    let left = allowed.first().unwrap();
    let bed = Bed::new(4);
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let thread = task.file_name().into_string().unwrap().parse().unwrap();
        move_thread(thread, left);
    }
    for n in 0..200 {
        assert_eq!(
            bed.on_each_cpu(|_| assert_eq!(host_cpu(), left.get()))
                .unwrap()
                .len(),
            4
        );
        assert_eq!(bed.call(CpuId::new(n % 4), || n).unwrap(), n);
    }
    // A machine that is booted now has what is left, and names what is not.
    let now = Machine::builder().reporter(|_| ()).boot().unwrap();
    assert_eq!(now.online_cpus(), CpuMask::of(left));
    if let Some(lost) = allowed.last().filter(|&lost| lost != left) {
        let refused = Machine::builder().list(&CpuMask::of(lost)).boot();
        assert!(matches!(refused, Err(BootError::NotAllowed { cpu, .. }) if cpu == lost));
    }
}

#[test]
fn a_child_that_execs_leaves_the_machine_alone() {
    let bed = Bed::new(2);
    let runs = || {
        let mut child = Command::new("true");
        // SAFETY: does nothing; it makes the library use `fork`, which runs the handlers of forks.
        unsafe { child.pre_exec(|| Ok(())) };
        child.status().expect("the child runs").success()
    };
    for n in 0..10 {
        assert!(runs());
        let from_a_job = bed.on(1, move |_| runs()).join();
        assert!(from_a_job.unwrap(), "from a CPU");
        assert_eq!(bed.call(CPU1, || n).unwrap(), n);
    }
    let attached = Machine::builder().count(1).only_attached().boot().unwrap();
    let here = attached.attach(CPU0).unwrap();
    assert!(runs());
    assert_eq!(here.call(CPU0, || 7).unwrap(), 7);
}

/// Forks; the child does something and exits with a code. Answers the child's end.
fn fork_and(child: impl FnOnce() -> libc::c_int) -> libc::c_int {
    // SAFETY: the child uses what a forked child of a process with threads may use on Linux with glibc:
    // memory can be allocated, other threads do not exist.
    let forked = unsafe { libc::fork() };
    assert!(forked >= 0, "{}", std::io::Error::last_os_error());
    if forked == 0 {
        let code = child();
        // SAFETY: ends the child at once, past the test harness.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: our own child, and room for its status.
    let waited = unsafe { libc::waitpid(forked, &raw mut status, 0) };
    assert_eq!(waited, forked);
    status
}

#[test]
fn a_forked_child_that_waits_for_its_parents_cpus_is_told_so() {
    const TEST: &str = "a_forked_child_that_waits_for_its_parents_cpus_is_told_so";
    const WORDS: &str =
        "smpcall: fatal: a process that was forked without exec waits for a CPU whose thread";
    if !child::is_child(TEST) {
        let end = child::run(TEST);
        assert_eq!(end.said.matches(WORDS).count(), 3, "{end:?}");
        return end.passed();
    }
    let bed = Bed::new(2);
    let machine: &Machine = &bed;
    let waits: [(&str, &dyn Fn()); 3] = [
        ("call", &|| drop(machine.call(CPU1, || 7))),
        ("task", &|| drop(machine.run_on_cpu(CPU1, || 7))),
        ("many", &|| drop(machine.on_each_cpu(|_| ()))),
    ];
    for (name, wait) in waits {
        let status = fork_and(|| {
            wait();
            0
        });
        assert!(libc::WIFSIGNALED(status), "{name}: {status}");
        assert_eq!(libc::WTERMSIG(status), libc::SIGABRT, "{name}");
        // The parent's machine is none the wiser.
        assert_eq!(bed.call(CPU1, || 7).unwrap(), 7);
    }
}

#[test]
fn a_forked_child_lets_go_of_its_parents_machine_and_may_boot_its_own() {
    const TEST: &str = "a_forked_child_lets_go_of_its_parents_machine_and_may_boot_its_own";
    if !child::is_child(TEST) {
        return child::run(TEST).passed();
    }
    let machine = Machine::builder().count(2).reporter(|_| ()).boot().unwrap();
    let attached = Machine::builder().count(2).only_attached().boot().unwrap();
    let here = attached.attach(CPU1).unwrap();
    let parts = Mutex::new(Some((machine, attached, here)));
    let status = fork_and(|| {
        // Their drops wait for nobody.
        drop(parts.lock().unwrap().take());
        let own = Machine::builder().count(2).reporter(|_| ()).boot().unwrap();
        own.call(CPU1, || 7).unwrap()
    });
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7,
        "{status}"
    );
    let (machine, _attached, here) = parts.lock().unwrap().take().expect("the parent's");
    assert_eq!(machine.call(CPU1, || 8).unwrap(), 8);
    assert_eq!(here.call(CPU1, || 9).unwrap(), 9);
    here.detach();
}
