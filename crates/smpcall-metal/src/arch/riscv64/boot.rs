//! The boot hart's way from the first instruction to `__smpcall_main`: stacks, the identity map, and
//! the boot information.
//!
//! OpenSBI picks the boot hart by lottery, so logical ids differ from hart ids: the boot hart is
//! logical 0, the others follow by increasing hart id. Everything in [`INFO`] is written here, on the
//! boot hart, before any other hart is started, and only read afterwards. `absent=N` on the command
//! line adds a CPU with hart id N, which need not exist, to test a start that fails.

use crate::cmdline::absent;
use crate::fdt::{self, Tree};
use crate::{Boot, MAX_CPUS};
use core::arch::global_asm;
use core::cell::UnsafeCell;

/// Bytes of stack for each CPU, below them a page that is not mapped.
const STACK_SIZE: usize = 16 * 1024;
const PAGE: usize = 4096;

#[repr(C, align(4096))]
pub(super) struct Stack {
    guard: [u8; PAGE],
    room: [u8; STACK_SIZE],
}

/// 2 MiB, which one entry of a middle table maps.
const MEGAPAGE: usize = 512 * PAGE;
/// How many megapages the stacks take, which begin at one's beginning (`link.ld`).
const STACK_MEGAPAGES: usize = size_of::<[Stack; MAX_CPUS]>().div_ceil(MEGAPAGE);

#[repr(C, align(4096))]
struct Stacks(UnsafeCell<[Stack; MAX_CPUS]>);

// SAFETY: Nobody makes a reference to the inside: `boot.S` gives each CPU the stack of its index.
unsafe impl Sync for Stacks {}

/// Outside `.bss` proper, so that boot does not spend millions of instructions on zeroing it.
#[unsafe(link_section = ".stacks")]
static STACKS: Stacks = Stacks(UnsafeCell::new(
    [const {
        Stack {
            guard: [0; PAGE],
            room: [0; STACK_SIZE],
        }
    }; MAX_CPUS],
));

/// `sstatus.FS` (bits 14:13) and `sstatus.VS` (bits 10:9).
const SSTATUS_FS_VS: usize = 0b11 << 13 | 0b11 << 9;

/// `satp.MODE` = Sv39, ASID 0.
const SATP_SV39: usize = 8 << 60;

/// One level of an Sv39 page table.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Table([u64; 512]);

struct Tables(UnsafeCell<[Table; 2 + STACK_MEGAPAGES]>);

// SAFETY: Written only by `unmap_stack_guards`, on the boot hart while it is the only one that runs.
unsafe impl Sync for Tables {}

/// Page table entry: valid, readable, writable, global, accessed, dirty. The last two are preset so
/// that no hart has to write the table (privileged ISA 12.3.1: with Svade a clear bit faults).
const DATA: u64 = 0b1110_0111;
const EXECUTE: u64 = 1 << 3;
/// Page table entry: points to the next level.
const POINTER: u64 = 1;

/// A page table entry for a physical address.
const fn entry(address: usize, flags: u64) -> u64 {
    (address as u64 >> 12) << 10 | flags
}

/// The root, first: the low 256 GiB map to themselves; the high half is left to the image, which may
/// copy this table for address spaces of its own. Devices are below 2 GiB on every known board and
/// must not be executed from. The others are for the gigabyte that the image is in.
static TABLES: Tables = {
    const FIRST_RAM: usize = 2;
    let mut root = [0; 512];
    let mut gigabyte = 0;
    while gigabyte < 256 {
        let execute = if gigabyte < FIRST_RAM { 0 } else { EXECUTE };
        root[gigabyte] = entry(gigabyte << 30, DATA | execute);
        gigabyte += 1;
    }
    let mut tables = [Table([0; 512]); 2 + STACK_MEGAPAGES];
    tables[0] = Table(root);
    Tables(UnsafeCell::new(tables))
};

global_asm!(
    include_str!("boot.S"),
    boot = sym boot,
    secondary = sym super::smp::secondary,
    stacks = sym STACKS,
    stack_size = const size_of::<Stack>(),
    fs_vs = const SSTATUS_FS_VS,
    root = sym TABLES,
    sv39 = const SATP_SV39,
    trap = sym super::trap::smpcall_trap,
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
    unmap_stack_guards();
    super::time::interrupt_after(0);
    super::console::init(tree);
    super::exit::init(tree);
    super::time::init(tree);
    collect(boot_hart, tree);
    super::ipi::init(tree);
    super::irq::init();
    crate::__smpcall_main(info())
}

/// Maps the stacks by pages, but for the guards: an overflow is a fault, not a neighbour's riddle.
fn unmap_stack_guards() {
    // SAFETY: This is the boot hart, no other runs, and the hardware only reads the tables.
    let [root, middle, stacks @ ..] = unsafe { &mut *TABLES.0.get() };
    let first = (&raw const STACKS).addr();
    let gigabyte = first >> 30;
    for (index, slot) in middle.0.iter_mut().enumerate() {
        *slot = entry((gigabyte << 30) + index * MEGAPAGE, DATA | EXECUTE);
    }
    let first_slot = first / MEGAPAGE % 512;
    for (pages, slot) in stacks.iter_mut().zip(&mut middle.0[first_slot..]) {
        *slot = entry((&raw const *pages).addr(), POINTER);
    }
    let pages = stacks.iter_mut().flat_map(|table| &mut table.0);
    for (index, slot) in pages.enumerate() {
        let is_guard = (index * PAGE).is_multiple_of(size_of::<Stack>());
        let flags = if is_guard { 0 } else { DATA };
        *slot = entry(first + index * PAGE, flags);
    }
    root.0[gigabyte] = entry((&raw const *middle).addr(), POINTER);
    riscv::asm::sfence_vma_all();
}

/// Whether `address` is in the page below a stack.
pub(super) fn is_stack_guard(address: usize) -> bool {
    let offset = address.wrapping_sub((&raw const STACKS).addr());
    offset < size_of::<Stacks>() && offset % size_of::<Stack>() < PAGE
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
    let cpus = tree
        .cpus()
        .filter(|cpu| cpu.enabled && cpu.reg != boot_hart);
    for (slot, cpu) in info.hw_ids[1..].iter_mut().zip(cpus) {
        *slot = cpu.reg;
        count += 1;
    }
    info.hw_ids[1..count].sort_unstable();
    if let (Some(hart), Some(slot)) = (absent(tree.bootargs()), info.hw_ids.get_mut(count)) {
        *slot = hart;
        count += 1;
    }
    info.boot = Boot {
        cmdline: tree.bootargs(),
        hw_ids: &info.hw_ids[..count],
    };
}
