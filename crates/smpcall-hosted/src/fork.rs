//! Which process this is: a child that was forked has the machine's memory and none of its threads.
//!
//! A child that execs is no concern of ours, and a child may boot machines of its own. One that goes on to
//! use its parent's machine would wait for ever; it is told apart by a number that only a fork changes,
//! in the child, so that nobody pays a system call to find out.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between the first process with a machine and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// A process, by the forks that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// This one.
    pub(crate) fn current() -> Self {
        static COUNTED: Once = Once::new();
        COUNTED.call_once(|| {
            // SAFETY: the handler is async-signal-safe: it adds to an atomic. It cannot fail but for
            // memory, and then a child that misuses its parent's machine waits instead of aborting.
            unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
        });
        // ORDERING: Relaxed — changed by a child's only thread before anything runs there.
        Self(FORKS.load(Ordering::Relaxed))
    }
}

/// In the child, before `fork` returns there.
extern "C" fn count_fork() {
    // ORDERING: Relaxed — as in `current`.
    FORKS.fetch_add(1, Ordering::Relaxed);
}
