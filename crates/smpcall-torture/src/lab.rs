//! What a system supplies to have the cases run on it.

use core::fmt;

use smpcall::{CpuId, Platform, Smp};

/// A system under test: an instance whose CPUs idle when nobody asks them for anything.
///
/// `W` and `D` are those of the instance. The runner calls the cases in the task context of one of
/// the CPUs, or on a thread that is none. Nobody else uses the instance meanwhile.
pub trait Lab<const W: usize, const D: usize>: Sync + 'static {
    /// The platform.
    type P: Platform;

    /// The instance.
    fn smp(&self) -> &Smp<Self::P, W, D>;

    /// How many IPIs and wake-ups have been sent so far, by all.
    fn kicks(&self) -> u64;

    /// May CPUs other than the caller's be taken down and brought up?
    fn may_hotplug(&self) -> bool {
        true
    }

    /// May the system fail to start a CPU, for that is what is tried?
    fn may_fail_to_start(&self) -> bool {
        false
    }

    /// How many threads that are no CPU the system can run.
    fn threads(&self) -> usize {
        0
    }

    /// Runs `work` with 0, 1 and so on in so many threads that are no CPU, `lead` here meanwhile; returns
    /// when all have ended.
    fn beside(&self, threads: usize, work: &(dyn Fn(usize) + Sync), lead: &mut dyn FnMut()) {
        let _ = (threads, work);
        lead();
    }

    /// Is a CPU interrupted while it computes, and not only heard where it looks for calls?
    fn interrupts(&self) -> bool {
        false
    }

    /// Can a thread that is no CPU become one ([`attach`](Self::attach))?
    fn attaches(&self) -> bool {
        false
    }

    /// The calling thread, which is no CPU, becomes this one, does `as_cpu`, and is no CPU again.
    fn attach(&self, cpu: CpuId, as_cpu: &mut dyn FnMut(&dyn Attached)) -> Attachment {
        let _ = (cpu, as_cpu);
        Attachment::Failed
    }

    /// Does a panic of a called function reach the caller, instead of stopping the machine?
    fn catches_panics(&self) -> bool {
        false
    }

    /// May cases run that take several seconds each, because they wait for the library's own deadlines?
    fn may_be_slow(&self) -> bool {
        false
    }

    /// Does the platform answer a tracer, from before the first call?
    fn is_traced(&self) -> bool {
        false
    }

    /// Is this the only instance of the process that runs cases now? Callbacks for CPUs that come and
    /// go are plain functions, so two instances could not tell whose CPU it was.
    fn is_alone(&self) -> bool {
        true
    }

    /// The number that a caught panic's message ends with, if it can be read.
    fn panic_code(&self, panic: &<Self::P as Platform>::Panic) -> Option<u64> {
        let _ = panic;
        None
    }

    /// Says a line to the operator: of a dump, in trouble. Any context.
    fn log(&self, line: fmt::Arguments<'_>);
}

/// A thread that became a CPU.
pub trait Attached {
    /// Sleeps until something comes for this CPU or the time is up, perhaps not as long.
    fn sleep(&self, limit_ns: u64);

    /// Does what came, and leaves if somebody asked for it; answers whether the thread is still the CPU.
    fn serve(&self) -> bool;
}

/// What came of an attempt to become a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// The thread was the CPU, and is no more.
    Was,
    /// Another thread was the CPU, or had not come to rest.
    Busy,
    /// It failed for another reason, which was logged.
    Failed,
}
