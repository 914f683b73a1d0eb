//! `smpcall torture`: random operations on every CPU, checked, while CPUs come and go.
//!
//! The run is the one of the crate `smpcall-torture`, which a kernel image runs as well; this
//! supplies the machine, the knobs and the figures.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use serde_json::Value;
use smpcall_hosted::{Hosted, HostedSmp, Machine, ROOM, WORDS};
use smpcall_torture::Lab;
use smpcall_torture::torture::{Op, Progress, Room, Summary, Torture, op};

use crate::args::{Common, TortureOptions};
use crate::output::{self, Format};
use crate::{Failure, Verdict, host};

/// The counts of the one run.
static COUNTS: Room<WORDS> = Room::new();

/// A machine under torture.
struct Rack(Machine);

impl Lab<WORDS, ROOM> for Rack {
    type P = Hosted;

    fn smp(&self) -> &HostedSmp {
        &self.0
    }

    fn kicks(&self) -> u64 {
        self.smp().platform().kicks() + self.smp().platform().wakes()
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        eprintln!("smpcall: {line}");
    }
}

/// Runs and shows.
pub(crate) fn run(common: &Common, options: &TortureOptions) -> Verdict {
    let torture = plan(options)?;
    let rack = Rack(host::boot(common.cpus.as_ref())?);
    let bar = output::progress(torture.seconds * 1000, "torturing");
    let mut tell = |progress: &Progress| show_progress(&bar, progress);
    let summary = torture
        .run(&rack, &COUNTS, &mut tell)
        .ok_or_else(|| Failure::Usage("--weight: every weight is 0".into()))?;
    bar.finish_and_clear();
    let row: Value = serde_json::from_str(&summary.to_string())
        .map_err(|error| Failure::Trouble(format!("the summary is no JSON: {error}")))?;
    output::rows(common.format(), &[row])?;
    if common.format() == Format::Human {
        show(&rack, &summary)?;
    }
    for (fault, count) in summary.by_fault.iter().filter(|(_, count)| *count > 0) {
        eprintln!(
            "smpcall: {count} x {fault}; again with --seed {}",
            summary.seed
        );
    }
    Ok(summary.ok)
}

fn plan(options: &TortureOptions) -> Result<Torture, Failure> {
    let mut torture = Torture {
        seed: options.seed.unwrap_or_else(any_seed),
        seconds: options.seconds,
        hotplug_interval_ms: options.hotplug_interval_ms,
        hotplug_holdoff_ms: options.hotplug_holdoff_ms,
        stutter_ms: options.stutter_ms,
        long_wait_us: options.long_wait_us,
        ..Torture::default()
    };
    for (op, weight) in &options.weights {
        torture.weights[*op as usize] = Some(*weight);
    }
    if !options.weights.is_empty() && options.weights.iter().all(|(_, weight)| *weight == 0) {
        return Err(Failure::Usage(
            "--weight: every weight is 0, nothing would be done".into(),
        ));
    }
    Ok(torture)
}

/// Another one each time; it is shown, so that the run can be repeated.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| u64::from(now.subsec_nanos()))
}

/// `NAME=WEIGHT`, for the command line.
pub(crate) fn weight(text: &str) -> Result<(Op, u32), String> {
    let (name, weight) = text
        .split_once('=')
        .ok_or("NAME=WEIGHT, as in single_wait=10")?;
    let names = || op::ALL.map(Op::name).join(", ");
    let op = Op::from_name(name).ok_or_else(|| format!("no `{name}` among {}", names()))?;
    let weight = weight
        .parse()
        .map_err(|error| format!("`{weight}`: {error}"))?;
    Ok((op, weight))
}

fn show_progress(bar: &ProgressBar, progress: &Progress) {
    bar.set_position(progress.elapsed_ns / 1_000_000);
    bar.set_message(format!(
        "{} operations, {} hotplug cycles, {} errors, {} CPUs online",
        progress.operations, progress.hotplug_cycles, progress.errors, progress.online
    ));
}

fn show(rack: &Rack, summary: &Summary) -> std::io::Result<()> {
    let mut table = output::table(&["operation", "done", "calls refused"], &[1, 2]);
    for ((name, done), (_, refused)) in summary.by_operation.iter().zip(&summary.refused) {
        table.add_row(vec![
            (*name).to_owned(),
            done.to_string(),
            refused.to_string(),
        ]);
    }
    output::line(table.to_string())?;
    let Summary {
        seed,
        seconds,
        cpus,
        operations,
        errors,
        ..
    } = summary;
    output::line(format!(
        "{cpus} CPUs on {} of the computer's, {seconds} s, seed {seed}: {operations} operations, {} \
         posts, each ran once; {} times a CPU went and came back. {errors} errors.",
        host::distinct_host_cpus(&rack.0),
        summary.posts,
        summary.hotplug_cycles,
    ))
}
