//! A second address space: the first one and one page more, for shootdowns that can be seen.
//!
//! The root is a copy of the boot's table of 1 GiB blocks, whose last entry leads to the page. Both
//! use ASID 0, so changing from one to the other empties this CPU's TLB.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{Readable as _, TTBR0_EL1, Writeable as _};

use super::boot::Memory;

/// Where the page is: in the last of the 512 GiB, which no machine that boots here uses.
pub(crate) const ADDRESS: usize = 511 << 30;
/// A live entry must not be replaced by another one, only by nothing, and that by the other after
/// the shootdown: a TLB may otherwise hold both (Arm ARM, D8.16.1, break-before-make).
pub(crate) const BREAK_FIRST: bool = true;

/// A table, or a page: bits 1 and 0.
const TABLE_OR_PAGE: u64 = 0b11;
/// A page that may only be read: AP[2].
const READ_ONLY: u64 = 1 << 7;
/// Not executable by EL1: PXN.
const NO_EXECUTE: u64 = 1 << 53;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    /// An entry that points here. The image lies where it is mapped, one to one.
    fn entry(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64 | TABLE_OR_PAGE
    }
}

/// The three levels above the page.
static LEVELS: [Table; 3] = [const { Table::new() }; 3];
/// The boot's root, once [`build`] has run.
static BOOT_ROOT: AtomicU64 = AtomicU64::new(0);

/// Makes the tables. On one CPU, before any of them enters.
pub(crate) fn build() {
    let boot_root = TTBR0_EL1.get();
    // ORDERING: Relaxed - here and below; what tells another CPU to enter orders it.
    BOOT_ROOT.store(boot_root, Ordering::Relaxed);
    let [root, directory, pages] = &LEVELS;
    let old = boot_root as usize as *const u64;
    for (i, entry) in root.0.iter().enumerate() {
        // SAFETY: the boot's root is mapped one to one and complete.
        let value = unsafe { old.wrapping_add(i).read_volatile() };
        entry.store(value, Ordering::Relaxed);
    }
    root.0[ADDRESS >> 30].store(directory.entry(), Ordering::Relaxed);
    directory.0[0].store(pages.entry(), Ordering::Relaxed);
    barrier::dsb(barrier::ISHST);
}

/// Maps the page to this frame, read-only, or to nothing. Other translations stay where they are cached.
pub(crate) fn map(frame: Option<usize>) {
    let attributes = Memory::Normal as u64 | TABLE_OR_PAGE | READ_ONLY | NO_EXECUTE;
    let entry = frame.map_or(0, |frame| frame as u64 | attributes);
    // ORDERING: Release - whoever is told of the change and drops its translation walks to this. The
    // barrier is for the walkers, which are observers of their own.
    LEVELS[2].0[0].store(entry, Ordering::Release);
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
}

/// This CPU changes to the address space that has the page.
pub(crate) fn enter() {
    load(core::ptr::from_ref(&LEVELS[0]).addr() as u64);
}

/// This CPU changes to the boot's address space.
pub(crate) fn leave() {
    // ORDERING: Relaxed - this CPU has entered before.
    load(BOOT_ROOT.load(Ordering::Relaxed));
}

fn load(root: u64) {
    TTBR0_EL1.set(root);
    // SAFETY: both roots map the image alike; dropped translations are found again by a walk. Not
    // `nomem`: accesses of the page stay on their side.
    unsafe {
        asm!(
            "isb",
            "tlbi vmalle1",
            "dsb nsh",
            "isb",
            options(nostack, preserves_flags)
        )
    };
}

/// This CPU forgets its translation of the page. Other CPUs are the shootdown's business: the
/// broadcast form, `tlbi vaae1is`, would make it needless here, and hide that it works.
#[inline]
pub(crate) fn flush() {
    // SAFETY: a dropped translation is found again by a walk.
    unsafe {
        asm!(
            "tlbi vaae1, {}",
            "dsb nsh",
            "isb",
            in(reg) ADDRESS >> 12,
            options(nostack, preserves_flags)
        );
    }
}
