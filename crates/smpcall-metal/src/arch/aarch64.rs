//! aarch64: PSCI starts the CPUs, the GIC carries the IPIs, the device tree says where both are.
//!
//! Runs at EL1 with the MMU on and an identity map; interrupts are IRQs of group 1, and SGI 0 is
//! the call-function IPI. `trap` and `fault` are this port's own halves of the contract's files.

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
#[path = "aarch64/percpu.rs"]
pub(crate) mod percpu;
#[path = "aarch64/smp.rs"]
pub(crate) mod smp;
#[path = "aarch64/time.rs"]
pub(crate) mod time;
#[path = "aarch64/trap.rs"]
mod trap;
