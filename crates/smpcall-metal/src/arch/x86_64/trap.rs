//! The interrupt descriptor table, the task state segment, and the report of a fault.
//!
//! The entries are in `trap.S`. A fault is never silent: it names the CPU, the cause, the place and
//! the address, and ends the machine with code 1. A double fault, an NMI and a machine check get a
//! stack of their own, which all CPUs share, because they are the end anyway.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::registers::control::Cr2;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::tss::TaskStateSegment;

use super::{BootCell, IPI_VECTOR, SPURIOUS_VECTOR, TIMER_VECTOR, console, exit, ipi, percpu};
use crate::MAX_CPUS;

global_asm!(
    include_str!("trap.S"),
    ipi = sym handle_ipi,
    timer = sym handle_timer,
    fault = sym handle_fault,
    options(att_syntax),
);

unsafe extern "C" {
    fn ipi_entry_x2apic();
    fn ipi_entry_xapic();
    fn timer_entry_x2apic();
    fn timer_entry_xapic();
    fn spurious_entry();
    /// 256 calls of eight bytes each.
    safe static fault_stubs: [u64; 256];
}

/// Null, code, data; then a task state segment's two words for each CPU, which [`load_this_cpu`]
/// writes, because LTR wants one that is not busy. All name the same segment, which is only read.
const FIRST_TSS: usize = 3;
pub(super) const GDT_LEN: usize = FIRST_TSS + 2 * MAX_CPUS;
/// Present 64-bit code and present writable data.
const GDT_CODE: u64 = 0x00af_9a00_0000_ffff;
const GDT_DATA: u64 = 0x00cf_9200_0000_ffff;

pub(super) static GDT: [AtomicU64; GDT_LEN] = {
    let mut gdt = [const { AtomicU64::new(0) }; GDT_LEN];
    gdt[1] = AtomicU64::new(GDT_CODE);
    gdt[2] = AtomicU64::new(GDT_DATA);
    gdt
};
static IDT: BootCell<[[u64; 2]; 256]> = BootCell::new([[0; 2]; 256]);
static TSS: BootCell<TaskStateSegment> = BootCell::new(TaskStateSegment::new());

/// The shared stack of the faults that cannot trust the one they came from.
#[repr(align(16))]
struct LastStack(UnsafeCell<[u8; 16384]>);
// SAFETY: 1. Only its address is taken.
unsafe impl Sync for LastStack {}
static LAST_STACK: LastStack = LastStack(UnsafeCell::new([0; 16384]));

/// Vectors that enter on `LAST_STACK`: NMI, double fault, machine check.
const ON_LAST_STACK: [usize; 3] = [2, 8, 18];
/// Exceptions that push an error code.
const WITH_ERROR_CODE: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 0b11 << 29;
const PAGE_FAULT: usize = 14;
/// Registers that `fault_entry` pushes, below the address that tells the vector.
const PUSHED: usize = 15;

/// The CPU that reports a fault, plus one; later ones keep quiet.
static REPORTER: AtomicU32 = AtomicU32::new(0);

extern "C" fn handle_ipi() {
    crate::__smpcall_ipi();
}

extern "C" fn handle_timer(pc: u64) {
    crate::__smpcall_timer(pc);
}

/// Fills the tables in. On the boot CPU, once, when the APIC's mode is chosen.
pub(super) fn build_tables() {
    // SAFETY: 1. The boot CPU, alone. 2. The only borrow, as the table is not loaded yet.
    let idt = unsafe { IDT.get_mut() };
    for (vector, gate) in idt.iter_mut().enumerate() {
        let stack = u64::from(ON_LAST_STACK.contains(&vector));
        *gate = interrupt_gate(&raw const fault_stubs[vector] as u64, stack);
    }
    let (ipi_entry, timer_entry): (unsafe extern "C" fn(), unsafe extern "C" fn()) =
        if ipi::x2apic() {
            (ipi_entry_x2apic, timer_entry_x2apic)
        } else {
            (ipi_entry_xapic, timer_entry_xapic)
        };
    idt[usize::from(IPI_VECTOR)] = interrupt_gate(ipi_entry as usize as u64, 0);
    idt[usize::from(TIMER_VECTOR)] = interrupt_gate(timer_entry as usize as u64, 0);
    idt[usize::from(SPURIOUS_VECTOR)] = interrupt_gate(spurious_entry as *const () as u64, 0);

    // SAFETY: 1. The boot CPU, alone. 2. The only borrow, as the segment is not loaded yet.
    let tss = unsafe { TSS.get_mut() };
    tss.interrupt_stack_table[0] = VirtAddr::from_ptr(LAST_STACK.0.get().wrapping_add(1));
}

/// A present 64-bit interrupt gate of ring 0.
fn interrupt_gate(entry: u64, stack: u64) -> [u64; 2] {
    let low = entry & 0xffff | 8 << 16 | stack << 32 | 0x8e << 40 | (entry >> 16 & 0xffff) << 48;
    [low, entry >> 32]
}

/// Loads the tables into this CPU.
pub(super) fn load_this_cpu() {
    let idt = IDT.get();
    let pointer = DescriptorTablePointer {
        limit: (size_of_val(idt) - 1) as u16,
        base: VirtAddr::from_ptr(idt),
    };
    // SAFETY: 1. Every gate of the table is valid, and it is static.
    unsafe { lidt(&pointer) };
    let index = FIRST_TSS + 2 * percpu::current() as usize;
    let base = &raw const *TSS.get() as u64;
    let limit = size_of::<TaskStateSegment>() as u64 - 1;
    let low = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    // ORDERING: Relaxed, here and below; only this CPU reads its descriptor.
    GDT[index].store(low, Ordering::Relaxed);
    GDT[index + 1].store(base >> 32, Ordering::Relaxed);
    // SAFETY: 1. The descriptor is valid, and not busy: the last start's mark is overwritten.
    unsafe { load_tss(SegmentSelector(index as u16 * 8)) };
}

/// Reports an exception or an interrupt that nobody expects. Called by `fault_entry`.
///
/// # Safety
/// 1. `stack` points at what `fault_entry` and the CPU pushed.
unsafe extern "C" fn handle_fault(stack: *const u64) -> ! {
    // SAFETY: 1. Registers, the stub's return address, at most one error code, and five words.
    let words = unsafe { core::slice::from_raw_parts(stack, PUSHED + 7) };
    let cpu = percpu::current();
    // ORDERING: Relaxed; the value decides who reports and orders nothing.
    match REPORTER.compare_exchange(0, cpu + 1, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => report(cpu, words),
        Err(reporter) if reporter == cpu + 1 => exit::exit(1),
        Err(_) => loop {
            x86_64::instructions::hlt();
        },
    }
}

fn report(cpu: u32, words: &[u64]) -> ! {
    let vector = (words[PUSHED].wrapping_sub(&raw const fault_stubs as u64) / 8) as usize & 0xff;
    let has_error = vector < 32 && WITH_ERROR_CODE >> vector & 1 != 0;
    let frame = &words[PUSHED + 1 + usize::from(has_error)..];
    let error = if has_error { words[PUSHED + 1] } else { 0 };
    let name = NAMES.get(vector).copied().unwrap_or("unexpected interrupt");
    // Writing to the console cannot fail.
    let _ = write!(
        Console,
        "smpcall: CPU {cpu}: {name} (vector {vector}, error {error:#x}) at {:#x}, flags {:#x}, \
         stack {:#x}",
        frame[0], frame[2], frame[3],
    );
    if vector == PAGE_FAULT || vector == 8 {
        let _ = write!(Console, ", address {:#x}", Cr2::read_raw());
    }
    let _ = writeln!(Console);
    exit::exit(1)
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        console::write(text.as_bytes());
        Ok(())
    }
}

/// The exceptions.
const NAMES: [&str; 22] = [
    "divide error",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection fault",
    "page fault",
    "reserved exception",
    "floating-point error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualization exception",
    "control protection exception",
];
