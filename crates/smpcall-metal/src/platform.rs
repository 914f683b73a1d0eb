//! The platform: what the core asks for, answered by the processor.
//!
//! Everything on a hot path is the architecture's own inlined function. IPIs are counted per
//! sender, for tests that prove how many were sent.

use core::convert::Infallible;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CpuId, CpuMask, Platform, Report, StartError};

use crate::{MAX_CPUS, arch, println};

/// Words of a CPU mask that holds every CPU of an image.
pub const WORDS: usize = MAX_CPUS / 64;

/// The platform of a bare-metal image: `static SMP: Smp<Metal, WORDS> = Smp::new(Metal);`.
#[derive(Debug, Clone, Copy)]
pub struct Metal;

/// One CPU's counter, in a cache line of its own.
#[repr(align(64))]
struct Counter(AtomicU64);

/// IPIs sent, by sender.
static SENT: [Counter; MAX_CPUS] = [const { Counter(AtomicU64::new(0)) }; MAX_CPUS];

impl Metal {
    /// How many IPIs all CPUs have sent.
    pub fn ipis_sent() -> u64 {
        // ORDERING: Relaxed — a statistic.
        SENT.iter().map(|sent| sent.0.load(Ordering::Relaxed)).sum()
    }

    /// Counts IPIs sent by this CPU. An interrupt in the middle may lose its own count.
    #[inline]
    fn count(n: u64) {
        // SAFETY: logical ids are below `MAX_CPUS`. Checked, it would cost every call two instructions.
        let sent = unsafe { &SENT.get_unchecked(arch::percpu::current() as usize).0 };
        // ORDERING: Relaxed — a statistic, written by this CPU only.
        sent.store(sent.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
}

// SAFETY: 1 — `percpu::current` reads what `start` or the boot installed, one id per processor, and
// there is no scheduler that would move the caller. 2 — the interrupt flag of the processor.
// 3 — a panic does not unwind here: the panic handler stops the machine.
unsafe impl Platform for Metal {
    type Panic = Infallible;

    const WAITERS_SERVE: bool = false;

    #[inline]
    fn current_cpu(&self) -> Option<CpuId> {
        Some(CpuId::new(arch::percpu::current()))
    }

    #[inline]
    fn irqs_save(&self) -> bool {
        arch::irq::save()
    }

    #[inline]
    fn irqs_restore(&self, were_on: bool) {
        arch::irq::restore(were_on);
    }

    #[inline]
    fn irqs_enabled(&self) -> bool {
        arch::irq::enabled()
    }

    #[inline]
    fn send_ipi(&self, cpu: CpuId) {
        Self::count(1);
        arch::ipi::send(cpu.get());
    }

    #[inline]
    fn send_ipi_mask<const W: usize>(&self, cpus: &CpuMask<W>, count: usize) {
        Self::count(count as u64);
        arch::ipi::send_mask(cpus.words());
    }

    fn park(&self, word: &AtomicU32, value: u32) {
        let were_on = arch::irq::save();
        // ORDERING: Relaxed — interrupts are off, so the handler that changes the word, and the IPI
        // that announces it, are taken by the halt below or were before this look.
        if word.load(Ordering::Relaxed) == value {
            arch::irq::wait_for_interrupt();
        }
        arch::irq::restore(were_on);
    }

    #[inline]
    fn relax(&self, _spins: u32) {
        arch::irq::relax();
    }

    fn now_ns(&self) -> u64 {
        arch::time::now_ns()
    }

    fn start_cpu(&self, cpu: CpuId) -> Result<(), StartError> {
        arch::smp::start(cpu.get()).map_err(|error| match error {
            crate::StartError::NoSuchCpu => StartError::NoSuchCpu,
            crate::StartError::AlreadyRunning => StartError::Refused(0),
            crate::StartError::Firmware(code) => StartError::Refused(code),
        })
    }

    fn is_stopped(&self, cpu: CpuId) -> bool {
        arch::smp::is_stopped(cpu.get())
    }

    #[inline]
    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Infallible> {
        Ok(f())
    }

    fn resume(&self, panic: Infallible) -> ! {
        match panic {}
    }

    #[cfg(feature = "trace")]
    #[inline(always)]
    fn tracer(&self) -> Option<smpcall::Tracer<'_>> {
        crate::tracer::tracer()
    }

    #[cfg(feature = "trace")]
    #[inline(always)]
    fn is_traced(&self) -> bool {
        crate::tracer::is_given()
    }

    fn report(&self, report: Report<'_>) {
        println!("smpcall: {report}");
    }

    fn report_panic(&self, _cpu: CpuId, panic: Infallible) {
        match panic {}
    }

    fn fatal(&self, message: fmt::Arguments<'_>) -> ! {
        println!("smpcall: fatal: {message}");
        arch::exit::exit(1)
    }
}
