//! How long a wait may take before it is reported, and what each CPU runs for others.

use std::time::Duration;

use smpcall::Running;

/// The limits as a builder has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) report: Duration,
    pub(crate) abort: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            report: Duration::from_secs(5),
            abort: Duration::ZERO,
        }
    }
}

/// What a platform keeps for reports.
#[derive(Debug)]
pub(crate) struct Stalls {
    pub(crate) limit_ns: u64,
    pub(crate) fatal_ns: u64,
    /// By CPU; empty where nothing is reported.
    pub(crate) running: Box<[Running]>,
}

impl Limits {
    /// What a platform of CPUs `0..cpus` keeps.
    pub(crate) fn keep(self, cpus: usize) -> Stalls {
        let cpus = if self.report.is_zero() { 0 } else { cpus };
        Stalls {
            limit_ns: nanoseconds(self.report),
            fatal_ns: nanoseconds(self.abort),
            running: (0..cpus).map(|_| Running::new()).collect(),
        }
    }
}

/// As a number; what does not fit is for ever.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
