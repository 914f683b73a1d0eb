//! Why a machine did not boot.

use std::fmt;
use std::io;

use smpcall::{CpuId, HotplugError, StartError};

use crate::CpuMask;

/// Why a machine did not boot.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootError {
    /// A machine has at least one CPU.
    NoCpus,
    /// More CPUs than this build supports.
    TooMany {
        /// What was asked for.
        asked: usize,
        /// What fits.
        capacity: usize,
    },
    /// The process may not use this CPU.
    NotAllowed {
        /// The CPU.
        cpu: CpuId,
        /// What it may use.
        allowed: Box<CpuMask>,
    },
    /// The kernel did not tell the affinity mask.
    Affinity(io::Error),
    /// The signal for pre-emption has a handler that is not ours.
    SignalTaken {
        /// The signal.
        signal: libc::c_int,
    },
    /// The signal for pre-emption takes no handler.
    Signal {
        /// The signal.
        signal: libc::c_int,
        /// What the kernel answered.
        error: io::Error,
    },
    /// A CPU did not come up.
    Cpu {
        /// The CPU.
        cpu: CpuId,
        /// Why.
        error: HotplugError,
    },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCpus => f.write_str("a machine has at least one CPU"),
            Self::TooMany { asked, capacity } => {
                write!(
                    f,
                    "{asked} CPUs are more than this build supports ({capacity})"
                )
            }
            Self::NotAllowed { cpu, allowed } => {
                write!(
                    f,
                    "CPU {cpu} is not one that this process may use ({allowed})"
                )
            }
            Self::Affinity(error) => {
                write!(f, "the kernel did not tell the affinity mask: {error}")
            }
            Self::SignalTaken { signal } => write!(
                f,
                "signal {signal} has a handler already: choose another one with `preempt_by`"
            ),
            Self::Signal { signal, error } => {
                write!(f, "signal {signal} takes no handler: {error}")
            }
            Self::Cpu {
                cpu,
                error: HotplugError::Start(StartError::Refused(code)),
            } => {
                let error = io::Error::from_raw_os_error(*code as i32);
                write!(
                    f,
                    "CPU {cpu} did not start: pinning or starting its thread failed: {error}"
                )
            }
            Self::Cpu { cpu, error } => write!(f, "CPU {cpu} did not start: {error}"),
        }
    }
}

impl std::error::Error for BootError {}
