//! What a thread knows of itself: which CPU of which machine it is, and whether its soft
//! interrupts are on.
//!
//! "Interrupts off" is a thread-local flag: calls are taken only at poll points, and a poll point
//! looks at the flag. A signal mask would cost a system call each way.

use std::cell::Cell;
use std::ptr;

use crate::platform::Hosted;

thread_local! {
    static MACHINE: Cell<*const Hosted> = const { Cell::new(ptr::null()) };
    static CPU: Cell<u32> = const { Cell::new(0) };
    static IRQS_ON: Cell<bool> = const { Cell::new(true) };
}

/// This thread is CPU `cpu` of the machine with this platform from here on.
pub(crate) fn become_cpu(platform: &Hosted, cpu: u32) {
    MACHINE.set(ptr::from_ref(platform));
    CPU.set(cpu);
}

/// This thread is no CPU any more.
pub(crate) fn resign() {
    MACHINE.set(ptr::null());
    IRQS_ON.set(true);
}

/// Which CPU of that machine this thread is.
#[inline]
pub(crate) fn current_of(platform: &Hosted) -> Option<u32> {
    ptr::eq(MACHINE.get(), platform).then(|| CPU.get())
}

/// Turns soft interrupts off; answers whether they were on.
#[inline]
pub(crate) fn irqs_save() -> bool {
    IRQS_ON.replace(false)
}

/// Undoes [`irqs_save`].
#[inline]
#[expect(
    clippy::fn_params_excessive_bools,
    reason = "the answer of `irqs_save`, given back"
)]
pub(crate) fn irqs_restore(were_on: bool) {
    IRQS_ON.set(were_on);
}

/// Are soft interrupts on?
#[inline]
pub(crate) fn irqs_enabled() -> bool {
    IRQS_ON.get()
}
