//! What a thread knows of itself: which CPU of which machine it is, and whether its soft
//! interrupts are on.
//!
//! The words are atomics because a signal's handler on the same thread reads them (`preempt.rs`);
//! nobody else does, so they order nothing.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::mask::SoftMask;
use crate::platform::Hosted;

thread_local! {
    static MACHINE: AtomicPtr<Hosted> = const { AtomicPtr::new(ptr::null_mut()) };
    static CPU: AtomicU32 = const { AtomicU32::new(0) };
    static IRQS: SoftMask = const { SoftMask::new() };
    static IN_JOB: Cell<bool> = const { Cell::new(false) };
}

/// This thread is CPU `cpu` of the machine with this platform from here on, and keeps the machine
/// alive until [`resign`].
///
/// Interrupts are off, or the CPU is not yet online.
pub(crate) fn become_cpu(platform: &Hosted, cpu: u32) {
    // ORDERING: Relaxed — the thread's own words, here and below.
    CPU.with(|own| own.store(cpu, Ordering::Relaxed));
    MACHINE.with(|own| own.store(ptr::from_ref(platform).cast_mut(), Ordering::Relaxed));
    if let Some(preemption) = &platform.preemption {
        preemption.enter(cpu);
    }
}

/// This thread is no CPU any more. It has left.
pub(crate) fn resign() {
    if let Some((platform, cpu)) = current()
        && let Some(preemption) = &platform.preemption
    {
        preemption.leave(cpu);
    }
    MACHINE.with(|own| own.store(ptr::null_mut(), Ordering::Relaxed));
    irqs_restore(true);
}

/// The platform and the CPU that this thread is.
pub(crate) fn current() -> Option<(&'static Hosted, u32)> {
    let machine = MACHINE.with(|own| own.load(Ordering::Relaxed));
    // SAFETY: a thread that is a CPU keeps its machine alive, and whoever asks is that thread and
    // does not keep the answer beyond its time as a CPU.
    let platform = unsafe { machine.as_ref() }?;
    Some((platform, CPU.with(|own| own.load(Ordering::Relaxed))))
}

/// The platform of the machine that this thread is a CPU of, if that is another one.
pub(crate) fn elsewhere(platform: &Hosted) -> Option<&'static Hosted> {
    current()
        .map(|(own, _)| own)
        .filter(|own| !ptr::eq(*own, platform))
}

/// A job begins on this thread; answers whether one was running.
pub(crate) fn enter_job() -> bool {
    IN_JOB.replace(true)
}

/// Undoes [`enter_job`].
#[expect(
    clippy::fn_params_excessive_bools,
    reason = "the answer of `enter_job`, given back"
)]
pub(crate) fn leave_job(outer: bool) {
    IN_JOB.set(outer);
}

/// Is a job running on this thread?
pub(crate) fn in_job() -> bool {
    IN_JOB.get()
}

/// Which CPU of that machine this thread is.
#[inline]
pub(crate) fn current_of(platform: &Hosted) -> Option<u32> {
    let machine = MACHINE.with(|own| own.load(Ordering::Relaxed));
    ptr::eq(machine, platform).then(|| CPU.with(|own| own.load(Ordering::Relaxed)))
}

/// Turns soft interrupts off; answers whether they were on.
#[inline]
pub(crate) fn irqs_save() -> bool {
    IRQS.with(SoftMask::save)
}

/// Undoes [`irqs_save`]; what arrived meanwhile is served now.
#[inline]
#[expect(
    clippy::fn_params_excessive_bools,
    reason = "the answer of `irqs_save`, given back"
)]
pub(crate) fn irqs_restore(were_on: bool) {
    if were_on {
        IRQS.with(|irqs| irqs.restore(serve));
    }
}

/// Are soft interrupts on?
#[inline]
pub(crate) fn irqs_enabled() -> bool {
    IRQS.with(SoftMask::is_on)
}

/// The thread was interrupted: takes its CPU's calls now, or when interrupts are on again.
pub(crate) fn interrupted() {
    IRQS.with(|irqs| irqs.interrupt(serve));
}

/// Takes the calls of the CPU that this thread is, with interrupts off.
fn serve() {
    if let Some((platform, _)) = current() {
        platform.serve_interrupt();
    }
}
