//! `smpcall latency`: a waited call from every CPU to every CPU.
//!
//! Each call is timed on the CPU that makes it, between two readings of the clock, whose own
//! cost is taken off. A call to itself runs inline and takes less than a reading, so such calls are
//! timed by the batch. A wrong answer counts as a failed check.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smpcall_hosted::{CallError, CpuId, CpuMask, Machine, WithoutClosure};

use crate::args::{Common, LatencyOptions};
use crate::heatmap::{self, picture};
use crate::host;
use crate::output::{self, Format, ns};
use crate::stats;
use crate::{Failure, Verdict};

/// Calls before the first timed one: the target wakes up, the caller gets its mailbox line.
const WARM_UP: u32 = 64;
/// The fewest calls per pair, however short the time.
const AT_LEAST: usize = 16;
/// Calls to itself per reading of the clock.
const BATCH: u32 = 64;

/// One pair of CPUs.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) from: CpuId,
    pub(crate) to: CpuId,
    pub(crate) median_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) samples: usize,
    /// Calls that brought a wrong answer back.
    pub(crate) wrong: u32,
}

impl Pair {
    /// The pair as a row.
    pub(crate) fn row(&self) -> Value {
        json!({
            "type": "latency",
            "from": self.from.get(),
            "to": self.to.get(),
            "median_ns": ns(self.median_ns),
            "p99_ns": ns(self.p99_ns),
            "samples": self.samples,
        })
    }
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Calls per pair.
    pub(crate) samples: u32,
    /// The time for all pairs.
    pub(crate) time: Duration,
}

/// Measures and shows.
pub(crate) fn run(common: &Common, options: &LatencyOptions) -> Verdict {
    options.pictures.check()?;
    let machine = host::boot(common.cpus.as_ref())?;
    if options.pictures.any() && machine.online_cpus().len() > picture::MOST_CPUS {
        return Err(Failure::Usage(format!(
            "a picture has at most {} CPUs: choose some with --cpus",
            picture::MOST_CPUS
        )));
    }
    let effort = Effort {
        samples: options.samples,
        time: Duration::from_secs_f64(options.seconds),
    };
    let pairs = measure(&machine, &machine.online_cpus(), effort)?;
    let rows: Vec<Value> = pairs.iter().map(Pair::row).collect();
    output::rows(common.format(), &rows)?;
    if common.format() == Format::Human {
        heatmap::show(&pairs)?;
    }
    if options.pictures.any() {
        options.pictures.write(&picture::draw(&pairs))?;
    }
    Ok(right(&pairs))
}

/// Says which answers were wrong; `true` if none.
pub(crate) fn right(pairs: &[Pair]) -> bool {
    for pair in pairs.iter().filter(|pair| pair.wrong > 0) {
        let Pair {
            from, to, wrong, ..
        } = pair;
        eprintln!("smpcall: {wrong} calls from CPU {from} to CPU {to} brought a wrong answer");
    }
    pairs.iter().all(|pair| pair.wrong == 0)
}

/// Measures every pair of these CPUs.
pub(crate) fn measure(
    machine: &Machine,
    cpus: &CpuMask,
    effort: Effort,
) -> Result<Vec<Pair>, Failure> {
    let time = effort.time / (cpus.len() * cpus.len()).max(1) as u32;
    let bar = output::progress(cpus.len() as u64, "measuring");
    let mut pairs = Vec::with_capacity(cpus.len() * cpus.len());
    for from in cpus {
        let to_each = || {
            let each = cpus.iter().map(|to| {
                if from == to {
                    to_itself(machine, from, effort.samples, time)
                } else {
                    to_another(machine, from, to, effort.samples, time)
                }
            });
            each.collect::<Result<Vec<Pair>, CallError>>()
        };
        pairs.extend(machine.run_on_cpu(from, to_each).without_closure()??);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(pairs)
}

/// On `from`: waited calls to another CPU, each timed.
fn to_another(
    machine: &Machine,
    from: CpuId,
    to: CpuId,
    samples: u32,
    time: Duration,
) -> Result<Pair, CallError> {
    let end = Instant::now() + time;
    let cost = stats::clock_cost_ns();
    let mut times = Vec::with_capacity(samples as usize);
    let mut wrong = 0;
    for i in 0..WARM_UP + samples {
        let start = Instant::now();
        let answer = machine.call(to, move || black_box(i) + 1)?;
        let took = start.elapsed();
        wrong += u32::from(answer != i + 1);
        if i >= WARM_UP {
            times.push((took.as_nanos() as f64 - cost).max(0.1));
        } else if Instant::now() > end {
            // Calls that take so long need no warming up.
            times.push(took.as_nanos() as f64);
        }
        if times.len() >= AT_LEAST && start > end {
            break;
        }
    }
    Ok(pair(from, to, &mut times, 1, wrong))
}

/// On `cpu`: calls to itself, timed by the batch.
fn to_itself(
    machine: &Machine,
    cpu: CpuId,
    samples: u32,
    time: Duration,
) -> Result<Pair, CallError> {
    let end = Instant::now() + time;
    let mut times = Vec::new();
    let mut wrong = 0;
    for batch in 0..samples.div_ceil(BATCH).max(AT_LEAST as u32) {
        let start = Instant::now();
        for i in 0..BATCH {
            let answer = machine.call(cpu, move || black_box(i) + 1)?;
            wrong += u32::from(answer != i + 1);
        }
        times.push(start.elapsed().as_nanos() as f64 / f64::from(BATCH));
        if batch as usize >= AT_LEAST && start > end {
            break;
        }
    }
    Ok(pair(cpu, cpu, &mut times, BATCH as usize, wrong))
}

fn pair(from: CpuId, to: CpuId, times: &mut [f64], batch: usize, wrong: u32) -> Pair {
    Pair {
        from,
        to,
        median_ns: stats::median(times),
        p99_ns: stats::p99(times),
        samples: times.len() * batch,
        wrong,
    }
}
