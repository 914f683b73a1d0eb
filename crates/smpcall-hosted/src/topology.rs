//! How the computer's CPUs hang together, as the kernel tells it in sysfs: hardware threads, cores,
//! shared caches, memory nodes.
//!
//! What the kernel does not tell stays empty, for containers and odd machines leave files out; nothing
//! here fails. The ids are the kernel's, which are a machine's own unless it was built by
//! [`Builder::count`](crate::Builder::count); [`Smp::distance`](smpcall::Smp::distance) takes those
//! of the machine.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use smpcall::{CpuId, Distance};

use crate::{CpuMask, WORDS};

/// The levels of caches that are told apart: L1 to L4.
const LEVELS: usize = 4;
/// Not known; unlike any other, itself included.
const UNKNOWN: u32 = u32::MAX;

/// One CPU of the computer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostCpu {
    /// Its memory node.
    pub node: Option<u32>,
    /// Its socket.
    pub package: Option<u32>,
    /// Its core; the number is unique within a package only.
    pub core: Option<u32>,
    /// The hardware threads of its core, itself included (SMT).
    pub siblings: CpuMask,
    /// Its caches for data, the first level first.
    pub caches: Vec<HostCache>,
}

/// A cache and who shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostCache {
    /// 1 is the first.
    pub level: u32,
    /// Its size in bytes, if it is known.
    pub size_bytes: Option<u64>,
    /// The CPUs that share it.
    pub cpus: CpuMask,
}

/// The computer's CPUs.
///
/// ```
/// let computer = smpcall_hosted::Topology::of_this_computer();
/// let cpu = smpcall_hosted::HostCpus::allowed()?.mask().first().ok_or("no CPU")?;
/// println!("{:?}", computer.cpu(cpu.get()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Topology {
    cpus: Vec<HostCpu>,
    /// What decides the distance, by CPU.
    places: Vec<Place>,
    online: CpuMask,
    /// The firmware's distances, by node and node.
    distances: Vec<Vec<u32>>,
}

/// Where a CPU is, in numbers that are equal for what is shared.
#[derive(Debug, Clone, Copy)]
struct Place {
    core: u32,
    caches: [u32; LEVELS],
    node: u32,
}

impl Topology {
    /// The computer's, read once; `/sys` as it was then.
    pub fn of_this_computer() -> &'static Self {
        static COMPUTER: OnceLock<Topology> = OnceLock::new();
        COMPUTER.get_or_init(|| Self::read_from(Path::new("/sys")))
    }

    /// What the tree below `sysfs` says, which is `/sys` or a copy.
    pub fn read_from(sysfs: &Path) -> Self {
        let cpus = sysfs.join("devices/system/cpu");
        let online = list(&cpus.join("online")).unwrap_or_else(|| folders(&cpus, "cpu"));
        let nodes = sysfs.join("devices/system/node");
        let node_list = folders(&nodes, "node");
        let (mut node_of, mut distances) = (vec![None; 64 * WORDS], Vec::new());
        for node in node_list.iter().map(CpuId::get) {
            let folder = nodes.join(format!("node{node}"));
            let members = list(&folder.join("cpulist")).unwrap_or_default();
            members
                .iter()
                .for_each(|cpu| node_of[cpu.index()] = Some(node));
            distances.resize(node as usize, Vec::new());
            distances.push(numbers(&folder.join("distance"), &node_list));
        }
        let last = online.last().map_or(0, |last| last.index() + 1);
        let read = |cpu: usize| HostCpu::read(&cpus.join(format!("cpu{cpu}")), node_of[cpu]);
        let cpus: Vec<HostCpu> = (0..last).map(read).collect();
        Self {
            places: cpus.iter().map(Place::of).collect(),
            cpus,
            online,
            distances,
        }
    }

    /// What is known of a CPU, by the kernel's id; `None` beyond the last one.
    pub fn cpu(&self, host_cpu: u32) -> Option<&HostCpu> {
        self.cpus.get(host_cpu as usize)
    }

    /// The CPUs that the computer has online.
    pub fn online(&self) -> &CpuMask {
        &self.online
    }

    /// How far a CPU is from another, by the kernel's ids.
    ///
    /// Two that nothing is known of are as far as those of one node.
    pub fn distance(&self, from: u32, to: u32) -> Distance {
        if from == to {
            return Distance::SELF;
        }
        let place = |cpu: u32| self.places.get(cpu as usize);
        let (Some(from), Some(to)) = (place(from), place(to)) else {
            return Distance::NODE;
        };
        let same = |a: u32, b: u32| a == b && a != UNKNOWN;
        if same(from.core, to.core) {
            return Distance::CORE;
        }
        let shared = (0..LEVELS).find(|&level| same(from.caches[level], to.caches[level]));
        if let Some(level) = shared {
            return Distance::cache(level as u32 + 1);
        }
        if from.node == to.node || from.node == UNKNOWN || to.node == UNKNOWN {
            return Distance::NODE;
        }
        let row = self.distances.get(from.node as usize);
        let distance = row.and_then(|row| row.get(to.node as usize).copied());
        // A table that calls two nodes one is no table.
        let told = distance.filter(|&distance| distance > Distance::NODE.get());
        told.map_or(Distance::REMOTE, Distance::nodes)
    }
}

impl HostCpu {
    /// What the CPU's folder says.
    fn read(folder: &Path, node: Option<u32>) -> Self {
        let topology = folder.join("topology");
        let cache = folder.join("cache");
        let caches = folders(&cache, "index");
        let mut caches: Vec<HostCache> = caches
            .iter()
            .filter_map(|index| HostCache::read(&cache.join(format!("index{index}"))))
            .collect();
        caches.sort_by_key(|cache| cache.level);
        Self {
            node,
            package: number(&topology.join("physical_package_id")),
            core: number(&topology.join("core_id")),
            siblings: list(&topology.join("thread_siblings_list")).unwrap_or_default(),
            caches,
        }
    }

    /// Its largest cache.
    pub fn last_cache(&self) -> Option<&HostCache> {
        self.caches.last()
    }
}

impl HostCache {
    /// `None` for one of instructions.
    fn read(folder: &Path) -> Option<Self> {
        if line(&folder.join("type")).is_some_and(|kind| kind == "Instruction") {
            return None;
        }
        let kib = line(&folder.join("size"));
        let kib = kib.and_then(|size| size.strip_suffix('K')?.parse::<u64>().ok());
        Some(Self {
            level: number(&folder.join("level"))?,
            size_bytes: kib.map(|kib| kib * 1024),
            cpus: list(&folder.join("shared_cpu_list"))?,
        })
    }
}

impl Place {
    /// What is shared is named by the first CPU that shares it.
    fn of(cpu: &HostCpu) -> Self {
        let first = |cpus: &CpuMask| cpus.first().map_or(UNKNOWN, CpuId::get);
        let mut caches = [UNKNOWN; LEVELS];
        for cache in &cpu.caches {
            if let Some(place) = caches.get_mut((cache.level as usize).wrapping_sub(1)) {
                *place = first(&cache.cpus);
            }
        }
        Self {
            core: first(&cpu.siblings),
            caches,
            node: cpu.node.unwrap_or(UNKNOWN),
        }
    }
}

/// The numbers N of the folders `prefixN`.
fn folders(parent: &Path, prefix: &str) -> CpuMask {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let number = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
        ((number as usize) < CpuMask::CAPACITY).then(|| CpuId::new(number))
    };
    entries.filter_map(number).collect()
}

/// A row of distances, which names no node: the n-th is that to the n-th node there is.
fn numbers(file: &Path, nodes: &CpuMask) -> Vec<u32> {
    let text = line(file).unwrap_or_default();
    let told = text.split_whitespace().map(|number| number.parse().ok());
    let mut row = Vec::new();
    for (node, distance) in nodes.iter().zip(told) {
        row.resize(node.index(), 0);
        row.push(distance.unwrap_or(0));
    }
    row
}

fn line(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

fn number(file: &Path) -> Option<u32> {
    line(file)?.parse().ok()
}

fn list(file: &Path) -> Option<CpuMask> {
    CpuMask::parse_list(&line(file)?).ok()
}
