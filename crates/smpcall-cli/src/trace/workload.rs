//! What is recorded: a round has one call of each kind, while another CPU calls back.
//!
//! The called functions work for a few microseconds, so that they can be seen on a timeline.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use smpcall_hosted::{CallError, CpuId, CpuMask, Machine, Platform, WithoutClosure};

use crate::args::TraceOptions;
use crate::{Failure, output};

/// A call that the workload made: on which CPU, and from when to when.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) cpu: Option<CpuId>,
    pub(super) name: &'static str,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
}

/// How long each called function works.
const WORK: Duration = Duration::from_micros(4);

fn work() {
    let start = Instant::now();
    while start.elapsed() < WORK {
        std::hint::spin_loop();
    }
}

fn look_up() -> u32 {
    work();
    42
}

fn note() {
    work();
}

fn drain_cache(_: CpuId) {
    work();
}

fn reload(_: CpuId) {
    work();
}

/// The spans so far.
struct Notes<'a> {
    machine: &'a Machine,
    spans: Mutex<Vec<Span>>,
}

impl Notes<'_> {
    /// Makes a call and notes how long it took.
    fn note<T>(
        &self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, CallError>,
    ) -> Result<(), CallError> {
        let platform = self.machine.platform();
        let cpu = self.machine.current_cpu();
        let start_ns = platform.now_ns();
        call()?;
        let end_ns = platform.now_ns();
        let span = Span {
            cpu,
            name,
            start_ns,
            end_ns,
        };
        self.spans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(span);
        Ok(())
    }
}

/// Is this function the workload itself, rather than one that it calls?
pub(super) fn is_itself(function: &str) -> bool {
    function.starts_with(module_path!()) && function.ends_with("{{closure}}")
}

/// Runs the rounds; the calls that were made, by time.
pub(super) fn run(machine: &Machine, options: &TraceOptions) -> Result<Vec<Span>, Failure> {
    let notes = Notes {
        machine,
        spans: Mutex::default(),
    };
    let online = machine.online_cpus();
    let mut cpus = online.iter();
    let here = cpus
        .next()
        .ok_or_else(|| Failure::Trouble("no CPU is online".into()))?;
    let there = cpus.next().unwrap_or(here);
    let rounds = options.rounds;
    let bar = output::progress(u64::from(rounds), "tracing");
    std::thread::scope(|scope| {
        let back = scope.spawn(|| call_back(&notes, there, here, rounds));
        let all = || {
            (0..rounds).try_for_each(|_| {
                bar.inc(1);
                round(&notes, here, there, &online)
            })
        };
        let made = machine.run_on_cpu(here, all).without_closure();
        // A panic in there came back through `run_on_cpu`.
        let back = back.join().unwrap_or(Ok(()));
        made.flatten().and(back)
    })?;
    bar.finish_and_clear();
    let mut spans = notes
        .spans
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    spans.sort_by_key(|span| span.start_ns);
    Ok(spans)
}

/// On `here`: a call of each kind.
fn round(notes: &Notes<'_>, here: CpuId, there: CpuId, online: &CpuMask) -> Result<(), CallError> {
    let machine = notes.machine;
    notes.note("call", || Ok(machine.call(there, look_up)?))?;
    notes.note("post, post", || {
        machine.post(there, note)?;
        Ok(machine.post(there, note)?)
    })?;
    let last = online.last().unwrap_or(here);
    notes.note("call", || Ok(machine.call(last, look_up)?))?;
    let second = |cpu: CpuId| cpu.get() % 2 == 1;
    notes.note("on_each_cpu_cond", || {
        Ok(machine.on_each_cpu_cond(second, drain_cache)?)
    })?;
    notes.note("on_each_cpu", || Ok(machine.on_each_cpu(reload)?))?;
    notes.note("kick_all_cpus_sync", || machine.kick_all_cpus_sync())
}

/// On `there`: calls to `here`, which serves them where it waits.
fn call_back(notes: &Notes<'_>, there: CpuId, here: CpuId, rounds: u32) -> Result<(), CallError> {
    if there == here {
        return Ok(());
    }
    let calls = || {
        (0..rounds).try_for_each(|_| {
            work();
            notes.note("call", || Ok(notes.machine.call(here, look_up)?))
        })
    };
    notes.machine.run_on_cpu(there, calls).without_closure()?
}
