//! The serial port, COM1.
//!
//! Writers take turns, so that lines of different CPUs do not lose bytes in the UART's FIFO. The
//! turn is bounded: a CPU that reports a fault must get its line out even if the holder is dead.

use core::sync::atomic::{AtomicBool, Ordering};

use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};

use super::irq;

/// The first serial port of a PC.
const COM1: u16 = 0x3f8;
/// How many turns of the wait a writer grants the one before it.
const PATIENCE: u32 = 1 << 20;

static BUSY: AtomicBool = AtomicBool::new(false);

fn port() -> Uart16550<PioBackend> {
    // SAFETY: 1. COM1 is a 16550 on every machine this port runs on.
    //         2. `BUSY` serialises its users, and a breach of it garbles text, nothing else.
    match unsafe { Uart16550::new_port(COM1) } {
        Ok(port) => port,
        Err(_) => unreachable!("COM1 is a valid port number"),
    }
}

/// Programs the port: 115200 baud, 8N1. Called once, by the boot CPU.
pub(super) fn initialize() {
    // A port that does not answer is a machine without a console, not a reason to stop.
    let _ = port().init(Config::default());
}

/// Writes `bytes` and returns once the port has taken them.
pub(crate) fn write(bytes: &[u8]) {
    let were_on = irq::save();
    let mut patience = PATIENCE;
    // ORDERING: Acquire, pairs with the Release below: the previous writer is done with the port.
    while BUSY.swap(true, Ordering::Acquire) && patience > 0 {
        patience -= 1;
        irq::relax();
    }
    port().send_bytes_exact(bytes);
    // ORDERING: Release, pairs with the Acquire above.
    BUSY.store(false, Ordering::Release);
    irq::restore(were_on);
}
