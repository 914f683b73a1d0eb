//! Calls to one CPU.

use core::ffi::{c_int, c_uint, c_void};

use smpcall::{CallError, CpuId, Refused};

use crate::instance::{self, Instance};
use crate::misuse::{Misuse, Outcome, errno};
use crate::types::{Call, Mask, OnCpuFunc, RawMask, SmpCallFunc};

/// The call, if there is a function.
pub(crate) fn call_of(func: Option<SmpCallFunc>, info: *mut c_void) -> Outcome<Call> {
    let func = func.ok_or(Misuse::Null("the function"))?;
    Ok(Call { func, info })
}

/// The CPU with this number; one below 0 is a number that no CPU has.
pub(crate) fn id(cpu: c_int) -> CpuId {
    CpuId::new(cpu as u32)
}

/// A copy of C's mask.
///
/// # Safety
/// 1. The pointer is null, or points to a mask that nobody writes but by atomic operations.
pub(crate) unsafe fn mask_of(mask: *const RawMask) -> Outcome<Mask> {
    // SAFETY: 1.
    let mask = unsafe { mask.as_ref() };
    mask.map(RawMask::load).ok_or(Misuse::Null("the mask"))
}

/// Posts to one CPU, waiting for room where that is allowed, as the seed does everywhere.
pub(crate) fn post(smp: &Instance, cpu: CpuId, call: Call) -> Outcome {
    smp.post_wait(cpu, move || call.run()).map_err(no_room(cpu))
}

/// `post_wait` refuses a context only when it would have to wait: then there is no room.
fn no_room<F>(cpu: CpuId) -> impl FnOnce(Refused<F>) -> Misuse {
    move |refused| match refused.error {
        CallError::InHandler | CallError::InterruptsOff => Misuse::NoRoom(Mask::of(cpu)),
        error => error.into(),
    }
}

#[expect(
    clippy::fn_params_excessive_bools,
    reason = "the seed's own parameter, decided here once"
)]
fn single(cpu: c_int, call: Outcome<Call>, wait: bool) -> Outcome {
    let (cpu, call) = (id(cpu), call?);
    instance::with(|smp| match wait {
        true => Ok(smp.call(cpu, move || call.run())?),
        false => post(smp, cpu, call),
    })
}

#[expect(
    clippy::fn_params_excessive_bools,
    reason = "the seed's own parameter, decided here once"
)]
fn any(mask: Outcome<Mask>, call: Outcome<Call>, wait: bool) -> Outcome {
    let (mask, call) = (mask?, call?);
    instance::with(|smp| match wait {
        true => Ok(smp.call_any(&mask, move || call.run()).map(drop)?),
        false => post_any(smp, &mask, call),
    })
}

/// As [`post`], to the CPU that `post_any` chooses. One that leaves while its room is waited for is
/// not the answer: another is chosen.
fn post_any(smp: &Instance, mask: &Mask, call: Call) -> Outcome {
    loop {
        let cpu = match smp.post_any(mask, move || call.run()) {
            Err(Refused {
                error: CallError::Full { cpu },
                ..
            }) => cpu,
            other => return Ok(other.map(drop)?),
        };
        match post(smp, cpu, call) {
            Err(Misuse::Call(CallError::Offline { .. })) => {}
            other => return other,
        }
    }
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. The function may be called with `info` on that CPU; without `wait`, later.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smp_call_function_single(
    cpu: c_int,
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: c_int,
) -> c_int {
    errno(single(cpu, call_of(func, info), wait != 0))
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. As [`smp_call_function_single`]. 2. The mask is null or valid.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smp_call_function_any(
    mask: *const RawMask,
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: c_int,
) -> c_int {
    // SAFETY: 1 — 2.
    let mask = unsafe { mask_of(mask) };
    errno(any(mask, call_of(func, info), wait != 0))
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. The function may be called with `par` on that CPU.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smp_call_on_cpu(
    cpu: c_uint,
    func: Option<OnCpuFunc>,
    par: *mut c_void,
    _phys: bool,
) -> c_int {
    /// The function and its argument, for another CPU.
    struct Work(OnCpuFunc, *mut c_void);
    // SAFETY: 1 of `smp_call_on_cpu`.
    unsafe impl Send for Work {}
    impl Work {
        fn run(self) -> c_int {
            // SAFETY: 1 of `smp_call_on_cpu`.
            unsafe { (self.0)(self.1) }
        }
    }
    let Some(func) = func else {
        return Misuse::Null("the function").errno();
    };
    let work = Work(func, par);
    let run = |smp: &Instance| Ok(smp.run_on_cpu(CpuId::new(cpu), move || work.run())?);
    instance::with(run).unwrap_or_else(Misuse::errno)
}
