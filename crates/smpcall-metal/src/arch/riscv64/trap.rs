//! What the entry of `trap.S` calls.

use super::{boot, console, exit, percpu, time};
use core::arch::global_asm;
use core::fmt::Write as _;

global_asm!(
    include_str!("trap.S"),
    ipi = sym ipi,
    timer = sym timer,
    fault = sym fault,
    fault_again = sym fault_again,
);

unsafe extern "C" {
    /// The entry, for stvec.
    pub(super) fn smpcall_trap();
}

/// The IPI, acknowledged. A function of its own only for its C calling convention: the image's
/// handler is inlined here.
extern "C" fn ipi() {
    crate::__smpcall_ipi();
}

/// The one-shot timer: disarmed first, so that the handler may arm it again.
extern "C" fn timer(pc: u64) {
    time::disarm();
    crate::__smpcall_timer(pc);
}

/// Reports an exception or an interrupt that nothing enabled, and ends the machine.
extern "C" fn fault(sp: usize, ra: usize) -> ! {
    let cause = riscv::register::scause::read().bits();
    let pc = riscv::register::sepc::read();
    let address = riscv::register::stval::read();
    let _ = writeln!(
        console::Unlocked,
        "\nsmpcall: fault on CPU {cpu} (hart {hart}): {name} (scause {cause:#x})\n\
         smpcall:   pc {pc:#x} address {address:#x}{stack} ra {ra:#x} sp {sp:#x}",
        cpu = percpu::current(),
        hart = super::smp::hart_of(percpu::current()).unwrap_or(u64::MAX),
        name = cause_name(cause),
        stack = if boot::is_stack_guard(address) {
            " (the stack is used up)"
        } else {
            ""
        },
    );
    exit::exit(1)
}

/// A fault inside [`fault`].
extern "C" fn fault_again() -> ! {
    exit::exit(1)
}

/// Privileged ISA, table "supervisor cause register values".
fn cause_name(cause: usize) -> &'static str {
    match cause {
        0 => "instruction address misaligned",
        1 => "instruction access fault",
        2 => "illegal instruction",
        3 => "breakpoint",
        4 => "load address misaligned",
        5 => "load access fault",
        6 => "store address misaligned",
        7 => "store access fault",
        9 => "environment call",
        12 => "instruction page fault",
        13 => "load page fault",
        15 => "store page fault",
        18 => "software check",
        19 => "hardware error",
        _ if cause >> 63 == 1 => "unexpected interrupt",
        _ => "unknown exception",
    }
}
