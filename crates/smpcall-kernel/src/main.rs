//! The kernel image: boots, brings its CPUs up, runs a suite, and ends the machine with a code.
//!
//! The command line chooses the suite, and holds the boot parameters of the core (`nosmp`, `maxcpus=`,
//! `nr_cpus=`). What it prints is the line protocol of `smpcall_torture::report`, which the host's
//! runner reads.
//!
//! | `suite=` | what | more words |
//! |---|---|---|
//! | `conformance` | the cases of `smpcall_torture`, then `tlb` | `slow`: those too that wait for deadlines |
//! | `torture` | random operations and hotplug | `seconds=`, `seed=` |
//! | `bench` | instructions of each operation, under `-icount` | |
//! | `hotplug` | a CPU that comes and goes under fire; one that never comes | `cycles=`, `absent=` |
//! | `limits` | what `nosmp`, `maxcpus=` and `nr_cpus=` left out | |
//! | `tlb` | stale translations, and a shootdown | |
//! | `sweep` | a timer at every instruction of the send paths | `sweep=trace`, `sweep_run=` |
//! | `smoke` | a few calls, for hundreds of CPUs | |
//! | `stall` | waits that are reported, and end | |
//! | `trace` | the conformance cases with a tracer, in the image that has the feature `trace` | |
//! | `fault` | goes wrong, to be noticed | `fault=` |
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod fault;
#[cfg(target_os = "none")]
mod hotplug;
#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
mod lab;
#[cfg(target_os = "none")]
mod limits;
#[cfg(target_os = "none")]
mod smoke;
#[cfg(target_os = "none")]
mod stall;
#[cfg(target_os = "none")]
mod suite;
#[cfg(target_os = "none")]
mod sweep;
#[cfg(target_os = "none")]
mod tlb;
#[cfg(target_os = "none")]
mod torture;
#[cfg(all(target_os = "none", feature = "trace"))]
mod trace;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the kernel image is built for bare metal: cargo xtask qemu --arch x86_64 --smp 4");
    std::process::exit(2);
}
