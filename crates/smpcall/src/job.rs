//! A closure on its way there and its result on its way back, in the same memory.
//!
//! A [`Job`] first holds the closure, then the outcome of running it. It lives in the mailbox line
//! when both fit, and on the waiting caller's stack otherwise, with its address in the line.

use core::mem::ManuallyDrop;

use crate::mailbox::{MailFn, Payload};
use crate::platform::Platform;
use crate::queue::Context;
use crate::stall::run_named;

/// What running a closure gave: its result, or the panic that ended it.
pub(crate) type Outcome<P, R> = Result<R, <P as Platform>::Panic>;

/// The closure before it ran, the outcome after.
pub(crate) union Job<F, O> {
    closure: ManuallyDrop<F>,
    outcome: ManuallyDrop<O>,
}

impl<F, O> Job<F, O> {
    /// Holds the closure.
    #[inline]
    pub(crate) fn new(closure: F) -> Self {
        Self {
            closure: ManuallyDrop::new(closure),
        }
    }

    /// Moves the closure out.
    ///
    /// # Safety
    /// 1. The job holds the closure, and it is not used again as such.
    #[inline]
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    pub(crate) unsafe fn take_closure(job: *mut Self) -> F {
        // SAFETY: 1 — the closure is there and moves out once.
        unsafe { ManuallyDrop::take(&mut (*job).closure) }
    }

    /// Moves the outcome out.
    ///
    /// # Safety
    /// 1. The job was run, and the outcome is taken once.
    #[inline]
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one obligation covers the accesses of the block"
    )]
    pub(crate) unsafe fn take_outcome(job: *mut Self) -> O {
        // SAFETY: 1 — the outcome is there and moves out once.
        unsafe { ManuallyDrop::take(&mut (*job).outcome) }
    }
}

/// Runs the closure in place and leaves the outcome; `request` names the call in reports.
///
/// # Safety
/// 1. The job holds a closure and is nobody else's.
/// 2. `context.platform` is a `P`.
#[inline]
pub(crate) unsafe fn run<P: Platform, F: FnOnce() -> R, R>(
    context: &Context,
    job: *mut Job<F, Outcome<P, R>>,
    request: usize,
) {
    // SAFETY: 2.
    let platform = unsafe { &*context.platform.cast::<P>() };
    // SAFETY: 1.
    let closure = unsafe { Job::take_closure(job) };
    let leave = |outcome| {
        let outcome = ManuallyDrop::new(outcome);
        // SAFETY: 1 — the job is ours; the closure has moved out.
        unsafe { job.write(Job { outcome }) };
    };
    // The result goes where it belongs at once, not by way of what catches a panic.
    let run = || leave(Ok(closure()));
    if let Err(panic) = run_named::<P, F, ()>(platform, context.cpu, request, run) {
        leave(Err(panic));
    }
}

/// Does a job of this type travel in the mailbox line itself?
pub(crate) const fn in_line<F, O>() -> bool {
    Payload::fits::<Job<F, O>>()
}

/// Runs a job that is in the line.
///
/// # Safety
/// As [`MailFn`].
unsafe fn run_in_line<P: Platform, F: FnOnce() -> R, R>(context: &Context, payload: *mut Payload) {
    // SAFETY: 1, 2 of `MailFn` — the payload holds the job that was published with this function.
    unsafe { run::<P, F, R>(context, payload.cast(), payload.addr()) };
}

/// Runs a job whose address is in the line.
///
/// # Safety
/// As [`MailFn`].
unsafe fn run_by_address<P: Platform, F: FnOnce() -> R, R>(
    context: &Context,
    payload: *mut Payload,
) {
    // SAFETY: 1 of `MailFn` — the payload holds the address of the caller's job.
    let job = unsafe { *payload.cast::<*mut Job<F, Outcome<P, R>>>() };
    // SAFETY: 1, 2 of `MailFn` — the caller keeps the job alive and untouched until the call is done.
    unsafe { run::<P, F, R>(context, job, payload.addr()) };
}

/// The function that runs a job of this type from a mailbox.
pub(crate) const fn mail_fn<P: Platform, F: FnOnce() -> R, R>() -> MailFn {
    if in_line::<F, Outcome<P, R>>() {
        run_in_line::<P, F, R>
    } else {
        run_by_address::<P, F, R>
    }
}
