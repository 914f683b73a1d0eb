//! Inter-processor interrupts: the supervisor software interrupt of another hart.
//!
//! Two doorbells. An ACLINT SSWI device, where the machine has one, is a register per hart: one
//! store, and the interrupt is the target's without a detour through machine mode. Otherwise the SBI
//! carries it: an environment call, a machine-mode interrupt on the target, and only then the
//! supervisor's.
//!
//! The barrier is `fence w, ow`: the caller's earlier memory writes (w: the queue entry, the state
//! word) come before the doorbell as every hart sees it. The doorbell is a device write (o), which a
//! fence must name to order (unprivileged ISA 2.7); before it the firmware writes memory of its own
//! (w), the kind of interrupt for the target. Loads need no order: nothing is read from the target.

use super::{boot, irq, smp, time};
use crate::MAX_CPUS;
use crate::fdt::Tree;
use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};
use sbi_rt::HartMask;

/// The address of each CPU's SETSSIP register, by logical id; 0 where the SBI is the way.
static DOORBELLS: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

/// How long a CPU waits for its own doorbell to arrive, in ticks of `time`.
const PATIENCE: u64 = 10_000;

/// Boot hart: finds the SSWI device and gives each hart a register.
pub(super) fn init(tree: Tree<'_>) {
    let device = tree.find_compatible(&["riscv,aclint-sswi", "thead,c900-aclint-sswi"]);
    if let Some(region) = device.and_then(|device| device.regions().next()) {
        let harts = boot::info().hw_ids;
        let lowest = harts.iter().copied().min().unwrap_or(0);
        for (doorbell, hart) in DOORBELLS.iter().zip(harts) {
            let offset = (hart - lowest).saturating_mul(4);
            if offset < region.size {
                // ORDERING: Relaxed — boot hart only; starting a hart orders it for the others.
                doorbell.store((region.base + offset) as usize, Ordering::Relaxed);
            }
        }
    }
    init_this_cpu(0);
}

/// Each CPU, before it is a target: keeps its doorbell only if it rings here.
///
/// Registers belong to harts in the order of `interrupts-extended`, which need not be that of hart
/// ids; rather than to trust it, a CPU tries. A ring in the wrong house is a spurious IPI there.
pub(super) fn init_this_cpu(cpu: u32) {
    let doorbell = &DOORBELLS[cpu as usize];
    // ORDERING: Relaxed — set before this CPU was started.
    let address = doorbell.load(Ordering::Relaxed);
    if address == 0 {
        return;
    }
    // SAFETY: This CPU is not a target yet, so what it clears is nobody's IPI.
    unsafe { riscv::register::sip::clear_ssoft() };
    ring(address);
    let deadline = time::cycles() + PATIENCE;
    while !riscv::register::sip::read().ssoft() {
        if time::cycles() > deadline {
            // ORDERING: Relaxed — this CPU becomes a target later, through the core's own edges.
            doorbell.store(0, Ordering::Relaxed);
            return;
        }
        irq::relax();
    }
}

/// Interrupts one CPU.
#[inline]
pub(crate) fn send(cpu: u32) {
    // ORDERING: Relaxed — constant since the target became one.
    let address = DOORBELLS[cpu as usize].load(Ordering::Relaxed);
    if address == 0 {
        send_by_sbi(cpu);
    } else {
        publish();
        ring(address);
    }
}

/// Interrupts the CPUs of `mask`: bit i of word w is CPU 64 w + i.
pub(crate) fn send_mask(mask: &[u64]) {
    // ORDERING: Relaxed — constant since boot; a machine has the device for CPU 0 or for none.
    if DOORBELLS[0].load(Ordering::Relaxed) == 0 {
        send_mask_by_sbi(mask);
        return;
    }
    publish();
    for_each(mask, |cpu| {
        // ORDERING: Relaxed — constant since the target became one.
        match DOORBELLS[cpu as usize].load(Ordering::Relaxed) {
            0 => send_by_sbi(cpu),
            register => ring(register),
        }
    });
}

/// The barrier before the doorbell: see the head of this file.
#[inline]
fn publish() {
    // SAFETY: A fence has no effect but order.
    unsafe { asm!("fence w, ow", options(nostack, preserves_flags)) };
}

/// The store to SETSSIP (ACLINT 1.0 chapter 4).
#[inline]
fn ring(register: usize) {
    // SAFETY: `register` is a SETSSIP register of the SSWI device; a store of 1 sets that hart's SSIP.
    unsafe { (register as *mut u32).write_volatile(1) };
}

/// A mask of one bit at the target's own id, which is valid whatever that id is.
fn send_by_sbi(cpu: u32) {
    if let Some(hart) = smp::hart_of(cpu) {
        call_sbi(1, hart);
    }
}

/// One call for each window of 64 hart ids: ids grow with the logical id, but for CPU 0's.
fn send_mask_by_sbi(mask: &[u64]) {
    let mut bits = 0;
    let mut base = 0;
    for_each(mask, |cpu| {
        let Some(hart) = smp::hart_of(cpu) else {
            return;
        };
        let offset = hart.wrapping_sub(base);
        if bits != 0 && offset < 64 {
            bits |= 1 << offset;
            return;
        }
        if bits != 0 {
            call_sbi(bits, base);
        }
        bits = 1;
        base = hart;
    });
    if bits != 0 {
        call_sbi(bits, base);
    }
}

/// `sbi_send_ipi`. Harts that are stopped are skipped by the firmware, and no other refusal can
/// be: the ids came from the machine's own description.
#[inline]
fn call_sbi(bits: u64, base: u64) {
    publish();
    let _ = sbi_rt::send_ipi(HartMask::from_mask_base(bits as usize, base as usize));
}

/// Shifts through the bits: riscv64gc has no instruction that counts trailing zeros.
#[inline]
fn for_each(mask: &[u64], mut visit: impl FnMut(u32)) {
    for (word, first) in mask.iter().zip((0..).step_by(64)) {
        let mut rest = *word;
        let mut cpu = first;
        while rest != 0 {
            if rest & 1 != 0 {
                visit(cpu);
            }
            rest >>= 1;
            cpu += 1;
        }
    }
}
