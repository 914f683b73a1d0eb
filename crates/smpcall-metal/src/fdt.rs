//! The questions that a port asks of the flattened device tree, and nothing else.
//!
//! Firmware and QEMU describe a machine with a blob of bytes: what was on the command line, which
//! CPUs exist and by what hardware id they are started, where the interrupt controller is. The
//! parsing is `dtoolkit`'s, which checks the whole blob once, in [`Tree::parse`]; from then on every
//! question is a pure function of the bytes and answers `None` where the tree is silent. Nothing
//! here touches hardware, so `tests/fdt.rs` includes this file and fuzzes it on the host.
//!
//! Called by `boot.rs` of aarch64 and riscv64; x86_64 has ACPI instead.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node as _, Property as _, ToCellInt};

/// How deep a node may lie to be found: the root is 0, a QEMU or SoC device 1 or 2.
const MAX_DEPTH: u32 = 6;

/// A device tree whose structure was checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree<'a> {
    fdt: Fdt<'a>,
}

/// One CPU of `/cpus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// The hardware id: MPIDR affinity fields, or the hart id.
    pub(crate) reg: u64,
    /// Whether the node's `status` lets the CPU be started.
    pub(crate) enabled: bool,
}

/// A device's node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device<'a> {
    node: FdtNode<'a>,
}

/// An address and a size, as the root bus sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) base: u64,
    pub(crate) size: u64,
}

/// How PSCI is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PsciMethod {
    Hvc,
    Smc,
}

/// The size in bytes of the blob whose first eight bytes are `header`, if they begin one.
///
/// A caller that holds only an address reads these eight bytes, and then makes the slice.
pub(crate) fn total_size(header: [u8; 8]) -> Option<usize> {
    let [m0, m1, m2, m3, s0, s1, s2, s3] = header;
    let magic = u32::from_be_bytes([m0, m1, m2, m3]);
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    (magic == 0xd00d_feed).then_some(size as usize)
}

impl<'a> Tree<'a> {
    /// Checks the structure of `blob`, which is exactly as long as its header says.
    pub(crate) fn parse(blob: &'a [u8]) -> Option<Self> {
        Fdt::new(blob).ok().map(|fdt| Self { fdt })
    }

    /// The kernel command line: `bootargs` of `/chosen`, empty if there is none.
    pub(crate) fn bootargs(self) -> &'a str {
        let Some(chosen) = self.fdt.find_node("/chosen") else {
            return "";
        };
        text(chosen, "bootargs").unwrap_or("")
    }

    /// The CPUs in the tree's order, which need not be that of their ids.
    pub(crate) fn cpus(self) -> impl Iterator<Item = Cpu> + 'a {
        let children = self.fdt.find_node("/cpus").map(|cpus| cpus.children());
        children.into_iter().flatten().filter_map(cpu)
    }

    /// The first device, in tree order, that is compatible with one of `names`.
    pub(crate) fn find_compatible(self, names: &[&str]) -> Option<Device<'a>> {
        find(self.fdt.root(), names, 0).map(|node| Device { node })
    }

    /// The console: what `stdout-path` of `/chosen` names, by its path or by an alias.
    pub(crate) fn stdout(self) -> Option<Device<'a>> {
        let name = text(self.fdt.find_node("/chosen")?, "stdout-path")?;
        let name = name.split(':').next().unwrap_or(name);
        let alias = || text(self.fdt.find_node("/aliases")?, name);
        let path = if name.starts_with('/') {
            name
        } else {
            alias()?
        };
        self.fdt.find_node(path).map(|node| Device { node })
    }

    /// Whether `/psci` wants HVC or SMC; `None` if there is no PSCI.
    pub(crate) fn psci_method(self) -> Option<PsciMethod> {
        match text(self.fdt.find_node("/psci")?, "method")? {
            "hvc" => Some(PsciMethod::Hvc),
            "smc" => Some(PsciMethod::Smc),
            _ => None,
        }
    }

    /// Ticks of the CPUs' common time base a second: riscv64's `rdtime`.
    pub(crate) fn timebase_frequency(self) -> Option<u64> {
        let cpus = self.fdt.find_node("/cpus")?;
        let in_cpu = || {
            cpus.children()
                .find_map(|cpu| number(cpu, "timebase-frequency"))
        };
        number(cpus, "timebase-frequency").or_else(in_cpu)
    }
}

impl<'a> Device<'a> {
    /// Whether this device's `compatible` list has `name`.
    pub(crate) fn is_compatible(self, name: &str) -> bool {
        self.node.is_compatible(name)
    }

    /// The regions of `reg`, in order; a region wider than 64 bits is left out.
    pub(crate) fn regions(self) -> impl Iterator<Item = Region> + 'a {
        let regions = self.node.reg().ok().flatten();
        regions.into_iter().flatten().filter_map(|reg| {
            Some(Region {
                base: reg.address.to_int().ok()?,
                size: reg.size.to_int().ok()?,
            })
        })
    }

    /// A property of one 32-bit cell, or of two that form one number.
    pub(crate) fn number(self, property: &str) -> Option<u64> {
        number(self.node, property)
    }
}

/// What a child of `/cpus` says, if it is a CPU: caches and `cpu-map` live there too.
fn cpu(node: FdtNode<'_>) -> Option<Cpu> {
    if text(node, "device_type") != Some("cpu") && node.name_without_address() != "cpu" {
        return None;
    }
    let reg = node.reg().ok().flatten()?.next()?.address.to_int().ok()?;
    let enabled = matches!(text(node, "status"), None | Some("okay" | "ok"));
    Some(Cpu { reg, enabled })
}

/// Depth-first search in tree order.
fn find<'a>(node: FdtNode<'a>, names: &[&str], depth: u32) -> Option<FdtNode<'a>> {
    if names.iter().any(|name| node.is_compatible(name)) {
        return Some(node);
    }
    if depth == MAX_DEPTH {
        return None;
    }
    node.children()
        .find_map(|child| find(child, names, depth + 1))
}

fn text<'a>(node: FdtNode<'a>, property: &str) -> Option<&'a str> {
    node.property(property)?.value_as::<&'a str>().ok()
}

fn number(node: FdtNode<'_>, property: &str) -> Option<u64> {
    let property = node.property(property)?;
    let single = property.value_as::<u32>().ok().map(u64::from);
    single.or_else(|| property.value_as::<u64>().ok())
}
