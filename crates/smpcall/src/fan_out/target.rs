//! What a target does with a broadcast whose function stayed on the caller's stack.

use crate::cpu::CpuId;
use crate::fan_out::Shared;
use crate::mailbox::Payload;
use crate::platform::Platform;
use crate::queue::Context;
use crate::stall::run_named;

/// Runs a broadcast that came by mailbox.
///
/// # Safety
/// As [`MailFn`].
pub(super) unsafe fn run_mailed<P: Platform, F: Fn(CpuId) + Sync>(
    context: &Context,
    payload: *mut Payload,
) {
    // SAFETY: 1 of `MailFn` — `mail` published the address of a `Shared` with this function.
    let data = unsafe { *payload.cast::<*const ()>() };
    // SAFETY: 1, 2 — as above, and our own context.
    unsafe { run_shared::<P, F>(context, data, payload.addr()) };
}

/// Runs a broadcast that was requested.
///
/// # Safety
/// As [`crate::broadcast::BroadcastFn`].
pub(super) unsafe fn run_requested<P: Platform, F: Fn(CpuId) + Sync>(
    context: &Context,
    data: *const (),
) {
    // SAFETY: as this function.
    unsafe { run_shared::<P, F>(context, data, data.addr()) };
}

/// Runs a broadcast's function; `request` names it in reports.
///
/// # Safety
/// As [`crate::broadcast::BroadcastFn`].
#[inline]
unsafe fn run_shared<P: Platform, F: Fn(CpuId) + Sync>(
    context: &Context,
    data: *const (),
    request: usize,
) {
    // SAFETY: 1 of `BroadcastFn` — prepared with a `Shared` of this type, alive until we finish.
    let shared = unsafe { &*data.cast::<Shared<F, P>>() };
    // SAFETY: 2 of `BroadcastFn` — the context's platform.
    let platform = unsafe { &*context.platform.cast::<P>() };
    let run = || (shared.f)(context.cpu);
    if let Err(panic) = run_named::<P, F, ()>(platform, context.cpu, request, run) {
        shared.panics.put(platform, context.cpu, panic);
    }
}
