//! The x86_64 port: PVH entry, local APIC in either mode, INIT-SIPI-SIPI, GS base.
//!
//! One image boots through QEMU's `-kernel` (the PVH note of `boot.S`), and everything it learns of
//! the machine comes from there: the command line and the ACPI tables, whose MADT names the CPUs.
//! Memory below 4 GiB is mapped one to one, and its last GiB once more at the top of the address
//! space, where a sign-extended 32-bit displacement reaches the local APIC.
//!
//! | vector | what |
//! |---|---|
//! | 0-31 | exceptions: reported, then the machine ends with code 1 |
//! | [`TIMER_VECTOR`] | the local APIC's timer |
//! | [`IPI_VECTOR`] | the call-function IPI |
//! | [`SPURIOUS_VECTOR`] | returns at once, without an EOI, as the manual wants |
//! | the rest | as exceptions |

use core::cell::UnsafeCell;

#[path = "../madt.rs"]
mod madt;

#[path = "x86_64/boot.rs"]
pub(crate) mod boot;
#[path = "x86_64/console.rs"]
pub(crate) mod console;
#[path = "x86_64/exit.rs"]
pub(crate) mod exit;
#[path = "x86_64/ipi.rs"]
pub(crate) mod ipi;
#[path = "x86_64/irq.rs"]
pub(crate) mod irq;
#[path = "x86_64/page.rs"]
pub(crate) mod page;
#[path = "x86_64/percpu.rs"]
pub(crate) mod percpu;
#[path = "x86_64/smp.rs"]
pub(crate) mod smp;
#[path = "x86_64/time.rs"]
pub(crate) mod time;
#[path = "x86_64/trap.rs"]
mod trap;

/// The architecture's name, as QEMU and the command line spell it.
pub(crate) const NAME: &str = "x86_64";
/// How many CPUs an image supports, whole words of a mask: QEMU's q35 takes 288.
pub(crate) const MAX_CPUS: usize = 320;

/// The call-function IPI: the highest class but the spurious vector's, so nothing delays it.
const IPI_VECTOR: u8 = 0xe0;
/// The one-shot timer.
const TIMER_VECTOR: u8 = 0xd0;
/// The local APIC's spurious interrupt; the low four bits must be ones on the oldest parts.
const SPURIOUS_VECTOR: u8 = 0xff;

/// A static that the boot CPU fills in while no other CPU runs, and that nobody writes after.
struct BootCell<T>(UnsafeCell<T>);

// SAFETY: 1. `get_mut` is used by the boot CPU alone, before it starts another (its obligation).
//         2. Afterwards the value is only read, and `T: Sync` allows that from every CPU.
unsafe impl<T: Sync> Sync for BootCell<T> {}

impl<T> BootCell<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    fn get(&self) -> &T {
        // SAFETY: 1. No `get_mut` borrow is alive (its obligation 2).
        unsafe { &*self.0.get() }
    }

    /// The value, to fill in.
    ///
    /// # Safety
    /// 1. The caller is the boot CPU, and has not started another.
    /// 2. No other borrow of the value is alive.
    #[expect(clippy::mut_from_ref, reason = "exclusive by the caller's obligations")]
    unsafe fn get_mut(&self) -> &mut T {
        // SAFETY: 1. The borrow is exclusive (obligations 1 and 2).
        unsafe { &mut *self.0.get() }
    }
}
