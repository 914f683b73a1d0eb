//! aarch64: PSCI starts the CPUs, the GIC carries the IPIs, the device tree says where both are.
//!
//! Runs at EL1 with the MMU on and an identity map; interrupts are IRQs of group 1, and SGI 0 is
//! the call-function IPI.

#[path = "aarch64/boot.rs"]
pub(crate) mod boot;
#[path = "aarch64/console.rs"]
pub(crate) mod console;
#[path = "aarch64/exit.rs"]
pub(crate) mod exit;
#[path = "aarch64/ipi.rs"]
pub(crate) mod ipi;
#[path = "aarch64/irq.rs"]
pub(crate) mod irq;
#[path = "aarch64/page.rs"]
pub(crate) mod page;
#[path = "aarch64/percpu.rs"]
pub(crate) mod percpu;
#[path = "aarch64/smp.rs"]
pub(crate) mod smp;
#[path = "aarch64/time.rs"]
pub(crate) mod time;
#[path = "aarch64/trap.rs"]
mod trap;

/// The architecture's name, as QEMU and the command line spell it.
pub(crate) const NAME: &str = "aarch64";
/// How many CPUs an image supports, whole words of a mask: QEMU's virt takes 512 with GICv3.
pub(crate) const MAX_CPUS: usize = 512;

use core::sync::atomic::{AtomicU64, Ordering};

/// A word that is written while nobody else can need it: at boot, before another CPU runs, or by a
/// CPU about itself, before it is online.
#[repr(transparent)]
struct Word(AtomicU64);

impl Word {
    const fn new(value: u64) -> Word {
        Word(AtomicU64::new(value))
    }

    #[inline(always)]
    fn get(&self) -> u64 {
        // ORDERING: Relaxed - nobody writes any more; what started this reader, CPU_ON, or told it
        // that a CPU is online, ordered the write before.
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u64) {
        // ORDERING: Relaxed - nobody else reads yet, see `get`.
        self.0.store(value, Ordering::Relaxed);
    }
}
