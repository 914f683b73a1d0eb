//! What whoever administers the computer does to it: a control group loses CPUs, a CPU goes offline. Calls go on.
//!
//! These tests change the computer for everybody on it, so they run only when they are asked for, as root:
//! `cargo test -p smpcall-hosted --test computer -- --ignored --test-threads 1`.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use smpcall_hosted::{CpuId, CpuMask, HostCpus, Machine, host_cpu};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

/// The CPUs of the computer that stay, and the one that goes.
fn stays_and_goes() -> (CpuId, CpuId) {
    let allowed = *HostCpus::allowed().unwrap().mask();
    let (first, last) = (allowed.first().unwrap(), allowed.last().unwrap());
    assert_ne!(first, last, "one CPU cannot go");
    (first, last)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Calls every CPU many times, one after the other and all at once, while `change` is made and after it.
fn calls_go_on(bed: &Bed, change: impl FnOnce()) {
    let caller = bed.on(0, |machine| {
        for n in 0..20_000_u64 {
            let cpu = CpuId::new(n as u32 % 4);
            assert_eq!(machine.call(cpu, || n).unwrap(), n);
            assert_eq!(machine.on_each_cpu(|_| ()).unwrap().len(), 4);
        }
    });
    change();
    caller.join().expect("every call was answered");
}

/// Waits until the threads of these CPUs say that they were moved; they look when they go to sleep.
fn wait_until_moved(bed: &Bed, lost: CpuId) {
    let is_lost = |&cpu: &CpuId| bed.platform().host_cpu_of(cpu) == Some(lost.get());
    let all: CpuMask = bed.online_cpus().iter().filter(is_lost).collect();
    let start = Instant::now();
    while bed.platform().moved() != all {
        let moved = bed.platform().moved();
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{moved:?} say that they were moved, not {all:?}"
        );
        bed.on_each_cpu(|_| ()).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Down and up again, the CPUs are in their places.
fn down_and_up(bed: &Bed) {
    for cpu in bed.online_cpus().iter().skip(1) {
        bed.cpu_down(cpu).unwrap();
        bed.cpu_up(cpu).unwrap();
        assert_eq!(
            bed.call(cpu, host_cpu).ok(),
            bed.platform().host_cpu_of(cpu)
        );
    }
}

/// A control group of our own with this process in it.
struct Group {
    root: PathBuf,
    own: PathBuf,
}

impl Group {
    /// By version 1 of control groups or by version 2, whichever has the controller of CPUs.
    fn enter(cpus: &str) -> Self {
        let v1 = PathBuf::from("/sys/fs/cgroup/cpuset");
        let root = if v1.is_dir() {
            v1
        } else {
            let v2 = PathBuf::from("/sys/fs/cgroup");
            write(&v2.join("cgroup.subtree_control"), "+cpuset");
            v2
        };
        let own = root.join(format!("smpcall-{}", std::process::id()));
        fs::create_dir(&own).unwrap();
        let group = Self { root, own };
        write(&group.own.join("cpuset.mems"), "0");
        group.give(cpus);
        write(
            &group.own.join("cgroup.procs"),
            &std::process::id().to_string(),
        );
        group
    }

    fn give(&self, cpus: &str) {
        write(&self.own.join("cpuset.cpus"), cpus);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let back = fs::write(
            self.root.join("cgroup.procs"),
            std::process::id().to_string(),
        );
        let gone = back.and_then(|()| fs::remove_dir(&self.own));
        if let Err(error) = gone {
            eprintln!("{} is left behind: {error}", self.own.display());
        }
    }
}

/// A CPU of the computer that is offline until this is dropped.
struct Offline(PathBuf);

impl Offline {
    fn take(cpu: CpuId) -> Self {
        let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/online"));
        write(&path, "0");
        Self(path)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        write(&self.0, "1");
    }
}

#[test]
#[ignore = "makes a control group: as root, when asked for"]
fn a_process_whose_control_group_loses_a_cpu_goes_on() {
    let (stays, goes) = stays_and_goes();
    let group = Group::enter(&format!("{stays},{goes}"));
    let bed = Bed::new(4);
    calls_go_on(&bed, || group.give(&stays.to_string()));
    wait_until_moved(&bed, goes);
    let now = Machine::builder().reporter(|_| ()).boot().unwrap();
    assert_eq!(now.online_cpus(), CpuMask::of(stays), "what is left");
    drop(now);
    group.give(&format!("{stays},{goes}"));
    down_and_up(&bed);
}

#[test]
#[ignore = "takes a CPU of the computer offline: as root, when asked for"]
fn a_process_goes_on_when_a_cpu_of_the_computer_goes_offline() {
    let (stays, goes) = stays_and_goes();
    let bed = Bed::new(4);
    let mut offline = None;
    calls_go_on(&bed, || offline = Some(Offline::take(goes)));
    wait_until_moved(&bed, goes);
    let now = Machine::builder().reporter(|_| ()).boot().unwrap();
    assert_eq!(now.online_cpus(), CpuMask::of(stays), "what is left");
    drop(now);
    // While it is away, a CPU that goes down cannot come up there, and says why.
    let away = bed
        .online_cpus()
        .iter()
        .find(|&cpu| bed.platform().host_cpu_of(cpu) == Some(goes.get()))
        .unwrap();
    bed.cpu_down(away).unwrap();
    let refused = bed.cpu_up(away).unwrap_err();
    assert!(!bed.is_online(away), "{refused}");
    drop(offline);
    bed.cpu_up(away).unwrap();
    down_and_up(&bed);
}
