//! A machine in a test: no wait is for ever, and when one takes too long it is said who waits.
//!
//! The watchdog prints to standard error itself, past the test harness's capture, because a process
//! that hangs never shows what was captured: the CPUs and their states, the threads and what the
//! kernel says they do, and every report of the library, whose stall reports name who waits for whom.

use std::fmt::{Display, Write as _};
use std::fs;
use std::io::Write as _;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::time::Duration;

use smpcall_hosted::{Builder, CpuId, JoinHandle, Machine};

/// Longer than any test takes on a computer with far too much to do.
const LIMIT: Duration = Duration::from_secs(120);

/// What the library reported in this process.
static REPORTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A machine under a watchdog.
pub(crate) struct Bed {
    machine: Option<Arc<Machine>>,
    /// Ends the watchdog when it is dropped, after the machine.
    _alive: mpsc::Sender<()>,
}

impl Bed {
    /// CPUs `0..cpus`.
    pub(crate) fn new(cpus: usize) -> Self {
        Self::of(
            Machine::builder()
                .count(cpus)
                .reporter(|report| log(report)),
        )
    }

    /// The machine that the builder builds.
    pub(crate) fn of(builder: Builder) -> Self {
        let machine = Arc::new(builder.boot().expect("a machine"));
        let (alive, ended) = mpsc::channel::<()>();
        let watched = Arc::downgrade(&machine);
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let dog = move || {
            if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                bark(&test, &watched);
            }
        };
        std::thread::spawn(dog);
        Self {
            machine: Some(machine),
            _alive: alive,
        }
    }

    /// A job on a CPU, with the machine for it to use.
    pub(crate) fn on<R: Send + 'static>(
        &self,
        cpu: u32,
        job: impl FnOnce(&Machine) -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let machine = Arc::clone(self.machine.as_ref().expect("until the drop"));
        self.spawn_on(CpuId::new(cpu), move || job(&machine))
            .expect("the CPU is online")
    }
}

impl Deref for Bed {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        self.machine.as_ref().expect("until the drop")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // A job that is not joined may hold the machine a little longer: the last one to let go of
        // it must be this thread, which is no CPU.
        let mut machine = self.machine.take();
        while let Some(shared) = machine.take() {
            match Arc::try_unwrap(shared) {
                Ok(last) => drop(last),
                Err(shared) => {
                    std::thread::yield_now();
                    machine = Some(shared);
                }
            }
        }
    }
}

/// Keeps a report for the watchdog.
pub(crate) fn log(report: &dyn Display) {
    let mut reports = REPORTS.lock().unwrap_or_else(PoisonError::into_inner);
    reports.push(report.to_string());
}

/// Says who waits, and ends the process.
fn bark(test: &str, machine: &Weak<Machine>) -> ! {
    let mut said = format!("\n{test}: still waiting after {LIMIT:?}\n");
    if let Some(machine) = machine.upgrade() {
        for cpu in &machine.possible_cpus() {
            let _ = writeln!(said, "  CPU {cpu}: {:?}", machine.cpu_state(cpu));
        }
        // Its drop would wait.
        std::mem::forget(machine);
    }
    for task in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |what: &str| fs::read_to_string(task.path().join(what)).unwrap_or_default();
        let stat = read("stat");
        let state = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().next());
        let (name, place) = (read("comm"), read("wchan"));
        let _ = writeln!(said, "  thread {}: {state:?} in {place}", name.trim());
    }
    let reports = REPORTS.lock().unwrap_or_else(PoisonError::into_inner);
    reports.iter().for_each(|report| {
        let _ = writeln!(said, "  reported: {report}");
    });
    let _ = std::io::stderr().write_all(said.as_bytes());
    std::process::abort();
}
