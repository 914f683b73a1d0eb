//! The contract of `arch` as public functions: for an image that wants the processor
//! without the call core, and for the bring-up examples.
//!
//! Each is the architecture's own function under one more name, inlined away.

use core::sync::atomic::AtomicU64;

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

/// Resets the machine; on x86_64 by a triple fault.
pub fn reset() -> ! {
    arch::exit::reset()
}

/// A page frame of the image.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Frame(pub [AtomicU64; 512]);

/// Must a page be unmapped everywhere before it is mapped to another frame?
pub const BREAK_FIRST: bool = arch::page::BREAK_FIRST;

/// Makes a second address space: the first and one page. Once, on one CPU.
pub fn page_build() {
    arch::page::build();
}

/// Maps that page, read-only, to `frame` or to nothing. CPUs that have used it may use what it was
/// until each of them runs [`page_flush`].
pub fn page_map(frame: Option<&'static Frame>) {
    arch::page::map(frame.map(|frame| core::ptr::from_ref(frame).addr()));
}

/// This CPU changes to the second address space, with an empty TLB.
pub fn page_enter() {
    arch::page::enter();
}

/// This CPU changes back to the first.
pub fn page_leave() {
    arch::page::leave();
}

/// This CPU forgets its translation of the page.
#[inline]
pub fn page_flush() {
    arch::page::flush();
}

/// The first word of the page; a reported fault if it is not mapped here.
#[inline(never)]
pub fn page_read() -> u64 {
    let page = core::ptr::without_provenance::<u64>(arch::page::ADDRESS);
    // SAFETY: 1. Mapped, it is the first word of a `Frame` that lives for ever and changes by
    // atomics only. 2. Not mapped, the trap ends the machine.
    unsafe { page.read_volatile() }
}
