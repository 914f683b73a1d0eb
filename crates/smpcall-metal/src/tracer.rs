//! Where an image's trace goes: the feature `trace`.
//!
//! With it, each event of the core looks at one word first. While no tracer is given that is a load and a
//! branch that is never taken; without the feature it is nothing, for the platform answers `None`.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering, fence};

use smpcall::Tracer;

/// The tracer, or null.
static TRACER: AtomicPtr<Tracer<'static>> = AtomicPtr::new(ptr::null_mut());

/// From now on the events of all CPUs go to `tracer`; with `None` they go nowhere. An event that another
/// CPU is writing meanwhile may still go where the last one went. [`Tracer`] shows the storage: an image
/// has it, and a tracer over it, in statics.
pub fn set_tracer(tracer: Option<&'static Tracer<'static>>) {
    let tracer = tracer.map_or(ptr::null_mut(), |tracer| ptr::from_ref(tracer).cast_mut());
    // ORDERING: Release — publishes the tracer; pairs with the fence of `tracer`.
    TRACER.store(tracer, Ordering::Release);
}

/// Is there one? A load and a branch: whoever goes on asks for it by [`tracer`].
#[inline(always)]
pub(crate) fn is_given() -> bool {
    // ORDERING: Relaxed — nothing is read through it.
    !TRACER.load(Ordering::Relaxed).is_null()
}

/// The one that was given last.
#[inline(always)]
pub(crate) fn tracer() -> Option<Tracer<'static>> {
    // ORDERING: Relaxed — the fence below orders what is read through it, where it is not null.
    let tracer = TRACER.load(Ordering::Relaxed);
    if tracer.is_null() {
        return None;
    }
    // ORDERING: Acquire — what `set_tracer` was given is whole.
    fence(Ordering::Acquire);
    // SAFETY: 1. Not null, it comes from a reference that lives for ever.
    Some(unsafe { *tracer })
}
