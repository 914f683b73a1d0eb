//! What the library tells the operator: CPUs that came or did not, waits that take long.
//!
//! Values, so that a platform may count them or show them its own way; each prints as a line.

use core::fmt;

use crate::cpu::CpuId;

/// What the library tells the operator.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Report<'a> {
    /// Bring-up is over.
    BroughtUp {
        /// How many CPUs are online.
        online: usize,
    },
    /// A CPU did not come online and was rolled back.
    FailedUp {
        /// The CPU.
        cpu: CpuId,
        /// Why.
        error: crate::HotplugError,
    },
    /// A wait takes long.
    Stall(Stall<'a>),
    /// A wait that was reported has ended.
    Recovered {
        /// The CPU that was waited for.
        cpu: CpuId,
        /// Who waited; `None` for a thread that is no CPU.
        waiter: Option<CpuId>,
        /// How long the wait took.
        waited_ns: u64,
    },
}

/// A wait that takes long. With each report the culprit is interrupted once more, for an interrupt may
/// have been lost.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Stall<'a> {
    /// Who waits; `None` for a thread that is no CPU.
    pub waiter: Option<CpuId>,
    /// The CPU that has not answered.
    pub culprit: CpuId,
    /// How long the waiter has waited.
    pub waited_ns: u64,
    /// What the culprit does about it.
    pub cause: StallCause,
    /// What the culprit runs for others, where the platform keeps it.
    pub function: Option<&'a str>,
    /// The caller that waits.
    pub caller: &'a core::panic::Location<'a>,
}

/// Why a wait takes long, as far as the waiter can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StallCause {
    /// The culprit is running this request.
    ThisRequest,
    /// The culprit is running an earlier request, or a function of its own.
    EarlierRequest,
    /// The culprit is running a request; the platform does not keep which.
    SomeRequest,
    /// The culprit has not taken any call: interrupts off, or stuck outside.
    Unresponsive,
    /// The culprit's lane has no room, and it takes no call out.
    NoRoom,
    /// The culprit is coming up or going down, and whoever does that holds the lock of hotplug.
    HoldsHotplug,
    /// The culprit takes part in another rendezvous, which must end first.
    HoldsRendezvous,
    /// The culprit has not come to the task that waits for its ordinary context.
    NoTasks,
}

impl fmt::Display for StallCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisRequest => "is running this request",
            Self::EarlierRequest => "is running an earlier request",
            Self::SomeRequest => "is running a request",
            Self::Unresponsive => "takes no calls",
            Self::NoRoom => "has no room for another post",
            Self::HoldsHotplug => "is coming up or going down",
            Self::HoldsRendezvous => "takes part in another rendezvous",
            Self::NoTasks => "has not come to its tasks",
        })
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BroughtUp { online } => write!(f, "Brought up {online} CPUs"),
            Self::FailedUp { cpu, error } => write!(f, "CPU {cpu} did not come up: {error}"),
            Self::Stall(stall) => stall.fmt(f),
            Self::Recovered {
                cpu,
                waiter,
                waited_ns,
            } => {
                write!(
                    f,
                    "CPU {cpu} answered {} after {} ms",
                    Who(*waiter),
                    waited_ns / 1_000_000
                )
            }
        }
    }
}

impl fmt::Display for Stall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            waiter,
            culprit,
            waited_ns,
            cause,
            caller,
            ..
        } = self;
        let ms = waited_ns / 1_000_000;
        write!(
            f,
            "{} has waited {ms} ms for CPU {culprit}, which {cause}",
            Who(*waiter)
        )?;
        if let Some(function) = self.function {
            write!(f, ": `{function}`")?;
        }
        write!(f, "; called from {caller}")?;
        write!(f, "; CPU {culprit} is interrupted once more")
    }
}

/// Who waits.
struct Who(Option<CpuId>);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(cpu) => write!(f, "CPU {cpu}"),
            None => f.write_str("a foreign thread"),
        }
    }
}
