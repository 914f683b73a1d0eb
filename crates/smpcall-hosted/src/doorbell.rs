//! The file descriptor that wakes a thread which sleeps in an event loop of its own.
//!
//! An eventfd: a sender adds one, the thread reads all. It never blocks a writer in practice (that
//! takes 2^64 rings) and never a reader. Edges: E60, E61.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A descriptor of the machine's, for one CPU.
#[derive(Debug)]
pub(crate) struct Doorbell(OwnedFd);

impl Doorbell {
    /// A quiet one.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// Sender: makes it readable. From any thread, and from a signal handler.
    pub(crate) fn signal(&self) {
        // It is readable already if this fails, which needs 2^64 signals.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Owner: makes it quiet.
    pub(crate) fn clear(&self) {
        // Nothing to read is what it shall be.
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }

    /// Owner: sleeps until it is readable; answers whether it is, and not the time up or a signal
    /// handled.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> bool {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut this = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut this, limit.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
