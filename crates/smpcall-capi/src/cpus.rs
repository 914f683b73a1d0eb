//! Which CPUs there are: the seed's variables, boot parameters, up and down.

use core::ffi::{c_char, c_int, c_uint};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use smpcall::{BootParams, CpuCallbacks, CpuId};

use crate::callbacks;
use crate::instance::{self, Instance};
use crate::mask;
use crate::misuse::{Misuse, Outcome, errno, say};
use crate::types::NR_CPUS;

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) static nr_cpu_ids: AtomicI32 = AtomicI32::new(NR_CPUS as i32);

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) static setup_max_cpus: AtomicU32 = AtomicU32::new(NR_CPUS);

/// What `nr_cpus=` said.
static MAX_IDS: AtomicU32 = AtomicU32::new(NR_CPUS);

/// What the live masks and C's own callbacks follow.
pub(crate) static CALLBACKS: CpuCallbacks = CpuCallbacks {
    name: "smpcall-capi",
    prepare: callbacks::prepare,
    starting: |cpu| {
        instance::cpu_starts();
        callbacks::starting(cpu);
        mask::comes_online(cpu);
    },
    dying: |cpu| {
        callbacks::dying(cpu);
        mask::goes_offline(cpu);
    },
    dead: callbacks::dead,
};

/// The parameters that were given before boot.
pub(crate) fn params() -> BootParams {
    BootParams {
        // ORDERING: Relaxed — set before boot, by whoever boots.
        max_cpus: setup_max_cpus.load(Ordering::Relaxed),
        nr_cpus: MAX_IDS.load(Ordering::Relaxed),
        clamped_from: None,
    }
}

/// Shows C which CPUs a new instance has.
pub(crate) fn publish(smp: &Instance) {
    mask::POSSIBLE.store(&smp.possible_cpus());
    mask::PRESENT.store(&smp.present_cpus());
    set_nr_cpu_ids(smp.nr_cpu_ids());
}

/// Shows C that there are none any more.
#[cfg(not(target_os = "none"))]
pub(crate) fn retract() {
    mask::POSSIBLE.store(&crate::types::Mask::EMPTY);
    mask::PRESENT.store(&crate::types::Mask::EMPTY);
    set_nr_cpu_ids(NR_CPUS);
}

fn set_nr_cpu_ids(ids: u32) {
    // ORDERING: Relaxed — a number; calls check ids by themselves.
    nr_cpu_ids.store(ids as i32, Ordering::Relaxed);
}

/// Brings up the present CPUs until there are enough; answers the first that failed. The core's own
/// `bring_up` has the limit of its set-up, where the seed's is a variable.
pub(crate) fn bring_up(smp: &Instance) -> Result<(), (CpuId, Misuse)> {
    // ORDERING: Relaxed — as `params`.
    let enough = setup_max_cpus.load(Ordering::Relaxed) as usize;
    let mut result = Ok(());
    for cpu in &smp.present_cpus() {
        if smp.num_online_cpus() >= enough {
            break;
        }
        if !smp.is_online(cpu)
            && let Err(error) = smp.cpu_up(cpu)
        {
            result = result.and(Err((cpu, error.into())));
        }
    }
    result
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smp_init() {
    let outcome = instance::with(|smp| {
        if let Err((cpu, misuse)) = bring_up(smp) {
            instance::report(format_args!("CPU {cpu} did not come up: {misuse}"));
        }
        instance::report(format_args!("Brought up {} CPUs", smp.num_online_cpus()));
        Ok(())
    });
    say("smp_init", outcome);
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn setup_nr_cpu_ids() {
    let outcome = instance::with(|smp| {
        set_nr_cpu_ids(smp.nr_cpu_ids());
        Ok(())
    });
    say("setup_nr_cpu_ids", outcome);
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn call_function_init() {
    say("call_function_init", instance::with(|_| Ok(())));
}

/// See `smpcall.h`.
///
/// # Safety
/// 1. The text is null, or ends with a NUL.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn smpcall_early_param(cmdline: *const c_char) -> c_int {
    // SAFETY: 1.
    errno(unsafe { mask::text(cmdline) }.and_then(set_params))
}

fn set_params(cmdline: &str) -> Outcome {
    match BootParams::parse(cmdline, NR_CPUS) {
        Ok(params) => {
            if let Some(notice) = params.notice() {
                instance::report_as_is(format_args!("{notice}"));
            }
            // ORDERING: Relaxed — as `params`.
            setup_max_cpus.store(params.max_cpus.min(NR_CPUS), Ordering::Relaxed);
            MAX_IDS.store(params.nr_cpus, Ordering::Relaxed);
            Ok(())
        }
        Err(bad) => {
            instance::report_as_is(format_args!("{bad}"));
            Err(Misuse::Bad("a boot parameter"))
        }
    }
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn cpu_up(cpu: c_uint) -> c_int {
    errno(instance::with(|smp| Ok(smp.cpu_up(CpuId::new(cpu))?)))
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn cpu_down(cpu: c_uint) -> c_int {
    errno(instance::with(|smp| Ok(smp.cpu_down(CpuId::new(cpu))?)))
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn num_online_cpus() -> c_uint {
    instance::with(|smp| Ok(smp.num_online_cpus() as c_uint)).unwrap_or(0)
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_processor_id() -> c_int {
    let me = instance::with(|smp| Ok(smp.current_cpu())).unwrap_or(None);
    me.map_or(-1, |me| me.get() as c_int)
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smp_processor_id() -> c_int {
    static SAID: AtomicBool = AtomicBool::new(false);
    let me = smpcall_processor_id();
    // ORDERING: Relaxed — said twice would do no harm.
    if me < 0 && !SAID.swap(true, Ordering::Relaxed) {
        instance::report(format_args!(
            "smp_processor_id: this thread is no CPU (the answer is -1; said once)"
        ));
    }
    me
}
