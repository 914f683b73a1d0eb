//! `smpcall trace`: a short workload, recorded: who called whom, who waited, which interrupts were sent.
//!
//! The machine keeps the events (`Builder::trace`); the workload adds how long each of its calls
//! took, by the same clock. Both go to a file for ui.perfetto.dev, to a timeline as a picture, and
//! to rows: an `event` each, then a `pair` for each two CPUs that had to do with each other.
//!
//! | file | holds |
//! |---|---|
//! | `workload.rs` | what is recorded |
//! | `timeline.rs` | the picture |

mod timeline;
mod workload;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use smpcall_hosted::{CpuId, Machine, TraceEvent, TraceKind, Tracer, write_trace};

use crate::args::{Common, TraceOptions};
use crate::output::{self, Format};
use crate::{Failure, Verdict, host, svg};

use workload::Span;

/// What was recorded.
struct Recording<'a> {
    tracer: Tracer<'a>,
    /// By time.
    events: Vec<TraceEvent>,
    /// The workload's own calls, by time.
    spans: Vec<Span>,
}

/// Records, writes the files, shows the counters.
pub(crate) fn run(common: &Common, options: &TraceOptions) -> Verdict {
    options.pictures.check()?;
    if let Some(file) = &options.perfetto {
        svg::check_file("--perfetto", file)?;
    }
    let machine = host::builder(common.cpus.as_ref())
        .trace(options.events as usize)
        .boot()
        .map_err(host::boot_failure)?;
    let spans = workload::run(&machine, options)?;
    let recording = Recording::of(&machine, spans)?;
    let (events, pairs) = (recording.event_rows(), recording.pair_rows());
    output::rows(common.format(), &events)?;
    output::rows(common.format(), &pairs)?;
    if let Some(file) = &options.perfetto {
        fs::write(file, recording.perfetto()?)?;
    }
    if options.pictures.any() {
        options.pictures.write(&timeline::draw(&recording))?;
    }
    if common.format() == Format::Human {
        show(&recording, &pairs, options.perfetto.as_deref())?;
    }
    let lost = recording.tracer.lost();
    if lost > 0 {
        eprintln!("smpcall: {lost} events found no room; give --events more, or --rounds fewer");
    }
    Ok(lost == 0)
}

impl<'a> Recording<'a> {
    fn of(machine: &'a Machine, spans: Vec<Span>) -> Result<Self, Failure> {
        let tracer = machine
            .trace()
            .ok_or_else(|| Failure::Trouble("the machine kept no trace".into()))?;
        let mut events: Vec<TraceEvent> = tracer.events().collect();
        // Stable: what one CPU did at one moment stays in its order.
        events.sort_by_key(|event| event.time_ns);
        Ok(Self {
            tracer,
            events,
            spans,
        })
    }

    /// When the first call was made; times are shown from there.
    fn start_ns(&self) -> u64 {
        let first = self.spans.iter().map(|span| span.start_ns).min();
        first.unwrap_or(0)
    }

    fn event_rows(&self) -> Vec<Value> {
        let row = |event: &TraceEvent| {
            let (kind, to) = kind(event.kind);
            json!({
                "type": "event",
                "time_ns": event.time_ns,
                "cpu": event.cpu.map(CpuId::get),
                "kind": kind,
                "to": to.map(CpuId::get),
                "function": event.function,
                "request": event.request,
            })
        };
        self.events.iter().map(row).collect()
    }

    fn pair_rows(&self) -> Vec<Value> {
        let cpus = || (0..self.tracer.cpus() as u32).map(CpuId::new);
        let from = cpus().map(Some).chain([None]);
        let pairs = from.flat_map(|from| cpus().map(move |to| (from, to)));
        pairs
            .map(|(from, to)| (from, to, self.tracer.pair(from, to)))
            .filter(|(_, _, counts)| counts.calls + counts.refused + counts.ipis_sent > 0)
            .map(|(from, to, counts)| {
                json!({
                    "type": "pair",
                    "from": from.map(CpuId::get),
                    "to": to.get(),
                    "calls": counts.calls,
                    "refused": counts.refused,
                    "ipis_sent": counts.ipis_sent,
                    "ipis_avoided": counts.ipis_avoided(),
                })
            })
            .collect()
    }

    /// The machine's trace with the workload's calls in it, as slices of the CPUs that made them.
    fn perfetto(&self) -> Result<String, Failure> {
        let mut json = Vec::new();
        write_trace(&self.tracer, &mut json)?;
        let mut trace: Value = serde_json::from_slice(&json)
            .map_err(|error| Failure::Trouble(format!("the trace is no JSON: {error}")))?;
        let us = |ns: u64| ns as f64 / 1e3;
        if let Some(events) = trace["traceEvents"].as_array_mut() {
            events.extend(self.spans.iter().map(|span| {
                json!({
                    "ph": "X", "cat": "wait", "name": span.name, "pid": 1,
                    "tid": span.cpu.map_or(self.tracer.cpus(), CpuId::index),
                    "ts": us(span.start_ns), "dur": us(span.end_ns - span.start_ns),
                })
            }));
        }
        Ok(trace.to_string())
    }
}

fn kind(kind: TraceKind) -> (&'static str, Option<CpuId>) {
    match kind {
        TraceKind::Queue(to) => ("queue", Some(to)),
        TraceKind::Refuse(to) => ("refuse", Some(to)),
        TraceKind::Send(to) => ("ipi", Some(to)),
        TraceKind::Entry => ("entry", None),
        TraceKind::Exit => ("exit", None),
        _ => ("other", None),
    }
}

fn show(
    recording: &Recording<'_>,
    pairs: &[Value],
    perfetto: Option<&Path>,
) -> Result<(), Failure> {
    let header = [
        "from",
        "to",
        "calls",
        "refused",
        "IPIs sent",
        "IPIs avoided",
    ];
    let mut table = output::table(&header, &[0, 1, 2, 3, 4, 5]);
    for pair in pairs {
        let from = match &pair["from"] {
            Value::Null => "foreign".into(),
            from => output::text(from),
        };
        let fields = ["to", "calls", "refused", "ipis_sent", "ipis_avoided"];
        let fields = fields.map(|field| output::text(&pair[field]));
        table.add_row(std::iter::once(from).chain(fields));
    }
    output::print(table, &[3])?;
    let (count, cpus) = (recording.events.len(), recording.tracer.cpus());
    output::line(format!(
        "{count} events of {cpus} CPUs. IPI: an interrupt, here a wake-up;\n\
         it is avoided where the target polls or was rung before."
    ))?;
    let next = match perfetto {
        Some(file) => format!("Open {} in ui.perfetto.dev.", file.display()),
        None => "With --perfetto FILE or --svg FILE it is drawn; --json tells every event.".into(),
    };
    Ok(output::line(next)?)
}

/// A function's name without its path, its closures and its generics.
fn short_name(function: &str) -> String {
    let mut depth = 0;
    let plain: String = function
        .chars()
        .filter(|letter| {
            depth += i32::from(*letter == '<');
            let outside = depth == 0;
            depth -= i32::from(*letter == '>');
            outside
        })
        .collect();
    let mut parts = plain.rsplit("::");
    let name = parts.find(|part| !part.is_empty() && !part.starts_with('{'));
    name.unwrap_or(function).to_owned()
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::short_name;

    #[test]
    fn names_are_short() {
        assert_eq!(short_name("a::b::kick::{{closure}}"), "kick");
        assert_eq!(short_name("a::run<a::B, c::D>::{{closure}}"), "run");
        assert_eq!(short_name("a::<impl b::C<d>>::each::{{closure}}"), "each");
        assert_eq!(short_name("f"), "f");
        assert_eq!(short_name("{{closure}}"), "{{closure}}");
    }
}
