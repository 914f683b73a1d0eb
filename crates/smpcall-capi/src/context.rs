//! Interrupts, the points at which a CPU takes calls, and the IPI's entry.
//!
//! Before there is an instance nothing can interrupt, so these do nothing then.

use core::ffi::c_ulong;

use smpcall::Platform;

use crate::instance;

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_irq_save() -> c_ulong {
    instance::with(|smp| Ok(c_ulong::from(smp.platform().irqs_save()))).unwrap_or(1)
}

/// See `smpcall.h`. What came meanwhile is taken where interrupts do not do it by themselves.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_irq_restore(flags: c_ulong) {
    let _ = instance::with(|smp| {
        smp.platform().irqs_restore(flags != 0);
        smp.poll();
        Ok(())
    });
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_irqs_disabled() -> bool {
    instance::with(|smp| Ok(!smp.platform().irqs_enabled())).unwrap_or(false)
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_poll() -> bool {
    instance::with(|smp| Ok(smp.poll())).unwrap_or(false)
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn smpcall_relax() {
    let polled = instance::with(|smp| Ok(smp.poll())).unwrap_or(false);
    if !polled {
        instance::pause();
    }
}

/// See `smpcall.h`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn generic_smp_call_function_single_interrupt() {
    let _ = instance::with(|smp| {
        let were_on = smp.platform().irqs_save();
        smp.handle_ipi();
        smp.platform().irqs_restore(were_on);
        Ok(())
    });
}
