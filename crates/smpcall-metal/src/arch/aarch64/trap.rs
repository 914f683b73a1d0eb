//! What the vectors of `trap.S` call: the IPI, other interrupts, and faults, which end the machine.
//!
//! The call-function IPI goes from its vector straight to the image's handler. Anything else is
//! rare enough to be told apart here.

use core::arch::global_asm;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU32, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{MPIDR_EL1, Readable as _, VBAR_EL1, Writeable as _};

use super::{boot, console, exit, ipi, percpu, time};

global_asm!(
    include_str!("trap.S"),
    simd = const cfg!(target_feature = "neon") as u32,
    gicc = sym ipi::GICC,
    ipi = sym on_ipi,
    other = sym on_other,
    fault = sym on_fault,
);

/// How the GIC's CPU interface is reached, which decides the vector table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Controller {
    /// GICv3 and later: system registers.
    Registers,
    /// GICv2: memory.
    Memory,
}

unsafe extern "C" {
    safe static smpcall_vectors_registers: [u32; 512];
    safe static smpcall_vectors_memory: [u32; 512];
}

/// Points this CPU's exceptions at the table for `controller`.
pub(super) fn install(controller: Controller) {
    let table: *const [u32; 512] = match controller {
        Controller::Registers => &raw const smpcall_vectors_registers,
        Controller::Memory => &raw const smpcall_vectors_memory,
    };
    VBAR_EL1.set(table.addr() as u64);
    barrier::isb(barrier::SY);
}

/// The call-function IPI, acknowledged, interrupts off.
extern "C" fn on_ipi() {
    crate::__smpcall_ipi();
}

/// Any other interrupt, acknowledged and ended, interrupts off. `pc` is what it interrupted.
extern "C" fn on_other(intid: u32, pc: u64) {
    match intid {
        time::PPI => time::on_interrupt(pc),
        // 1020-1023: between the signal and the acknowledgement its reason went away.
        1020..=1023 => {}
        _ => {
            let _ = writeln!(
                console::Writer,
                "smpcall: unexpected interrupt {intid} at {pc:#x}"
            );
            exit::exit(1);
        }
    }
}

/// A fault, or an exception that cannot happen. `vector` is the number of the table's slot.
extern "C" fn on_fault(vector: u64, esr: u64, pc: u64, address: u64, sp: u64) -> ! {
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    // ORDERING: Relaxed - only a count; the reports may interleave.
    let depth = DEPTH.fetch_add(1, Ordering::Relaxed);
    if exit::without_debugger(esr, pc) || depth > 1 {
        exit::power_off();
    }
    let cpu = percpu::current();
    let mpidr = MPIDR_EL1.get() & 0xff_00ff_ffff;
    let _ = writeln!(
        console::Writer,
        "smpcall: fault on CPU {cpu} (MPIDR {mpidr:#x}): {kind}, {class}\n\
         smpcall:   esr {esr:#x} pc {pc:#x} address {address:#x}{stack} sp {sp:#x}",
        kind = kind(vector),
        class = class(esr),
        stack = if boot::is_stack_guard(address as usize) {
            " (the stack is used up)"
        } else {
            ""
        },
    );
    exit::exit(1)
}

fn kind(vector: u64) -> &'static str {
    match (vector / 4, vector % 4) {
        (1, 0) => "synchronous exception",
        (1, 2) => "FIQ",
        (1, 3) => "SError",
        (0, _) => "exception with SP_EL0",
        _ => "exception from EL0",
    }
}

/// The exception class, ESR_EL1 bits 31:26 (Arm ARM, D24.2.40).
fn class(esr: u64) -> &'static str {
    match esr >> 26 & 0x3f {
        0x00 => "unknown instruction",
        0x07 => "use of FP or SIMD registers",
        0x0e => "illegal execution state",
        0x15 => "SVC",
        0x16 => "HVC",
        0x17 => "SMC",
        0x18 => "system register access",
        0x21 => "instruction abort",
        0x22 => "misaligned PC",
        0x25 => "data abort",
        0x26 => "misaligned SP",
        0x2f => "SError",
        0x3c => "BRK",
        _ => "other class",
    }
}
