//! Threads that sleep on a word and are woken there: futexes of the process's own.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex;

/// Sleeps while the word holds the value, perhaps not as long, and at most so many nanoseconds; 0: no limit.
pub(crate) fn for_at_most(word: &AtomicU32, value: u32, limit_ns: u64) {
    let limit = (limit_ns > 0).then(|| Duration::from_nanos(limit_ns));
    // What the kernel cannot say is for ever.
    let limit = limit.and_then(|limit| futex::Timespec::try_from(limit).ok());
    // An early return (EINTR, a changed word, the limit) is allowed by the contract.
    let _ = futex::wait(word, futex::Flags::PRIVATE, value, limit.as_ref());
}

/// Wakes who sleeps on the word.
pub(crate) fn wake(word: &AtomicU32) {
    // A wake cannot fail on a private futex of our own.
    let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
}

/// As [`wake`], on a word that may be gone: only its address goes to the kernel, and a stranger that waits
/// there by now takes a spurious wake-up.
pub(crate) fn wake_at(word: *const AtomicU32) {
    // SAFETY: FUTEX_WAKE does not dereference the address.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.addr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}
