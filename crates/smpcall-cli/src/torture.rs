//! `smpcall torture`: random operations on every CPU, checked, while CPUs come and go.
//!
//! The run is the one of the crate `smpcall-torture`, which a kernel image runs as well; this
//! supplies the machine, the knobs and the figures.

use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use serde_json::{Value, json};
use smpcall_hosted::WORDS;
use smpcall_torture::torture::{CannotRun, Op, Progress, Room, Summary, Torture, op};

use crate::args::{Common, TortureOptions};
use crate::output::{self, Format};
use crate::rack::Rack;
use crate::{Failure, Verdict, host};

/// The counts of the one run.
static COUNTS: Room<WORDS> = Room::new();

/// Runs and shows.
pub(crate) fn run(common: &Common, options: &TortureOptions) -> Verdict {
    let torture = plan(options);
    let mut builder = host::builder(common.cpus.as_ref());
    if options.counters {
        builder = builder.trace(0);
    }
    let rack = Rack::start(builder, options.delivery)?;
    let bar = output::progress(torture.seconds * 1000, "torturing");
    let mut figures = Figures {
        format: common.format(),
        interval_ns: options.stat_interval * 1_000_000_000,
        next_ns: options.stat_interval * 1_000_000_000,
    };
    let mut tell = |progress: &Progress| {
        show_progress(&bar, progress);
        figures.tell(&bar, progress);
    };
    let summary = torture
        .run(&rack, &COUNTS, &mut tell)
        .map_err(|refused: CannotRun| Failure::Usage(format!("--weight: {refused}")))?;
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

fn plan(options: &TortureOptions) -> Torture {
    let mut torture = Torture {
        seed: options.seed.unwrap_or_else(any_seed),
        seconds: options.seconds,
        foreigners: options.foreigners,
        holdoff_ms: options.holdoff_ms,
        hotplug_interval_ms: options.hotplug_interval_ms,
        hotplug_holdoff_ms: options.hotplug_holdoff_ms,
        stutter_ms: options.stutter_ms,
        long_wait_us: options.long_wait_us,
        ..Torture::default()
    };
    for (op, weight) in &options.weights {
        torture.weights[*op as usize] = Some(*weight);
    }
    torture
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

/// Figures at intervals, while it runs.
struct Figures {
    format: Format,
    interval_ns: u64,
    next_ns: u64,
}

impl Figures {
    fn tell(&mut self, bar: &ProgressBar, progress: &Progress) {
        if self.interval_ns == 0 || progress.elapsed_ns < self.next_ns {
            return;
        }
        self.next_ns = progress.elapsed_ns + self.interval_ns;
        if self.format == Format::Human {
            let seconds = progress.elapsed_ns / 1_000_000_000;
            bar.suspend(|| eprintln!("smpcall: after {seconds} s: {}", said(progress)));
            return;
        }
        let row = json!({
            "type": "torture_progress",
            "elapsed_ns": progress.elapsed_ns,
            "operations": progress.operations,
            "hotplug_cycles": progress.hotplug_cycles,
            "errors": progress.errors,
            "online": progress.online,
        });
        // A closed standard output shows when the last row is written.
        let _ = output::rows(self.format, &[row]);
    }
}

fn said(progress: &Progress) -> String {
    format!(
        "{} operations, {} hotplug cycles, {} errors, {} CPUs online",
        progress.operations, progress.hotplug_cycles, progress.errors, progress.online
    )
}

fn show_progress(bar: &ProgressBar, progress: &Progress) {
    bar.set_position(progress.elapsed_ns / 1_000_000);
    bar.set_message(said(progress));
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
    output::print(table, &[])?;
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
        host::distinct_host_cpus(rack.machine()),
        summary.posts,
        summary.hotplug_cycles,
    ))
}
