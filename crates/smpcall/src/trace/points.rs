//! Where the core says what happens: one look at the platform's tracer for each event.
//!
//! A platform that answers `None` by a constant pays nothing. One that answers at run time pays a look
//! and a branch while no tracer is given: what comes after it is out of line, so that it takes no
//! registers from the paths it stands in.

use crate::cpu::{CpuId, CpuMask};
use crate::platform::Platform;
use crate::smp::Smp;
use crate::stall::NameFn;
use crate::sync::Ordering;
use crate::trace::TraceKind;

impl<P: Platform, const W: usize, const D: usize> Smp<P, W, D> {
    /// A call of an `F` is about to be published.
    #[inline(always)]
    pub(crate) fn trace_queue<F>(&self, to: CpuId, request: usize) {
        if self.platform.is_traced() {
            let name = Some(core::any::type_name::<F> as NameFn);
            self.trace_here(TraceKind::Queue(to), name, request);
        }
    }

    /// A call was taken back.
    #[inline(always)]
    pub(crate) fn trace_refuse(&self, to: CpuId) {
        if self.platform.is_traced() {
            self.trace_here(TraceKind::Refuse(to), None, 0);
        }
    }

    /// A CPU is interrupted or woken.
    #[inline(always)]
    pub(crate) fn trace_send(&self, to: CpuId) {
        if self.platform.is_traced() {
            self.trace_here(TraceKind::Send(to), None, 0);
        }
    }

    /// An event of the CPU or thread that executes.
    #[cold]
    #[inline(never)]
    fn trace_here(&self, kind: TraceKind, function: Option<NameFn>, request: usize) {
        let from = self.platform.current_cpu();
        note(&self.platform, from, kind, function, request);
    }

    /// Several CPUs are interrupted.
    #[inline(always)]
    pub(crate) fn trace_send_mask(&self, to: &CpuMask<W>) {
        if self.platform.is_traced() {
            to.iter().for_each(|cpu| self.trace_send(cpu));
        }
    }

    /// A CPU looks for calls.
    #[inline(always)]
    pub(crate) fn trace_drain(&self, me: CpuId) {
        if self.platform.is_traced() {
            self.count_drain(me);
        }
    }

    #[cold]
    #[inline(never)]
    fn count_drain(&self, me: CpuId) {
        if let Some(tracer) = self.platform.tracer() {
            let buffer = &tracer.buffers[tracer.index(Some(me))];
            // ORDERING: Relaxed — a statistic.
            buffer.drains.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes an event down.
#[cold]
#[inline(never)]
pub(crate) fn note<P: Platform>(
    platform: &P,
    cpu: Option<CpuId>,
    kind: TraceKind,
    function: Option<NameFn>,
    request: usize,
) {
    if let Some(tracer) = platform.tracer() {
        tracer.record(cpu, platform.now_ns(), kind, function, request);
    }
}
