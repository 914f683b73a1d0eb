//! Which operations a run can do on its system, and why it cannot run.

use core::fmt;

use super::op::{self, Op};
use super::{FOREIGNERS, Torture};
use crate::lab::Lab;

/// Why a run does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotRun {
    /// Every weight is 0: nothing would be done.
    NoWeight,
    /// Another run has the room.
    Taken,
    /// A weight was given to an operation that this run cannot do.
    Lacks {
        /// The operation.
        op: Op,
        /// What is missing.
        lacks: &'static str,
    },
}

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWeight => f.write_str("every weight is 0, nothing would be done"),
            Self::Taken => f.write_str("another run has the room"),
            Self::Lacks { op, lacks } => write!(f, "{} cannot be done here: {lacks}", op.name()),
        }
    }
}

impl core::error::Error for CannotRun {}

impl Torture {
    /// The weights that hold on this system. An operation that it lacks is left out by default, and an
    /// error if it was asked for.
    pub(super) fn table<L: Lab<W, D>, const W: usize, const D: usize>(
        &self,
        lab: &L,
    ) -> Result<[u32; op::OPS], CannotRun> {
        let cpus = lab.smp().online_cpus().len() as u32;
        let all_default = self.weights.iter().all(Option::is_none);
        let mut table = [0; op::OPS];
        for op in op::ALL {
            let lacks = self.lacks(op, lab);
            table[op as usize] = match (self.weights[op as usize], lacks) {
                (Some(weight), Some(lacks)) if weight > 0 => {
                    return Err(CannotRun::Lacks { op, lacks });
                }
                (Some(weight), _) => weight,
                (None, None) if all_default => op.default_weight(cpus),
                (None, _) => 0,
            };
        }
        if table.iter().all(|&weight| weight == 0) {
            return Err(CannotRun::NoWeight);
        }
        Ok(table)
    }

    /// What this run lacks for an operation.
    fn lacks<L: Lab<W, D>, const W: usize, const D: usize>(
        &self,
        op: Op,
        lab: &L,
    ) -> Option<&'static str> {
        let threads = (FOREIGNERS - 1).min(lab.threads()) as u64;
        match op {
            Op::Preempt if !lab.interrupts() => {
                Some("busy CPUs are not interrupted, they look for calls")
            }
            Op::Attach if !lab.attaches() => Some("no thread can become a CPU"),
            Op::Attach if self.foreigners.min(threads) == 0 => {
                Some("no thread works that is no CPU (foreigners)")
            }
            Op::Attach if self.hotplug_interval_ms == 0 || !lab.may_hotplug() => {
                Some("no CPU goes down (hotplug_interval_ms)")
            }
            _ => None,
        }
    }
}
