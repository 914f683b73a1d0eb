//! The kernel's own cases: what needs a processor to be shown, and not the library alone.
//!
//! They are said in the report's lines, as those of `smpcall_torture` are. Every wait is bounded; a CPU
//! that never ends its part of a case is named, and the machine ends.

use core::mem::transmute;
use core::pin::Pin;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use smpcall::{CpuMask, Csd};
use smpcall_metal::{MAX_CPUS, WORDS, println, raw};
use smpcall_torture::report::{CASE, CASE_FAILED, Line, PREFIX};
use smpcall_torture::{Check, Failure, Tally};

use crate::kernel::SMP;

/// How long a wait may take.
const LIMIT_NS: u64 = 60_000_000_000;

/// A case.
pub(crate) struct Case {
    /// The behaviour that it checks.
    pub(crate) name: &'static str,
    /// How many CPUs must be online.
    pub(crate) min_cpus: usize,
    /// The check.
    pub(crate) run: fn() -> Check,
}

/// Runs the cases that there are CPUs for, and says the tally of these and `before`.
pub(crate) fn run(cases: &[Case], before: Tally) -> bool {
    let mut tally = before;
    let online = SMP.num_online_cpus();
    for case in cases.iter().filter(|case| case.min_cpus <= online) {
        let name = case.name;
        println!("{}", Line::CaseStarts(name));
        match (case.run)() {
            Ok(()) => {
                tally.passed += 1;
                println!("{}", Line::CaseOk(name));
            }
            Err(failure) => {
                tally.failed += 1;
                println!("{PREFIX}{CASE}{name} {CASE_FAILED}{failure}");
            }
        }
    }
    let Tally { passed, failed } = tally;
    println!("{}", Line::Tally { passed, failed });
    tally.ok()
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(smpcall_torture::Failure::new(format_args!($($what)+)));
        }
    };
}
pub(crate) use ensure;

/// Turns a result into a check.
#[track_caller]
pub(crate) fn expect<T, E: core::fmt::Debug>(
    what: &str,
    result: Result<T, E>,
) -> Result<T, Failure> {
    // Not `map_err`, whose closure would be the line that failed.
    match result {
        Ok(value) => Ok(value),
        Err(error) => Err(Failure::new(format_args!("{what}: {error:?}"))),
    }
}

/// Waits until `done`.
#[track_caller]
pub(crate) fn wait(what: &str, done: impl Fn() -> bool) -> Check {
    let start = raw::now_ns();
    while !done() {
        raw::relax();
        ensure!(raw::now_ns() - start < LIMIT_NS, "never happened: {what}");
    }
    Ok(())
}

/// Sleeps until `done`: whoever makes it so interrupts this CPU, by an IPI that is no call.
///
/// A turn of [`wait`] may cost a CPU of QEMU its time slice of a busy host; this costs a wake-up.
pub(crate) fn sleep(done: impl Fn() -> bool) {
    let were_on = raw::irq_save();
    while !done() {
        raw::wait_for_interrupt();
    }
    raw::irq_restore(were_on);
}

/// What [`member`] runs.
static WORK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// Members that have not ended.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// A crew's part on one CPU.
fn member() {
    // ORDERING: Relaxed — the post ordered it.
    let work = WORK.load(Ordering::Relaxed);
    // SAFETY: `crew` stored a `fn()`, and changes it only when all members have ended.
    let work = unsafe { transmute::<*mut (), fn()>(work) };
    work();
    // ORDERING: Release — what the member did is visible to `crew`.
    LEFT.fetch_sub(1, Ordering::Release);
}

/// Runs `work` in the task context of each of these CPUs, `lead` here meanwhile, which makes them end.
#[track_caller]
pub(crate) fn crew(
    cpus: &CpuMask<WORDS>,
    work: fn(),
    lead: impl FnOnce() -> Check,
    end: impl FnOnce(),
) -> Check {
    static MEMBERS: [Csd<fn()>; MAX_CPUS] = [const { Csd::new(member as fn()) }; MAX_CPUS];
    // ORDERING: Relaxed, both — the posts publish them.
    WORK.store(work as *mut (), Ordering::Relaxed);
    LEFT.store(cpus.len() as u32, Ordering::Relaxed);
    for cpu in cpus {
        let posted = SMP.post_task(cpu, Pin::static_ref(&MEMBERS[cpu.index()]));
        expect("post_task", posted)?;
    }
    let led = lead();
    end();
    // ORDERING: Acquire — what the members did is visible.
    let ended = wait("the crew ended", || LEFT.load(Ordering::Acquire) == 0);
    led.and(ended)
}
