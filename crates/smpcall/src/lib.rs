//! Run a function on another CPU.
//!
//! This crate is Linux's `kernel/smp.c` rebuilt as a library: calls to one CPU, to any of a set, to
//! many, to all, or to those that match a predicate; waited for or posted; while CPUs come and go.
//! It has no dependencies and no allocator. A system implements [`Platform`] and gets an [`Smp`];
//! `smpcall-hosted` does it for Linux threads and `smpcall-metal` for bare processors.
//!
//! ```text
//!   sender                                     target
//!   ──────                                     ──────
//!   publish:  mailbox line   (waited, one) ──▶ drain, in handler context:
//!             waited queue   (waited, one)       waited calls, then posted ones
//!             request bit    (waited, many)
//!             post ring      (posted, one)
//!             posted queue   (posted)
//!   ring:     the doorbell word           ──▶ kicked only if it was quiet,
//!                                             woken only if it slept
//!   wait:     if and only if published    ◀── done: the line, the record, the pending bit
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `smp.rs` | the instance; waiting |
//! | `call.rs`, `lease.rs`, `post.rs`, `post_ring.rs`, `many.rs`, `fan_out.rs`, `post_many.rs` | the send side |
//! | `interrupt.rs`, `idle.rs` | the receive side; the idle loop |
//! | `near.rs` | one CPU of a set, by distance |
//! | `per_cpu.rs` | data that only its CPU touches |
//! | `rendezvous.rs` | phases in lock step |
//! | `results.rs`, `ticket.rs` | results of each CPU, and of posted calls |
//! | `stall.rs`, `report.rs`, `trace.rs` | waits that take long; events and counters |
//! | `sleep.rs` | work in a CPU's ordinary context |
//! | `hotplug.rs`, `callbacks.rs`, `params.rs` | CPUs come and go, and who hears of it; boot parameters |
//! | `bell.rs`, `mailbox.rs`, `ring.rs`, `queue.rs`, `record.rs`, `csd.rs`, `pool.rs`, `broadcast.rs` | the protocol's parts, each with its state diagram |
//! | `area.rs`, `job.rs`, `guard.rs`, `cpu.rs`, `error.rs`, `platform.rs`, `sync.rs` | what they are made of |
//!
//! The ordering edges (E1 and on) that the parts' comments name are listed in `docs/protocol.md`.
#![cfg_attr(not(test), no_std)]

mod area;
mod batch;
mod bell;
mod broadcast;
mod call;
mod callbacks;
mod cpu;
mod csd;
mod error;
mod fan_out;
mod guard;
mod hotplug;
mod idle;
mod interrupt;
mod job;
mod lease;
mod mailbox;
mod many;
mod near;
mod panics;
mod params;
mod per_cpu;
mod platform;
mod pool;
mod post;
mod post_many;
mod post_ring;
mod queue;
mod record;
mod rendezvous;
mod report;
mod results;
mod ring;
mod sleep;
mod smp;
mod stall;
mod sync;
#[cfg(all(test, loom))]
mod testing;
mod ticket;
mod trace;

/// A guide for kernel authors; [`porting`](guide::porting) is the one for a new platform.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../guide/kernel.md")]
pub mod guide {
    #[doc = include_str!("../guide/porting.md")]
    pub mod porting {}
}

pub use callbacks::CpuCallbacks;
pub use cpu::{CpuId, CpuIter, CpuMask, ListFault, ParseListError};
pub use csd::Csd;
pub use error::{CallError, HotplugError, Refused, StartError, WithoutClosure};
pub use guard::IrqsOff;
pub use hotplug::CpuState;
pub use near::Distance;
pub use params::{BadParam, BootParams, Reason};
pub use per_cpu::{PerCpu, PerCpuError, PerCpuSlot};
pub use platform::Platform;
pub use post_many::PostManyError;
pub use report::{Report, Stall, StallCause};
pub use results::Results;
pub use ring::PostRing;
pub use smp::Smp;
pub use stall::Running;
#[cfg(smpcall_mutants)]
pub use sync::choose_mutant;
pub use ticket::{Ticket, TicketPool, TicketSlot};
pub use trace::{PairCounters, PairCounts, TraceBuffer, TraceEvent, TraceKind, TraceSlot, Tracer};
