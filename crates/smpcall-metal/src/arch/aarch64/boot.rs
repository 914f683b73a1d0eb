//! From the first instruction to `__smpcall_main`: page table, device tree, list of CPUs.
//!
//! The identity map is one table of 512 blocks of 1 GiB. Two are there from the start, the gigabyte
//! of devices and the one of RAM that holds the image; [`map`] adds others that the device tree
//! names. Normal memory is inner-shareable write-back on every CPU, without which the exclusive
//! accesses of atomics are not defined between CPUs. All CPUs share the table.
//!
//! The stacks are mapped a second time, by pages, in a window near the end of the table: there, a page
//! below each is not mapped, so that an overflow is a fault and not a neighbour's riddle. In place this
//! could not be done: a block that is in use must not be replaced by a table (Arm ARM, D8.16.1).
//!
//! The device tree stays where the loader put it, and the command line is a slice of it. `absent=N`
//! on it adds a CPU with MPIDR N, which need not exist, to test a start that fails.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{MPIDR_EL1, Readable as _};

use super::{console, exit, ipi, percpu, smp, time, trap};
use crate::fdt::{self, Tree};
use crate::{Boot, MAX_CPUS, cmdline};

/// Each CPU's stack.
const STACK_SIZE: usize = 16 * 1024;
const PAGE: usize = 4096;
/// A stack and the guard below it, in the window.
const SLOT: usize = PAGE + STACK_SIZE;
/// Where the window on the stacks begins. The gigabyte above it is for `page.rs`.
const WINDOW: usize = WINDOW_GIGABYTE << 30;
const WINDOW_GIGABYTE: usize = 510;
/// How many tables of pages the window takes, of 2 MiB each.
const WINDOW_TABLES: usize = (SLOT * MAX_CPUS).div_ceil(512 * PAGE);
/// QEMU's virt and the image agree on this; link.ld adds `TEXT_OFFSET` to it.
const RAM_BASE: u64 = 0x4000_0000;
const TEXT_OFFSET: u64 = 0x20_0000;
/// The affinity fields of MPIDR, Aff3 and Aff2 to Aff0, which are the CPU's hardware id.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// Attribute 0: normal, write-back, allocating, inner and outer. Attribute 1: Device-nGnRE.
const MAIR: u64 = 0x04ff;
/// 39 bits of addresses through TTBR0, so that the walk starts at the table of 1 GiB blocks; walks
/// are cacheable and inner-shareable; no TTBR1. `boot.S` adds the physical size.
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;
/// RES1 bits, MMU, data cache, instruction cache, stack alignment check.
const SCTLR: u64 = 0x30d0_0800 | 1 | 1 << 2 | 1 << 12 | 1 << 3;
/// FP and SIMD do not trap in an image that was built to use them.
const CPACR: u64 = if cfg!(target_feature = "neon") {
    3 << 20
} else {
    0
};

/// What `x0` was at entry, while the stack moves.
// ORDERING: Relaxed - one CPU.
static DEVICE_TREE: AtomicU64 = AtomicU64::new(0);
/// A page of a stack: as a block of normal memory, and not executable.
const PAGE_ATTRIBUTES: u64 = Memory::Normal as u64 | TABLE_OR_PAGE | 1 << 53;

/// What lies at an address.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(super) enum Memory {
    /// A block with attribute 0, inner-shareable, not executable by EL0.
    Normal = 1 | 1 << 10 | 3 << 8 | 1 << 54,
    /// A block with attribute 1, not executable.
    Device = 1 | 1 << 10 | 1 << 2 | 1 << 53 | 1 << 54,
}

#[repr(C, align(4096))]
struct PageTable([AtomicU64; 512]);

/// The levels below the window's entry: one table of tables, and those.
static WINDOW_MIDDLE: PageTable = PageTable([const { AtomicU64::new(0) }; 512]);
static WINDOW_PAGES: [PageTable; WINDOW_TABLES] =
    [const { PageTable([const { AtomicU64::new(0) }; 512]) }; WINDOW_TABLES];
/// A descriptor of a table, or of a page: bits 1 and 0.
const TABLE_OR_PAGE: u64 = 0b11;

static PAGE_TABLE: PageTable = {
    let mut table = [const { AtomicU64::new(0) }; 512];
    table[0] = AtomicU64::new(Memory::Device as u64);
    table[1] = AtomicU64::new(RAM_BASE | Memory::Normal as u64);
    PageTable(table)
};

global_asm!(
    include_str!("boot.S"),
    text_offset = const TEXT_OFFSET,
    stack_size = const STACK_SIZE,
    slot = const SLOT,
    window = const WINDOW,
    max_cpus = const MAX_CPUS,
    mair = const MAIR,
    tcr = const TCR,
    sctlr = const SCTLR,
    cpacr = const CPACR,
    page_table = sym PAGE_TABLE,
    main = sym boot_main,
    secondary = sym smp::secondary_main,
);

unsafe extern "C" {
    /// `boot.S`: the stacks, one after the other.
    safe static smpcall_stacks: u8;
    /// `boot.S`: adds to the stack pointer, and goes on with a function that does not return.
    fn smpcall_move_stack(offset: usize, then: extern "C" fn() -> !) -> !;
}

/// What the boot CPU writes before any other CPU runs, and everyone reads afterwards.
struct BootOnly<T>(UnsafeCell<T>);

// SAFETY: it is written in `read_tree` only, on the boot CPU, before `__smpcall_main` can start
// another CPU; `smp::start` orders those writes before the started CPU's first read.
unsafe impl<T: Sync> Sync for BootOnly<T> {}

static HW_IDS: BootOnly<[u64; MAX_CPUS]> = BootOnly(UnsafeCell::new([0; MAX_CPUS]));
static BOOT: BootOnly<Boot> = BootOnly(UnsafeCell::new(Boot {
    cmdline: "",
    hw_ids: &[],
}));

/// What the device tree told.
pub(crate) fn info() -> &'static Boot {
    // SAFETY: nobody writes any more, see `BootOnly`.
    unsafe { &*BOOT.0.get() }
}

/// Identity-maps the gigabytes that hold `size` bytes from `base`, where they are not mapped yet.
pub(super) fn map(base: u64, size: u64, memory: Memory) {
    let last = base.saturating_add(size.saturating_sub(1)) >> 30;
    for gigabyte in (base >> 30)..=last {
        let Some(entry) = usize::try_from(gigabyte)
            .ok()
            .and_then(|i| PAGE_TABLE.0[..WINDOW_GIGABYTE].get(i))
        else {
            fail("a device or the device tree lies above 510 GiB");
        };
        // ORDERING: Relaxed - the barriers below order the entry before its use by the walker.
        if entry.load(Ordering::Relaxed) == 0 {
            entry.store(gigabyte << 30 | memory as u64, Ordering::Relaxed);
        }
    }
    // An entry that was invalid cannot be in a TLB, so there is nothing to invalidate.
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
}

/// Maps the stacks in their window, but for the guards.
fn map_stacks() {
    let memory = (&raw const smpcall_stacks).addr();
    let pages = WINDOW_PAGES.iter().flat_map(|table| &table.0);
    for (index, entry) in pages.take(MAX_CPUS * SLOT / PAGE).enumerate() {
        let (slot, offset) = (index * PAGE / SLOT, index * PAGE % SLOT);
        if offset != 0 {
            let page = memory + slot * STACK_SIZE + offset - PAGE;
            // ORDERING: Relaxed - here and below: nobody walks here before the last store, and the
            // barriers at the end order all of them before that.
            entry.store(page as u64 | PAGE_ATTRIBUTES, Ordering::Relaxed);
        }
    }
    let point = |entry: &AtomicU64, to: &PageTable| {
        let to = core::ptr::from_ref(to).addr() as u64;
        entry.store(to | TABLE_OR_PAGE, Ordering::Relaxed);
    };
    for (entry, table) in WINDOW_MIDDLE.0.iter().zip(&WINDOW_PAGES) {
        point(entry, table);
    }
    barrier::dsb(barrier::ISHST);
    point(&PAGE_TABLE.0[WINDOW_GIGABYTE], &WINDOW_MIDDLE);
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
}

/// Whether `address` is in the page below a stack.
pub(super) fn is_stack_guard(address: usize) -> bool {
    let offset = address.wrapping_sub(WINDOW);
    offset < SLOT * MAX_CPUS && offset % SLOT < PAGE
}

/// The boot CPU, on its stack, at EL1 with the MMU on. `x0` is the device tree, if not 0.
extern "C" fn boot_main(x0: u64) -> ! {
    percpu::install(0);
    trap::install(trap::Controller::Registers);
    map_stacks();
    DEVICE_TREE.store(x0, Ordering::Relaxed);
    let offset = WINDOW + PAGE - (&raw const smpcall_stacks).addr();
    // SAFETY: the window shows this stack's memory at that offset, and both stay mapped alike.
    unsafe { smpcall_move_stack(offset, boot_guarded) }
}

/// The boot CPU, on its stack's mapping with a guard.
extern "C" fn boot_guarded() -> ! {
    let x0 = DEVICE_TREE.load(Ordering::Relaxed);
    let Some(tree) = tree_at(x0).or_else(|| tree_at(RAM_BASE)) else {
        fail("no device tree, neither at x0 nor at the start of RAM");
    };
    console::init(tree);
    let boot = read_tree(tree);
    smp::init(tree);
    ipi::init(tree, boot.hw_ids);
    time::init();
    ipi::init_cpu(0);
    time::init_cpu();
    crate::__smpcall_main(boot)
}

/// The tree that begins at `address`, if one does.
fn tree_at(address: u64) -> Option<Tree<'static>> {
    if address == 0 || address % 8 != 0 {
        return None;
    }
    map(address, 8, Memory::Normal);
    let start = address as *const u8;
    // SAFETY: 1. eight aligned bytes are in one mapped gigabyte; 2. nobody writes there.
    let header = unsafe { start.cast::<[u8; 8]>().read() };
    let size = fdt::total_size(header)?;
    map(address, size as u64, Memory::Normal);
    // SAFETY: 1. the loader put a tree of `size` bytes there, says its header, and they are mapped;
    // 2. nobody writes to it: the image allocates no memory outside of itself.
    let blob = unsafe { core::slice::from_raw_parts(start, size) };
    Tree::parse(blob)
}

/// Fills in the boot information: the boot CPU is logical 0, the others follow in the tree's order.
fn read_tree(tree: Tree<'static>) -> &'static Boot {
    // SAFETY: only the boot CPU is here, once, see `BootOnly`.
    let ids = unsafe { &mut *HW_IDS.0.get() };
    let own = MPIDR_EL1.get() & AFFINITY;
    ids[0] = own;
    let cpus = tree.cpus().filter(|cpu| cpu.enabled && cpu.reg != own);
    let others = cpus
        .map(|cpu| cpu.reg)
        .chain(cmdline::absent(tree.bootargs()));
    let mut count = 1;
    for (id, other) in ids[1..].iter_mut().zip(others) {
        *id = other;
        count += 1;
    }
    let ids: &'static [u64] = ids;
    // SAFETY: as above.
    unsafe {
        *BOOT.0.get() = Boot {
            cmdline: tree.bootargs(),
            hw_ids: &ids[..count],
        }
    };
    info()
}

/// The machine lacks something that the port needs.
pub(super) fn fail(reason: &str) -> ! {
    let _ = writeln!(console::Writer, "smpcall: boot failed: {reason}");
    exit::exit(1)
}
