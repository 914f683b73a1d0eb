//! Device trees: whatever the bytes are, every question has an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/smpcall-metal/src/fdt.rs"]
mod fdt;

fuzz_target!(|blob: &[u8]| {
    if let Some(header) = blob.first_chunk() {
        let _ = fdt::total_size(*header);
    }
    let Some(tree) = fdt::Tree::parse(blob) else {
        return;
    };
    let _ = (
        tree.bootargs().len(),
        tree.psci_method(),
        tree.timebase_frequency(),
    );
    assert!(tree.cpus().count() <= blob.len());
    let devices = [
        tree.stdout(),
        tree.find_compatible(&["arm,gic-v3", "arm,cortex-a15-gic"]),
    ];
    for device in devices.into_iter().flatten() {
        let _ = (
            device.is_compatible("arm,gic-v3"),
            device.number("#redistributor-regions"),
        );
        assert!(device.regions().count() <= blob.len());
    }
});
