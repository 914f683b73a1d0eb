//! The virtual machine of each architecture, as QEMU's arguments.

use std::path::Path;

use super::{Gic, Options};
use crate::arch::Arch;

/// Above this many CPUs, APIC ids need more than the eight bits of xAPIC.
const XAPIC_CPUS: u32 = 255;
/// Above this many harts with debug triggers, OpenSBI 1.5 has too little memory to start.
const DEBUG_TRIGGER_HARTS: u32 = 38;
/// Above this many harts, which all compete for the firmware's locks, those of riscv64 take turns on
/// one host thread: with a thread each, bring-up takes minutes.
const PARALLEL_HARTS: u32 = 32;

/// The largest `--smp` of the machine that the options describe.
pub(crate) fn max_cpus(options: &Options) -> u32 {
    match options.arch {
        Arch::X86_64 => 288,
        Arch::Aarch64 if options.gic == Gic::V2 => 8,
        Arch::Aarch64 => 512,
        Arch::Riscv64 => 128,
    }
}

/// The exit code of the guest, from that of QEMU.
///
/// The debug port of x86_64 shifts the code left and sets bit 0, so an even status is QEMU's own;
/// `None` stands for that.
pub(crate) fn guest_exit_code(arch: Arch, status: i32) -> Option<i32> {
    match arch {
        Arch::X86_64 => (status & 1 == 1).then_some(status >> 1),
        Arch::Aarch64 | Arch::Riscv64 => Some(status),
    }
}

/// All arguments: the report on standard output, the monitor on a socket that we listen on.
pub(crate) fn arguments(options: &Options, kernel: &Path, monitor: &Path) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| list.extend(words.iter().map(|&word| word.to_owned()));
    add(&[
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-m",
        "1G",
    ]);
    add(&[
        "-chardev",
        "stdio,id=report,signal=off",
        "-serial",
        "chardev:report",
    ]);
    add(&[
        "-chardev",
        &format!("socket,id=monitor,path={}", monitor.display()),
    ]);
    add(&["-mon", "chardev=monitor,mode=control"]);
    // A reset (a triple fault) and a power-off stop the machine where it is, to be looked at.
    add(&["-action", "reboot=shutdown,shutdown=pause"]);
    add(&[
        "-smp",
        &options.smp.to_string(),
        "-kernel",
        &kernel.display().to_string(),
    ]);
    add(&["-append", &command_line(options)]);
    add(&["-accel", &accelerator(options)]);
    if options.icount {
        add(&["-icount", "shift=0,sleep=off"]);
    }
    match options.arch {
        Arch::X86_64 => {
            add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
            if options.smp > XAPIC_CPUS {
                add(&["-M", "q35,kernel-irqchip=split"]);
                add(&["-device", "intel-iommu,intremap=on,eim=on"]);
            } else {
                add(&["-M", "q35"]);
            }
        }
        Arch::Aarch64 => {
            let version = if options.gic == Gic::V2 { 2 } else { 3 };
            add(&["-M", &format!("virt,gic-version={version}")]);
            add(&["-semihosting-config", "enable=on,target=native"]);
        }
        Arch::Riscv64 => add(&["-M", "virt", "-bios", "default"]),
    }
    add(&[
        "-cpu",
        options.cpu.as_deref().unwrap_or(default_cpu(options)),
    ]);
    list.extend(options.extra.iter().cloned());
    list
}

/// The processor model.
fn default_cpu(options: &Options) -> &'static str {
    match options.arch {
        Arch::X86_64 if options.smp > XAPIC_CPUS => "max,+x2apic",
        Arch::X86_64 | Arch::Aarch64 => "max",
        Arch::Riscv64 if options.smp > DEBUG_TRIGGER_HARTS => "rv64,debug=false",
        Arch::Riscv64 => "rv64",
    }
}

/// Translation: one host thread per CPU, or all CPUs in turn on one.
fn accelerator(options: &Options) -> String {
    let crowded = options.arch == Arch::Riscv64 && options.smp > PARALLEL_HARTS;
    let single = options.icount || options.single_threaded || crowded;
    let step = if options.one_insn_per_tb {
        ",one-insn-per-tb=on"
    } else {
        ""
    };
    format!(
        "tcg,thread={}{step}",
        if single { "single" } else { "multi" }
    )
}

/// The kernel's command line: the suite and its length first, so that `--append` may overrule.
fn command_line(options: &Options) -> String {
    let mut words = vec![format!("suite={}", options.suite.name())];
    words.extend(options.seconds.map(|seconds| format!("seconds={seconds}")));
    words.extend(options.append.iter().cloned());
    words.join(" ")
}
