//! How the computer's CPUs hang together, as the kernel tells it in sysfs.
//!
//! What the kernel does not tell stays empty: containers and odd machines leave files out.

use std::fs;
use std::path::{Path, PathBuf};

use smpcall_hosted::{CpuId, CpuMask};

/// One CPU of the computer.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostCpu {
    pub(crate) node: Option<u32>,
    pub(crate) package: Option<u32>,
    pub(crate) core: Option<u32>,
    /// The hardware threads of its core, itself included.
    pub(crate) siblings: CpuMask,
    /// Its largest cache that others share, or the last one.
    pub(crate) cache: Option<Cache>,
}

/// A cache and who shares it.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    pub(crate) level: u32,
    pub(crate) size: String,
    pub(crate) cpus: CpuMask,
}

impl HostCpu {
    /// What sysfs says of a CPU.
    pub(crate) fn read(cpu: u32) -> Self {
        let folder = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}"));
        let topology = folder.join("topology");
        Self {
            node: node_of(cpu),
            package: number(&topology.join("physical_package_id")),
            core: number(&topology.join("core_id")),
            siblings: list(&topology.join("thread_siblings_list")).unwrap_or_default(),
            cache: last_cache(&folder.join("cache")),
        }
    }
}

/// The CPUs that the computer has online.
pub(crate) fn online() -> Option<CpuMask> {
    list(Path::new("/sys/devices/system/cpu/online"))
}

fn node_of(cpu: u32) -> Option<u32> {
    let nodes = fs::read_dir("/sys/devices/system/node").ok()?;
    nodes.flatten().find_map(|entry| {
        let node = entry
            .file_name()
            .to_str()?
            .strip_prefix("node")?
            .parse()
            .ok()?;
        let cpus = list(&entry.path().join("cpulist"))?;
        cpus.contains(CpuId::new(cpu)).then_some(node)
    })
}

fn last_cache(folder: &Path) -> Option<Cache> {
    let caches = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let folder = entry.path();
        Some(Cache {
            level: number(&folder.join("level"))?,
            size: line(&folder.join("size")).unwrap_or_default(),
            cpus: list(&folder.join("shared_cpu_list"))?,
        })
    });
    caches.max_by_key(|cache| cache.level)
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
