//! 64-bit RISC-V in supervisor mode, on top of an SBI firmware such as OpenSBI.
//!
//! The firmware owns machine mode: it starts and stops harts (extension HSM), sets the timer (TIME)
//! and carries inter-processor interrupts (IPI) that arrive as the supervisor software interrupt.
//! Where the machine has an ACLINT SSWI device, [`ipi`] rings that instead: one store, no firmware.
//!
//! Conventions of this port:
//! - `tp` holds the logical CPU id, always; `gp` is the trap entry's scratch, and an image must not be
//!   linked with `--relax-gp`; `sscratch` is not used;
//! - `sie` has SSIE set for good, and STIE exactly while a one-shot timer is armed;
//! - `sstatus.FS` and `.VS` are Off: a floating-point or vector instruction is a reported fault, for
//!   the interrupt entry does not save those registers;
//! - addresses are physical: Sv39 maps the low 256 GiB to themselves ([`boot`]).

#[path = "riscv64/boot.rs"]
pub(crate) mod boot;
#[path = "riscv64/console.rs"]
pub(crate) mod console;
#[path = "riscv64/exit.rs"]
pub(crate) mod exit;
#[path = "riscv64/ipi.rs"]
pub(crate) mod ipi;
#[path = "riscv64/irq.rs"]
pub(crate) mod irq;
#[path = "riscv64/page.rs"]
pub(crate) mod page;
#[path = "riscv64/percpu.rs"]
pub(crate) mod percpu;
#[path = "riscv64/smp.rs"]
pub(crate) mod smp;
#[path = "riscv64/time.rs"]
pub(crate) mod time;
#[path = "riscv64/trap.rs"]
mod trap;

/// The architecture's name, as QEMU and the command line spell it.
pub(crate) const NAME: &str = "riscv64";
/// How many CPUs an image supports, whole words of a mask: OpenSBI serves 128 harts.
pub(crate) const MAX_CPUS: usize = 128;
