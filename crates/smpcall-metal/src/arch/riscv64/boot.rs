//! The boot hart's way from the first instruction to `__smpcall_main`: stacks, the identity map, and
//! the boot information.
//!
//! OpenSBI picks the boot hart by lottery, so logical ids differ from hart ids: the boot hart is
//! logical 0, the others follow by increasing hart id. Everything in [`INFO`] is written here, on the
//! boot hart, before any other hart is started, and only read afterwards.

use crate::fdt::{self, Tree};
use crate::{Boot, MAX_CPUS};
use core::arch::global_asm;
use core::cell::UnsafeCell;

/// Bytes of stack for each CPU.
const STACK_SIZE: usize = 1 << STACK_SHIFT;
const STACK_SHIFT: usize = 14;

/// `sstatus.FS` (bits 14:13) and `sstatus.VS` (bits 10:9).
const SSTATUS_FS_VS: usize = 0b11 << 13 | 0b11 << 9;

/// `satp.MODE` = Sv39, ASID 0.
const SATP_SV39: usize = 8 << 60;

#[repr(C, align(16))]
struct Stacks(UnsafeCell<[[u8; STACK_SIZE]; MAX_CPUS]>);

// SAFETY: Only `boot.S` takes an address inside, and each CPU uses the stack of its own index.
unsafe impl Sync for Stacks {}

/// Outside `.bss` proper, so that boot does not spend millions of instructions on zeroing it.
#[unsafe(link_section = ".stacks")]
static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK_SIZE]; MAX_CPUS]));

/// An Sv39 root table: each entry maps a gigabyte.
#[repr(C, align(4096))]
struct RootTable([u64; 512]);

/// The low half maps to itself; the high half is left to the image's experiments, which copy this
/// table. Devices are below 2 GiB on every known board and must not be executed from.
static ROOT: RootTable = {
    // V, R, W, G, A, D. A and D are preset so that no hart has to write the table (privileged
    // ISA 12.3.1: with Svade a clear bit is a page fault).
    const DATA: u64 = 0b1110_0111;
    const EXECUTE: u64 = 1 << 3;
    const FIRST_RAM: usize = 2;
    let mut table = [0; 512];
    let mut gigabyte = 0;
    while gigabyte < 256 {
        let ppn_field = (gigabyte as u64) << 28;
        let execute = if gigabyte < FIRST_RAM { 0 } else { EXECUTE };
        table[gigabyte] = ppn_field | DATA | execute;
        gigabyte += 1;
    }
    RootTable(table)
};

global_asm!(
    include_str!("boot.S"),
    boot = sym boot,
    secondary = sym super::smp::secondary,
    stacks = sym STACKS,
    stack_shift = const STACK_SHIFT,
    fs_vs = const SSTATUS_FS_VS,
    root = sym ROOT,
    sv39 = const SATP_SV39,
    vectors = sym super::trap::smpcall_vectors,
);

/// What boot found out.
struct Info {
    boot: Boot,
    hw_ids: [u64; MAX_CPUS],
}

struct InfoCell(UnsafeCell<Info>);

// SAFETY: Written only by `collect`, on the boot hart while it is the only one that runs.
unsafe impl Sync for InfoCell {}

static INFO: InfoCell = InfoCell(UnsafeCell::new(Info {
    boot: Boot {
        cmdline: "",
        hw_ids: &[],
    },
    hw_ids: [0; MAX_CPUS],
}));

/// The command line and the CPUs.
pub(crate) fn info() -> &'static Boot {
    // SAFETY: The one writer, `collect`, ran before anything could call this.
    unsafe { &(*INFO.0.get()).boot }
}

/// The boot hart arrives here on CPU 0's stack, translation on, interrupts off.
extern "C" fn boot(boot_hart: u64, device_tree: *const u8) -> ! {
    // SAFETY: The boot protocol passes the device tree's address in a1, and nobody writes it later.
    let blob = unsafe { blob_at(device_tree) };
    let Some(tree) = blob.and_then(Tree::parse) else {
        panic!("the firmware passed no device tree in a1");
    };
    super::time::interrupt_after(0);
    super::console::init(tree);
    super::exit::init(tree);
    super::time::init(tree);
    collect(boot_hart, tree);
    super::ipi::init(tree);
    super::irq::init();
    crate::__smpcall_main(info())
}

/// # Safety
/// 1. `start` is null or the address of a device tree that stays as it is.
unsafe fn blob_at(start: *const u8) -> Option<&'static [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: 1. A device tree's header is longer than 8 bytes.
    let header = unsafe { start.cast::<[u8; 8]>().read_unaligned() };
    let length = fdt::total_size(header)?;
    // SAFETY: 1. The header says how long it is.
    Some(unsafe { core::slice::from_raw_parts(start, length) })
}

/// Fills [`INFO`].
fn collect(boot_hart: u64, tree: Tree<'static>) {
    // SAFETY: This is the boot hart, no other runs, and `info` has not been called yet.
    let info = unsafe { &mut *INFO.0.get() };
    info.hw_ids[0] = boot_hart;
    let mut count = 1;
    let others = tree.cpus().filter(|cpu| cpu.enabled && cpu.reg != boot_hart);
    for (slot, cpu) in info.hw_ids[1..].iter_mut().zip(others) {
        *slot = cpu.reg;
        count += 1;
    }
    info.hw_ids[1..count].sort_unstable();
    info.boot = Boot {
        cmdline: tree.bootargs(),
        hw_ids: &info.hw_ids[..count],
    };
}
