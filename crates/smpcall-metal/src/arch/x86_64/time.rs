//! The time-stamp counter, and the local APIC's timer.
//!
//! At boot the programmable interval timer measures both, because its frequency is the one that
//! every PC agrees on. Under QEMU's `-icount shift=0` the time-stamp counter counts guest
//! instructions.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use raw_cpuid::CpuId;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

use super::ipi::{self, MASKED, register};
use super::{TIMER_VECTOR, irq};

/// The frequency of the programmable interval timer.
const PIT_HZ: u64 = 1_193_182;
/// The ticks of one measurement, about 2 ms.
const PIT_TICKS: u16 = 2387;
/// How often it is repeated; the shortest counts, for a delay only ever lengthens one.
const MEASUREMENTS: u32 = 3;
/// The timer's mode in its local vector table entry: an absolute time-stamp instead of a count.
const TSC_DEADLINE_MODE: u32 = 2 << 17;
/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;
/// The divide configuration that divides by one.
const DIVIDE_BY_ONE: u32 = 0b1011;

/// Nanoseconds per cycle, as a fraction of 2^32.
static NS_PER_CYCLE: AtomicU64 = AtomicU64::new(0);
/// APIC timer ticks per cycle, as a fraction of 2^32.
static TICKS_PER_CYCLE: AtomicU64 = AtomicU64::new(0);
/// Whether the APIC timer compares with the time-stamp counter.
static HAS_DEADLINE: AtomicBool = AtomicBool::new(false);

/// This CPU's cycle counter.
#[inline]
pub(crate) fn cycles() -> u64 {
    // SAFETY: 1. Every x86_64 CPU has RDTSC, and nothing here forbids it.
    unsafe { _rdtsc() }
}

/// Nanoseconds since some moment before boot.
pub(crate) fn now_ns() -> u64 {
    // ORDERING: Relaxed, constant since boot.
    scale(cycles(), NS_PER_CYCLE.load(Ordering::Relaxed))
}

/// Guest instructions, under `-icount shift=0`; elsewhere cycles.
#[inline]
pub(crate) fn instructions() -> u64 {
    cycles()
}

/// Interrupts this CPU once, in `cycles`; 0 cancels.
pub(crate) fn interrupt_after(cycles: u64) {
    // ORDERING: Relaxed, both are constant since boot.
    if HAS_DEADLINE.load(Ordering::Relaxed) {
        ipi::write(register::TIMER, TSC_DEADLINE_MODE | u32::from(TIMER_VECTOR));
        // In xAPIC mode the write above is a store, which WRMSR may overtake.
        // SAFETY: 1. A fence.
        unsafe { core::arch::x86_64::_mm_mfence() };
        let deadline = if cycles == 0 {
            0
        } else {
            self::cycles().saturating_add(cycles)
        };
        // SAFETY: 1. CPUID says that the register exists.
        unsafe { Msr::new(TSC_DEADLINE).write(deadline) };
    } else {
        let ticks = scale(cycles, TICKS_PER_CYCLE.load(Ordering::Relaxed));
        let ticks = u32::try_from(ticks)
            .unwrap_or(u32::MAX)
            .max(u32::from(cycles != 0));
        ipi::write(register::TIMER, u32::from(TIMER_VECTOR));
        ipi::write(register::INITIAL_COUNT, ticks);
    }
}

/// `value * factor / 2^32`.
fn scale(value: u64, factor: u64) -> u64 {
    ((u128::from(value) * u128::from(factor)) >> 32) as u64
}

/// Sets this CPU's timer to count undivided. The divider is lost by INIT.
pub(super) fn prepare_this_cpu() {
    ipi::write(register::DIVIDE, DIVIDE_BY_ONE);
}

/// Measures both clocks. On the boot CPU, its APIC enabled.
pub(super) fn calibrate() {
    let features = CpuId::new().get_feature_info();
    let has_deadline = features.is_some_and(|features| features.has_tsc_deadline());
    let (mut cycles, mut ticks) = (u64::MAX, u64::MAX);
    for _ in 0..MEASUREMENTS {
        let (measured_cycles, measured_ticks) = measure();
        cycles = cycles.min(measured_cycles);
        ticks = ticks.min(measured_ticks);
    }
    let ns = u64::from(PIT_TICKS) * 1_000_000_000 / PIT_HZ;
    // ORDERING: Relaxed, here and below; INIT and start-up IPIs order it before any other CPU.
    NS_PER_CYCLE.store((ns << 32) / cycles.max(1), Ordering::Relaxed);
    TICKS_PER_CYCLE.store((ticks << 32) / cycles.max(1), Ordering::Relaxed);
    HAS_DEADLINE.store(has_deadline, Ordering::Relaxed);
}

/// Cycles and undivided APIC timer ticks during one run of the interval timer's channel 2.
fn measure() -> (u64, u64) {
    let mut gate = Port::<u8>::new(0x61);
    let mut control = Port::<u8>::new(0x43);
    let mut counter = Port::<u8>::new(0x42);
    let [low, high] = PIT_TICKS.to_le_bytes();
    // SAFETY: 1. Ports of every PC. The gate opens (bit 0), the speaker stays off (bit 1).
    unsafe {
        let old = gate.read();
        gate.write(old & !2 | 1);
    }
    ipi::write(register::TIMER, MASKED);
    ipi::write(register::INITIAL_COUNT, u32::MAX);
    // SAFETY: 1. Ports of every PC. Channel 2, both bytes, mode 0: the count starts with the second
    //            byte, and the output rises at its end.
    unsafe {
        control.write(0b1011_0000);
        counter.write(low);
        counter.write(high);
    }
    let (first_cycles, first_ticks) = (cycles(), ipi::read(register::CURRENT_COUNT));
    // SAFETY: 1. A port of every PC; bit 5 is the output of channel 2.
    while unsafe { gate.read() } & 1 << 5 == 0 {
        irq::relax();
    }
    let (last_cycles, last_ticks) = (cycles(), ipi::read(register::CURRENT_COUNT));
    ipi::write(register::INITIAL_COUNT, 0);
    (
        last_cycles - first_cycles,
        u64::from(first_ticks - last_ticks),
    )
}
