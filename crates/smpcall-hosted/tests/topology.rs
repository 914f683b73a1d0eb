//! Cores, caches and nodes: read from a tree like sysfs, and used to choose the nearest CPU.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use smpcall_hosted::{CallError, CpuId, CpuMask, Distance, Machine, Topology};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

/// A tree like sysfs, of one test.
struct Sysfs(PathBuf);

impl Sysfs {
    fn new(test: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    fn write(&self, file: &str, text: &str) {
        let file = self.0.join("devices/system").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("{text}\n")).unwrap();
    }

    fn cache(&self, cpu: u32, index: u32, level: u32, kind: &str, kib: u32, shared: &str) {
        let folder = format!("cpu/cpu{cpu}/cache/index{index}");
        self.write(&format!("{folder}/level"), &level.to_string());
        self.write(&format!("{folder}/type"), kind);
        self.write(&format!("{folder}/size"), &format!("{kib}K"));
        self.write(&format!("{folder}/shared_cpu_list"), shared);
    }

    fn read(&self) -> Topology {
        Topology::read_from(&self.0)
    }
}

/// Nodes 0 and 2 of four CPUs each: two cores of two threads and an L2 each, one L3 for both. CPUs
/// are numbered as usual: first threads 0 to 3, second threads 4 to 7.
fn two_sockets(test: &str) -> Sysfs {
    let sysfs = Sysfs::new(test);
    sysfs.write("cpu/online", "0-7");
    for cpu in 0..8 {
        let core = cpu % 4;
        let threads = format!("{core},{}", core + 4);
        let socket = core / 2;
        let whole = ["0-1,4-5", "2-3,6-7"][socket as usize];
        let topology = format!("cpu/cpu{cpu}/topology");
        sysfs.write(&format!("{topology}/core_id"), &(core % 2).to_string());
        sysfs.write(
            &format!("{topology}/physical_package_id"),
            &socket.to_string(),
        );
        sysfs.write(&format!("{topology}/thread_siblings_list"), &threads);
        sysfs.cache(cpu, 0, 1, "Data", 32, &threads);
        sysfs.cache(cpu, 1, 1, "Instruction", 64, &threads);
        sysfs.cache(cpu, 2, 2, "Unified", 1024, &threads);
        sysfs.cache(cpu, 3, 3, "Unified", 32768, whole);
    }
    sysfs.write("node/node0/cpulist", "0-1,4-5");
    sysfs.write("node/node2/cpulist", "2-3,6-7");
    sysfs.write("node/node0/distance", "10 21");
    sysfs.write("node/node2/distance", "21 10");
    sysfs
}

#[test]
fn a_cpu_has_its_node_package_core_threads_and_caches() {
    let topology = two_sockets("topology-whole").read();
    let cpu = topology.cpu(6).unwrap();
    assert_eq!(
        (cpu.node, cpu.package, cpu.core),
        (Some(2), Some(1), Some(0))
    );
    assert_eq!(cpu.siblings.to_string(), "2,6");
    let caches: Vec<_> = cpu
        .caches
        .iter()
        .map(|cache| {
            (
                cache.level,
                cache.size_bytes.unwrap(),
                cache.cpus.to_string(),
            )
        })
        .collect();
    let expected = [
        (1, 32 << 10, "2,6".to_owned()),
        (2, 1 << 20, "2,6".to_owned()),
        (3, 32 << 20, "2-3,6-7".to_owned()),
    ];
    assert_eq!(caches, expected, "the cache of instructions is left out");
    assert_eq!(cpu.last_cache().unwrap().level, 3);
    assert_eq!(topology.online().to_string(), "0-7");
    assert!(topology.cpu(8).is_none());
}

#[test]
fn distance_grows_from_thread_to_cache_to_node() {
    let topology = two_sockets("topology-distance").read();
    let from_0 = |to| topology.distance(0, to);
    assert_eq!(from_0(0), Distance::SELF);
    assert_eq!(from_0(4), Distance::CORE);
    assert_eq!(from_0(1), Distance::cache(3));
    assert_eq!(from_0(2), Distance::nodes(21));
    assert_eq!(topology.distance(7, 1), Distance::nodes(21));
    assert_eq!(from_0(2).to_string(), "other node, 21");
    assert_eq!(from_0(1).to_string(), "shared L3");
}

#[test]
fn cores_that_share_a_second_cache_are_nearer_than_those_that_share_the_third() {
    let sysfs = two_sockets("topology-cluster");
    // Cores 0 and 1 are a cluster with one L2.
    for cpu in [0, 1, 4, 5] {
        sysfs.cache(cpu, 2, 2, "Unified", 1024, "0-1,4-5");
    }
    let topology = sysfs.read();
    assert_eq!(topology.distance(0, 1), Distance::cache(2));
    assert_eq!(topology.distance(0, 5), Distance::cache(2));
    assert_eq!(topology.distance(2, 3), Distance::cache(3));
}

#[test]
fn what_is_not_told_is_left_open() {
    let nothing = Sysfs::new("topology-nothing").read();
    assert!(nothing.cpu(0).is_none() && nothing.online().is_empty());
    assert_eq!(nothing.distance(0, 1), Distance::NODE);

    let sysfs = Sysfs::new("topology-little");
    sysfs.write("cpu/online", "0,2-3");
    sysfs.write("cpu/cpu0/topology/core_id", "no number");
    sysfs.cache(0, 0, 1, "Data", 32, "not a list");
    sysfs.write("node/node0/cpulist", "0");
    sysfs.write("node/node1/cpulist", "2-3");
    sysfs.write("node/node0/distance", "10");
    let topology = sysfs.read();
    let cpu = topology.cpu(0).unwrap();
    assert_eq!((cpu.core, cpu.node, cpu.caches.len()), (None, Some(0), 0));
    assert_eq!(topology.cpu(1).unwrap().node, None, "it is offline");
    // No two CPUs share what neither is known to have.
    assert_eq!(topology.distance(2, 3), Distance::NODE);
    assert_eq!(topology.distance(0, 2), Distance::REMOTE, "no row for it");
    assert_eq!(topology.distance(0, 900), Distance::NODE);
}

#[test]
fn this_computer_is_read_and_every_cpu_that_may_be_used_is_there() {
    let computer = Topology::of_this_computer();
    for cpu in smpcall_hosted::HostCpus::allowed().unwrap().mask() {
        assert!(computer.online().contains(cpu), "CPU {cpu}");
        assert!(computer.cpu(cpu.get()).is_some(), "CPU {cpu}");
    }
}

/// Twice as many CPUs as the computer lends: CPU i and CPU i + half share one of its.
fn shared() -> Bed {
    let allowed = smpcall_hosted::HostCpus::allowed().unwrap();
    let cpus = 2 * allowed.mask().len();
    assert!(cpus <= CpuMask::CAPACITY, "twice this computer's CPUs fit");
    Bed::new(cpus)
}

fn mask(cpus: &[u32]) -> CpuMask {
    cpus.iter().copied().map(CpuId::new).collect()
}

#[test]
fn the_nearest_cpu_of_a_mask_is_called_and_the_lowest_of_equals() {
    let bed = shared();
    let half = bed.online_cpus().len() as u32 / 2;
    let (near, twin) = (CpuId::new(0), CpuId::new(half));
    assert_eq!(bed.distance(near, twin), Distance::CORE);
    assert!(bed.cpus_within(near, Distance::CORE).contains(twin));
    assert!(!bed.cpus_within(near, Distance::SELF).contains(twin));
    let candidates = bed.online_cpus().and_not(&CpuMask::of(near));
    let expected = candidates
        .iter()
        .min_by_key(|&cpu| (bed.distance(near, cpu), cpu));
    let (cpu, ran) = bed
        .call_any_near(near, &candidates, || bed.current_cpu())
        .map_err(CallError::from)
        .unwrap();
    assert_eq!((Some(cpu), ran), (expected, expected));
    let itself = bed.call_any_near(near, &bed.online_cpus(), || ()).unwrap();
    assert_eq!(itself.0, near, "nothing is nearer than the CPU itself");
}

#[test]
fn a_cpu_that_is_the_nearest_itself_runs_it_inline_and_in_a_handler_too() {
    let bed = shared();
    let job = bed.on(0, |machine: &Machine| {
        let here = CpuId::new(0);
        let all = machine.online_cpus();
        let inline = || {
            machine
                .call_any_near(here, &all, || ())
                .map(|(cpu, ())| cpu)
        };
        let inside = machine.call(here, || inline().is_ok_and(|cpu| cpu == here));
        assert!(inside.unwrap(), "no wait is needed");
        let others = all.and_not(&CpuMask::of(here));
        let refused = machine.call(here, || {
            machine
                .call_any_near(here, &others, || ())
                .map_err(|refused| refused.error)
        });
        assert_eq!(refused.unwrap().unwrap_err(), CallError::InHandler);
    });
    job.join().unwrap();
}

#[test]
fn cpus_that_left_are_passed_over_and_none_left_is_an_error() {
    static RAN_ON: AtomicU32 = AtomicU32::new(u32::MAX);
    let bed = Bed::new(3);
    let (near, gone) = (CpuId::new(1), mask(&[1]));
    bed.cpu_down(near).unwrap();
    let (cpu, ()) = bed.call_any_near(near, &mask(&[1, 2]), || ()).unwrap();
    assert_eq!(cpu, CpuId::new(2));
    let refused = bed.call_any_near(near, &gone, || 5).unwrap_err();
    assert_eq!(refused.error, CallError::EmptyMask);
    assert_eq!((refused.closure)(), 5, "the closure comes back");
    let cpu = bed
        .post_any_near(near, &mask(&[1, 2]), || RAN_ON.store(2, Ordering::Release))
        .unwrap();
    bed.flush(cpu).unwrap();
    assert_eq!(RAN_ON.load(Ordering::Acquire), cpu.get());
    let refused = bed.post_any_near(near, &gone, || ()).unwrap_err();
    assert_eq!(refused.error, CallError::EmptyMask);
}
