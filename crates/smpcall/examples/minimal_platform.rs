//! The smallest whole port: a platform whose CPUs are threads that poll.
//!
//! A port implements [`Platform`] once and gives each CPU an idle loop. Here no interrupt
//! is ever needed, for a thread that is a CPU looks for calls whenever it idles or waits; a kernel's
//! `send_ipi` writes to its interrupt controller, and its interrupt handler calls `handle_ipi`.
//! `docs/porting.md` goes through this file step by step.
//!
//! `cargo run -p smpcall --example minimal_platform`

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use smpcall::{BootParams, CpuId, CpuMask, Platform, Report, Smp, StartError};

const CPUS: usize = 4;

/// One instance for the whole program, as a kernel has it: masks of one word, 32 posts a CPU.
static SMP: Smp<Threads, 1, 32> = Smp::new(Threads);

/// Is a thread still that CPU?
static ALIVE: [AtomicBool; CPUS] = [const { AtomicBool::new(false) }; CPUS];

thread_local! {
    static CPU: Cell<Option<CpuId>> = const { Cell::new(None) };
    static IRQS_ON: Cell<bool> = const { Cell::new(true) };
}

struct Threads;

// SAFETY: 1 — `CPU` is set by the one thread that `ALIVE` admits, until it ends, and a thread does not
// change into another; 2 — calls are taken by polling only, and the core does not poll with interrupts
// off; 3 — `catch_unwind`; 4 — nothing here panics: what is written to standard error may be lost.
unsafe impl Platform for Threads {
    type Panic = Box<dyn Any + Send>;

    // A thread is not interrupted by a call, so one that waits looks for its own.
    const WAITERS_SERVE: bool = true;

    fn current_cpu(&self) -> Option<CpuId> {
        CPU.get()
    }

    fn irqs_save(&self) -> bool {
        IRQS_ON.replace(false)
    }

    fn irqs_restore(&self, were_on: bool) {
        IRQS_ON.set(were_on);
    }

    fn irqs_enabled(&self) -> bool {
        IRQS_ON.get()
    }

    fn send_ipi(&self, _: CpuId) {
        // It will look by itself, at its next poll point.
    }

    fn relax(&self, _: u32) {
        thread::yield_now();
    }

    fn now_ns(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    fn start_cpu(&self, cpu: CpuId) -> Result<(), StartError> {
        // ORDERING: Relaxed — `cpu_up` has waited for `is_stopped`.
        ALIVE[cpu.index()].store(true, Ordering::Relaxed);
        let thread = thread::Builder::new().spawn(move || live(cpu));
        thread
            .map(drop)
            .map_err(|error| StartError::Refused(error.raw_os_error().map_or(0, i64::from)))
    }

    fn is_stopped(&self, cpu: CpuId) -> bool {
        // ORDERING: Acquire — pairs with the Release at the end of `live`.
        !ALIVE[cpu.index()].load(Ordering::Acquire)
    }

    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Self::Panic> {
        panic::catch_unwind(AssertUnwindSafe(f))
    }

    fn resume(&self, panic: Self::Panic) -> ! {
        panic::resume_unwind(panic)
    }

    fn report(&self, report: Report<'_>) {
        say(format_args!("{report}"));
    }

    fn report_panic(&self, cpu: CpuId, _: Self::Panic) {
        say(format_args!("a posted function panicked on CPU {cpu}"));
    }

    fn fatal(&self, message: fmt::Arguments<'_>) -> ! {
        say(message);
        std::process::abort()
    }
}

fn say(message: fmt::Arguments<'_>) {
    // There is nobody to tell that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// The life of a CPU: come online, idle, leave when asked.
fn live(cpu: CpuId) {
    CPU.set(Some(cpu));
    SMP.platform().irqs_save();
    if SMP.online_this_cpu() {
        SMP.platform().irqs_restore(true);
        while !SMP.leave_if_asked() {
            SMP.run_tasks();
            // From here on nobody interrupts this CPU: it looks again and again.
            SMP.idle_enter();
            while !SMP.is_asked_to_leave() && !SMP.has_tasks() {
                if !SMP.idle_poll() {
                    thread::yield_now();
                }
            }
            SMP.idle_exit();
        }
    }
    CPU.set(None);
    // ORDERING: Release — this thread is that CPU no more; pairs with `is_stopped`.
    ALIVE[cpu.index()].store(false, Ordering::Release);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cpus = CpuMask::first_n(CPUS);
    let params = BootParams::parse("maxcpus=4", 64)?;
    // SAFETY: 1, 2 — a static; 3 — done here, once, before any CPU is online.
    unsafe { SMP.set_up(&cpus, &cpus, &params) };
    assert_eq!(SMP.bring_up(), CPUS);

    let words = String::from("the caller's stack");
    let there = CpuId::new(2);
    let (cpu, length) = SMP
        .call(there, || (CPU.get(), words.len()))
        .map_err(|refused| refused.error)?;
    println!("CPU {there} says that it is {cpu:?} and that {words:?} has {length} letters");
    assert_eq!((cpu, length), (Some(there), words.len()));

    SMP.cpu_down(CpuId::new(3))?;
    let ran = SMP.on_each_cpu(|cpu| println!("and here is CPU {cpu}"));
    assert_eq!(ran.map_err(|refused| refused.error)?, CpuMask::first_n(3));
    SMP.cpu_up(CpuId::new(3))?;
    Ok(())
}
