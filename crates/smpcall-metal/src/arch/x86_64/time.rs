//! The time-stamp counter, and the local APIC's timer.
//!
//! At boot the programmable interval timer measures the time-stamp counter, because its frequency
//! is the one that every PC agrees on; the first CPU that arms its APIC timer measures that against
//! the time-stamp counter, unless the two are one (TSC deadline). Under QEMU's `-icount shift=0` the
//! time-stamp counter counts guest instructions.

use core::arch::x86_64::{_mm_mfence, _rdtsc};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use raw_cpuid::CpuId;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;

use super::ipi::{self, MASKED, register};
use super::{TIMER_VECTOR, irq};

/// The frequency of the programmable interval timer.
const PIT_HZ: u64 = 1_193_182;
/// Its ports: the gate and, in bit 5, the output of channel 2; control; the count of channel 2.
const PIT_GATE: u16 = 0x61;
const PIT_OUTPUT: u8 = 1 << 5;
const PIT_CONTROL: u16 = 0x43;
const PIT_CHANNEL_2: u16 = 0x42;
/// The ticks of one measurement, about 2 ms.
const PIT_TICKS: u16 = 2387;
/// How often a measurement is repeated.
const MEASUREMENTS: u32 = 3;
/// How long the APIC timer is measured.
const TIMER_MEASUREMENT_NS: u64 = 1_000_000;
/// The timer's mode in its local vector table entry: an absolute time-stamp instead of a count.
const TSC_DEADLINE_MODE: u32 = 2 << 17;
/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;
/// The divide configuration that divides by one.
const DIVIDE_BY_ONE: u32 = 0b1011;

/// Nanoseconds per cycle, as a fraction of 2^32.
static NS_PER_CYCLE: AtomicU64 = AtomicU64::new(0);
/// APIC timer ticks per cycle, as a fraction of 2^32; 0 until it is measured.
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

/// Interrupts this CPU once, in `cycles`; 0 cancels. Not for QEMU with `-icount` and x2APIC: see
/// [`ipi::mask`].
pub(crate) fn interrupt_after(cycles: u64) {
    let were_on = irq::save();
    if cycles == 0 {
        ipi::mask(register::TIMER);
    } else if has_deadline() {
        ipi::write(register::TIMER, TSC_DEADLINE_MODE | u32::from(TIMER_VECTOR));
        // In xAPIC mode the write above is a store, which WRMSR may overtake.
        // SAFETY: 1. A fence.
        unsafe { _mm_mfence() };
        // SAFETY: 1. CPUID says that the register exists.
        unsafe { Msr::new(TSC_DEADLINE).write(self::cycles().saturating_add(cycles)) };
    } else {
        let ticks = scale(cycles, ticks_per_cycle()).clamp(1, u64::from(u32::MAX));
        ipi::write(register::DIVIDE, DIVIDE_BY_ONE);
        ipi::write(register::TIMER, u32::from(TIMER_VECTOR));
        ipi::write(register::INITIAL_COUNT, ticks as u32);
    }
    irq::restore(were_on);
}

/// `value * factor / 2^32`.
fn scale(value: u64, factor: u64) -> u64 {
    ((u128::from(value) * u128::from(factor)) >> 32) as u64
}

/// Whether the APIC timer can compare with the time-stamp counter. Known after [`calibrate`].
fn has_deadline() -> bool {
    // ORDERING: Relaxed, constant since boot.
    HAS_DEADLINE.load(Ordering::Relaxed)
}

/// Measures the time-stamp counter. On the boot CPU.
pub(super) fn calibrate() {
    let features = CpuId::new().get_feature_info();
    let has_deadline = features.is_some_and(|features| features.has_tsc_deadline());
    // A delay only ever lengthens a measurement.
    let cycles = (0..MEASUREMENTS)
        .map(|_| cycles_of_pit_ticks())
        .min()
        .unwrap_or(1)
        .max(1);
    let ns = u64::from(PIT_TICKS) * 1_000_000_000 / PIT_HZ;
    // ORDERING: Relaxed, both; INIT and start-up IPIs order them before any other CPU.
    NS_PER_CYCLE.store((ns << 32) / cycles, Ordering::Relaxed);
    HAS_DEADLINE.store(has_deadline, Ordering::Relaxed);
}

/// The cycles that `PIT_TICKS` of the interval timer's channel 2 take.
fn cycles_of_pit_ticks() -> u64 {
    let [low, high] = PIT_TICKS.to_le_bytes();
    // The gate opens (bit 0), the speaker stays off (bit 1).
    port_write(PIT_GATE, port_read(PIT_GATE) & !2 | 1);
    // Channel 2, both bytes, mode 0: the count starts with the second byte, and the output rises at
    // its end.
    port_write(PIT_CONTROL, 0b1011_0000);
    port_write(PIT_CHANNEL_2, low);
    port_write(PIT_CHANNEL_2, high);
    let start = cycles();
    while port_read(PIT_GATE) & PIT_OUTPUT == 0 {
        irq::relax();
    }
    cycles() - start
}

fn port_read(port: u16) -> u8 {
    // SAFETY: 1. One of the interval timer's ports, which every PC has and nobody else uses here.
    unsafe { Port::new(port).read() }
}

fn port_write(port: u16, value: u8) {
    // SAFETY: 1. As above.
    unsafe { Port::new(port).write(value) };
}

/// APIC timer ticks per cycle, as a fraction of 2^32; the first time by measurement.
fn ticks_per_cycle() -> u64 {
    // ORDERING: Relaxed, both; the value stands for itself, and measuring it twice does no harm.
    let known = TICKS_PER_CYCLE.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    ipi::write(register::DIVIDE, DIVIDE_BY_ONE);
    ipi::write(register::TIMER, MASKED);
    ipi::write(register::INITIAL_COUNT, u32::MAX);
    let end = now_ns() + TIMER_MEASUREMENT_NS;
    let (first_cycles, first_ticks) = timer_sample();
    while now_ns() < end {
        irq::relax();
    }
    let (last_cycles, last_ticks) = timer_sample();
    let ticks = u64::from(first_ticks - last_ticks);
    let measured = (ticks << 32) / (last_cycles - first_cycles).max(1);
    TICKS_PER_CYCLE.store(measured.max(1), Ordering::Relaxed);
    measured
}

/// Cycles and the timer's count at nearly one moment: the tightest of a few tries.
fn timer_sample() -> (u64, u32) {
    let sample = || {
        let before = cycles();
        let ticks = ipi::read(register::CURRENT_COUNT);
        (cycles() - before, before, ticks)
    };
    let tightest = (0..MEASUREMENTS)
        .map(|_| sample())
        .min_by_key(|&(width, ..)| width);
    tightest.map_or((0, 0), |(_, cycles, ticks)| (cycles, ticks))
}
