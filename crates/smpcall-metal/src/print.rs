//! Lines on the serial port, whole ones even when several CPUs print.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::arch;

/// The serial port as a text sink; unlocked.
struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        arch::console::write(text.as_bytes());
        Ok(())
    }
}

/// The CPU that prints, plus one; 0 is nobody.
static PRINTER: AtomicU32 = AtomicU32::new(0);

/// Prints a line, for [`println!`](crate::println).
#[doc(hidden)]
pub fn print_line(line: fmt::Arguments<'_>) {
    let were_on = arch::irq::save();
    let me = arch::percpu::current() + 1;
    // A fault inside a print prints through.
    // ORDERING: Relaxed — our own mark, if it is ours.
    let nested = PRINTER.load(Ordering::Relaxed) == me;
    // ORDERING: Acquire and Release — one line at a time; the port is all that is guarded.
    while !nested
        && PRINTER
            .compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
    {
        arch::irq::relax();
    }
    // The serial port takes everything.
    let _ = Serial.write_fmt(line);
    let _ = Serial.write_str("\n");
    if !nested {
        // ORDERING: Release — as above.
        PRINTER.store(0, Ordering::Release);
    }
    arch::irq::restore(were_on);
}

/// Prints a line to the serial port, a whole one even when several CPUs print. Any context; interrupts are
/// off meanwhile.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {
        $crate::print_line(format_args!($($arg)*))
    };
}
