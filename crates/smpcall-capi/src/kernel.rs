//! The instance of a C kernel: one, static, set up by `smpcall_init`; and what its boot code and its
//! idle loop call.

use core::ffi::c_int;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use smpcall::{Platform, Smp};

use crate::cpus;
use crate::mask;
use crate::misuse::{Misuse, Outcome, errno};
use crate::single::mask_of;
use crate::table::{self, RawPlatform, Table};
use crate::types::{Mask, RawMask, WORDS};

/// The core's instance.
pub(crate) type Instance = Smp<Table, WORDS>;

static SMP: Instance = Smp::new(Table);

const NEW: u32 = 0;
const BEGUN: u32 = 1;
const READY: u32 = 2;

/// How far `smpcall_init` is.
static STATE: AtomicU32 = AtomicU32::new(NEW);

/// Runs `f` with the instance, once it is set up.
pub(crate) fn with<R>(f: impl FnOnce(&Instance) -> Outcome<R>) -> Outcome<R> {
    // ORDERING: Acquire — the set-up is visible.
    if STATE.load(Ordering::Acquire) != READY {
        return Err(Misuse::NotBooted);
    }
    f(&SMP)
}

/// On a CPU that comes: there is one instance, so nothing is kept.
pub(crate) fn cpu_starts() {}

/// Says something to the operator.
pub(crate) fn report(message: fmt::Arguments<'_>) {
    report_as_is(format_args!("smpcall: {message}"));
}

/// As [`report`], for a line that says itself whose it is.
pub(crate) fn report_as_is(line: fmt::Arguments<'_>) {
    table::report(line);
}

/// One turn of a waiting loop of C's.
pub(crate) fn pause() {
    Table.relax(0);
}

/// Rust's panics: a rule of the library itself was broken.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    table::fatal(format_args!("smpcall: {info}"))
}

/// See `smpcall/platform.h`.
///
/// # Safety
/// 1. The table is null or stays valid for ever, and its callbacks do what the header says. 2. The
///    masks are null or valid.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smpcall_init(
    platform: *const RawPlatform,
    possible: *const RawMask,
    present: *const RawMask,
) -> c_int {
    // SAFETY: 1.
    let platform = unsafe { platform.as_ref() }.ok_or(Misuse::Null("the platform"));
    // SAFETY: 1 — 2.
    let possible = unsafe { mask_of(possible) };
    // SAFETY: 1 — 2.
    let present = unsafe { mask_of(present) };
    errno(platform.and_then(|platform| init(platform, &possible?, &present?)))
}

fn init(platform: &'static RawPlatform, possible: &Mask, present: &Mask) -> Outcome {
    if let Some(name) = platform.missing() {
        if platform.report.is_some() {
            table::set(platform);
            report(format_args!("smpcall_init: the platform has no {name}"));
        }
        return Err(Misuse::Bad("the platform has not all callbacks"));
    }
    // ORDERING: Acquire and Release — one caller gets through; pairs with the stores below.
    let first = STATE.compare_exchange(NEW, BEGUN, Ordering::AcqRel, Ordering::Relaxed);
    if first.is_err() {
        return Err(Misuse::AlreadyBooted);
    }
    table::set(platform);
    let params = cpus::params();
    let boot = SMP.current_cpu();
    let is_present = |cpu| present.and(possible).contains(cpu) && cpu.get() < params.nr_cpus;
    let Some(boot) = boot.filter(|&boot| is_present(boot)) else {
        report(format_args!(
            "smpcall_init: the caller is not one of the present CPUs"
        ));
        // ORDERING: Release — as above; another try may have better masks.
        STATE.store(NEW, Ordering::Release);
        return Err(Misuse::Bad("the caller is not one of the present CPUs"));
    };
    SMP.register(&cpus::CALLBACKS)?;
    SMP.init(possible, present, &params);
    cpus::publish(&SMP);
    mask::comes_online(boot);
    // ORDERING: Release — the set-up is visible to who finds it ready.
    STATE.store(READY, Ordering::Release);
    Ok(())
}

/// See `smpcall/platform.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_online_this_cpu() -> bool {
    SMP.online_this_cpu()
}

/// See `smpcall/platform.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_is_asked_to_leave() -> bool {
    SMP.is_asked_to_leave()
}

/// See `smpcall/platform.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_leave_if_asked() -> bool {
    SMP.leave_if_asked()
}

/// See `smpcall/platform.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_has_tasks() -> bool {
    SMP.has_tasks()
}

/// See `smpcall/platform.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_run_tasks() -> bool {
    SMP.run_tasks()
}

/// See `smpcall/platform.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_has_pending() -> bool {
    SMP.has_pending()
}
