//! smpcall for C and C++: the names of Linux's `kernel/smp.c`, as a static library.
//!
//! `include/smpcall.h` is the interface and says what each function does; `docs/c.md` is the guide.
//! There is one instance, as in a kernel: a [`Machine`] between `smpcall_boot` and `smpcall_shutdown`.
//!
//! Each call has one function here that answers a [`Misuse`]. The exported functions turn it into a
//! negative errno, or, where the seed's prototype is `void`, into a line on standard error.
//!
//! | file | holds |
//! |---|---|
//! | `single.rs`, `csd.rs`, `many.rs` | the calls |
//! | `cpus.rs`, `mask.rs` | which CPUs there are; masks, live and as text |
//! | `context.rs` | interrupts, poll points, the IPI's entry |
//! | `misuse.rs` | what is refused, as errno and as text |
//! | `types.rs` | the types that C sees |
//! | `hosted.rs` | the instance of a Linux program: boot, spawn, shut down |
//!
//! [`Machine`]: https://docs.rs/smpcall-hosted
#![cfg(not(target_os = "none"))]

mod context;
mod cpus;
mod csd;
mod hosted;
mod many;
mod mask;
mod misuse;
mod single;
mod types;

use hosted as instance;
