//! The serial port: the 16550 that the device tree names as the console, or else the first one.
//!
//! The firmware has set it up and printed to it; this only sends. A write is one piece under a lock,
//! but the lock is given up on after a while: a CPU that died with it must not silence the others.

use super::irq;
use crate::fdt::{Device, Tree};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use uart_16550::Uart16550;

/// The device's address; 0 before [`init`] or if there is none.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
/// Bytes from one register to the next.
static STRIDE: AtomicUsize = AtomicUsize::new(1);
static LOCK: AtomicBool = AtomicBool::new(false);

/// Turns of waiting, for the lock or for the device.
const PATIENCE: u32 = 1_000_000;

pub(super) fn init(tree: Tree<'_>) {
    const KNOWN: [&str; 2] = ["ns16550a", "snps,dw-apb-uart"];
    let is_known = |device: &Device<'_>| KNOWN.iter().any(|name| device.is_compatible(name));
    let chosen = tree.stdout().filter(is_known);
    let Some(device) = chosen.or_else(|| tree.find_compatible(&KNOWN)) else {
        return;
    };
    let Some(region) = device.regions().next() else {
        return;
    };
    let shift = device.number("reg-shift").unwrap_or(0);
    // ORDERING: Relaxed — boot hart only; starting a hart orders it for the others.
    STRIDE.store(1 << shift, Ordering::Relaxed);
    // ORDERING: Relaxed — as above.
    ADDRESS.store(region.base as usize, Ordering::Relaxed);
}

/// Sends `bytes`, not mixed with those of another CPU.
pub(crate) fn write(bytes: &[u8]) {
    let were_on = irq::save();
    let locked = lock();
    send(bytes);
    if locked {
        // ORDERING: Release — the bytes are sent before the next owner's; pairs with `lock`.
        LOCK.store(false, Ordering::Release);
    }
    irq::restore(were_on);
}

/// For reports of the dying: sends without asking for the lock.
pub(super) struct Unlocked;

impl fmt::Write for Unlocked {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        send(text.as_bytes());
        Ok(())
    }
}

/// Whether the lock was had in time.
fn lock() -> bool {
    (0..PATIENCE).any(|_| {
        // ORDERING: Acquire — after the last owner's bytes; pairs with the Release in `write`.
        let taken = LOCK.swap(true, Ordering::Acquire);
        if taken {
            irq::relax();
        }
        !taken
    })
}

fn send(bytes: &[u8]) {
    // ORDERING: Relaxed — constant since boot.
    let address = ADDRESS.load(Ordering::Relaxed) as *mut u8;
    // ORDERING: Relaxed — constant since boot.
    let stride = STRIDE.load(Ordering::Relaxed) as u8;
    let Some(address) = NonNull::new(address) else {
        return;
    };
    // SAFETY: The device tree says that a 16550 is there, and the identity map covers it.
    let Ok(mut port) = (unsafe { Uart16550::new_mmio(address, stride) }) else {
        return;
    };
    for &byte in bytes {
        for _ in 0..PATIENCE {
            if port.ready_to_send().is_ok() {
                break;
            }
            irq::relax();
        }
        let _ = port.try_send_byte(byte);
    }
}
