//! The device-tree reader on the host: well-formed trees answer, damaged ones never panic.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

#[path = "../src/fdt.rs"]
mod fdt;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use fdt::{Cpu, PsciMethod, Region, Tree, total_size};
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};

fn strings(list: &[&str]) -> Vec<u8> {
    list.iter().flat_map(|s| s.bytes().chain([0])).collect()
}

fn cells(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

fn node(name: &str, properties: &[(&str, Vec<u8>)]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).expect("a valid name");
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new(*name, value.clone()).expect("a valid name"));
    }
    node
}

/// A machine like QEMU's virt: two CPUs and a disabled one, GICv3 with two redistributor regions.
fn machine() -> Vec<u8> {
    let mut cpus = node(
        "cpus",
        &[
            ("#address-cells", cells(&[1])),
            ("#size-cells", cells(&[0])),
        ],
    );
    cpus.add_property(DeviceTreeProperty::new("timebase-frequency", cells(&[10_000_000])).unwrap());
    for (reg, status) in [(0x101_u32, "okay"), (0, "okay"), (2, "disabled")] {
        let properties = [
            ("device_type", strings(&["cpu"])),
            ("reg", cells(&[reg])),
            ("status", strings(&[status])),
        ];
        cpus.add_child(node(&format!("cpu@{reg:x}"), &properties));
    }
    cpus.add_child(node("cpu-map", &[]));
    let gic = [
        ("compatible", strings(&["arm,gic-v3"])),
        ("#redistributor-regions", cells(&[2])),
        (
            "reg",
            cells(&[0, 0x0800_0000, 0, 0x1_0000, 0x40, 0, 0, 0x2_0000]),
        ),
    ];
    let wide = ("#address-cells", cells(&[2]));
    let mut soc = node("soc", &[wide.clone(), ("#size-cells", cells(&[2]))]);
    soc.add_child(node("intc@8000000", &gic));
    let mut root = node("", &[wide, ("#size-cells", cells(&[2]))]);
    root.add_child(node(
        "chosen",
        &[
            ("bootargs", strings(&["nosmp suite=bench"])),
            ("stdout-path", strings(&["serial0:115200n8"])),
        ],
    ));
    root.add_child(node(
        "aliases",
        &[("serial0", strings(&["/soc/intc@8000000"]))],
    ));
    root.add_child(node("psci", &[("method", strings(&["hvc"]))]));
    root.add_child(cpus);
    root.add_child(soc);
    let mut tree = DeviceTree::new();
    tree.root = root;
    tree.to_dtb()
}

#[test]
fn a_machine_answers_every_question() {
    let blob = machine();
    assert_eq!(total_size(blob[..8].try_into().unwrap()), Some(blob.len()));
    let tree = Tree::parse(&blob).expect("a sound tree");
    assert_eq!(tree.bootargs(), "nosmp suite=bench");
    assert_eq!(tree.psci_method(), Some(PsciMethod::Hvc));
    assert_eq!(tree.timebase_frequency(), Some(10_000_000));
    let stdout = tree.stdout().expect("an alias that leads somewhere");
    assert!(stdout.is_compatible("arm,gic-v3"));
    let cpu = |reg, enabled| Cpu { reg, enabled };
    let cpus: Vec<Cpu> = tree.cpus().collect();
    assert_eq!(cpus, [cpu(0x101, true), cpu(0, true), cpu(2, false)]);
    let gic = tree
        .find_compatible(&["arm,cortex-a15-gic", "arm,gic-v3"])
        .expect("a GIC");
    assert!(gic.is_compatible("arm,gic-v3"));
    assert_eq!(gic.number("#redistributor-regions"), Some(2));
    let regions: Vec<Region> = gic.regions().collect();
    let region = |base, size| Region { base, size };
    assert_eq!(
        regions,
        [
            region(0x0800_0000, 0x1_0000),
            region(0x40_0000_0000, 0x2_0000)
        ]
    );
}

#[test]
fn an_empty_tree_is_silent() {
    let blob = DeviceTree::new().to_dtb();
    let tree = Tree::parse(&blob).expect("a sound tree");
    assert_eq!(tree.bootargs(), "");
    assert_eq!(tree.cpus().count(), 0);
    assert_eq!(tree.psci_method(), None);
    assert_eq!(tree.timebase_frequency(), None);
    assert!(tree.find_compatible(&["arm,gic-v3"]).is_none());
}

#[test]
fn what_is_no_tree_is_refused() {
    assert_eq!(total_size(*b"notatree"), None);
    assert!(Tree::parse(&[]).is_none());
    assert!(Tree::parse(&[0; 64]).is_none());
    let blob = machine();
    assert!(Tree::parse(&blob[..blob.len() - 4]).is_none());
}

/// Asks everything; the answers do not matter, only that there are answers.
fn ask(blob: &[u8]) {
    let Some(tree) = Tree::parse(blob) else {
        return;
    };
    let _ = (
        tree.bootargs(),
        tree.psci_method(),
        tree.timebase_frequency(),
        tree.cpus().count(),
    );
    if let Some(gic) = tree.find_compatible(&["arm,gic-v3", "nowhere"]) {
        let _ = (gic.regions().count(), gic.number("#redistributor-regions"));
    }
}

proptest! {
    #[test]
    fn damage_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), byte()), 1..6),
    ) {
        let mut blob = machine();
        for (at, value) in damage {
            let at = at.index(blob.len());
            blob[at] = value;
        }
        ask(&blob);
        prop_assert_eq!(blob.len(), machine().len());
    }
}

/// Token values and extremes are likelier to do harm than a random byte.
fn byte() -> impl Strategy<Value = u8> {
    proptest::prop_oneof![0_u8..10, any::<u8>(), proptest::prelude::Just(0xff)]
}
