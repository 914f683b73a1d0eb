//! Calls to many CPUs.

use core::ffi::{c_int, c_void};

use smpcall::{CallError, CpuId, PostManyError};

use crate::instance::{self, Instance};
use crate::misuse::{Misuse, Outcome, errno, say};
use crate::single::{call_of, mask_of, post};
use crate::types::{Call, CondFunc, Mask, RawMask, SmpCallFunc, WORDS};

/// Which online CPUs are meant.
#[derive(Clone, Copy)]
enum Who {
    /// All but this one.
    Others,
    /// Those of the mask but this one.
    OthersOf(Mask),
    /// All.
    All,
    /// Those of the mask.
    AllOf(Mask),
    /// Those that C says yes to.
    AllThat(Cond),
}

/// C's predicate.
#[derive(Clone, Copy)]
struct Cond {
    func: CondFunc,
    info: *mut c_void,
}

impl Cond {
    fn holds(self, cpu: CpuId) -> bool {
        // SAFETY: 2 of `on_each_cpu_cond` — C promised a predicate that takes this argument.
        unsafe { (self.func)(cpu.get() as c_int, self.info) }
    }
}

#[expect(
    clippy::fn_params_excessive_bools,
    reason = "the seed's own parameter, decided here once"
)]
fn spread(who: Outcome<Who>, call: Outcome<Call>, wait: bool) -> Outcome {
    let (who, call) = (who?, call?);
    instance::with(|smp| match wait {
        true => waited(smp, who, call),
        false => posted(smp, who, call),
    })
}

fn waited(smp: &Instance, who: Who, call: Call) -> Outcome {
    let run = move |_| call.run();
    let ran = match who {
        Who::Others => smp.call_others(run),
        Who::OthersOf(mask) => smp.call_many(&mask, run),
        Who::All => smp.on_each_cpu(run),
        Who::AllOf(mask) => smp.on_each_cpu_mask(&mask, run),
        Who::AllThat(cond) => smp.on_each_cpu_cond(|cpu| cond.holds(cpu), run),
    };
    Ok(ran.map(drop)?)
}

fn posted(smp: &Instance, who: Who, call: Call) -> Outcome {
    let run = move |_| call.run();
    let posted = match who {
        Who::Others => smp.post_others(run),
        Who::OthersOf(mask) => smp.post_many(&mask, run),
        Who::All => smp.post_each(run),
        Who::AllOf(mask) => smp.post_each_mask(&mask, run),
        Who::AllThat(cond) => smp.post_each_cond(|cpu| cond.holds(cpu), run),
    };
    posted.map(drop).or_else(|error| again(smp, &error, call))
}

/// Posts once more to the CPUs that had no room, waiting for it where that is allowed.
fn again<F>(smp: &Instance, error: &PostManyError<F, WORDS>, call: Call) -> Outcome {
    let mut full = Mask::EMPTY;
    for cpu in &error.full {
        match post(smp, cpu, call) {
            // It left meanwhile: a mask form leaves it out.
            Ok(()) | Err(Misuse::Call(CallError::Offline { .. })) => {}
            Err(_) => drop(full.insert(cpu)),
        }
    }
    if full.is_empty() {
        return Ok(());
    }
    Err(Misuse::NoRoom(full))
}

/// The CPUs that a predicate of C's chooses.
fn all_that(func: Option<CondFunc>, info: *mut c_void) -> Outcome<Who> {
    let func = func.ok_or(Misuse::Null("the predicate"))?;
    Ok(Who::AllThat(Cond { func, info }))
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. The function may be called with `info` on those CPUs; without `wait`, later. 2. The mask is
///    null or valid.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smpcall_function_many(
    mask: *const RawMask,
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: bool,
) -> c_int {
    // SAFETY: 1 — 2.
    let mask = unsafe { mask_of(mask) };
    errno(spread(mask.map(Who::OthersOf), call_of(func, info), wait))
}

/// See `smpcall.h`.
///
/// # Safety
/// 1, 2. As [`smpcall_function_many`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smp_call_function_many(
    mask: *const RawMask,
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: bool,
) {
    // SAFETY: 1 — 2.
    let mask = unsafe { mask_of(mask) };
    let outcome = spread(mask.map(Who::OthersOf), call_of(func, info), wait);
    say("smp_call_function_many", outcome);
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. As [`smpcall_function_many`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smp_call_function(
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: c_int,
) -> c_int {
    errno(spread(Ok(Who::Others), call_of(func, info), wait != 0))
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. As [`smpcall_function_many`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn on_each_cpu(
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: c_int,
) -> c_int {
    errno(spread(Ok(Who::All), call_of(func, info), wait != 0))
}

/// See `smpcall.h`.
///
/// # Safety
/// 1, 2. As [`smpcall_function_many`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smpcall_on_each_cpu_mask(
    mask: *const RawMask,
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: bool,
) -> c_int {
    // SAFETY: 1 — 2.
    let mask = unsafe { mask_of(mask) };
    errno(spread(mask.map(Who::AllOf), call_of(func, info), wait))
}

/// See `smpcall.h`.
///
/// # Safety
/// 1, 2. As [`smpcall_function_many`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn on_each_cpu_mask(
    mask: *const RawMask,
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: bool,
) {
    // SAFETY: 1 — 2.
    let mask = unsafe { mask_of(mask) };
    let outcome = spread(mask.map(Who::AllOf), call_of(func, info), wait);
    say("on_each_cpu_mask", outcome);
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. As [`smpcall_function_many`]. 2. The predicate may be called here with `info`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smpcall_on_each_cpu_cond(
    cond_func: Option<CondFunc>,
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: bool,
    _gfp_flags: u32,
) -> c_int {
    errno(spread(all_that(cond_func, info), call_of(func, info), wait))
}

/// See `smpcall.h`.
///
/// # Safety
/// 1, 2. As [`smpcall_on_each_cpu_cond`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn on_each_cpu_cond(
    cond_func: Option<CondFunc>,
    func: Option<SmpCallFunc>,
    info: *mut c_void,
    wait: bool,
    _gfp_flags: u32,
) {
    let outcome = spread(all_that(cond_func, info), call_of(func, info), wait);
    say("on_each_cpu_cond", outcome);
}

fn kick() -> Outcome {
    instance::with(|smp| Ok(smp.kick_all_cpus_sync().map(drop)?))
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_kick_all_cpus_sync() -> c_int {
    errno(kick())
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn kick_all_cpus_sync() {
    say("kick_all_cpus_sync", kick());
}
