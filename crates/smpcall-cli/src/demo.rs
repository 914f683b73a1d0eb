//! `smpcall demo`: every kind of call of the seed, and where each really ran.
//!
//! Nothing here is assumed: the function that is called notes the CPU that it finds itself on, and
//! asks the kernel which CPU of the computer that is. A call is right if exactly the CPUs that
//! had to run it did so, once each, on the CPU that they are pinned to, and the answer is
//! right. The calls are made by one CPU, in its ordinary context, as a kernel makes them.

mod calls;
mod many;
mod system;
mod witness;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::{Cell, Color};
use serde_json::{Value, json};
use smpcall_hosted::{CallError, CpuId, CpuMask, Machine, WithoutClosure, write_trace};

use crate::args::{Common, DemoOptions};
use crate::host;
use crate::latency::{self, Effort, Pair};
use crate::output::{self, Format, human_ns};
use crate::{Failure, Verdict, heatmap, svg};

use witness::{Seen, WITNESS};

/// How long the latency table may take.
const LATENCY_TIME: Duration = Duration::from_millis(1500);
/// Room for events of each CPU in a recorded demo, which has some hundreds.
const TRACED_EVENTS: usize = 20_000;
/// How many CPUs the latency table has at most; `smpcall latency` has them all.
const LATENCY_CPUS: usize = 64;

/// One call that was made.
#[derive(Debug)]
pub(crate) struct Call {
    seed_name: &'static str,
    name: &'static str,
    what: String,
    seen: Seen,
    result: Value,
    elapsed: Duration,
    /// What is wrong with it.
    fault: Option<String>,
}

impl Call {
    fn row(&self) -> Value {
        json!({
            "type": "call",
            "seed_name": self.seed_name,
            "name": self.name,
            "what": self.what,
            "cpus": self.seen.cpus.iter().map(|cpu| cpu.get()).collect::<Vec<_>>(),
            "host_cpus": self.seen.host_cpus,
            "result": self.result,
            "elapsed_ns": self.elapsed.as_nanos() as u64,
            "ok": self.fault.is_none(),
        })
    }
}

/// What a call has to do to be right.
#[derive(Debug)]
struct Plan {
    seed_name: &'static str,
    name: &'static str,
    what: String,
    /// Who has to run it.
    cpus: CpuMask,
    /// What has to come back.
    result: Value,
}

/// Where the calls are made.
struct Stage<'a> {
    machine: &'a Machine,
    /// The CPU that calls.
    here: CpuId,
    /// Another one; the same if there is no other.
    there: CpuId,
    online: CpuMask,
    calls: Vec<Call>,
}

impl<'a> Stage<'a> {
    fn new(machine: &'a Machine) -> Result<Self, Failure> {
        let online = machine.online_cpus();
        let mut cpus = online.iter();
        let here = cpus
            .next()
            .ok_or_else(|| Failure::Trouble("no CPU is online".into()))?;
        Ok(Self {
            machine,
            here,
            there: cpus.next().unwrap_or(here),
            online,
            calls: Vec::new(),
        })
    }

    /// The CPUs but the calling one.
    fn others(&self) -> CpuMask {
        self.online.and_not(&CpuMask::of(self.here))
    }

    /// Who is called, in words.
    fn whither(&self) -> String {
        if self.alone() {
            "itself, the only CPU".into()
        } else {
            format!("CPU {}", self.there)
        }
    }

    fn alone(&self) -> bool {
        self.here == self.there
    }

    /// Makes a call, waits for what it posted, and judges it.
    fn call(&mut self, plan: Plan, f: impl FnOnce(&Machine) -> Result<Value, String>) {
        self.call_then(plan, f, |_| Ok(()));
    }

    /// As [`Self::call`], with something to do after the time was taken and before it is judged.
    fn call_then(
        &mut self,
        plan: Plan,
        f: impl FnOnce(&Machine) -> Result<Value, String>,
        after: impl FnOnce(&Machine) -> Result<(), CallError>,
    ) {
        WITNESS.clear();
        let start = Instant::now();
        let result = f(self.machine);
        let elapsed = start.elapsed();
        let settled = self.flush().and_then(|()| after(self.machine));
        let seen = WITNESS.seen();
        let fault = settled
            .err()
            .map(|error| format!("settling it failed: {error}"))
            .or_else(|| fault(self.machine, &plan, &result, &seen));
        self.calls.push(Call {
            seed_name: plan.seed_name,
            name: plan.name,
            what: plan.what,
            seen,
            result: result.unwrap_or_else(Value::String),
            elapsed,
            fault,
        });
    }

    /// Waits until everything posted has run.
    fn flush(&self) -> Result<(), CallError> {
        let online = self.machine.online_cpus();
        online.iter().try_for_each(|cpu| self.machine.flush(cpu))
    }
}

/// What is wrong with a call, if anything is.
fn fault(
    machine: &Machine,
    plan: &Plan,
    result: &Result<Value, String>,
    seen: &Seen,
) -> Option<String> {
    let got = match result {
        Ok(value) => value,
        Err(error) => return Some(error.clone()),
    };
    if *got != plan.result {
        return Some(format!("the result should be {}", plan.result));
    }
    if seen.mask() != plan.cpus {
        return Some(format!("it should run on CPUs {}", plan.cpus));
    }
    if let Some(cpu) = seen.twice {
        return Some(format!("it ran more than once on CPU {cpu}"));
    }
    if seen.strangers > 0 {
        return Some("it ran on a thread that is no CPU".into());
    }
    let strayed = seen.cpus.iter().zip(&seen.host_cpus);
    strayed
        .filter(|&(&cpu, &host)| host::host_cpu_of(machine, cpu) != Some(host))
        .map(|(cpu, host)| format!("CPU {cpu} was found on the computer's CPU {host}"))
        .next()
}

/// Boots, calls, measures, shows.
pub(crate) fn run(common: &Common, options: &DemoOptions) -> Verdict {
    if let Some(file) = &options.perfetto {
        svg::check_file("--perfetto", file)?;
    }
    let start = Instant::now();
    let mut builder = host::builder(common.cpus.as_ref());
    if options.perfetto.is_some() {
        builder = builder.trace(TRACED_EVENTS);
    }
    let machine = Arc::new(builder.boot().map_err(host::boot_failure)?);
    let booted = start.elapsed();
    WITNESS.watch(&machine);
    let mut stage = Stage::new(&machine)?;
    let here = stage.here;
    system::bring_up(&mut stage, booted);
    machine
        .run_on_cpu(here, || {
            calls::make(&mut stage);
            many::make(&mut stage);
            system::make(&mut stage);
        })
        .without_closure()?;
    system::boot_parameters(&mut stage, common.cpus.as_ref())?;
    let calls = stage.calls;
    let pairs = match &options.perfetto {
        Some(file) => {
            write_events(&machine, file)?;
            Vec::new()
        }
        None => latencies(&machine)?,
    };
    show(common.format(), &machine, &calls, &pairs)?;
    let ok = calls.iter().all(|call| call.fault.is_none());
    Ok(latency::right(&pairs) && ok)
}

/// The latency table of the first CPUs.
fn latencies(machine: &Machine) -> Result<Vec<Pair>, Failure> {
    let cpus = machine.online_cpus().iter().take(LATENCY_CPUS).collect();
    let effort = Effort {
        samples: 1000,
        time: LATENCY_TIME,
    };
    latency::measure(machine, &cpus, effort)
}

/// Writes what was recorded, all of it.
fn write_events(machine: &Machine, file: &Path) -> Result<(), Failure> {
    let tracer = machine.trace();
    let tracer = tracer.ok_or_else(|| Failure::Trouble("the machine kept no trace".into()))?;
    if tracer.lost() > 0 {
        let lost = tracer.lost();
        return Err(Failure::Trouble(format!("{lost} events found no room")));
    }
    let mut json = Vec::new();
    write_trace(&tracer, &mut json)?;
    Ok(fs::write(file, json)?)
}

fn show(format: Format, machine: &Machine, calls: &[Call], pairs: &[Pair]) -> Result<(), Failure> {
    let rows = calls
        .iter()
        .map(Call::row)
        .chain(pairs.iter().map(Pair::row));
    output::rows(format, &rows.collect::<Vec<_>>())?;
    for call in calls {
        if let Some(fault) = &call.fault {
            eprintln!("smpcall: {} ({}): {fault}", call.name, call.what);
        }
    }
    if format == Format::Human {
        opening(machine)?;
        table(calls)?;
        if !pairs.is_empty() {
            heatmap::show(pairs)?;
        }
    }
    Ok(())
}

/// What kind of machine this was.
fn opening(machine: &Machine) -> Result<(), Failure> {
    let cpus = machine.present_cpus();
    let shared = host::distinct_host_cpus(machine);
    let how = match cpus.len() {
        1 => "One CPU may be used here, so every call is to itself and runs inline.".into(),
        count if count > shared => {
            format!("{count} CPUs share {shared} of the computer's: they park instead of polling.")
        }
        count => format!("{count} CPUs, each a thread pinned to a CPU of this computer."),
    };
    Ok(output::line(how)?)
}

/// Columns that a narrow terminal can spare.
const SEED_NAME: usize = 0;
const HOST: usize = 4;
const RESULT: usize = 5;

fn table(calls: &[Call]) -> Result<(), Failure> {
    let header = [
        "kernel/smp.c",
        "smpcall",
        "what",
        "ran on",
        "host",
        "result",
        "time",
        "",
    ];
    let mut table = output::table(&header, &[6]);
    for call in calls {
        let hosts: CpuMask = call
            .seen
            .host_cpus
            .iter()
            .copied()
            .map(CpuId::new)
            .collect();
        let verdict = match call.fault {
            None => Cell::new("ok").fg(Color::Green),
            Some(_) => Cell::new("WRONG").fg(Color::Red),
        };
        table.add_row(vec![
            Cell::new(call.seed_name),
            Cell::new(call.name),
            Cell::new(&call.what),
            Cell::new(output::brief(&call.seen.mask().to_string())),
            Cell::new(output::brief(&hosts.to_string())),
            Cell::new(output::brief(&output::text(&call.result))),
            Cell::new(human_ns(call.elapsed.as_nanos() as f64)),
            verdict,
        ]);
    }
    // Beside the name here, that of the kernel can be spared; whether it was right cannot.
    output::print(table, &[HOST, RESULT, SEED_NAME])?;
    let wrong = calls.iter().filter(|call| call.fault.is_some()).count();
    output::line(format!(
        "{} calls, {wrong} wrong. Each was made once, cold; the latencies below are of many, warm.\n\
         Ran on: the CPU that the function found itself to be; host: what sched_getcpu said.\n",
        calls.len()
    ))?;
    Ok(())
}
