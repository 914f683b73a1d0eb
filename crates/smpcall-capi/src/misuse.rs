//! What is refused: as a negative errno where the prototype has room for it, as a line otherwise.

use core::ffi::c_int;
use core::fmt;

use smpcall::{CallError, HotplugError, Refused, StartError};

use crate::instance;
use crate::types::Mask;

const EIO: c_int = 5;
const ENXIO: c_int = 6;
const EBUSY: c_int = 16;
const EINVAL: c_int = 22;
const ENOSPC: c_int = 28;
const EDEADLK: c_int = 35;
const ETIMEDOUT: c_int = 110;

/// The largest number that a C function may answer as an errno.
const MAX_ERRNO: i64 = 4095;

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misuse {
    /// No machine is booted.
    NotBooted,
    /// A pointer that must not be null is.
    Null(&'static str),
    /// An argument cannot be.
    Bad(&'static str),
    /// The core refused.
    Call(CallError),
    /// These CPUs had no room, where waiting is not allowed.
    NoRoom(Mask),
    /// A CPU did not come or go.
    Hotplug(HotplugError),
    /// It is booted already.
    AlreadyBooted,
    /// Somebody boots it or shuts it down.
    #[cfg(not(target_os = "none"))]
    Changing,
    /// A CPU of the machine cannot wait for the machine's end.
    #[cfg(not(target_os = "none"))]
    OnACpu,
}

/// What a function answers before it is made C's.
pub(crate) type Outcome<T = ()> = Result<T, Misuse>;

impl From<CallError> for Misuse {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl<F> From<Refused<F>> for Misuse {
    fn from(refused: Refused<F>) -> Self {
        Self::Call(refused.error)
    }
}

impl From<HotplugError> for Misuse {
    fn from(error: HotplugError) -> Self {
        Self::Hotplug(error)
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBooted => f.write_str("no machine is booted, so no CPU is online"),
            Self::Null(what) => write!(f, "{what} is null"),
            Self::Bad(what) => f.write_str(what),
            Self::Call(error) => error.fmt(f),
            Self::NoRoom(cpus) => write!(
                f,
                "the queues of CPUs {cpus} are full, and a called function, or a CPU with \
                 interrupts off, cannot wait for room"
            ),
            Self::Hotplug(error) => error.fmt(f),
            Self::AlreadyBooted => f.write_str("a machine is booted already"),
            #[cfg(not(target_os = "none"))]
            Self::Changing => f.write_str("the machine is being booted or shut down"),
            #[cfg(not(target_os = "none"))]
            Self::OnACpu => f.write_str("a CPU of the machine cannot wait for it"),
        }
    }
}

impl Misuse {
    /// The negative errno.
    pub(crate) fn errno(self) -> c_int {
        -match self {
            Self::NotBooted => ENXIO,
            Self::Null(_) | Self::Bad(_) => EINVAL,
            Self::Call(error) => of_call(error),
            Self::NoRoom(_) | Self::AlreadyBooted => EBUSY,
            #[cfg(not(target_os = "none"))]
            Self::Changing => EBUSY,
            Self::Hotplug(error) => of_hotplug(error),
            #[cfg(not(target_os = "none"))]
            Self::OnACpu => EDEADLK,
        }
    }
}

fn of_call(error: CallError) -> c_int {
    match error {
        CallError::NoSuchCpu { .. } | CallError::Offline { .. } | CallError::EmptyMask => ENXIO,
        CallError::InterruptsOff | CallError::InHandler => EDEADLK,
        CallError::Full { .. } | CallError::Busy => EBUSY,
        _ => EINVAL,
    }
}

fn of_hotplug(error: HotplugError) -> c_int {
    match error {
        HotplugError::LastCpu => EBUSY,
        HotplugError::Myself => EDEADLK,
        HotplugError::Context(error) => of_call(error),
        HotplugError::Start(StartError::Refused(code)) => of_code(code),
        HotplugError::Callback { code, .. } => of_code(i64::from(code)),
        HotplugError::Timeout => ETIMEDOUT,
        HotplugError::TooManyCallbacks => ENOSPC,
        // The seed's own answer for a CPU that is so already.
        _ => EINVAL,
    }
}

/// Somebody else's code, of either sign.
fn of_code(code: i64) -> c_int {
    match code.checked_abs() {
        Some(errno @ 1..=MAX_ERRNO) => errno as c_int,
        _ => EIO,
    }
}

/// Makes an outcome C's.
pub(crate) fn errno(outcome: Outcome) -> c_int {
    outcome.map_or_else(Misuse::errno, |()| 0)
}

/// Names a refusal for a function that answers nothing.
pub(crate) fn say(function: &str, outcome: Outcome) {
    if let Err(misuse) = outcome {
        instance::report(format_args!("{function}: {misuse}"));
    }
}
