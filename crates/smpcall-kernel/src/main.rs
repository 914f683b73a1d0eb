//! The kernel image: boots, brings its CPUs up, runs a suite, and ends the machine with a code.
//!
//! The command line chooses: `suite=conformance|bench|torture`, `seconds=N`, `seed=N`, and the boot
//! parameters of the core (`nosmp`, `maxcpus=`, `nr_cpus=`). What it prints is the line protocol
//! of `smpcall_torture::report`, which the host's runner reads.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

#[cfg(target_os = "none")]
mod bench;
#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
mod lab;
#[cfg(target_os = "none")]
mod torture;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("the kernel image is built for bare metal: cargo xtask qemu --arch x86_64 --smp 4");
    std::process::exit(2);
}
