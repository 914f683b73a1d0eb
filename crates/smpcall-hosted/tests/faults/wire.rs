//! A machine whose interrupts go through a wire that can be made bad.
//!
//! Its CPUs are threads, but unlike those of the hosted platform they hear of work by interrupts alone, as
//! processors do: a sender puts an interrupt, due at some time, into the target's pin, and the target takes it
//! between two of its turns when interrupts are on. So the core's IPIs matter here, and a fault of the
//! wire is a fault below the core.
//!
//! ```text
//!   send_ipi ──▶ Wire::put: lost? twice? when? ──▶ Pin::due ──▶ relax, irqs_restore, halt ──▶ handle_ipi
//! ```

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smpcall::{BootParams, CpuId, CpuMask, Platform, Report, Running, Smp, StartError};
use smpcall_torture::Lab;
use smpcall_torture::rng::Rng;
use smpcall_torture::torture::FOREIGNERS;

/// Room for 64 CPUs.
pub(crate) const WORDS: usize = 1;
/// Room for posted closures per target.
pub(crate) const ROOM: usize = 8;

/// The core's instance over the wire.
pub(crate) type WireSmp = Smp<Wire, WORDS, ROOM>;

/// How the wire is bad. Of a thousand interrupts, so many, unless said otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Are lost, but never two in a row to one CPU: one interrupt more brings everything back.
    pub(crate) lost: u64,
    /// Come twice, at different times.
    pub(crate) twice: u64,
    /// Come late, each by its own time, so that they overtake each other.
    pub(crate) late: u64,
    /// How late, at most, in microseconds.
    pub(crate) late_us: u64,
    /// Come with another one for a CPU that nobody wanted.
    pub(crate) stray: u64,
    /// This CPU sleeps a little in so many of a thousand turns.
    pub(crate) slow_cpu: Option<u32>,
    /// Of ten starts, so many are accepted and the CPU never arrives.
    pub(crate) dead_starts: u64,
    /// A CPU takes up to so many milliseconds to arrive.
    pub(crate) slow_start_ms: u64,
}

/// The interrupt input of a CPU.
#[derive(Default)]
struct Pin {
    /// When each interrupt that is under way arrives, on the machine's clock.
    due: Mutex<Vec<u64>>,
    /// For a CPU that halts.
    came: Condvar,
    /// There is a thread that is the CPU.
    running: AtomicBool,
    /// So many interrupts to it will be lost.
    loses: AtomicU32,
    /// The last one was.
    lost_one: AtomicBool,
}

/// The machine's platform.
pub(crate) struct Wire {
    pins: Vec<Pin>,
    faults: Faults,
    choices: AtomicU64,
    epoch: Instant,
    /// Interrupts that were sent, lost and stray ones.
    pub(crate) sent: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) stray: AtomicU64,
    running: Vec<Running>,
    stall_fatal_ns: u64,
    reports: Mutex<Vec<String>>,
    smp: OnceLock<&'static WireSmp>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopping: AtomicU32,
}

/// The code of a start that is refused, for the CPU has not stopped.
const EBUSY: i64 = 16;

thread_local! {
    /// The CPU that this thread is.
    static CPU: Cell<Option<u32>> = const { Cell::new(None) };
    /// Are its interrupts on?
    static IRQS: Cell<bool> = const { Cell::new(true) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// True for `n` of a thousand.
    fn chance(&self, n: u64) -> bool {
        n > 0 && self.choose(1000) < n
    }

    /// A number below `n`.
    fn choose(&self, n: u64) -> u64 {
        let step = self
            .choices
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Rng::new(step).below(n)
    }

    /// One interrupt for a CPU, on this wire.
    fn put(&self, cpu: CpuId) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        if self.loses(&self.pins[cpu.index()]) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.arrive(cpu, self.delay());
        if self.chance(self.faults.twice) {
            self.arrive(cpu, self.delay() + 1_000 * self.choose(200));
        }
        if self.chance(self.faults.stray) {
            self.stray.fetch_add(1, Ordering::Relaxed);
            let other = self.choose(self.pins.len() as u64) as u32;
            self.arrive(CpuId::new(other), self.delay());
        }
    }

    /// Is this one lost?
    fn loses(&self, pin: &Pin) -> bool {
        let last = |n: u32| n.checked_sub(1);
        if pin
            .loses
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, last)
            .is_ok()
        {
            return true;
        }
        let wants = self.chance(self.faults.lost);
        // Two senders at once may both find that the last one was not lost: then two in a row are. So
        // one of them decides for both.
        let turn = |lost_one: bool| Some(!lost_one && wants);
        let before = pin
            .lost_one
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, turn);
        wants && before == Ok(false)
    }

    /// From now on loses the next `n` interrupts to a CPU.
    pub(crate) fn lose(&self, cpu: CpuId, n: u32) {
        self.pins[cpu.index()].loses.store(n, Ordering::Relaxed);
    }

    fn delay(&self) -> u64 {
        let late = self.chance(self.faults.late);
        if late {
            1_000 * self.choose(self.faults.late_us.max(1))
        } else {
            0
        }
    }

    fn arrive(&self, cpu: CpuId, delay_ns: u64) {
        let pin = &self.pins[cpu.index()];
        lock(&pin.due).push(self.now_ns() + delay_ns);
        pin.came.notify_one();
    }

    /// Takes the interrupts that have arrived; when the next one will.
    fn take(&self, due: &mut Vec<u64>) -> Result<(), Option<u64>> {
        let now = self.now_ns();
        let before = due.len();
        due.retain(|&at| at > now);
        if due.len() < before {
            Ok(())
        } else {
            Err(due.iter().min().map(|at| at - now))
        }
    }

    /// Between two turns of a CPU: runs the handler if an interrupt is there and interrupts are on.
    fn turn(&self) {
        let Some(cpu) = CPU.get().filter(|_| IRQS.get()) else {
            return;
        };
        while IRQS.get() && self.take(&mut lock(&self.pins[cpu as usize].due)).is_ok() {
            self.handle();
        }
    }

    fn handle(&self) {
        IRQS.set(false);
        if let Some(smp) = self.smp.get() {
            smp.handle_ipi();
        }
        IRQS.set(true);
    }

    /// Interrupts are off: sleeps until one is there, and leaves it there.
    fn halt(&self, cpu: u32) {
        let pin = &self.pins[cpu as usize];
        let mut due = lock(&pin.due);
        while !self.is_stopping() {
            let now = self.now_ns();
            let next = due.iter().min().copied();
            if next.is_some_and(|at| at <= now) {
                return;
            }
            let wait = next.map_or(Duration::from_millis(100), |at| {
                Duration::from_nanos(at - now)
            });
            let slept = pin.came.wait_timeout(due, wait);
            due = slept.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sleeps now and then on the CPU that is slow.
    fn dawdle(&self) {
        if self.faults.slow_cpu.is_some() && CPU.get() == self.faults.slow_cpu && self.chance(50) {
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) != 0
    }

    /// What was reported so far.
    pub(crate) fn reports(&self) -> Vec<String> {
        lock(&self.reports).clone()
    }
}

// SAFETY: 1 — a thread becomes a CPU in `live` only, one at a time for each (`start_cpu` looks at `running`).
// 2 — the handler runs in `turn` alone, which looks at the flag. 3 — `catch_unwind`. 4 — nothing here panics.
unsafe impl Platform for Wire {
    type Panic = Box<dyn Any + Send>;

    const WAITERS_SERVE: bool = false;
    const HOTPLUG_TIMEOUT_NS: u64 = 2_000_000_000;
    const STALL_LIMIT_NS: u64 = 20_000_000;

    fn current_cpu(&self) -> Option<CpuId> {
        CPU.get().map(CpuId::new)
    }

    fn irqs_save(&self) -> bool {
        IRQS.replace(false)
    }

    fn irqs_restore(&self, were_on: bool) {
        IRQS.set(were_on);
        self.turn();
    }

    fn irqs_enabled(&self) -> bool {
        IRQS.get()
    }

    fn send_ipi(&self, cpu: CpuId) {
        self.put(cpu);
    }

    fn relax(&self, spins: u32) {
        self.dawdle();
        self.turn();
        if spins > 20 {
            std::thread::yield_now();
        }
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn start_cpu(&self, cpu: CpuId) -> Result<(), StartError> {
        let smp = *self.smp.get().ok_or(StartError::NoSuchCpu)?;
        if self.choose(10) < self.faults.dead_starts {
            return Ok(());
        }
        // One that was given up may still be about to arrive, and to be turned away.
        if self.pins[cpu.index()].running.swap(true, Ordering::AcqRel) {
            return Err(StartError::Refused(EBUSY));
        }
        let late = Duration::from_millis(self.choose(self.faults.slow_start_ms + 1));
        let thread = std::thread::spawn(move || {
            std::thread::sleep(late);
            live(smp, cpu);
        });
        lock(&self.threads).push(thread);
        Ok(())
    }

    fn is_stopped(&self, cpu: CpuId) -> bool {
        !self.pins[cpu.index()].running.load(Ordering::Acquire)
    }

    fn stall_fatal_ns(&self) -> u64 {
        self.stall_fatal_ns
    }

    fn running(&self, cpu: CpuId) -> Option<&Running> {
        self.running.get(cpu.index())
    }

    fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Self::Panic> {
        panic::catch_unwind(AssertUnwindSafe(f))
    }

    fn resume(&self, panic: Self::Panic) -> ! {
        panic::resume_unwind(panic)
    }

    fn report(&self, report: Report<'_>) {
        lock(&self.reports).push(report.to_string());
    }

    fn report_panic(&self, cpu: CpuId, _panic: Self::Panic) {
        lock(&self.reports).push(format!("a panic on CPU {cpu}"));
    }

    fn fatal(&self, message: fmt::Arguments<'_>) -> ! {
        eprintln!("wire: fatal: {message}");
        for report in lock(&self.reports).iter() {
            eprintln!("wire: reported: {report}");
        }
        std::process::abort()
    }
}

/// The life of a CPU's thread, as a kernel's: arrive, idle, leave.
fn live(smp: &'static WireSmp, cpu: CpuId) {
    CPU.set(Some(cpu.get()));
    IRQS.set(false);
    let wire = smp.platform();
    if smp.online_this_cpu() {
        idle(smp, cpu);
    }
    CPU.set(None);
    IRQS.set(true);
    wire.pins[cpu.index()]
        .running
        .store(false, Ordering::Release);
}

/// Interrupts are off; returns when the CPU is offline.
fn idle(smp: &'static WireSmp, cpu: CpuId) {
    let wire = smp.platform();
    loop {
        if smp.has_tasks() || smp.is_asked_to_leave() || wire.is_stopping() {
            wire.irqs_restore(true);
            smp.run_tasks();
            if smp.leave_if_asked() || (wire.is_stopping() && smp.offline_this_cpu().is_ok()) {
                return;
            }
        } else {
            wire.halt(cpu.get());
            wire.irqs_restore(true);
        }
        wire.irqs_save();
    }
}

/// A machine over a wire; its drop takes all CPUs offline.
pub(crate) struct Rig {
    pub(crate) smp: &'static WireSmp,
}

impl Rig {
    /// CPUs `0..n`, all online. A wait of longer than `fatal` ends the process; zero for never.
    pub(crate) fn new(n: usize, faults: Faults, fatal: Duration) -> Self {
        let wire = Wire {
            pins: (0..n).map(|_| Pin::default()).collect(),
            faults,
            choices: AtomicU64::new(1),
            epoch: Instant::now(),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            stray: AtomicU64::new(0),
            running: (0..n).map(|_| Running::new()).collect(),
            stall_fatal_ns: fatal.as_nanos() as u64,
            reports: Mutex::default(),
            smp: OnceLock::new(),
            threads: Mutex::default(),
            stopping: AtomicU32::new(0),
        };
        let smp: &'static WireSmp = Box::leak(Box::new(Smp::new(wire)));
        let _ = smp.platform().smp.set(smp);
        let cpus = CpuMask::first_n(n);
        // SAFETY: 1, 2 — it is leaked; 3 — it is new.
        unsafe { smp.set_up(&cpus, &cpus, &BootParams::unlimited(64)) };
        let rig = Self { smp };
        // A start that never arrives takes some tries.
        for cpu in &cpus {
            let came = (0..20).any(|_| smp.cpu_up(cpu).is_ok());
            assert!(came, "CPU {cpu} never came: {:?}", rig.wire().reports());
        }
        rig
    }

    pub(crate) fn wire(&self) -> &'static Wire {
        self.smp.platform()
    }

    /// A thread arrives as a CPU that nobody started; was it let in?
    pub(crate) fn arrives_uncalled(&self, cpu: CpuId) -> bool {
        let smp = self.smp;
        let arrive = move || {
            CPU.set(Some(cpu.get()));
            IRQS.set(false);
            smp.online_this_cpu()
        };
        std::thread::spawn(arrive).join().unwrap_or(true)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let wire = self.wire();
        wire.stopping.store(1, Ordering::Release);
        for pin in &wire.pins {
            let _due = lock(&pin.due);
            pin.came.notify_all();
        }
        let threads = std::mem::take(&mut *lock(&wire.threads));
        for thread in threads {
            // A CPU's thread catches the panics of what it runs.
            let _ = thread.join();
        }
    }
}

impl Lab<WORDS, ROOM> for Rig {
    type P = Wire;

    fn smp(&self) -> &WireSmp {
        self.smp
    }

    fn kicks(&self) -> u64 {
        self.wire().sent.load(Ordering::Relaxed)
    }

    fn may_fail_to_start(&self) -> bool {
        true
    }

    fn threads(&self) -> usize {
        FOREIGNERS - 1
    }

    fn interrupts(&self) -> bool {
        true
    }

    fn beside(&self, threads: usize, work: &(dyn Fn(usize) + Sync), lead: &mut dyn FnMut()) {
        std::thread::scope(|scope| {
            for i in 0..threads {
                scope.spawn(move || work(i));
            }
            lead();
        });
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        eprintln!("wire: {line}");
    }
}
