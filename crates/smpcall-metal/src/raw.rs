//! The contract of [`crate::arch`] as public functions: for an image that wants the processor
//! without the call core, and for the bring-up examples.
//!
//! Each is the architecture's own function under one more name, inlined away.

use crate::{Boot, StartError, arch};

/// The architecture's name: `x86_64`, `aarch64` or `riscv64`.
pub const NAME: &str = arch::NAME;

/// The command line and the CPUs.
#[inline]
pub fn info() -> &'static Boot {
    arch::boot::info()
}

/// Turns interrupts off; returns whether they were on.
#[inline]
pub fn irq_save() -> bool {
    arch::irq::save()
}

/// Turns interrupts on again if `were_on`.
#[inline]
pub fn irq_restore(were_on: bool) {
    arch::irq::restore(were_on);
}

/// Whether interrupts are on.
#[inline]
pub fn irq_enabled() -> bool {
    arch::irq::enabled()
}

/// Turns interrupts on.
#[inline]
pub fn irq_enable() {
    arch::irq::enable();
}

/// One turn of a wait.
#[inline]
pub fn relax() {
    arch::irq::relax();
}

/// With interrupts off: sleeps until one is pending, takes it, returns with them off.
#[inline]
pub fn wait_for_interrupt() {
    arch::irq::wait_for_interrupt();
}

/// Interrupts one CPU; earlier stores are visible to its handler.
#[inline]
pub fn send_ipi(cpu: u32) {
    arch::ipi::send(cpu);
}

/// Interrupts the CPUs of `mask`: bit i of word w is CPU 64 w + i.
#[inline]
pub fn send_ipi_mask(mask: &[u64]) {
    arch::ipi::send_mask(mask);
}

/// The logical id of this CPU.
#[inline]
pub fn current_cpu() -> u32 {
    arch::percpu::current()
}

/// Starts a CPU; returns once the request is accepted or refused.
///
/// # Errors
/// There is no such CPU, or the firmware refused.
pub fn start(cpu: u32) -> Result<(), StartError> {
    arch::smp::start(cpu)
}

/// This CPU leaves.
pub fn stop_self() -> ! {
    arch::smp::stop_self()
}

/// Whether `cpu` has left, and may be started again.
pub fn is_stopped(cpu: u32) -> bool {
    arch::smp::is_stopped(cpu)
}

/// The CPU's time counter.
#[inline]
pub fn cycles() -> u64 {
    arch::time::cycles()
}

/// Nanoseconds since some fixed moment.
pub fn now_ns() -> u64 {
    arch::time::now_ns()
}

/// A counter of instructions, as exact as the processor offers.
#[inline]
pub fn instructions() -> u64 {
    arch::time::instructions()
}

/// One timer interrupt on this CPU after `cycles`; 0 takes the request back.
pub fn interrupt_after(cycles: u64) {
    arch::time::interrupt_after(cycles);
}

/// Bytes to the serial port.
pub fn console_write(bytes: &[u8]) {
    arch::console::write(bytes);
}

/// Ends the virtual machine.
pub fn exit(code: u8) -> ! {
    arch::exit::exit(code)
}
