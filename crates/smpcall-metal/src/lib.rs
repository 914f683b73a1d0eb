//! smpcall on bare metal: processors that are started here, and real inter-processor interrupts.
//!
//! An image names its entry points by `kernel!`, has one `Smp<Metal, WORDS>`, and takes from `raw` what it wants
//! of the processor. The crate is empty on any target that has an operating system, so that
//! workspace-wide host commands work. The one feature, off by default: `trace`, for `set_tracer`.
//!
//! A whole kernel, which `cargo xtask qemu --arch x86_64 --smp 4 --example minimal` boots in the repository; the example
//! `tlb_shootdown` is another:
//!
//! ```no_run
#![doc = include_str!("../examples/minimal.rs")]
//! ```
#![no_std]
#![cfg(target_os = "none")]

mod arch;
mod cmdline;
#[cfg(not(target_arch = "x86_64"))]
#[expect(
    dead_code,
    reason = "each port asks the device tree some of the questions"
)]
mod fdt;
mod platform;
mod print;
pub mod raw;
#[cfg(feature = "trace")]
mod tracer;

pub use platform::{Metal, WORDS};
pub use print::print_line;
#[cfg(feature = "trace")]
pub use tracer::set_tracer;

/// How many logical CPUs one image supports: a whole number of mask words, by architecture.
pub const MAX_CPUS: usize = arch::MAX_CPUS;

/// What the firmware told: the command line, and the CPUs that exist.
///
/// Logical id `i` is `hw_ids[i]`; the boot CPU is 0 on every architecture, whatever its hardware id.
#[derive(Debug)]
pub struct Boot {
    /// The kernel command line, without a trailing NUL.
    pub cmdline: &'static str,
    /// Hardware ids (APIC id, MPIDR affinity, hart id) by logical id.
    pub hw_ids: &'static [u64],
}

/// Why a CPU could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// No CPU has this logical id.
    NoSuchCpu,
    /// The CPU has not stopped since it was started.
    AlreadyRunning,
    /// The firmware refused, with its own code.
    Firmware(i64),
}

unsafe extern "Rust" {
    /// The image's main function, on the boot CPU, interrupts off. Defined by [`kernel!`].
    safe fn __smpcall_main(boot: &'static Boot) -> !;
    /// A started CPU arrives here, interrupts off, its logical id installed. Defined by [`kernel!`].
    safe fn __smpcall_secondary(cpu: u32) -> !;
    /// The call-function IPI: interrupts off, already acknowledged (pending cleared). Defined by [`kernel!`].
    safe fn __smpcall_ipi();
    /// The one-shot timer's interrupt, with the address it interrupted. Defined by [`kernel!`].
    safe fn __smpcall_timer(pc: u64);
}

/// Names the image's entry points.
#[macro_export]
macro_rules! kernel {
    (main: $main:path, secondary: $secondary:path, ipi: $ipi:path, timer: $timer:path $(,)?) => {
        #[unsafe(no_mangle)]
        fn __smpcall_main(boot: &'static $crate::Boot) -> ! {
            $main(boot)
        }
        #[unsafe(no_mangle)]
        fn __smpcall_secondary(cpu: u32) -> ! {
            $secondary(cpu)
        }
        #[unsafe(no_mangle)]
        fn __smpcall_ipi() {
            $ipi()
        }
        #[unsafe(no_mangle)]
        fn __smpcall_timer(pc: u64) {
            $timer(pc)
        }
    };
}
