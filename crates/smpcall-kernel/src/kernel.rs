//! Boot, the idle loop, and the end.

use core::fmt;
use core::panic::PanicInfo;

use smpcall::{BootParams, CpuMask, Smp};
use smpcall_metal::{Boot, MAX_CPUS, Metal, WORDS, println, raw};

use smpcall_torture::Tally;
use smpcall_torture::report::{BAD_PARAMETER, Line, PREFIX};

use crate::suite;
use crate::{bench, fault, hotplug, lab, limits, smoke, stall, sweep, tlb, torture};

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
        Err(bad) => refuse(format_args!("{bad}")),
    };
    if let Some(notice) = params.notice() {
        println!("{notice}");
    }
    let present = CpuMask::first_n(boot.hw_ids.len());
    #[cfg(feature = "trace")]
    if option("suite") == Some("trace") {
        crate::trace::start();
    }
    SMP.init(&present, &present, &params);
    raw::irq_enable();
    SMP.bring_up();
    let ok = run(option("suite").unwrap_or("conformance"));
    println!("{}", Line::End(ok));
    raw::exit(u8::from(!ok));
}

/// Runs a suite; answers whether it passed.
fn run(name: &str) -> bool {
    let none = Tally::default();
    match name {
        "bench" => bench::run(),
        "conformance" => suite::run(tlb::CASES, lab::conformance()),
        "fault" => suite::run(fault::CASES, none),
        "hotplug" => suite::run(hotplug::cases(), none),
        "limits" => suite::run(limits::CASES, none),
        "smoke" => suite::run(smoke::CASES, none),
        "stall" => suite::run(stall::CASES, none),
        "sweep" => suite::run(sweep::CASES, none),
        "tlb" => suite::run(tlb::CASES, none),
        #[cfg(feature = "trace")]
        "trace" => suite::run(&[], lab::conformance()),
        "torture" => torture::run(raw::info().cmdline),
        other => refuse(format_args!(
            "{PREFIX}{BAD_PARAMETER}suite={other}: there is none"
        )),
    }
}

/// The value of the last `name=value` on the command line.
pub(crate) fn option(name: &str) -> Option<&'static str> {
    let words = raw::info().cmdline.split_ascii_whitespace();
    let values = words.filter_map(|token| token.split_once('='));
    values
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .last()
}

/// The same, a number; what is none ends the machine, by name.
pub(crate) fn number(name: &str) -> Option<u64> {
    let value = option(name)?;
    match value.parse() {
        Ok(number) => Some(number),
        Err(_) => refuse(format_args!(
            "{PREFIX}{BAD_PARAMETER}{name}={value}: not a number"
        )),
    }
}

/// Ends the machine over a bad parameter.
fn refuse(why: fmt::Arguments<'_>) -> ! {
    println!("{why}");
    println!("{}", Line::End(false));
    raw::exit(1)
}

/// Is the word on the command line?
pub(crate) fn flag(name: &str) -> bool {
    raw::info()
        .cmdline
        .split_ascii_whitespace()
        .any(|word| word == name)
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
fn timer(pc: u64) {
    sweep::on_timer(pc);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("smpcall: panic on CPU {}: {info}", raw::current_cpu());
    println!("{}", Line::End(false));
    raw::exit(1)
}
