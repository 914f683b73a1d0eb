//! Waits that take long: who is waited for, why, and for how long.
//!
//! Nothing here is on a fast path: a waiter comes here after thousands of turns. The first look
//! starts the clock; after the limit the culprit is named and kicked once more, for an
//! interrupt may have been lost; reports repeat at growing intervals, and the end is announced.
//! A report never ends a wait: the target may still use what the caller lent.

use crate::cpu::CpuId;
use crate::platform::{Platform, Report, Stall, StallCause};
use crate::smp::{Smp, Waiter};

/// A wait that takes long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StallClock {
    since_ns: u64,
    next_ns: u64,
    reports: u32,
}

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Looks at the clock, and reports when it is time.
    #[cold]
    pub(crate) fn check_stall(
        &self,
        waiter: Waiter,
        culprit: CpuId,
        clock: &mut Option<StallClock>,
    ) {
        let now = self.platform.now_ns();
        let limit = P::STALL_LIMIT_NS;
        let clock = clock.get_or_insert(StallClock {
            since_ns: now,
            next_ns: now + limit,
            reports: 0,
        });
        if limit == 0 || now < clock.next_ns {
            return;
        }
        clock.reports += 1;
        clock.next_ns = now + limit * u64::from(clock.reports + 1);
        let area = self.own(culprit);
        let cause = if area.local.in_handler() {
            StallCause::EarlierRequest
        } else {
            StallCause::Unresponsive
        };
        self.platform.report(Report::Stall(Stall {
            waiter: waiter.me,
            culprit,
            waited_ns: now.saturating_sub(clock.since_ns),
            cause,
            caller: waiter.caller,
        }));
        if clock.reports == 1 {
            self.platform.send_ipi(culprit);
        }
    }

    /// Says that a reported wait has ended.
    #[cold]
    pub(crate) fn announce_recovery(&self, cpu: CpuId, clock: StallClock) {
        if clock.reports > 0 {
            let waited_ns = self.platform.now_ns().saturating_sub(clock.since_ns);
            self.platform.report(Report::Recovered { cpu, waited_ns });
        }
    }
}
