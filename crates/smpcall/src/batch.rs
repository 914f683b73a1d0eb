//! A waited broadcast of who has neither mailbox lines nor a broadcast record to spare: a thread that is
//! no CPU, or a call within a call.
//!
//! Each target gets a record in its queue, as a single call of such a thread does. The records are on
//! the caller's stack, so there are a few at a time, and the local run overlaps the first of them.
//! Neighbours: `fan_out` decides; `record` is what is queued.

use crate::cpu::{CpuId, CpuMask};
use crate::fan_out::Shared;
use crate::job::Outcome;
use crate::panics::PanicSlot;
use crate::platform::Platform;
use crate::record::Record;
use crate::smp::{Smp, Waiter};
use crate::stall::Suspect;

/// A record of a batch, with its target.
type Queued<F, P> = Option<(CpuId, Record<F, Outcome<P, ()>>)>;

/// How many records are on the caller's stack at a time.
const BATCH: usize = 16;

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// Runs the function on the targets, a batch at a time, and `run_local` here beside the first;
    /// answers where it ran.
    #[cold]
    pub(crate) fn queue_in_batches<F>(
        &self,
        waiter: Waiter,
        targets: &CpuMask<W>,
        shared: &Shared<F, P>,
        mut run_local: Option<impl FnOnce(&F, &PanicSlot<P>)>,
    ) -> CpuMask<W>
    where
        F: Fn(CpuId) + Sync,
    {
        let mut ran = CpuMask::EMPTY;
        let mut rest = targets.iter();
        loop {
            let mut batch = [const { None }; BATCH];
            let mut queued = 0;
            for cpu in rest.by_ref().take(BATCH) {
                let f = &shared.f;
                batch[queued] = Some((cpu, Record::<_, Outcome<P, ()>>::new(move || f(cpu))));
                queued += 1;
            }
            if queued == 0 {
                return ran;
            }
            let meanwhile = || shared.run(run_local.take());
            ran = ran.or(&self.run_batch(waiter, &batch[..queued], meanwhile));
            for (cpu, record) in batch.into_iter().flatten() {
                if ran.contains(cpu)
                    // SAFETY: 1 — `run_batch` waited for it.
                    && let Err(panic) = unsafe { record.into_outcome() }
                {
                    shared.panics.put(&self.platform, cpu, panic);
                }
            }
        }
    }

    /// Queues the records of a batch, runs `meanwhile`, and waits for all that were accepted.
    fn run_batch<F: FnOnce()>(
        &self,
        waiter: Waiter,
        batch: &[Queued<F, P>],
        meanwhile: impl FnOnce(),
    ) -> CpuMask<W> {
        let mut ran = CpuMask::EMPTY;
        for (cpu, record) in batch.iter().flatten() {
            let area = self.own(*cpu);
            self.trace_queue::<F>(*cpu, record.request());
            // SAFETY: 1 — new, and waited for below, before the caller's borrow ends; 2 — our queue.
            let pushed = unsafe { record.push::<P, ()>(&area.queues.waited) };
            if self.announce_waited(*cpu, area, pushed) {
                ran.insert(*cpu);
            }
        }
        meanwhile();
        for (cpu, record) in batch.iter().flatten().filter(|(cpu, _)| ran.contains(*cpu)) {
            let suspect = Suspect::running(*cpu, record.request());
            self.wait_for(waiter, suspect, || record.is_done());
        }
        ran
    }
}
