//! Panics that were caught, and the message before an abort.

use std::any::Any;
use std::fmt;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe};

use smpcall::CpuId;

/// What a caught panic carries.
pub type Payload = Box<dyn Any + Send>;

/// A panic that reached no caller.
pub struct PanicReport<'a> {
    /// Where the function ran.
    pub cpu: CpuId,
    /// The panic's payload.
    pub payload: &'a Payload,
}

impl PanicReport<'_> {
    /// The panic's message, if it has one.
    pub fn message(&self) -> &str {
        let literal = self.payload.downcast_ref::<&str>().copied();
        literal
            .or_else(|| self.payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no message)")
    }
}

impl fmt::Debug for PanicReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PanicReport")
            .field("cpu", &self.cpu)
            .field("message", &self.message())
            .finish()
    }
}

impl fmt::Display for PanicReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a function that ran on CPU {} panicked: {}",
            self.cpu,
            self.message()
        )
    }
}

/// Says why, and ends the process; a standard error that is closed changes nothing.
pub(crate) fn fatal(message: fmt::Arguments<'_>) -> ! {
    let _ = writeln!(io::stderr(), "smpcall: fatal: {message}");
    std::process::abort()
}

/// Drops a payload; a drop that panics must not take the thread with it.
pub(crate) fn discard(payload: Payload) {
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(second);
    }
}
