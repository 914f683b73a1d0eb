//! Starting and stopping processors: INIT, start-up IPI, and a sleep that only INIT ends.
//!
//! ```text
//!            (1) start              (2) boot.S on the target
//!   STOPPED ───────────▶ REQUESTED ──────────────────────────▶ RUNNING
//!      ▲                                                          │
//!      └──────────────── (3) stop_self, the last store ───────────┘
//! ```
//! A CPU that arrives claims its request by compare-and-swap, so a second start-up IPI, a late one,
//! or one for a CPU that nobody asked for runs nothing. (3) is followed by HLT with interrupts off
//! and no further memory access: the stack is free from then on.
//!
//! The boot CPU stops like the others, but INIT sends it to the reset vector, not to sleep. The
//! firmware there jumps where the warm reset vector points, if it was told to (MultiProcessor
//! Specification 1.4, B.4), and that is the trampoline. SeaBIOS does this. On a firmware that does
//! not, the boot CPU must not be stopped.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use x86_64::instructions::port::Port;

use super::{boot, ipi, irq, percpu, time, trap};
use crate::{MAX_CPUS, StartError};

/// The states of a CPU, as `boot.S` knows them.
pub(super) const STOPPED: u8 = 0;
pub(super) const REQUESTED: u8 = 1;
pub(super) const RUNNING: u8 = 2;

/// How long a start-up IPI may take to arrive before it is sent once more.
///
/// The manual's 10 ms between INIT and the first of them are for the discrete 82489DX; every CPU
/// with 64 bits takes the start-up IPI as soon as it has seen INIT.
const STARTUP_PATIENCE_NS: u64 = 200_000;
/// The pause between INIT and the start-up IPI.
const INIT_PAUSE_NS: u64 = 10_000;

/// Where the firmware's warm reset vector is: offset, segment.
const WARM_RESET_VECTOR: usize = 0x467;
/// The cell of the real-time clock's memory that says what a reset is for, and its value for a jump.
const CMOS_RESET_CODE: u8 = 0x0f;
const JUMP_TO_VECTOR: u8 = 0x0a;

/// A stack, and below it a page that is not mapped.
#[repr(C, align(4096))]
pub(super) struct Stack {
    guard: [u8; 4096],
    memory: [u8; 16384],
}

/// The stacks, as one region that `boot.rs` maps by small pages.
#[repr(C, align(0x20_0000))]
pub(super) struct Stacks(UnsafeCell<[Stack; MAX_CPUS]>);

// SAFETY: 1. Only addresses of it are taken; each CPU uses its own stack by RSP.
unsafe impl Sync for Stacks {}

impl Stacks {
    /// The address of the first stack's guard.
    pub(super) fn address(&self) -> usize {
        self.0.get().addr()
    }
}

/// One per logical CPU.
pub(super) static STACKS: Stacks = Stacks(UnsafeCell::new(
    [const {
        Stack {
            guard: [0; 4096],
            memory: [0; 16384],
        }
    }; MAX_CPUS],
));

/// Per CPU, one of the three states.
pub(super) static STATES: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(STOPPED) }; MAX_CPUS];
/// The CPUs whose APIC is enabled, as a mask.
pub(super) static ALIVE: [AtomicU64; MAX_CPUS / 64] = [const { AtomicU64::new(0) }; MAX_CPUS / 64];

/// Asks `cpu` to start. It runs `__smpcall_secondary` soon, or never if it is not there.
pub(crate) fn start(cpu: u32) -> Result<(), StartError> {
    if cpu as usize >= boot::info().hw_ids.len() {
        return Err(StartError::NoSuchCpu);
    }
    let state = &STATES[cpu as usize];
    // Takes back an earlier request that nobody answered, so that the CPU cannot claim it, late,
    // while it is sent INIT.
    // ORDERING: Acquire, pairs with the last store of `stop_self`: the stack is free.
    let idle = state.fetch_update(Ordering::Acquire, Ordering::Acquire, |state| {
        (state != RUNNING).then_some(STOPPED)
    });
    if idle.is_err() {
        return Err(StartError::AlreadyRunning);
    }
    // ORDERING: Release, twice; pairs with the claim in `boot.S`: what the caller prepared is
    // visible to the CPU.
    if cpu == 0 {
        set_warm_reset_vector();
        state.store(REQUESTED, Ordering::Release);
        ipi::command_to(cpu, ipi::command::INIT);
    } else {
        ipi::command_to(cpu, ipi::command::INIT);
        wait(INIT_PAUSE_NS, || false);
        state.store(REQUESTED, Ordering::Release);
    }
    // The boot CPU needs none, but QEMU's sleeps through INIT until something else wakes it.
    send_startup(cpu);
    Ok(())
}

/// Sends a start-up IPI, and another one if the CPU does not come.
fn send_startup(cpu: u32) {
    // ORDERING: Relaxed; only whether the CPU came matters, the caller of `start` synchronises.
    let has_arrived = || STATES[cpu as usize].load(Ordering::Relaxed) != REQUESTED;
    for _ in 0..2 {
        ipi::command_to(cpu, ipi::command::STARTUP | boot::TRAMPOLINE >> 12);
        if wait(STARTUP_PATIENCE_NS, has_arrived) {
            break;
        }
    }
}

/// Makes the firmware jump to the trampoline at the next INIT of the boot CPU, once.
fn set_warm_reset_vector() {
    let segment_and_offset = boot::TRAMPOLINE >> 4 << 16;
    // SAFETY: 1. The BIOS data area, conventional memory that only the firmware reads.
    unsafe { (WARM_RESET_VECTOR as *mut u32).write_unaligned(segment_and_offset) };
    // SAFETY: 1. The index port of the real-time clock, which nobody else uses here.
    unsafe { Port::new(0x70).write(CMOS_RESET_CODE) };
    // SAFETY: 1. Its data port.
    unsafe { Port::new(0x71).write(JUMP_TO_VECTOR) };
}

/// Waits until `done` or for `ns`; whether it is done.
fn wait(ns: u64, done: impl Fn() -> bool) -> bool {
    let end = time::now_ns() + ns;
    while !done() {
        if time::now_ns() >= end {
            return false;
        }
        irq::relax();
    }
    true
}

/// A secondary's first Rust code, called by `boot.S`: interrupts off, on its own stack.
pub(super) extern "C" fn secondary_main(cpu: u32) -> ! {
    trap::load_this_cpu();
    arrive();
    crate::__smpcall_secondary(cpu)
}

/// What [`secondary_main`] does for the others.
pub(super) fn boot_cpu_arrives() {
    // ORDERING: Relaxed, no other CPU runs.
    STATES[0].store(RUNNING, Ordering::Relaxed);
    arrive();
}

/// Enables this CPU's APIC and counts it among the running.
fn arrive() {
    let cpu = percpu::current() as usize;
    ipi::enable_this_cpu();
    // ORDERING: Relaxed; a reader that misses it sends more commands than it must.
    ALIVE[cpu / 64].fetch_or(1 << (cpu % 64), Ordering::Relaxed);
}

/// Leaves for good, until [`start`] sends INIT.
pub(crate) fn stop_self() -> ! {
    irq::save();
    let cpu = percpu::current() as usize;
    // ORDERING: Relaxed; a reader that misses it interrupts a CPU that takes no interrupts.
    ALIVE[cpu / 64].fetch_and(!(1 << (cpu % 64)), Ordering::Relaxed);
    ipi::disable_this_cpu();
    let state = STATES[cpu].as_ptr();
    // ORDERING: the store is a Release as every store of this processor; pairs with the Acquires in
    // `is_stopped` and `start`.
    // SAFETY: 1. `state` is this CPU's, and after the store no memory is touched, the stack neither.
    unsafe {
        asm!(
            "mov byte ptr [{state}], {stopped}",
            "2: hlt", // SMI and NMI return to the jump
            "jmp 2b",
            state = in(reg) state,
            stopped = const STOPPED,
            options(noreturn),
        );
    }
}

/// Whether `cpu` has left its stack.
pub(crate) fn is_stopped(cpu: u32) -> bool {
    // ORDERING: Acquire, pairs with the store in `stop_self`.
    STATES[cpu as usize].load(Ordering::Acquire) == STOPPED
}
