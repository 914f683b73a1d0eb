//! The emulator: the system's QEMU if it is new enough, else Debian's, below `target/tools/qemu`.
//!
//! QEMU 7.2 of Debian 12 lacks x2APIC without KVM, so the fetched one comes from backports. It
//! stays in its own folder and is started by a script that tells it where its libraries, modules
//! and firmware are; nothing on the system changes, and once fetched no network is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, Bundle};
use crate::arch::Arch;

/// The oldest release that emulates everything the kernel needs.
const OLDEST_MAJOR: u32 = 9;

/// QEMU for the three architectures, with their firmware.
const QEMU: Bundle = Bundle {
    name: "qemu",
    packages: &[
        "qemu-system-x86",
        "qemu-system-arm",
        "qemu-system-riscv",
        "seabios",
        "ipxe-qemu",
        "opensbi",
    ],
    backports: true,
};

/// Firmware folders inside the unpacked packages.
const FIRMWARE: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// Finds the emulator of `arch`, fetching it if the system has none or an old one.
pub(crate) fn find(arch: Arch) -> Result<PathBuf> {
    let name = format!("qemu-system-{}", arch.name());
    let system = crate::find_program(&name)
        .filter(|program| major_version(program).is_some_and(|major| major >= OLDEST_MAJOR));
    if let Some(program) = system {
        return Ok(program);
    }
    let missing = || format!("no {name} of release {OLDEST_MAJOR} or newer");
    let home = apt::fetch(QEMU).with_context(missing)?;
    let modules = apt::library_dirs(&home)
        .into_iter()
        .map(|dir| dir.join("qemu"));
    let modules = modules
        .into_iter()
        .find(|dir| dir.is_dir())
        .unwrap_or_default();
    let mut arguments = Vec::new();
    for folder in FIRMWARE {
        arguments.extend(["-L".into(), home.join(folder).display().to_string()]);
    }
    apt::wrapper(&home, &name, &[("QEMU_MODULE_DIR", &modules)], &arguments)
}

/// The 10 of `QEMU emulator version 10.0.2`.
fn major_version(program: &Path) -> Option<u32> {
    let said = apt::run(Command::new(program).arg("--version")).ok()?;
    said.split_once("version ")?
        .1
        .split('.')
        .next()?
        .parse()
        .ok()
}
