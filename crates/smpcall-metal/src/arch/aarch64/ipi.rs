//! The doorbell: software-generated interrupt 0 of the GIC, versions 2 and 3.
//!
//! GICv3 names its targets by affinity: one register write reaches up to 16 CPUs that differ only in
//! the low four bits of Aff0. Each CPU has a redistributor frame, found by the affinity that the frame
//! says; frames lie in one or more regions. GICv2 names up to 8 CPUs by interface number, which each
//! CPU learns from its own banked register.
//!
//! What `send` writes is computed beforehand, one word per logical CPU. A mask is a loop over those
//! words, unless logical ids run in the controller's order, as in QEMU: then 16 bits of the mask are
//! a target list.
//!
//! A CPU that comes back finds its SGIs of an earlier life cleared, in [`init_cpu`].

use core::arch::asm;

use super::boot::{self, Memory};
use super::{Word, irq, time, trap};
use crate::MAX_CPUS;
use crate::fdt::{Device, Region, Tree};

/// The call-function IPI's number; `trap.S` compares with 0.
const SGI: u32 = 0;

/// What `send` writes: ICC_SGI1R_EL1, or GICD_SGIR with [`V2`] set. 0: the CPU cannot be reached.
static DOORBELL: [Word; MAX_CPUS] = [const { Word::new(0) }; MAX_CPUS];
/// A bit that is reserved, zero, in ICC_SGI1R_EL1.
const V2: u64 = 1 << 63;
/// The address part of the doorbells of 16 CPUs each, if [`IN_ORDER`].
static GROUP: [Word; MAX_CPUS / 16] = [const { Word::new(0) }; MAX_CPUS / 16];
/// Whether bit i of a target list is logical CPU 16 group + i, for all CPUs; 0 is no.
static IN_ORDER: Word = Word::new(1);
/// GICv3: each CPU's redistributor frame, 0 if it has none.
static REDISTRIBUTOR: [Word; MAX_CPUS] = [const { Word::new(0) }; MAX_CPUS];
/// The distributor, and GICv2's CPU interface, which `trap.S` reads. 0 with GICv3.
static GICD: Word = Word::new(0);
pub(super) static GICC: Word = Word::new(0);

const GICD_CTLR: u64 = 0x000;
const GICD_SGIR: u64 = 0xf00;
const GICR_CTLR: u64 = 0x000;
const GICR_TYPER: u64 = 0x008;
const GICR_WAKER: u64 = 0x014;
/// The second 64 KiB of a redistributor's frame: the SGIs' and PPIs' registers. They have the
/// offsets that GICv2's distributor has them at, banked for each CPU.
const GICR_SGI_FRAME: u64 = 0x1_0000;
const IGROUPR0: u64 = 0x080;
const ISENABLER0: u64 = 0x100;
const ICENABLER0: u64 = 0x180;
const ICPENDR0: u64 = 0x280;
const ICACTIVER0: u64 = 0x380;
const IPRIORITYR: u64 = 0x400;
const GICD_ITARGETSR: u64 = 0x800;
const GICD_CPENDSGIR: u64 = 0xf10;
const GICC_CTLR: u64 = 0x000;
const GICC_PMR: u64 = 0x004;
/// A write to the distributor or redistributor has not reached everything yet.
const GICD_CTLR_RWP: u32 = 1 << 31;
const GICR_CTLR_RWP: u32 = 1 << 3;

/// Rings CPU `cpu`. What this CPU stored before is visible to the handler there.
#[inline(always)]
pub(crate) fn send(cpu: u32) {
    let doorbell = DOORBELL[cpu as usize].get();
    if doorbell & V2 == 0 {
        publish();
        ring(doorbell);
        complete();
    } else {
        ring_v2(doorbell);
    }
}

/// Rings every CPU of `mask`.
#[inline]
pub(crate) fn send_mask(mask: &[u64]) {
    let memory = GICC.get() != 0;
    match (IN_ORDER.get() != 0, memory) {
        (true, false) => {
            publish();
            send_groups(mask);
            complete();
        }
        (true, true) => ring_v2(mask.first().map_or(0, |word| (word & 0xff) << 16)),
        (false, _) => send_each(mask),
    }
}

/// GICv3, in order: 16 CPUs at a time.
#[inline(always)]
fn send_groups(mask: &[u64]) {
    for (word, groups) in mask.iter().zip(GROUP.chunks_exact(4)) {
        let mut rest = *word;
        for group in groups {
            if rest == 0 {
                break;
            }
            if rest & 0xffff != 0 {
                ring(group.get() | rest & 0xffff);
            }
            rest >>= 16;
        }
    }
}

/// Any order: neighbours of one group still share a write.
#[cold]
fn send_each(mask: &[u64]) {
    let list_of = |doorbell: u64| {
        if doorbell & V2 == 0 {
            0xffff
        } else {
            0xff_0000
        }
    };
    let mut pending = 0;
    let flush = |doorbell: u64| match doorbell {
        0 => {}
        v3 if v3 & V2 == 0 => ring(v3),
        v2 => ring_v2(v2),
    };
    publish();
    for (word, bits) in mask.iter().enumerate() {
        let mut rest = *bits;
        while rest != 0 {
            let cpu = word * 64 + rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let doorbell = DOORBELL.get(cpu).map_or(0, |d| d.get());
            if (doorbell ^ pending) & !list_of(doorbell) == 0 {
                pending |= doorbell;
            } else {
                flush(pending);
                pending = doorbell;
            }
        }
    }
    flush(pending);
    complete();
}

/// GICv3's barrier: earlier stores are complete before the register write, which no dmb orders
/// because it is not a memory access.
#[inline(always)]
fn publish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
}

/// One write of ICC_SGI1R_EL1. By hand: `aarch64-cpu` does not have the register.
#[inline(always)]
fn ring(doorbell: u64) {
    // SAFETY: sends SGI 0; interrupts are what the handler's owner asked for.
    unsafe { asm!("msr S3_0_C12_C11_5, {}", in(reg) doorbell, options(nostack, preserves_flags)) };
}

/// Without it the write may wait in the pipeline for as long as the caller spins.
#[inline(always)]
fn complete() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// GICv2: the doorbell is a store to device memory, which a dmb orders after earlier stores.
#[inline(always)]
fn ring_v2(doorbell: u64) {
    let sgir = GICD.get() + GICD_SGIR;
    // SAFETY: 1. a barrier and a device store to GICD_SGIR; 2. as in `ring`.
    unsafe {
        asm!(
            "dmb ishst",
            "str {doorbell:w}, [{sgir}]",
            doorbell = in(reg) doorbell,
            sgir = in(reg) sgir,
            options(nostack, preserves_flags)
        );
    }
}

/// Finds the controller and makes the distributor forward interrupts. Once, on the boot CPU.
pub(super) fn init(tree: Tree<'_>, hw_ids: &[u64]) {
    const V2_NAMES: [&str; 4] = [
        "arm,cortex-a15-gic",
        "arm,gic-400",
        "arm,cortex-a7-gic",
        "arm,cortex-a9-gic",
    ];
    if let Some(device) = tree.find_compatible(&["arm,gic-v3"]) {
        let distributor = region(device, 0);
        // Affinity routing and group 1; the same bits with one security state and, seen from the
        // non-secure one, with two. Routing may change only while the groups are off.
        write(distributor + GICD_CTLR, 0);
        settle(distributor + GICD_CTLR, GICD_CTLR_RWP);
        write(distributor + GICD_CTLR, 1 << 4);
        settle(distributor + GICD_CTLR, GICD_CTLR_RWP);
        write(distributor + GICD_CTLR, 1 << 4 | 1 << 1);
        settle(distributor + GICD_CTLR, GICD_CTLR_RWP);
        GICD.set(distributor);
        find_redistributors(device, hw_ids);
        compute_doorbells(hw_ids);
    } else if let Some(device) = tree.find_compatible(&V2_NAMES) {
        let distributor = region(device, 0);
        write(distributor + GICD_CTLR, 1);
        GICD.set(distributor);
        GICC.set(region(device, 1));
    } else {
        boot::fail("the device tree has neither a GICv2 nor a GICv3");
    }
}

/// Walks the frames of all redistributor regions and notes whose each one is.
fn find_redistributors(device: Device<'_>, hw_ids: &[u64]) {
    let count = device.number("#redistributor-regions").unwrap_or(1);
    let stride = device.number("redistributor-stride");
    for Region { base, size } in device.regions().skip(1).take(count as usize) {
        boot::map(base, size, Memory::Device);
        let mut frame = base;
        while frame + 0x2_0000 <= base + size {
            let typer = frame + GICR_TYPER;
            let (flags, affinity) = (read(typer), read(typer + 4));
            if let Some(cpu) = hw_ids.iter().position(|id| packed(*id) == affinity) {
                REDISTRIBUTOR[cpu].set(frame);
            }
            if flags & 1 << 4 != 0 {
                break; // Last of this region.
            }
            // A frame of GICv4 has two more pages, for virtual LPIs.
            let frame_size = if flags & 1 << 1 != 0 {
                0x4_0000
            } else {
                0x2_0000
            };
            frame += stride.unwrap_or(frame_size);
        }
    }
}

/// GICR_TYPER's form of an affinity: Aff3, Aff2, Aff1, Aff0 in 32 bits.
fn packed(mpidr: u64) -> u32 {
    (mpidr & 0xff_ffff) as u32 | (mpidr >> 8) as u32 & 0xff00_0000
}

/// GICv3: the doorbells of all CPUs, and whether masks can be target lists.
fn compute_doorbells(hw_ids: &[u64]) {
    let mut in_order = true;
    for (cpu, id) in hw_ids.iter().enumerate() {
        let [aff0, aff1, aff2, _, aff3] = [0, 8, 16, 24, 32].map(|shift| id >> shift & 0xff);
        let range = aff0 >> 4; // RS: which 16 of Aff0's values the list means.
        let address = aff3 << 48 | range << 44 | aff2 << 32 | u64::from(SGI) << 24 | aff1 << 16;
        let doorbell = address | 1 << (aff0 & 0xf);
        DOORBELL[cpu].set(doorbell);
        if cpu % 16 == 0 {
            GROUP[cpu / 16].set(address);
        }
        let group = GROUP[cpu / 16].get();
        in_order &= doorbell == group | 1 << (cpu % 16);
    }
    IN_ORDER.set(u64::from(in_order));
}

/// Whether an IPI could reach `cpu` once it runs.
pub(super) fn has_interface(cpu: u32) -> bool {
    let memory = GICC.get() != 0;
    let frame = REDISTRIBUTOR
        .get(cpu as usize)
        .map_or(0, |frame| frame.get());
    if memory { cpu < 8 } else { frame != 0 }
}

/// This CPU's part of the controller, when it starts: the IPI and the timer enabled, nothing pending.
pub(super) fn init_cpu(cpu: u32) {
    let gicc = GICC.get();
    if gicc == 0 {
        let frame = REDISTRIBUTOR[cpu as usize].get();
        if frame == 0 {
            boot::fail("the boot CPU has no redistributor");
        }
        init_redistributor(frame);
        init_registers();
        trap::install(trap::Controller::Registers);
    } else {
        init_memory(cpu, GICD.get(), gicc);
        trap::install(trap::Controller::Memory);
    }
}

/// GICv3: wake the redistributor; SGIs and PPIs quiet, group 1, one priority; two of them enabled.
fn init_redistributor(frame: u64) {
    const PROCESSOR_SLEEP: u32 = 1 << 1;
    const CHILDREN_ASLEEP: u32 = 1 << 2;
    let waker = frame + GICR_WAKER;
    write(waker, read(waker) & !PROCESSOR_SLEEP);
    settle(waker, CHILDREN_ASLEEP);
    let sgis = frame + GICR_SGI_FRAME;
    quiet(sgis);
    write(sgis + IGROUPR0, !0);
    settle(frame + GICR_CTLR, GICR_CTLR_RWP);
    write(sgis + ISENABLER0, 1 << SGI | 1 << time::PPI);
}

/// GICv3: the CPU interface.
fn init_registers() {
    // SAFETY: writes only registers of the interrupt controller's interface, which exist with GICv3.
    unsafe {
        asm!(
            "mrs {scratch}, S3_0_C12_C12_5", // ICC_SRE_EL1.SRE: registers, not memory
            "orr {scratch}, {scratch}, #1",
            "msr S3_0_C12_C12_5, {scratch}",
            "isb",
            "mov {scratch}, #0xff",
            "msr S3_0_C4_C6_0, {scratch}",   // ICC_PMR_EL1: no priority is masked
            "msr S3_0_C12_C12_3, xzr",       // ICC_BPR1_EL1: no grouping
            "mrs {scratch}, S3_0_C12_C12_4", // ICC_CTLR_EL1.EOImode 0: EOI deactivates as well
            "bic {scratch}, {scratch}, #2",
            "msr S3_0_C12_C12_4, {scratch}",
            "mov {scratch}, #1",
            "msr S3_0_C12_C12_7, {scratch}", // ICC_IGRPEN1_EL1
            "isb",
            scratch = out(reg) _,
            options(nostack, preserves_flags)
        );
    }
}

/// GICv2: this CPU's banked registers, its interface, and the number by which others name it.
fn init_memory(cpu: u32, gicd: u64, gicc: u64) {
    quiet(gicd);
    for register in 0..4 {
        write(gicd + GICD_CPENDSGIR + 4 * register, !0);
    }
    write(gicd + ISENABLER0, 1 << SGI | 1 << time::PPI);
    write(gicc + GICC_PMR, 0xff);
    write(gicc + GICC_CTLR, 1);
    // The first byte is the target mask of SGI 0, which is always the reader itself. A controller
    // with one CPU reads as zero.
    let own = (read(gicd + GICD_ITARGETSR) & 0xff).max(1);
    DOORBELL[cpu as usize].set(V2 | u64::from(own << 16 | SGI));
    if own != 1 << cpu {
        IN_ORDER.set(0);
    }
}

/// SGIs and PPIs disabled, not pending, not active, of one priority.
fn quiet(registers: u64) {
    write(registers + ICENABLER0, !0);
    write(registers + ICPENDR0, !0);
    write(registers + ICACTIVER0, !0);
    for word in 0..8 {
        write(registers + IPRIORITYR + 4 * word, 0xa0a0_a0a0);
    }
}

/// This CPU leaves: nothing is signalled to it any more.
pub(super) fn leave() {
    let gicc = GICC.get();
    if gicc == 0 {
        // SAFETY: ICC_IGRPEN1_EL1 off.
        unsafe {
            asm!(
                "msr S3_0_C12_C12_7, xzr",
                "isb",
                options(nostack, preserves_flags)
            )
        };
    } else {
        write(gicc + GICC_CTLR, 0);
    }
}

/// The `index`-th region of the controller, mapped.
fn region(device: Device<'_>, index: usize) -> u64 {
    let Some(Region { base, size }) = device.regions().nth(index) else {
        boot::fail("the interrupt controller's node lacks a register region");
    };
    boot::map(base, size, Memory::Device);
    base
}

/// Waits until `busy` is clear at `address`.
fn settle(address: u64, busy: u32) {
    while read(address) & busy != 0 {
        irq::relax();
    }
}

fn read(address: u64) -> u32 {
    // SAFETY: callers pass registers of the interrupt controller, in mapped regions of it.
    unsafe { (address as *const u32).read_volatile() }
}

fn write(address: u64, value: u32) {
    // SAFETY: as in `read`; these registers affect interrupts only.
    unsafe { (address as *mut u32).write_volatile(value) };
}
