//! A memory barrier on every thread of the process at once, by the kernel.
//!
//! Where one side of a protocol runs all the time and the other seldom, the frequent side need not
//! pay for a fence: it keeps the compiler in order ([`process_barrier_light`]), and the rare side makes
//! every running thread execute a full fence ([`process_barrier`]). The kernel does it by
//! interrupting the processors on which the process runs (`membarrier`); a thread that is not running
//! has passed through the scheduler, which is a full fence too.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence, fence};

use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

use crate::CpuMask;
use crate::affinity;
use crate::topology::Topology;

/// How the barrier gets to all threads; the fastest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarrierMeans {
    /// The kernel interrupts the processors on which the process runs: microseconds (Linux 4.14).
    #[doc(alias = "MEMBARRIER_CMD_PRIVATE_EXPEDITED")]
    Expedited,
    /// The kernel waits until every processor has passed through the scheduler: milliseconds (4.3).
    #[doc(alias = "MEMBARRIER_CMD_GLOBAL")]
    Global,
    /// Where the kernel has no `membarrier`, or a filter forbids it: a thread of ours runs on each
    /// processor in turn, which puts whatever ran there through the scheduler. Milliseconds; it
    /// starts a thread, so not for handlers.
    Migration,
}

/// Makes every thread of the process execute a full memory barrier, and this one too.
///
/// What this thread did before is visible to what each other thread does after its barrier, and what they
/// did before theirs to this thread afterwards: the other side of [`process_barrier_light`], and a
/// `fence(SeqCst)` to everything else. Answers by which means.
///
/// | | `process_barrier` | [`kick_all_cpus_sync`](smpcall::Smp::kick_all_cpus_sync) |
/// |---|---|---|
/// | reaches | every thread of the process | every CPU of the machine that is online at entry |
/// | each has, at the return | made a full fence between two of its instructions | run a handler outside any masked region |
/// | inside masked regions and handlers | happens there all the same | waits until they end |
/// | work without poll points | is not waited for | is waited for, unless it is pre-empted |
/// | proves that old code or pointers are out of use | no | yes, where they are used in masked regions or between poll points only |
/// | may be called | anywhere, also in handlers | where waiting is allowed |
///
/// ```
/// use smpcall_hosted::{process_barrier, process_barrier_light};
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// static BUSY: AtomicBool = AtomicBool::new(false);
/// static STOP: AtomicBool = AtomicBool::new(false);
/// // Often, on the owner's thread: no fence.
/// fn try_enter() -> bool {
///     BUSY.store(true, Relaxed);
///     process_barrier_light();
///     !STOP.load(Relaxed) || { BUSY.store(false, Relaxed); false }
/// }
/// // Seldom, on another thread: of the two stores at least one is seen.
/// fn is_stopped() -> bool {
///     STOP.store(true, Relaxed);
///     process_barrier();
///     !BUSY.load(Relaxed)
/// }
/// assert!(try_enter());
/// assert!(!is_stopped());
/// ```
#[doc(alias = "membarrier")]
pub fn process_barrier() -> BarrierMeans {
    static MEANS: OnceLock<BarrierMeans> = OnceLock::new();
    let best = *MEANS.get_or_init(best_means);
    let all = [BarrierMeans::Expedited, BarrierMeans::Global];
    let from = all.iter().skip_while(|&&means| means != best);
    // A filter may forbid later what it allowed before.
    for &means in from {
        if process_barrier_by(means).is_ok() {
            return means;
        }
    }
    migrate();
    BarrierMeans::Migration
}

/// As [`process_barrier`], by means of your choice, for comparisons and tests.
///
/// # Errors
/// The kernel has it not, or a filter forbids it.
pub fn process_barrier_by(means: BarrierMeans) -> io::Result<()> {
    match means {
        BarrierMeans::Expedited => expedited()?,
        BarrierMeans::Global => membarrier(MembarrierCommand::Global)?,
        BarrierMeans::Migration => migrate(),
    }
    Ok(())
}

/// The frequent side of a [`process_barrier`]: keeps the compiler in order, costs nothing, and is a
/// full fence towards whoever calls that.
#[inline]
pub fn process_barrier_light() {
    compiler_fence(Ordering::SeqCst);
}

/// What the kernel offers.
fn best_means() -> BarrierMeans {
    let offered = membarrier_query();
    let expedited = MembarrierQuery::PRIVATE_EXPEDITED;
    match () {
        () if offered.contains(expedited) => BarrierMeans::Expedited,
        () if offered.contains(MembarrierQuery::GLOBAL) => BarrierMeans::Global,
        () => BarrierMeans::Migration,
    }
}

/// The process says once that it will use it; a child of `fork` says it again.
fn expedited() -> io::Result<()> {
    match membarrier(MembarrierCommand::PrivateExpedited) {
        // EPERM: not registered yet.
        Err(rustix::io::Errno::PERM) => {
            membarrier(MembarrierCommand::RegisterPrivateExpedited)?;
            membarrier(MembarrierCommand::PrivateExpedited)?;
        }
        result => result?,
    }
    Ok(())
}

/// A thread of ours visits every processor on which this process may run.
///
/// Whatever ran there is switched out, which is a full fence; what moves away meanwhile is switched out by
/// that. A processor that refuses us is offline or outside the process's cpuset.
///
/// # Panics
/// If no processor at all lets a thread in: nothing would have been ordered.
fn migrate() {
    fence(Ordering::SeqCst);
    let visit = || {
        let online = *Topology::of_this_computer().online();
        let all = if online.is_empty() {
            CpuMask::first_n(CpuMask::CAPACITY)
        } else {
            online
        };
        all.iter()
            .filter(|cpu| affinity::pin_to(cpu.get()).is_ok())
            .count()
    };
    let visited = std::thread::scope(|scope| scope.spawn(visit).join());
    assert!(
        visited.is_ok_and(|visited| visited > 0),
        "the process runs on some processor, so one at least lets us in"
    );
    fence(Ordering::SeqCst);
}
