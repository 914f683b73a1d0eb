//! smpcall for C and C++: the names of Linux's `kernel/smp.c`, as a static library.
//!
//! `include/smpcall.h` is the interface and says what each function does; `docs/c.md` is the guide.
//! There is one instance, as in a kernel: hosted it is a [`Machine`] between `smpcall_boot` and
//! `smpcall_shutdown`, on bare metal a static one over a table of the C kernel's callbacks.
//!
//! Each call has one function here that answers a `Misuse`. The exported functions turn it into a
//! negative errno, or, where the seed's prototype is `void`, into a line on standard error.
//!
//! | file | holds |
//! |---|---|
//! | `single.rs`, `csd.rs`, `many.rs` | the calls |
//! | `cpus.rs`, `callbacks.rs`, `mask.rs` | which CPUs there are; who is told; masks, live and as text |
//! | `context.rs` | interrupts, poll points, the IPI's entry |
//! | `misuse.rs` | what is refused, as errno and as text |
//! | `types.rs` | the types that C sees |
//! | `hosted.rs` | the instance of a Linux program: boot, spawn, shut down |
//! | `table.rs`, `kernel.rs` | the instance of a C kernel: its callbacks as a platform; idle loop, hotplug |
//!
//! [`Machine`]: https://docs.rs/smpcall-hosted
#![cfg_attr(target_os = "none", no_std)]

mod callbacks;
mod context;
mod cpus;
mod csd;
#[cfg(not(target_os = "none"))]
mod hosted;
#[cfg(target_os = "none")]
mod kernel;
mod many;
mod mask;
mod misuse;
mod single;
#[cfg(target_os = "none")]
mod table;
mod types;

#[cfg(not(target_os = "none"))]
use hosted as instance;
#[cfg(target_os = "none")]
use kernel as instance;
