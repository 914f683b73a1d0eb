//! Conformance cases and torture for every platform of smpcall.
//!
//! The same cases run under `cargo test` on threads, in the `smpcall` program and in the kernel
//! image in QEMU. So this crate has no allocator and no `std`, and asks the system that it runs on
//! for little: a [`Lab`]. A case is named by the behaviour that it checks, runs in the task context of
//! one CPU or on a thread that is none, and makes the other CPUs act through the library itself.
//!
//! ```text
//!   Lab ──▶ run_all ──▶ Case::run(&Cx) ──┬─ crew:   the same code in other CPUs' task context
//!                                        ├─ masked: CPUs that hold their interrupts off
//!                                        └─ scope:  posted functions that use this stack
//! ```
//!
//! Every wait is bounded: when its time is up, the case fails and says who waits where.
//!
//! | file | holds |
//! |---|---|
//! | `lab.rs` | what a system supplies |
//! | `cx.rs` | a running case: which CPUs, bounded waits, the dump |
//! | `crew.rs` | code in other CPUs' task context, borrowing this stack |
//! | `scope.rs` | posted functions that borrow this stack, and are counted |
//! | `check.rs` | failures, and the macros that make them |
//! | `cases.rs`, `cases/` | the cases |
//! | `torture.rs`, `torture/` | random operations for a time |
//! | `report.rs` | the lines that a kernel says and a host reads |
//! | `rng.rs` | repeatable random numbers |
#![cfg_attr(not(test), no_std)]

mod again;
mod cases;
mod check;
mod crew;
mod cx;
mod lab;
pub mod report;
pub mod rng;
mod scope;
pub mod torture;

pub use cases::{Case, Needs, Tally, cases, count, run_all, run_case};
pub use check::{Check, Failure};
pub use cx::Cx;
pub use lab::{Attached, Attachment, Lab};
