//! What C does when CPUs come and go: the seed's notifier, as the core's callbacks.
//!
//! The core has one set of callbacks here, and this calls C's: in their order when a CPU comes, in
//! the reverse order when what they set up is undone.

use core::ffi::{c_int, c_uint};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use smpcall::{CpuId, HotplugError};

use crate::misuse::{Misuse, Outcome, errno};

/// `struct smpcall_cpu_callbacks`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RawCallbacks {
    prepare: Option<unsafe extern "C" fn(c_uint) -> c_int>,
    starting: Option<unsafe extern "C" fn(c_uint)>,
    dying: Option<unsafe extern "C" fn(c_uint)>,
    dead: Option<unsafe extern "C" fn(c_uint)>,
}

const SLOTS: usize = 16;

static REGISTERED: [AtomicPtr<RawCallbacks>; SLOTS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS];

/// The registered ones, in their order.
fn registered() -> impl DoubleEndedIterator<Item = &'static RawCallbacks> {
    REGISTERED.iter().filter_map(|slot| {
        // ORDERING: Acquire — the callbacks were written before they were registered; pairs with
        // `register`, as the core's own do (E17).
        let callbacks = slot.load(Ordering::Acquire);
        // SAFETY: only `register` stores here, what stays valid for ever.
        unsafe { callbacks.as_ref() }
    })
}

fn register(callbacks: &'static RawCallbacks) -> Outcome {
    let new = ptr::from_ref(callbacks).cast_mut();
    let free = REGISTERED.iter().find(|slot| {
        // ORDERING: Release — publishes the callbacks; pairs with `registered`.
        slot.compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    });
    free.map(drop)
        .ok_or(Misuse::Hotplug(HotplugError::TooManyCallbacks))
}

/// Before a CPU starts. One that refuses undoes those before it.
pub(crate) fn prepare(cpu: CpuId) -> Result<(), i32> {
    for (before, callbacks) in registered().enumerate() {
        let Some(prepare) = callbacks.prepare else {
            continue;
        };
        // SAFETY: C promised a function that takes a CPU, as it did for the others below.
        let code = unsafe { prepare(cpu.get()) };
        if code != 0 {
            undo(cpu, before);
            return Err(code);
        }
    }
    Ok(())
}

/// Undoes what the first `count` set up.
fn undo(cpu: CpuId, count: usize) {
    let all = registered().count();
    let dead = registered().rev().skip(all.saturating_sub(count));
    // SAFETY: as in `prepare`.
    dead.filter_map(|callbacks| callbacks.dead)
        .for_each(|dead| unsafe { dead(cpu.get()) });
}

/// On a CPU that comes.
pub(crate) fn starting(cpu: CpuId) {
    let starting = registered().filter_map(|callbacks| callbacks.starting);
    // SAFETY: as in `prepare`.
    starting.for_each(|starting| unsafe { starting(cpu.get()) });
}

/// On a CPU that leaves.
pub(crate) fn dying(cpu: CpuId) {
    let dying = registered().filter_map(|callbacks| callbacks.dying);
    // SAFETY: as in `prepare`.
    dying.for_each(|dying| unsafe { dying(cpu.get()) });
}

/// After a CPU is gone, or did not come.
pub(crate) fn dead(cpu: CpuId) {
    undo(cpu, SLOTS);
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. The callbacks are null, or stay valid and unchanged for ever, and may be called as the header
///    says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smpcall_register_cpu_callbacks(
    callbacks: *const RawCallbacks,
) -> c_int {
    // SAFETY: 1.
    let callbacks = unsafe { callbacks.as_ref() }.ok_or(Misuse::Null("the callbacks"));
    errno(callbacks.and_then(register))
}
