//! A C kernel's table of callbacks, as the platform that the core runs on.
//!
//! `smpcall_init` checks the table once and stores its address; every method reads it. The callbacks
//! must keep the promises of [`Platform`], which `include/smpcall/platform.h` puts in C's words.

use core::convert::Infallible;
use core::ffi::{c_char, c_int, c_uint};
use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use smpcall::{CpuId, CpuMask, Platform, Report, StartError};

use crate::types::{RawMask, WORDS};

/// `struct smpcall_platform`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RawPlatform {
    pub(crate) current_cpu: Option<unsafe extern "C" fn() -> c_int>,
    pub(crate) irqs_save: Option<unsafe extern "C" fn() -> bool>,
    pub(crate) irqs_restore: Option<unsafe extern "C" fn(bool)>,
    pub(crate) irqs_enabled: Option<unsafe extern "C" fn() -> bool>,
    pub(crate) send_ipi: Option<unsafe extern "C" fn(c_int)>,
    pub(crate) send_ipi_mask: Option<unsafe extern "C" fn(*const RawMask)>,
    pub(crate) relax: Option<unsafe extern "C" fn()>,
    pub(crate) now_ns: Option<unsafe extern "C" fn() -> u64>,
    pub(crate) start_cpu: Option<unsafe extern "C" fn(c_int) -> c_int>,
    pub(crate) is_stopped: Option<unsafe extern "C" fn(c_int) -> bool>,
    pub(crate) report: Option<unsafe extern "C" fn(*const c_char)>,
    pub(crate) fatal: Option<unsafe extern "C" fn(*const c_char)>,
    pub(crate) preempt_disable: Option<unsafe extern "C" fn()>,
    pub(crate) preempt_enable: Option<unsafe extern "C" fn()>,
    pub(crate) node_of: Option<unsafe extern "C" fn(c_int) -> c_uint>,
}

impl RawPlatform {
    /// The first callback that must be there and is not, by name.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let needed = [
            ("current_cpu", self.current_cpu.is_some()),
            ("irqs_save", self.irqs_save.is_some()),
            ("irqs_restore", self.irqs_restore.is_some()),
            ("irqs_enabled", self.irqs_enabled.is_some()),
            ("send_ipi", self.send_ipi.is_some()),
            ("relax", self.relax.is_some()),
            ("now_ns", self.now_ns.is_some()),
            ("start_cpu", self.start_cpu.is_some()),
            ("report", self.report.is_some()),
            ("fatal", self.fatal.is_some()),
            (
                "preempt_disable or preempt_enable",
                self.preempt_disable.is_some() == self.preempt_enable.is_some(),
            ),
        ];
        needed.iter().find(|(_, is)| !is).map(|(name, _)| *name)
    }
}

/// The table that `smpcall_init` was given.
static TABLE: AtomicPtr<RawPlatform> = AtomicPtr::new(ptr::null_mut());

/// Stores the table.
pub(crate) fn set(table: &'static RawPlatform) {
    // ORDERING: Release — publishes the table; pairs with `get`.
    TABLE.store(ptr::from_ref(table).cast_mut(), Ordering::Release);
}

/// The table, once it is there.
#[inline]
pub(crate) fn get() -> Option<&'static RawPlatform> {
    // ORDERING: Acquire — what the table's maker wrote is visible.
    let table = TABLE.load(Ordering::Acquire);
    // SAFETY: only `set` stores here, from `&'static`.
    unsafe { table.as_ref() }
}

/// Calls a callback that `missing` looked for, or `$otherwise`.
macro_rules! ask {
    ($name:ident($($argument:expr),*) else $otherwise:expr) => {
        match get().and_then(|table| table.$name) {
            // SAFETY: C promised that its callbacks may be called as the header says.
            Some(callback) => unsafe { callback($($argument),*) },
            None => $otherwise,
        }
    };
}

/// A line for C: cut where its room ends, with a NUL behind it.
struct Line {
    text: [u8; 256],
    used: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.text.len() - 1 - self.used;
        let fits = text.len().min(room);
        self.text[self.used..self.used + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.used += fits;
        Ok(())
    }
}

impl Line {
    fn of(message: fmt::Arguments<'_>) -> Self {
        let mut line = Self {
            text: [0; 256],
            used: 0,
        };
        // A line takes everything.
        let _ = line.write_fmt(message);
        line
    }
}

/// Says a line to the operator.
pub(crate) fn report(line: fmt::Arguments<'_>) {
    let line = Line::of(line);
    ask!(report(line.text.as_ptr().cast()) else ());
}

/// Says a line and stops; a kernel that has no `fatal` yet stays here.
pub(crate) fn fatal(line: fmt::Arguments<'_>) -> ! {
    let line = Line::of(line);
    ask!(fatal(line.text.as_ptr().cast()) else ());
    loop {
        core::hint::spin_loop();
    }
}

/// The platform of a C kernel.
#[derive(Debug)]
pub(crate) struct Table;

// SAFETY: 1, 2 — C promised them with its table; a CPU id from there is checked against the
// capacity. 3, 4 — a panic does not unwind here: the panic handler stops the machine.
unsafe impl Platform for Table {
    type Panic = Infallible;

    // True is right for every kernel: one whose interrupts arrive while it waits finds nothing to do.
    const WAITERS_SERVE: bool = true;

    #[inline]
    fn current_cpu(&self) -> Option<CpuId> {
        let cpu = CpuId::new(ask!(current_cpu() else -1) as u32);
        (cpu.index() < CpuMask::<WORDS>::CAPACITY).then_some(cpu)
    }

    #[inline]
    fn preempt_disable(&self) {
        ask!(preempt_disable() else ());
    }

    #[inline]
    fn preempt_enable(&self) {
        ask!(preempt_enable() else ());
    }

    #[inline]
    fn irqs_save(&self) -> bool {
        ask!(irqs_save() else false)
    }

    #[inline]
    fn irqs_restore(&self, were_on: bool) {
        ask!(irqs_restore(were_on) else ());
    }

    #[inline]
    fn irqs_enabled(&self) -> bool {
        ask!(irqs_enabled() else false)
    }

    #[inline]
    fn send_ipi(&self, cpu: CpuId) {
        ask!(send_ipi(cpu.get() as c_int) else ());
    }

    fn send_ipi_mask<const W: usize>(&self, cpus: &CpuMask<W>, _count: usize) {
        let all = || cpus.iter().for_each(|cpu| self.send_ipi(cpu));
        if get().is_none_or(|table| table.send_ipi_mask.is_none()) {
            return all();
        }
        let mask = RawMask::new();
        mask.store(&cpus.iter().collect());
        ask!(send_ipi_mask(&raw const mask) else all());
    }

    #[inline]
    fn relax(&self, _spins: u32) {
        ask!(relax() else core::hint::spin_loop());
    }

    fn now_ns(&self) -> u64 {
        ask!(now_ns() else 0)
    }

    fn node_of(&self, cpu: CpuId) -> u32 {
        ask!(node_of(cpu.get() as c_int) else 0)
    }

    fn start_cpu(&self, cpu: CpuId) -> Result<(), StartError> {
        match ask!(start_cpu(cpu.get() as c_int) else -1) {
            0 => Ok(()),
            code => Err(StartError::Refused(i64::from(code))),
        }
    }

    fn is_stopped(&self, cpu: CpuId) -> bool {
        ask!(is_stopped(cpu.get() as c_int) else true)
    }

    #[inline]
    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Infallible> {
        Ok(f())
    }

    fn resume(&self, panic: Infallible) -> ! {
        match panic {}
    }

    fn report(&self, what: Report<'_>) {
        report(format_args!("smpcall: {what}"));
    }

    fn report_panic(&self, _cpu: CpuId, panic: Infallible) {
        match panic {}
    }

    fn fatal(&self, message: fmt::Arguments<'_>) -> ! {
        fatal(format_args!("smpcall: fatal: {message}"))
    }
}
