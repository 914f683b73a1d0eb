//! The virtual counter and its timer; and a counter of instructions for the benches.
//!
//! The counter runs at CNTFRQ_EL0, the same on all CPUs. QEMU's `max` CPU has 1 GHz, so under
//! `-icount shift=0` a tick is an instruction; older models have 62.5 MHz, for which the cycle
//! counter of the PMU, which QEMU runs at 1 GHz, is the finer clock.

use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, ID_AA64DFR0_EL1, Readable as _,
    Writeable as _,
};

use super::{Word, boot};

/// The virtual timer's interrupt, PPI 11 in the device tree's numbers, the same on every machine
/// that follows Arm's base system architecture.
pub(super) const PPI: u32 = 27;

/// Nanoseconds a tick, times 2^32.
static NS_PER_TICK: Word = Word::new(0);
/// Whether there is a PMU; 0 is no.
static HAS_PMU: Word = Word::new(0);

/// Once, on the boot CPU.
pub(super) fn init() {
    let frequency = CNTFRQ_EL0.get();
    if frequency == 0 {
        boot::fail("the firmware did not set CNTFRQ_EL0");
    }
    // PMUVer: 0 is no PMU, 15 is one that the architecture does not describe.
    let version = ID_AA64DFR0_EL1.get() >> 8 & 0xf;
    NS_PER_TICK.set((1_000_000_000 << 32) / frequency);
    HAS_PMU.set(u64::from(version != 0 && version != 0xf));
}

/// On each CPU that starts: timer off, cycle counter on.
pub(super) fn init_cpu() {
    interrupt_after(0);
    if has_pmu() {
        // SAFETY: 1. the PMU exists; 2. its registers affect nothing but its counters: count cycles
        // at EL1, all 64 bits (PMCR_EL0.LC), counter 31 on, enabled (PMCR_EL0.E).
        unsafe {
            core::arch::asm!(
                "msr pmccfiltr_el0, xzr",
                "msr pmcntenset_el0, {cycles}",
                "msr pmcr_el0, {control}",
                "isb",
                cycles = in(reg) 1_u64 << 31,
                control = in(reg) 1_u64 | 1 << 6,
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}

/// Ticks of the virtual counter.
#[inline(always)]
pub(crate) fn cycles() -> u64 {
    CNTVCT_EL0.get()
}

/// Nanoseconds since the counter's start.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let scale = NS_PER_TICK.get();
    (u128::from(cycles()) * u128::from(scale) >> 32) as u64
}

/// This CPU's cycle counter, which counts the guest's instructions under `-icount shift=0`.
#[inline(always)]
pub(crate) fn instructions() -> u64 {
    if !has_pmu() {
        return cycles();
    }
    let count: u64;
    // SAFETY: the PMU exists.
    unsafe {
        core::arch::asm!(
            "mrs {}, pmccntr_el0",
            out(reg) count,
            options(nomem, nostack, preserves_flags)
        );
    }
    count
}

/// Arms this CPU's timer for one interrupt in `cycles` ticks; 0 disarms it.
#[inline]
pub(crate) fn interrupt_after(cycles: u64) {
    if cycles == 0 {
        CNTV_CTL_EL0.set(0);
        return;
    }
    CNTV_CVAL_EL0.set(self::cycles() + cycles);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET);
}

/// The timer's interrupt. The line stays high until the timer is off; one that was on its way when
/// the timer was disarmed is nobody's.
pub(super) fn on_interrupt(pc: u64) {
    let armed = CNTV_CTL_EL0.is_set(CNTV_CTL_EL0::ENABLE);
    interrupt_after(0);
    if armed {
        crate::__smpcall_timer(pc);
    }
}

#[inline(always)]
fn has_pmu() -> bool {
    HAS_PMU.get() != 0
}
