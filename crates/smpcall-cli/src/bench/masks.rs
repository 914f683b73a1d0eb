//! Interrupts off and on again, on one thread: a flag of its own, and what the kernel offers.
//!
//! A hosted CPU's interrupts are signals, which the kernel can hold back too, by a system call each way.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::bench::Contender;
use crate::bench::lab::{Lab, time_runs};
use crate::bench::ours::RUNS;

/// Pairs of off and on per run.
const PAIRS: u64 = 512;

/// The limit, the library, and the system call.
pub(crate) fn all() -> Vec<Contender> {
    let row =
        |name, peer, block: fn(&Lab) -> Vec<f64>| Contender::new(name, peer, "thread_flag", block);
    vec![
        row("thread_flag", "limit", flag),
        row("interrupts_off", "smpcall", guard),
        row("interrupts_off", "sigprocmask", signal_mask),
    ]
}

/// A thread-local flag is set and cleared, in this order for a handler on the same thread.
fn flag(_: &Lab) -> Vec<f64> {
    thread_local! {
        static OFF: Cell<bool> = const { Cell::new(false) };
    }
    OFF.with(|off| {
        time_runs(RUNS, PAIRS, |_| {
            for state in [true, false] {
                off.set(state);
                // ORDERING: SeqCst, for the compiler — a handler on this thread sees the flag.
                compiler_fence(Ordering::SeqCst);
            }
        })
    })
}

/// The guard of the machine, which also runs what arrived meanwhile.
fn guard(lab: &Lab) -> Vec<f64> {
    time_runs(RUNS, PAIRS, |_| drop(lab.machine.irqs_off()))
}

/// Every signal held back and let through again.
fn signal_mask(_: &Lab) -> Vec<f64> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: it writes the set that it is given.
    let filled = unsafe { libc::sigfillset(all.as_mut_ptr()) };
    assert_eq!(filled, 0, "a set can hold every signal");
    time_runs(RUNS, PAIRS, |_| {
        let mut before = MaybeUninit::uninit();
        // SAFETY: `all` was filled; the mask of before is written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: `before` was written just now; nobody wants the other.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    })
}
