//! Boot, the idle loop, and the end.

use core::panic::PanicInfo;

use smpcall::{BootParams, CpuMask, Smp};
use smpcall_metal::{Boot, MAX_CPUS, Metal, WORDS, println, raw};

use smpcall_torture::report::Line;

use crate::{bench, lab, torture};

/// The core's instance.
pub(crate) type Kernel = Smp<Metal, WORDS>;

/// The one of this image.
pub(crate) static SMP: Kernel = Smp::new(Metal);

smpcall_metal::kernel!(main: main, secondary: secondary, ipi: ipi, timer: timer);

/// The boot CPU.
fn main(boot: &'static Boot) -> ! {
    let capacity = MAX_CPUS as u32;
    let params = match BootParams::parse(boot.cmdline, capacity) {
        Ok(params) => params,
        Err(bad) => {
            println!("{bad}");
            println!("{}", Line::End(false));
            raw::exit(1);
        }
    };
    if let Some(notice) = params.notice() {
        println!("{notice}");
    }
    let present = CpuMask::first_n(boot.hw_ids.len());
    SMP.init(&present, &present, &params);
    raw::irq_enable();
    SMP.bring_up();
    let ok = match option(boot.cmdline, "suite") {
        Some("bench") => bench::run(),
        None | Some("conformance") => lab::conformance(),
        Some("torture") => torture::run(boot.cmdline),
        Some(other) => {
            println!("smpcall: no such suite: {other}");
            false
        }
    };
    println!("{}", Line::End(ok));
    raw::exit(u8::from(!ok));
}

/// The value of the last `name=value` on the command line.
fn option(cmdline: &'static str, name: &str) -> Option<&'static str> {
    let values = cmdline
        .split_ascii_whitespace()
        .filter_map(|token| token.split_once('='));
    values
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .last()
}

/// Every other CPU, each time it is started.
fn secondary(_cpu: u32) -> ! {
    if SMP.online_this_cpu() {
        idle();
    }
    // Too late: it was given up.
    raw::stop_self()
}

/// Halts until there is something to do; returns when the CPU has left. Interrupts are off.
fn idle() {
    loop {
        if SMP.has_tasks() {
            raw::irq_enable();
            SMP.run_tasks();
            raw::irq_save();
        } else if SMP.is_asked_to_leave() {
            raw::irq_enable();
            if SMP.leave_if_asked() {
                return;
            }
            raw::irq_save();
        } else {
            raw::wait_for_interrupt();
        }
    }
}

/// The call-function interrupt.
fn ipi() {
    SMP.handle_ipi();
}

/// The timer's interrupt.
fn timer(_pc: u64) {}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("smpcall: panic on CPU {}: {info}", raw::current_cpu());
    println!("{}", Line::End(false));
    raw::exit(1)
}
