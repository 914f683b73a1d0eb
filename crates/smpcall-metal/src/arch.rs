//! The contract between the portable half of this crate and the three processors.
//!
//! Each architecture is a folder of the same files with the same items:
//!
//! | file | what it offers |
//! |---|---|
//! | `boot.S`, `boot.rs` | the first instruction, page tables, the boot information: command line and CPUs |
//! | `trap.S`, `trap.rs` | vectors; the IPI's entry saves what a Rust function may clobber and no more |
//! | `irq.rs` | `save`, `restore`, `enabled`, `enable`, `relax`, `wait_for_interrupt` |
//! | `ipi.rs` | `send`, `send_mask`: the barrier before the doorbell, then the doorbell |
//! | `page.rs` | a second address space with one page more, for shootdowns that can be seen |
//! | `percpu.rs` | `current`: the logical id, from a register that boot sets |
//! | `smp.rs` | `start`, `stop_self`, `is_stopped` |
//! | `time.rs` | `cycles`, `now_ns`, `instructions`, and a one-shot timer interrupt |
//! | `console.rs` | `write`: bytes to the serial port |
//! | `exit.rs` | `exit`: ends the virtual machine with a code; `reset`: starts it anew |
//! | `link.ld` | the image's layout |
//!
//! The block of function pointers at the end type-checks the contract, so a port that lacks an
//! item does not build. There are no stubs: an architecture works or is absent.

#[cfg(target_arch = "aarch64")]
#[path = "arch/aarch64.rs"]
mod imp;
#[cfg(target_arch = "riscv64")]
#[path = "arch/riscv64.rs"]
mod imp;
#[cfg(target_arch = "x86_64")]
#[path = "arch/x86_64.rs"]
mod imp;

pub(crate) use imp::{MAX_CPUS, NAME, boot, console, exit, ipi, irq, page, percpu, smp, time};

/// The contract, checked by the compiler.
const _: () = {
    // irq: `save` returns whether interrupts were on, and leaves them off.
    let _: fn() -> bool = irq::save;
    let _: fn(bool) = irq::restore;
    let _: fn() -> bool = irq::enabled;
    let _: fn() = irq::enable;
    let _: fn() = irq::relax;
    // Called with interrupts off: sleeps until one is pending, takes it, returns with them off.
    let _: fn() = irq::wait_for_interrupt;
    // ipi: logical ids; the mask is little-endian bit order, bit i of word w is CPU 64 w + i.
    let _: fn(u32) = ipi::send;
    let _: fn(&[u64]) = ipi::send_mask;
    let _: fn() -> u32 = percpu::current;
    // page: `map` changes the entry and drops no translation, `flush` drops this CPU's own. Where
    // `BREAK_FIRST`, a frame is replaced by `None`, a shootdown, and then the other frame.
    let _: (usize, bool) = (page::ADDRESS, page::BREAK_FIRST);
    let _: fn() = page::build;
    let _: fn(Option<usize>) = page::map;
    let _: fn() = page::enter;
    let _: fn() = page::leave;
    let _: fn() = page::flush;
    // smp: `start` returns once the request is accepted or refused; the caller waits for the CPU.
    let _: fn(u32) -> Result<(), crate::StartError> = smp::start;
    let _: fn() -> ! = smp::stop_self;
    let _: fn(u32) -> bool = smp::is_stopped;
    let _: fn() -> u64 = time::cycles;
    let _: fn() -> u64 = time::now_ns;
    let _: fn() -> u64 = time::instructions;
    let _: fn(u64) = time::interrupt_after;
    let _: fn(&[u8]) = console::write;
    let _: fn(u8) -> ! = exit::exit;
    let _: fn() -> ! = exit::reset;
    let _: fn() -> &'static crate::Boot = boot::info;
};
