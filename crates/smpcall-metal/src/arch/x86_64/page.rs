//! A second address space: the first one and one page more, for shootdowns that can be seen.
//!
//! The root is a copy of the boot's with a table of its own below it; loading CR3 changes from one
//! to the other and empties the TLB, for no page here is global. The page's entry has the accessed
//! bit set, so that no walk has to write it.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Where the page is: in the first half TiB that the boot's tables leave free.
pub(crate) const ADDRESS: usize = 1 << 39;
/// A live entry may be replaced by another one: a walk finds one of the two.
pub(crate) const BREAK_FIRST: bool = false;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    /// An entry that points here. The image lies where it is mapped, one to one.
    fn entry(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64 | PRESENT | WRITABLE | ACCESSED
    }
}

/// The four levels above the page.
static LEVELS: [Table; 4] = [const { Table::new() }; 4];
/// The boot's root, once [`build`] has run.
static BOOT_ROOT: AtomicU64 = AtomicU64::new(0);

/// Makes the tables. On one CPU, before any of them enters.
pub(crate) fn build() {
    let boot_root: u64;
    // SAFETY: 1. Reading CR3 changes nothing.
    unsafe { asm!("mov {}, cr3", out(reg) boot_root, options(nomem, nostack, preserves_flags)) };
    // ORDERING: Relaxed, here and below; what tells another CPU to enter orders it.
    BOOT_ROOT.store(boot_root, Ordering::Relaxed);
    let [root, pointers, directory, pages] = &LEVELS;
    let old = boot_root as usize as *const u64;
    for (i, entry) in root.0.iter().enumerate() {
        // SAFETY: 1. The boot's root is mapped one to one and complete.
        let value = unsafe { old.wrapping_add(i).read_volatile() };
        entry.store(value, Ordering::Relaxed);
    }
    root.0[ADDRESS >> 39].store(pointers.entry(), Ordering::Relaxed);
    pointers.0[0].store(directory.entry(), Ordering::Relaxed);
    directory.0[0].store(pages.entry(), Ordering::Relaxed);
}

/// Maps the page to this frame, read-only, or to nothing. Other translations stay where they are cached.
pub(crate) fn map(frame: Option<usize>) {
    let entry = frame.map_or(0, |frame| frame as u64 | PRESENT | ACCESSED);
    // ORDERING: Release; whoever is told of the change and drops its translation walks to this.
    LEVELS[3].0[0].store(entry, Ordering::Release);
}

/// This CPU changes to the address space that has the page.
pub(crate) fn enter() {
    load(core::ptr::from_ref(&LEVELS[0]).addr() as u64);
}

/// This CPU changes to the boot's address space.
pub(crate) fn leave() {
    // ORDERING: Relaxed; this CPU has entered before.
    load(BOOT_ROOT.load(Ordering::Relaxed));
}

fn load(root: u64) {
    // SAFETY: 1. Both roots map the image alike. Not `nomem`: accesses of the page stay on their side.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

/// This CPU forgets its translation of the page.
#[inline]
pub(crate) fn flush() {
    // SAFETY: 1. A dropped translation is found again by a walk.
    unsafe { asm!("invlpg [{}]", in(reg) ADDRESS, options(nostack, preserves_flags)) };
}
