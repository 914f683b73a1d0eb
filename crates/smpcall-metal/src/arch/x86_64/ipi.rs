//! The local APIC, and the doorbell that it rings.
//!
//! x2APIC is used if the CPU has it, because it needs neither an interrupts-off section nor a look
//! at the delivery status: one WRMSR names the destination and sends. `apic=xapic` on the command
//! line forces the older mode, in which the command register is a pair of memory-mapped words.
//!
//! A mask becomes as few commands as the hardware allows:
//!
//! - x2APIC: sixteen CPUs form a cluster and each has a bit in it, so one command serves all of a
//!   cluster's CPUs. Sixteen consecutive logical ids whose APIC ids are a whole cluster in order, as
//!   firmware numbers them nearly always, need no look-up at all: their bits in the mask are the
//!   destination. Others are sent to singly.
//! - xAPIC: flat logical mode gives each of the first eight logical ids a bit.
//! - Either: if more than one command would be needed and the mask is exactly the other running
//!   CPUs, the all-but-self shorthand. A CPU that starts or stops meanwhile may get an IPI too many,
//!   which is allowed, or too few only if it was not in the mask.

use core::arch::asm;
use core::hint::cold_path;
use core::sync::atomic::{AtomicU32, Ordering};

use x86_64::registers::model_specific::Msr;

use super::{BootCell, IPI_VECTOR, SPURIOUS_VECTOR, percpu, smp};
use crate::MAX_CPUS;

/// Registers of the local APIC, as the index that both modes share.
pub(super) mod register {
    pub(crate) const LOGICAL_DESTINATION: u32 = 0x0d;
    pub(crate) const DESTINATION_FORMAT: u32 = 0x0e;
    pub(crate) const SPURIOUS: u32 = 0x0f;
    pub(crate) const COMMAND: u32 = 0x30;
    pub(crate) const COMMAND_HIGH: u32 = 0x31;
    pub(crate) const TIMER: u32 = 0x32;
    pub(crate) const LINT0: u32 = 0x35;
    pub(crate) const LINT1: u32 = 0x36;
    pub(crate) const ERROR: u32 = 0x37;
    pub(crate) const INITIAL_COUNT: u32 = 0x38;
    pub(crate) const CURRENT_COUNT: u32 = 0x39;
    pub(crate) const DIVIDE: u32 = 0x3e;
}

/// Bits of the interrupt command register.
pub(super) mod command {
    pub(crate) const INIT: u32 = 5 << 8 | ASSERT;
    pub(crate) const STARTUP: u32 = 6 << 8 | ASSERT;
    pub(super) const LOGICAL: u32 = 1 << 11;
    pub(super) const SEND_PENDING: u32 = 1 << 12;
    pub(super) const ASSERT: u32 = 1 << 14;
    pub(super) const ALL_BUT_SELF: u32 = 3 << 18;
    pub(super) const CALL: u32 = super::IPI_VECTOR as u32 | ASSERT;
}

/// A local vector table entry that delivers nothing.
pub(super) const MASKED: u32 = 1 << 16;
/// The APIC's software enable, in the spurious vector register.
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// IA32_APIC_BASE and its mode bits.
const APIC_BASE: u32 = 0x1b;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;
/// The first x2APIC register.
const X2APIC_MSR: u32 = 0x800;
/// The registers' page through the mapping at the top of the address space, where instructions reach
/// it with a displacement and no register.
const XAPIC_PAGE: isize = 0xfee0_0000 - (1 << 32);
/// The CPUs that xAPIC's flat logical mode can name.
const FLAT_CPUS: usize = 8;
/// In `CLUSTER`: these sixteen logical ids are not one cluster in order.
const SCATTERED: u32 = u32::MAX;

/// The mode that all local APICs are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Memory-mapped registers, ids of eight bits.
    Xapic,
    /// Registers as MSRs, ids of 32 bits.
    X2apic,
}

/// Whether the mode is [`Mode::X2apic`]; set before the second CPU starts.
static X2APIC: BootCell<bool> = BootCell::new(false);
/// APIC ids by logical id, for `boot.S`.
pub(super) static APIC_IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// The same as the command register wants them: in xAPIC mode an id is in the upper eight bits.
static DESTINATIONS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// Per sixteen logical ids, their cluster's upper half of a logical destination, or `SCATTERED`.
static CLUSTER: [AtomicU32; MAX_CPUS / 16] = [const { AtomicU32::new(SCATTERED) }; MAX_CPUS / 16];
/// The entry of `CLUSTER` that serves all CPUs, or `SCATTERED`.
static ONE_CLUSTER: AtomicU32 = AtomicU32::new(SCATTERED);
/// The number of CPUs.
pub(super) static COUNT: AtomicU32 = AtomicU32::new(0);

/// Rings `cpu`'s doorbell; stores before it are visible to the handler.
#[inline]
pub(crate) fn send(cpu: u32) {
    let destination = destination_of(cpu);
    if x2apic() {
        fence();
        x2apic_command(destination, command::CALL);
    } else {
        cold_path();
        xapic_command(destination, command::CALL);
    }
}

/// Rings the doorbells of all CPUs in `mask`; this CPU is not among them.
#[inline]
pub(crate) fn send_mask(mask: &[u64]) {
    // ORDERING: Relaxed, constant since boot.
    let cluster = ONE_CLUSTER.load(Ordering::Relaxed);
    if cluster != SCATTERED && !mask.is_empty() {
        fence();
        x2apic_command(cluster | mask[0] as u32, command::CALL | command::LOGICAL);
    } else if x2apic() {
        x2apic_send_mask(mask);
    } else {
        xapic_send_mask(mask);
    }
}

fn x2apic_send_mask(mask: &[u64]) {
    fence();
    if is_all_others(mask) {
        return x2apic_command(0, command::CALL | command::ALL_BUT_SELF);
    }
    for (sixteen, cluster) in CLUSTER.iter().enumerate().take(mask.len() * 4) {
        let bits = mask[sixteen / 4] >> (sixteen % 4 * 16) & 0xffff;
        if bits == 0 {
            continue;
        }
        // ORDERING: Relaxed, constant since boot.
        let cluster = cluster.load(Ordering::Relaxed);
        if cluster == SCATTERED {
            let first = sixteen as u32 * 16;
            each(bits, |bit| {
                x2apic_command(destination_of(first + bit), command::CALL);
            });
        } else {
            x2apic_command(cluster | bits as u32, command::CALL | command::LOGICAL);
        }
    }
}

fn xapic_send_mask(mask: &[u64]) {
    if count() <= FLAT_CPUS {
        let bits = mask.first().map_or(0, |&word| word as u32);
        xapic_command(bits << 24, command::CALL | command::LOGICAL);
    } else if is_all_others(mask) {
        xapic_command(0, command::CALL | command::ALL_BUT_SELF);
    } else {
        for (word, &bits) in mask.iter().enumerate() {
            let first = word as u32 * 64;
            each(bits, |bit| {
                xapic_command(destination_of(first + bit), command::CALL);
            });
        }
    }
}

/// Whether `mask` is exactly the running CPUs without this one.
fn is_all_others(mask: &[u64]) -> bool {
    let me = percpu::current() as usize;
    let alive = smp::ALIVE.iter().take(count().div_ceil(64)).enumerate();
    alive.zip(mask).all(|((word, alive), &mask)| {
        let own_bit = if word == me / 64 { 1 << (me % 64) } else { 0 };
        // ORDERING: Relaxed; the answer may be stale, see the file's opening.
        alive.load(Ordering::Relaxed) & !own_bit == mask
    })
}

/// Calls `f` with the number of each set bit.
fn each(mut bits: u64, mut f: impl FnMut(u32)) {
    while bits != 0 {
        f(bits.trailing_zeros());
        bits &= bits - 1;
    }
}

/// Sends one command, any kind, to a CPU. For bring-up.
pub(super) fn command_to(cpu: u32, command: u32) {
    if x2apic() {
        fence();
        x2apic_command(destination_of(cpu), command);
    } else {
        xapic_command(destination_of(cpu), command);
    }
}

/// Makes earlier stores visible before an x2APIC command.
///
/// WRMSR to an x2APIC register does not serialise, so without this the IPI may overtake them (SDM
/// volume 3, "MSR access in x2APIC mode"). MFENCE alone orders memory accesses, not the WRMSR that
/// follows; LFENCE holds that back.
#[inline]
fn fence() {
    // SAFETY: 1. Two fences.
    unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
}

/// Sends one x2APIC command. The fence is the caller's.
#[inline]
fn x2apic_command(destination: u32, command: u32) {
    // SAFETY: 1. The register exists, for `x2apic()` holds; all users send commands that are fine.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") X2APIC_MSR + register::COMMAND,
            in("eax") command,
            in("edx") destination,
            options(nostack, preserves_flags),
        );
    }
}

/// Sends one xAPIC command.
///
/// An interrupt handler that sends between the two writes would redirect the command, so interrupts
/// are off for them. The registers are uncached, so the stores are not done before the stores that
/// come earlier in the program, and need no fence.
#[inline]
fn xapic_command(destination: u32, command: u32) {
    // SAFETY: 1. The page is mapped, and its registers exist, for `x2apic()` does not hold.
    //         2. RFLAGS is restored; all users send commands that are fine.
    unsafe {
        asm!(
            "pushfq",
            "cli",
            "2: test dword ptr [{low}], {pending}",
            "jz 3f",
            "pause",
            "jmp 2b",
            "3: mov dword ptr [{high}], {destination:e}",
            "mov dword ptr [{low}], {command:e}",
            "popfq",
            low = const XAPIC_PAGE + register::COMMAND as isize * 16,
            high = const XAPIC_PAGE + register::COMMAND_HIGH as isize * 16,
            pending = const command::SEND_PENDING,
            destination = in(reg) destination,
            command = in(reg) command,
        );
    }
}

/// Whether the APICs are in x2APIC mode.
#[inline]
pub(super) fn x2apic() -> bool {
    *X2APIC.get()
}

/// Where a command to `cpu` goes.
#[inline]
fn destination_of(cpu: u32) -> u32 {
    debug_assert!((cpu as usize) < count(), "there is no CPU {cpu}");
    // ORDERING: Relaxed, constant since boot.
    DESTINATIONS[cpu as usize].load(Ordering::Relaxed)
}

fn count() -> usize {
    // ORDERING: Relaxed, constant since boot.
    COUNT.load(Ordering::Relaxed) as usize
}

/// Reads a register of this CPU's APIC, in the mode that all APICs are in.
pub(super) fn read(index: u32) -> u32 {
    if x2apic() {
        // SAFETY: 1. The register exists in x2APIC mode; reading it changes nothing.
        unsafe { Msr::new(X2APIC_MSR + index).read() as u32 }
    } else {
        // SAFETY: 1. The page is mapped, uncached; reading a register changes nothing.
        unsafe { xapic_register(index).read_volatile() }
    }
}

/// Writes a register of this CPU's APIC, in the mode that all APICs are in.
pub(super) fn write(index: u32, value: u32) {
    if x2apic() {
        let mut msr = Msr::new(X2APIC_MSR + index);
        // SAFETY: 1. The users write values that keep the interrupt handlers of `trap.S` valid.
        unsafe { msr.write(u64::from(value)) };
    } else {
        // SAFETY: 1. The page is mapped, uncached. 2. As above.
        unsafe { xapic_register(index).write_volatile(value) };
    }
}

fn xapic_register(index: u32) -> *mut u32 {
    core::ptr::without_provenance_mut((XAPIC_PAGE + index as isize * 16) as usize)
}

/// Chooses the mode of all APICs. On the boot CPU, once.
pub(super) fn select(mode: Mode) {
    // SAFETY: 1. The boot CPU, alone. 2. The only borrow; `x2apic` keeps none.
    unsafe { *X2APIC.get_mut() = mode == Mode::X2apic };
}

/// Records the CPUs, by logical id. On the boot CPU, once.
pub(super) fn record(ids: &[u64]) {
    // ORDERING: Relaxed, here and below; INIT and start-up IPIs order it before any other CPU.
    COUNT.store(ids.len() as u32, Ordering::Relaxed);
    let shift = if x2apic() { 0 } else { 24 };
    for (cpu, &id) in ids.iter().enumerate() {
        APIC_IDS[cpu].store(id as u32, Ordering::Relaxed);
        DESTINATIONS[cpu].store((id as u32) << shift, Ordering::Relaxed);
    }
    for (slot, sixteen) in CLUSTER.iter().zip(ids.chunks(16)) {
        let first = sixteen[0];
        let in_order = sixteen
            .iter()
            .enumerate()
            .all(|(i, &id)| id == first + i as u64);
        if first % 16 == 0 && in_order {
            slot.store((first as u32 >> 4) << 16, Ordering::Relaxed);
        }
    }
    if x2apic() && ids.len() <= 16 {
        ONE_CLUSTER.store(CLUSTER[0].load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Brings this CPU's APIC into the chosen mode, with every local source masked, and enables it.
pub(super) fn enable_this_cpu() {
    enter_mode();
    for source in [
        register::TIMER,
        register::LINT0,
        register::LINT1,
        register::ERROR,
    ] {
        write(source, MASKED);
    }
    if !x2apic() {
        let cpu = percpu::current() as usize;
        let bit = if cpu < FLAT_CPUS { 1 << cpu } else { 0 };
        write(register::DESTINATION_FORMAT, u32::MAX);
        write(register::LOGICAL_DESTINATION, bit << 24);
    }
    write(
        register::SPURIOUS,
        SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR),
    );
}

/// Masks the timer and disables this CPU's APIC, which still obeys INIT and start-up IPIs.
pub(super) fn disable_this_cpu() {
    mask(register::TIMER);
    write(register::SPURIOUS, u32::from(SPURIOUS_VECTOR));
}

/// Masks a local source that is not masked, as INIT leaves them all.
///
/// The look saves more than a write: QEMU 10 stops with "Bad icount read" at any x2APIC access that
/// touches the timer's state under `-icount`, unless it translates one instruction at a time.
pub(super) fn mask(source: u32) {
    if read(source) & MASKED == 0 {
        write(source, MASKED);
    }
}

/// From x2APIC to xAPIC the only way leads through the disabled state, and from there to x2APIC
/// only through xAPIC.
fn enter_mode() {
    let mut msr = Msr::new(APIC_BASE);
    // SAFETY: 1. Every x86_64 CPU has the register.
    let base = unsafe { msr.read() };
    let off = base & !(BASE_ENABLE | BASE_X2APIC);
    if x2apic() {
        if base & BASE_X2APIC == 0 {
            // SAFETY: 1. From disabled or xAPIC to xAPIC, a permitted step.
            unsafe { msr.write(off | BASE_ENABLE) };
            // SAFETY: 1. From xAPIC to x2APIC, which `boot.rs` found the CPU to have.
            unsafe { msr.write(off | BASE_ENABLE | BASE_X2APIC) };
        }
    } else {
        if base & BASE_X2APIC != 0 {
            // SAFETY: 1. From x2APIC to disabled, a permitted step.
            unsafe { msr.write(off) };
        }
        // SAFETY: 1. From disabled or xAPIC to xAPIC, a permitted step.
        unsafe { msr.write(off | BASE_ENABLE) };
    }
}
