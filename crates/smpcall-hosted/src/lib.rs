//! Cross-CPU calls on Linux user space: a CPU is a pinned thread.
//!
//! [`Machine::builder`] boots one thread per CPU of the process's affinity mask, each pinned and
//! numbered by its real id. Any thread may call: a CPU of the machine, or one that is none.
//!
//! ```
//! use smpcall_hosted::{CpuId, Machine, WithoutClosure};
//!
//! let machine = Machine::builder().count(2).boot()?;
//! let name = String::from("borrowed");
//! let answer = machine.call(CpuId::new(1), || format!("{name} on {:?}", machine.current_cpu()));
//! // A refused call hands the closure back in its error; here only the reason is wanted.
//! assert_eq!(answer.without_closure()?, "borrowed on Some(CPU1)");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `machine.rs`, `builder.rs`, `boot_error.rs` | a machine and its end; building and booting one |
//! | `jobs.rs` | `spawn_on` |
//! | `attach.rs`, `life.rs`, `doorbell.rs` | a thread of the program as a CPU, and its file descriptor |
//! | `fork.rs`, `placement.rs` | telling a forked child from its parent; threads that others move |
//! | `platform.rs`, `panics.rs` | [`Hosted`], the platform that the core runs on; panics |
//! | `sleep.rs` | sleeping on a word, and being woken |
//! | `stall.rs` | limits for waits, and what each CPU runs |
//! | `collect.rs` | results of each CPU in a vector |
//! | `trace.rs` | a trace as a file for Perfetto |
//! | `thread.rs` | the life of a CPU's thread: pin, arrive, idle, leave |
//! | `local.rs`, `mask.rs` | which CPU this thread is, and its soft interrupt mask |
//! | `barrier.rs` | a memory barrier on every thread of the process |
//! | `per_cpu.rs` | per-CPU data of a machine |
//! | `preempt.rs` | a busy CPU is interrupted by a signal |
//! | `affinity.rs` | which CPUs the computer offers; pinning |
//! | `topology.rs` | how those hang together: cores, caches, nodes |
//!
//! **Waiting and re-entrancy.** Every wait of a CPU in this crate is a poll point: while a CPU waits for
//! a call of its own, it runs the calls that others have sent to it, in handler context. So a
//! called function may run in the middle of any waited call of the same thread, and must
//! not need a `RefCell` borrow or a lock that the waiting code holds.

//! **What others do to the process.** A CPU is its thread, and goes on whatever happens around it:
//!
//! | what happens | what follows |
//! |---|---|
//! | a child is started (`Command`, `fork` and `exec`) | nothing; descriptors are closed by the `exec` |
//! | a child is forked and does not exec | it has no CPUs: a wait there aborts it with a message, a drop of the machine or of a guard does nothing, and it may boot machines of its own. The parent goes on |
//! | the process's affinity is changed (`taskset -a`), its cgroup gets other CPUs, a CPU of the computer goes offline | the kernel moves the threads; calls go on. A CPU that sees itself moved reports it once ([`Hosted::moved`]). Going down and up pins it anew, or says why it cannot |
//! | a machine is booted afterwards | it has the CPUs that the process may use then; a list that names another is refused by name |
//! | two machines call each other | a CPU that waits for another machine takes its own machine's calls meanwhile, and tasks when it waits for a task. Only a called function that waits for another machine can deadlock; the stall report names it |
//!
#[cfg(not(target_os = "linux"))]
compile_error!("smpcall-hosted runs on Linux: it uses futexes and CPU affinity");

mod affinity;
mod attach;
mod barrier;
mod boot_error;
mod builder;
mod collect;
mod doorbell;
mod fork;
mod jobs;
mod life;
mod local;
mod machine;
mod mask;
mod panics;
mod per_cpu;
mod placement;
mod platform;
mod preempt;
mod relax;
mod rings;
mod sleep;
mod stall;
mod thread;
mod topology;
mod trace;

pub use affinity::{HostCpus, host_cpu};
pub use attach::{AttachError, Attached};
pub use barrier::{BarrierMeans, process_barrier, process_barrier_by, process_barrier_light};
pub use boot_error::BootError;
pub use builder::Builder;
pub use jobs::JoinHandle;
pub use machine::Machine;
pub use panics::{PanicReport, Payload};
pub use per_cpu::PerCpu;
pub use platform::Hosted;
pub use preempt::preempt_signal;
pub use smpcall::{
    BadParam, BootParams, CallError, CpuCallbacks, CpuId, CpuState, Csd, Distance, HotplugError,
    IrqsOff, PairCounts, PerCpuError, PerCpuSlot, Platform, PostManyError, Reason, Refused, Report,
    Smp, Stall, StallCause, StartError, TraceEvent, TraceKind, Tracer, WithoutClosure,
};
pub use topology::{HostCache, HostCpu, Topology};
pub use trace::write_trace;

/// Words of a CPU mask: 1,024 CPUs.
pub const WORDS: usize = 16;

/// Posted closures that fit per target, at least.
pub const ROOM: usize = 32;

/// A set of CPUs of a machine.
pub type CpuMask = smpcall::CpuMask<WORDS>;

/// The results of a call to many.
pub type Results<'a, R> = smpcall::Results<'a, R, WORDS>;

/// Room for a call with a ticket.
pub type TicketSlot<R, const N: usize = 3> = smpcall::TicketSlot<Hosted, R, N>;

/// Room for `M` calls with tickets.
pub type TicketPool<R, const M: usize, const N: usize = 3> = smpcall::TicketPool<Hosted, R, M, N>;

/// The result of a submitted call, to come.
pub type Ticket<'a, R> = smpcall::Ticket<'a, Hosted, R>;

/// The core's instance that a [`Machine`] derefs to.
pub type HostedSmp = Smp<Hosted, WORDS, ROOM>;

/// A guide for thread-per-core authors; [`tour`](guide::tour) has every kind of call once.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../guide/thread-per-core.md")]
pub mod guide {
    #[doc = include_str!("../guide/tour.md")]
    pub mod tour {}
}

/// The examples of the READMEs are compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
struct Readme;
