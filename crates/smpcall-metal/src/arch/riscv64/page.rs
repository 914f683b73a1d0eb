//! A second address space: the first one and one page more, for shootdowns that can be seen.
//!
//! The root is a copy of the boot's table of gigabytes, whose first entry of the high half leads to
//! the page. Both use ASID 0, and writing satp empties nothing, so an sfence.vma follows. The page's
//! entry has the accessed bit set, so that no hart has to write it.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Where the page is: the lowest address of Sv39's high half.
pub(crate) const ADDRESS: usize = 0xffff_ffc0_0000_0000;
/// A live entry may be replaced by another one: a walk finds one of the two.
pub(crate) const BREAK_FIRST: bool = false;

/// The address of a root table in satp, as a page number: bits 43 to 0.
const ROOT_PAGE: u64 = (1 << 44) - 1;
/// The entry of the root for [`ADDRESS`].
const ROOT_INDEX: usize = ADDRESS >> 30 & 0x1ff;
const VALID: u64 = 1;
const READABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 6;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    /// The page number. The image lies where it is mapped, one to one.
    fn number(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64 >> 12
    }

    /// An entry that points here.
    fn entry(&self) -> u64 {
        self.number() << 10 | VALID
    }
}

/// The three levels above the page.
static LEVELS: [Table; 3] = [const { Table::new() }; 3];
/// The boot's satp, once [`build`] has run.
static BOOT_ROOT: AtomicU64 = AtomicU64::new(0);

/// Makes the tables. On one CPU, before any of them enters.
pub(crate) fn build() {
    let boot_root = riscv::register::satp::read().bits() as u64;
    // ORDERING: Relaxed — here and below; what tells another CPU to enter orders it.
    BOOT_ROOT.store(boot_root, Ordering::Relaxed);
    let [root, directory, pages] = &LEVELS;
    let old = ((boot_root & ROOT_PAGE) << 12) as usize as *const u64;
    for (i, entry) in root.0.iter().enumerate() {
        // SAFETY: The boot's root is mapped one to one and complete.
        let value = unsafe { old.wrapping_add(i).read_volatile() };
        entry.store(value, Ordering::Relaxed);
    }
    root.0[ROOT_INDEX].store(directory.entry(), Ordering::Relaxed);
    directory.0[0].store(pages.entry(), Ordering::Relaxed);
}

/// Maps the page to this frame, read-only, or to nothing. Other translations stay where they are cached.
pub(crate) fn map(frame: Option<usize>) {
    let entry = frame.map_or(0, |frame| {
        (frame as u64 >> 12) << 10 | VALID | READABLE | ACCESSED
    });
    // ORDERING: Release — whoever is told of the change and drops its translation walks to this;
    // sfence.vma orders the walk after what that hart has seen.
    LEVELS[2].0[0].store(entry, Ordering::Release);
}

/// This CPU changes to the address space that has the page.
pub(crate) fn enter() {
    // ORDERING: Relaxed — `build` ran before.
    let mode = BOOT_ROOT.load(Ordering::Relaxed) & !ROOT_PAGE;
    load(mode | LEVELS[0].number());
}

/// This CPU changes to the boot's address space.
pub(crate) fn leave() {
    // ORDERING: Relaxed — this CPU has entered before.
    load(BOOT_ROOT.load(Ordering::Relaxed));
}

fn load(satp: u64) {
    // SAFETY: Both roots map the image alike. Not `nomem`: accesses of the page stay on their side.
    unsafe { asm!("csrw satp, {}", "sfence.vma", in(reg) satp, options(nostack)) };
}

/// This CPU forgets its translation of the page.
#[inline]
pub(crate) fn flush() {
    // SAFETY: A dropped translation is found again by a walk.
    unsafe { asm!("sfence.vma {}, zero", in(reg) ADDRESS, options(nostack)) };
}
