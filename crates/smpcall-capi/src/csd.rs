//! Descriptors that C owns.
//!
//! C's struct has the function, its argument and a flag word; the core's own descriptor is built in
//! its private words for the time of one post. The flag word is C's view of who has it all:
//!
//! ```text
//!           (1) lock, sender            (2) post_csd, sender
//!   flags 0 ───────────────▶ CSD_FLAG_LOCK ───────────────▶ queued
//!    ▲  ▲      refused │                                      │
//!    │  └──────────────┘    (3) unlock, target, before it runs │
//!    └─────────────────────────────────────────────────────────┘
//! ```
//!
//! The core copies what it runs and frees its own descriptor first, so at (3) nothing else in the
//! struct is in use: the function may queue it again, or free the memory. A call that waits locks the
//! flags too and unlocks them when it is through, and needs no core descriptor. Edge: E3 (3→1).
//!
//! A descriptor that is queued is waited for where the seed waits: `csd_lock` in
//! `__smp_call_function_single`. DIVERGES: not in a called function nor with interrupts off, for the
//! CPU that waits could be the one that must run it; there it is refused and named.

use core::ffi::c_int;
use core::pin::Pin;
use core::sync::atomic::Ordering;

use smpcall::{CallError, CpuId, Csd, Platform};

use crate::instance::{self, Instance};
use crate::misuse::{Misuse, Outcome, errno, say};
use crate::single::{call_of, id};
use crate::types::{CSD_FLAG_LOCK, Call, CallSingleData, Mask, PRIVATE_WORDS};

/// How long a wait for a descriptor is silent.
const PATIENCE_NS: u64 = 5_000_000_000;

/// A descriptor's address, for the CPU that runs it.
#[derive(Clone, Copy)]
struct Queued(*const CallSingleData);

// SAFETY: the flag word hands the descriptor from one side to the other.
unsafe impl Send for Queued {}

impl Queued {
    /// (3), then the function.
    fn run(self) {
        // SAFETY: queued descriptors stay valid until (3), which is below.
        let csd = unsafe { &*self.0 };
        let call = csd.call();
        csd.unlock();
        // A function that C took out of a queued descriptor: it was there when it was queued.
        if let Ok(call) = call {
            call.run();
        }
    }
}

impl CallSingleData {
    /// What is to be run.
    fn call(&self) -> Outcome<Call> {
        // SAFETY: C does not write it while it is locked, or while it calls.
        let func = unsafe { *self.func.get() };
        // SAFETY: as above.
        call_of(func, unsafe { *self.info.get() })
    }

    /// (1); `false`: it is queued.
    fn try_lock(&self) -> bool {
        // ORDERING: Acquire — the last target's use of the descriptor is over (E3).
        self.flags.fetch_or(CSD_FLAG_LOCK, Ordering::Acquire) & CSD_FLAG_LOCK == 0
    }

    /// (3), or a sender that was refused. It may be gone at once.
    fn unlock(&self) {
        // ORDERING: Release — our use of the descriptor is over; pairs with `try_lock` (E3).
        self.flags.store(0, Ordering::Release);
    }

    /// (1), waiting for it: on a CPU that serves its own calls meanwhile.
    fn lock(&self, smp: &Instance) -> Outcome {
        let mut spins = 0_u32;
        let mut said_at = smp.platform().now_ns();
        while !self.try_lock() {
            // A call to nobody is refused where waiting is.
            smp.call_many(&Mask::EMPTY, |_| ())?;
            smp.poll();
            smp.platform().relax(spins);
            spins = spins.saturating_add(1);
            if smp.platform().now_ns().saturating_sub(said_at) > PATIENCE_NS {
                said_at = smp.platform().now_ns();
                instance::report(format_args!(
                    "a descriptor that is to be queued again is still queued: its CPU takes no calls"
                ));
            }
        }
        Ok(())
    }

    /// (2), with the descriptor locked.
    fn post_locked(&self, smp: &Instance, cpu: CpuId) -> Outcome {
        let queued = Queued(self);
        // SAFETY: 1, 2 — locked: the private words are ours, and stay C's memory until `run`
        // unlocks it, after the core has freed its descriptor.
        let posted = unsafe { post_in(smp, cpu, self.private.get().cast(), move || queued.run()) };
        if posted.is_err() {
            self.unlock();
        }
        Ok(posted?)
    }
}

/// Posts a core descriptor that is built in someone's memory.
///
/// # Safety
/// 1. The place is as large as C's private words, and the caller's alone.
/// 2. It stays valid and untouched until `f` runs, or the post is refused.
unsafe fn post_in<F>(smp: &Instance, cpu: CpuId, place: *mut u8, f: F) -> Result<(), CallError>
where
    F: Fn() + Copy + Send + 'static,
{
    const {
        assert!(size_of::<Csd<F>>() <= size_of::<[*mut (); PRIVATE_WORDS]>());
        assert!(align_of::<Csd<F>>() <= align_of::<*mut ()>());
    }
    let place = place.cast::<Csd<F>>();
    // SAFETY: 1. Nobody drops it: it has nothing to drop when it is free.
    unsafe { place.write(Csd::new(f)) };
    // SAFETY: 1 — written just now.
    let csd = unsafe { &*place };
    // SAFETY: 2 — it does not move, and is not dropped.
    smp.post_csd(cpu, unsafe { Pin::new_unchecked(csd) })
}

/// What to do with a descriptor that is queued already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfQueued {
    Wait,
    Refuse,
}

/// Locks it as asked.
fn lock(smp: &Instance, csd: &CallSingleData, if_queued: IfQueued) -> Outcome {
    match if_queued {
        IfQueued::Wait => csd.lock(smp),
        IfQueued::Refuse if csd.try_lock() => Ok(()),
        IfQueued::Refuse => Err(CallError::Busy.into()),
    }
}

/// The form that does not wait for its function.
///
/// # Safety
/// 1. The descriptor is null, or valid until it ran.
unsafe fn post(cpu: c_int, csd: *const CallSingleData, if_queued: IfQueued) -> Outcome {
    // SAFETY: 1.
    let csd = unsafe { csd.as_ref() }.ok_or(Misuse::Null("the descriptor"))?;
    let call = csd.call()?;
    instance::with(|smp| {
        let cpu = id(cpu);
        let local = smp.current_cpu() == Some(cpu);
        // The seed runs a local one inline whether or not it is queued elsewhere.
        if local && if_queued == IfQueued::Wait {
            return crate::single::post(smp, cpu, call);
        }
        lock(smp, csd, if_queued)?;
        csd.post_locked(smp, cpu)
    })
}

/// The form that waits for its function.
///
/// # Safety
/// 1. The descriptor is null, or valid until this returns.
unsafe fn call(cpu: c_int, csd: *const CallSingleData) -> Outcome {
    // SAFETY: 1.
    let csd = unsafe { csd.as_ref() }.ok_or(Misuse::Null("the descriptor"))?;
    let call = csd.call()?;
    instance::with(|smp| {
        let cpu = id(cpu);
        if smp.current_cpu() == Some(cpu) {
            return Ok(smp.call(cpu, move || call.run())?);
        }
        // Before the lock, so that a refusal does not wait for it.
        if !smp.is_online(cpu) {
            smp.nudge(cpu)?;
        }
        csd.lock(smp)?;
        let result = smp.call(cpu, move || call.run());
        csd.unlock();
        Ok(result?)
    })
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. The descriptor is null, or valid until it ran; its function may run on that CPU.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __smp_call_function_single(
    cpu: c_int,
    csd: *mut CallSingleData,
    wait: c_int,
) {
    let outcome = if wait != 0 {
        // SAFETY: 1.
        unsafe { call(cpu, csd) }
    } else {
        // SAFETY: 1.
        unsafe { post(cpu, csd, IfQueued::Wait) }
    };
    say("__smp_call_function_single", outcome);
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. As [`__smp_call_function_single`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smpcall_function_single_csd(
    cpu: c_int,
    csd: *mut CallSingleData,
    wait: c_int,
) -> c_int {
    errno(if wait != 0 {
        // SAFETY: 1.
        unsafe { call(cpu, csd) }
    } else {
        // SAFETY: 1.
        unsafe { post(cpu, csd, IfQueued::Refuse) }
    })
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. As [`__smp_call_function_single`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smp_call_function_single_async(
    cpu: c_int,
    csd: *mut CallSingleData,
) -> c_int {
    // SAFETY: 1.
    errno(unsafe { post(cpu, csd, IfQueued::Refuse) })
}
