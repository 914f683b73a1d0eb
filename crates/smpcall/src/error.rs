//! What can go wrong, by name, with the closure handed back.

use core::fmt;

use crate::cpu::CpuId;

/// Why a call was refused. Nothing was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// No CPU has this id: choose one below `nr_cpu_ids`.
    NoSuchCpu {
        /// The id that was asked for.
        cpu: CpuId,
        /// The number of possible CPU ids.
        nr_cpu_ids: u32,
    },
    /// The CPU is not online: bring it up, or leave it out.
    Offline {
        /// The CPU.
        cpu: CpuId,
    },
    /// No CPU of the mask is online.
    EmptyMask,
    /// A plain wait with interrupts off would deadlock: turn them on, post, or wait through the
    /// guard ([`Smp::call_irqs_off`](crate::Smp::call_irqs_off)).
    InterruptsOff,
    /// A called function may not wait: post instead.
    InHandler,
    /// The target's lane has no room: try again, or `post_wait`.
    Full {
        /// The target.
        cpu: CpuId,
    },
    /// The descriptor is still queued from an earlier post, or the ticket's slot is in use.
    Busy,
    /// The storage for results is too short: its slot i is CPU i's.
    ResultsTooShort {
        /// How many slots there must be.
        needed: usize,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu { cpu, nr_cpu_ids } => {
                write!(f, "no such CPU: {cpu} (ids are below {nr_cpu_ids})")
            }
            Self::Offline { cpu } => write!(f, "CPU {cpu} is offline"),
            Self::EmptyMask => f.write_str("no CPU of the mask is online"),
            Self::InterruptsOff => f.write_str("cannot wait with interrupts off"),
            Self::InHandler => f.write_str("a called function cannot wait for another call"),
            Self::Full { cpu } => write!(f, "the lane of CPU {cpu} is full"),
            Self::Busy => f.write_str("the descriptor is still queued"),
            Self::ResultsTooShort { needed } => {
                write!(f, "the results need storage for {needed} CPUs")
            }
        }
    }
}

impl core::error::Error for CallError {}

/// A refused call, with the closure that was not run.
pub struct Refused<F> {
    /// Why.
    pub error: CallError,
    /// The closure, unharmed.
    pub closure: F,
}

impl<F> Refused<F> {
    pub(crate) fn new(error: CallError, closure: F) -> Self {
        Self { error, closure }
    }

    /// The closure, to be tried again.
    pub fn into_closure(self) -> F {
        self.closure
    }
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<F> core::error::Error for Refused<F> {}

impl<F> From<Refused<F>> for CallError {
    fn from(refused: Refused<F>) -> Self {
        refused.error
    }
}

/// Lets go of the closure that a refused call handed back.
///
/// `?` turns a [`Refused`] into a [`CallError`] by itself. Into a `Box<dyn Error>`, and what else wants
/// errors that borrow nothing, it turns only one whose closure borrows nothing; a waited call's closure
/// usually does.
///
/// ```
/// use smpcall::{CallError, Refused, WithoutClosure};
/// fn refused() -> Result<(), Box<dyn std::error::Error>> {
///     let name = String::from("borrowed");
///     let call = Err(Refused {
///         error: CallError::EmptyMask,
///         closure: || name.len(),
///     });
///     let _length: usize = call.without_closure()?;
///     Ok(())
/// }
/// assert_eq!(refused().unwrap_err().to_string(), "no CPU of the mask is online");
/// ```
pub trait WithoutClosure<R> {
    /// The result, or why the call was refused; its closure is dropped.
    ///
    /// # Errors
    /// That of the refused call.
    fn without_closure(self) -> Result<R, CallError>;
}

impl<R, F> WithoutClosure<R> for Result<R, Refused<F>> {
    fn without_closure(self) -> Result<R, CallError> {
        self.map_err(CallError::from)
    }
}

/// Why a platform could not start a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The platform has no such CPU.
    NoSuchCpu,
    /// The firmware or the operating system refused, with its own code.
    Refused(i64),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu => f.write_str("the platform has no such CPU"),
            Self::Refused(code) => write!(f, "refused with code {code}"),
        }
    }
}

impl core::error::Error for StartError {}

/// Why a CPU could not be brought up or taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HotplugError {
    /// No CPU has this id, or it is not present.
    NoSuchCpu,
    /// It is online already.
    AlreadyOnline,
    /// It is offline already.
    AlreadyOffline,
    /// The last online CPU cannot leave.
    LastCpu,
    /// A CPU cannot take itself down by asking for it and waiting.
    Myself,
    /// Waiting is not possible here.
    Context(CallError),
    /// The platform could not start it.
    Start(StartError),
    /// A registered callback refused, with its own code; what had been set up was undone.
    Callback {
        /// The callback's name.
        name: &'static str,
        /// Its code.
        code: i32,
    },
    /// It was started and never arrived, or was asked and never left.
    Timeout,
    /// All callback slots are taken.
    TooManyCallbacks,
}

impl fmt::Display for HotplugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu => f.write_str("no such CPU, or it is not present"),
            Self::AlreadyOnline => f.write_str("it is online already"),
            Self::AlreadyOffline => f.write_str("it is offline already"),
            Self::LastCpu => f.write_str("the last online CPU cannot leave"),
            Self::Myself => f.write_str("a CPU cannot wait for its own end"),
            Self::Context(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
            Self::Callback { name, code } => write!(f, "callback {name} refused with code {code}"),
            Self::Timeout => f.write_str("it did not answer in time"),
            Self::TooManyCallbacks => f.write_str("all callback slots are taken"),
        }
    }
}

impl core::error::Error for HotplugError {}
