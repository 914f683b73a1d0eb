//! The timeline: a lane per CPU, time to the right.
//!
//! The upper part of a lane has the calls that the CPU made, as long as it waited; the lower part what
//! ran there, coloured by function. A line leads from where a call was queued to where it
//! began; a mark between the two parts is an interrupt that was sent.

use std::collections::{BTreeMap, HashMap, VecDeque};

use smpcall_hosted::{CpuId, TraceEvent, TraceKind};

use super::workload::is_itself;
use super::{Recording, short_name};
use crate::output::human_ns;
use crate::svg::{Anchor, Area, MARGIN, Paint, Picture, SERIES, TEXT, TOP, text_width};

/// The length of the time axis.
const LENGTH: f64 = 1100.0;
/// All lanes together, if a lane stays within its limits.
const HEIGHT: f64 = 640.0;
const LOWEST: f64 = 9.0;
const HIGHEST: f64 = 48.0;
/// The parts of a lane, by its height: from where to where.
const UPPER: (f64, f64) = (0.05, 0.41);
const BETWEEN: (f64, f64) = (0.42, 0.56);
const LOWER: (f64, f64) = (0.57, 0.93);

/// A function that ran.
struct Run<'a> {
    lane: usize,
    function: &'a str,
    start_ns: u64,
    end_ns: u64,
}

/// A call on its way.
struct Flight {
    from: (usize, u64),
    to: (usize, u64),
}

/// Draws it.
pub(super) fn draw(recording: &Recording<'_>) -> Picture {
    let scene = Scene::of(recording);
    let bottom = scene.top + scene.lane * scene.lanes as f64;
    let mut picture = Picture::new(
        scene.left + LENGTH + MARGIN,
        bottom + 6.0 * TEXT + 20.0,
        "Who called whom, and who waited",
        "upper bars: calls, as long as their CPU waited; lower bars: functions that ran",
    );
    scene.grid(&mut picture, bottom);
    scene.flights(&mut picture);
    scene.waits(&mut picture);
    scene.runs(&mut picture);
    scene.interrupts(&mut picture);
    scene.legend(&mut picture, bottom + 3.4 * TEXT);
    picture
}

struct Scene<'a> {
    recording: &'a Recording<'a>,
    runs: Vec<Run<'a>>,
    flights: Vec<Flight>,
    /// Functions by colour, the busiest first.
    functions: Vec<&'a str>,
    lanes: usize,
    lane: f64,
    left: f64,
    top: f64,
    start_ns: u64,
    end_ns: u64,
}

impl<'a> Scene<'a> {
    fn of(recording: &'a Recording<'a>) -> Self {
        let (cpus, start_ns) = (recording.tracer.cpus(), recording.start_ns());
        let (runs, flights) = pair_up(&recording.events, cpus, start_ns);
        let ends = runs.iter().map(|run| run.end_ns);
        let ends = ends.chain(recording.spans.iter().map(|span| span.end_ns));
        let end_ns = ends.max().unwrap_or(0).max(start_ns + 1);
        let mut used = flights.iter().map(|flight| flight.from.0);
        let lanes = cpus + usize::from(used.any(|lane| lane == cpus));
        let label = text_width(&lane_name(cpus.max(100), 0));
        Self {
            functions: by_count(&runs),
            runs,
            flights,
            lanes,
            lane: (HEIGHT / lanes as f64).clamp(LOWEST, HIGHEST),
            left: MARGIN + label + TEXT,
            top: TOP + 8.0,
            start_ns,
            end_ns,
            recording,
        }
    }

    fn x(&self, ns: u64) -> f64 {
        let part = ns.saturating_sub(self.start_ns) as f64 / (self.end_ns - self.start_ns) as f64;
        self.left + LENGTH * part
    }

    fn y(&self, lane: usize) -> f64 {
        self.top + self.lane * lane as f64
    }

    fn lane_of(&self, cpu: Option<CpuId>) -> usize {
        cpu.map_or(self.recording.tracer.cpus(), CpuId::index)
    }

    /// A part of a lane, from then to then.
    fn bar(&self, lane: usize, part: (f64, f64), start_ns: u64, end_ns: u64) -> Area {
        let x = self.x(start_ns);
        Area {
            x,
            y: self.y(lane) + self.lane * part.0,
            width: (self.x(end_ns) - x).max(1.5),
            height: self.lane * (part.1 - part.0),
        }
    }

    fn grid(&self, picture: &mut Picture, bottom: f64) {
        let every = ((1.4 * TEXT / self.lane).ceil() as usize).next_power_of_two();
        for lane in 0..self.lanes {
            let y = self.y(lane);
            picture.line((self.left, y), (self.left + LENGTH, y), Paint::Grid, 0.6);
            if lane % every == 0 {
                let place = (self.left - TEXT * 0.6, y + self.lane / 2.0 + TEXT * 0.35);
                let name = lane_name(lane, self.recording.tracer.cpus());
                picture.text(place, Anchor::End, Paint::Ink, &name);
            }
        }
        let length_ns = (self.end_ns - self.start_ns) as f64;
        let tick = tick(length_ns);
        let (unit, unit_name) = match tick {
            ..1e6 => (1e3, "us"),
            _ => (1e6, "ms"),
        };
        for step in 0..=(length_ns / tick) as u64 {
            let ns = step as f64 * tick;
            let x = self.x(self.start_ns + ns as u64);
            picture.line((x, self.top), (x, bottom + 4.0), Paint::Grid, 0.6);
            let text = match step {
                0 => "0".to_owned(),
                _ => format!("{} {unit_name}", ns / unit),
            };
            if x + text_width(&text) / 2.0 < self.left + LENGTH + MARGIN {
                picture.text(
                    (x, bottom + 1.5 * TEXT),
                    Anchor::Middle,
                    Paint::Faint,
                    &text,
                );
            }
        }
    }

    fn waits(&self, picture: &mut Picture) {
        for span in &self.recording.spans {
            let area = self.bar(self.lane_of(span.cpu), UPPER, span.start_ns, span.end_ns);
            let took = human_ns((span.end_ns - span.start_ns) as f64);
            picture.rect(area, Paint::Faint, &format!("{}: {took}", span.name));
            if text_width(span.name) + 6.0 < area.width && area.height > TEXT {
                let place = (area.x + 3.0, area.y + area.height / 2.0 + TEXT * 0.35);
                picture.text(place, Anchor::Start, Paint::Page, span.name);
            }
        }
    }

    fn flights(&self, picture: &mut Picture) {
        let (paint, width) = match self.lanes {
            ..=9 => (Paint::Ink, 0.9),
            _ => (Paint::Faint, 0.3),
        };
        for Flight { from, to } in &self.flights {
            let start = (self.x(from.1), self.y(from.0) + self.lane * UPPER.1);
            let end = (self.x(to.1), self.y(to.0) + self.lane * LOWER.0);
            picture.line(start, end, paint, width);
        }
    }

    fn runs(&self, picture: &mut Picture) {
        for run in &self.runs {
            let area = self.bar(run.lane, LOWER, run.start_ns, run.end_ns);
            let took = human_ns((run.end_ns - run.start_ns) as f64);
            let hint = format!("{}: {took}", short_name(run.function));
            picture.rect(area, self.paint(run.function), &hint);
        }
    }

    fn interrupts(&self, picture: &mut Picture) {
        for event in &self.recording.events {
            let TraceKind::Send(to) = event.kind else {
                continue;
            };
            if event.time_ns < self.start_ns {
                continue;
            }
            let lane = self.lane_of(event.cpu);
            let mut area = self.bar(lane, BETWEEN, event.time_ns, event.time_ns);
            area.width = area.height.max(2.0);
            let hint = format!("interrupt to CPU {to}");
            picture.rect(area, Paint::Series(SERIES - 1), &hint);
        }
    }

    fn paint(&self, function: &str) -> Paint {
        let kind = self.functions.iter().position(|name| *name == function);
        // The last colour is that of the interrupts.
        Paint::Series(kind.unwrap_or(0).min(SERIES - 2))
    }

    fn legend(&self, picture: &mut Picture, y: f64) {
        let mut x = self.left;
        let mut entry = |paint: Paint, name: &str| {
            let area = Area {
                x,
                y: y - TEXT * 0.8,
                width: TEXT,
                height: TEXT,
            };
            picture.rect(area, paint, "");
            picture.text((x + TEXT * 1.5, y), Anchor::Start, Paint::Ink, name);
            x += TEXT * 3.0 + text_width(name);
        };
        entry(Paint::Faint, "waits");
        for function in self.functions.iter().take(SERIES - 1) {
            entry(self.paint(function), &short_name(function));
        }
        entry(Paint::Series(SERIES - 1), "interrupt sent");
        let line = (self.left, y + 2.0 * TEXT);
        let words = "lines: from where a call was queued to where it began";
        picture.text(line, Anchor::Start, Paint::Faint, words);
    }
}

/// The lane beyond the CPUs is that of the threads that are none.
fn lane_name(lane: usize, cpus: usize) -> String {
    match lane {
        lane if lane == cpus => "foreign".into(),
        lane => format!("CPU {lane}"),
    }
}

/// Pairs entries with exits, and queueing with entry; what began before the start is left out.
fn pair_up(events: &[TraceEvent], cpus: usize, start_ns: u64) -> (Vec<Run<'_>>, Vec<Flight>) {
    let mut open: Vec<Vec<&TraceEvent>> = vec![Vec::new(); cpus + 1];
    let mut queued: HashMap<(usize, usize), VecDeque<(usize, u64)>> = HashMap::new();
    let (mut runs, mut flights) = (Vec::new(), Vec::new());
    for event in events {
        let lane = event.cpu.map_or(cpus, CpuId::index);
        match event.kind {
            TraceKind::Queue(_) if event.function.is_some_and(is_itself) => {}
            TraceKind::Queue(to) if event.request != 0 => queued
                .entry((to.index(), event.request))
                .or_default()
                .push_back((lane, event.time_ns)),
            TraceKind::Entry => {
                let from = queued
                    .get_mut(&(lane, event.request))
                    .and_then(VecDeque::pop_front);
                let to = (lane, event.time_ns);
                flights.extend(from.map(|from| Flight { from, to }));
                open[lane].push(event);
            }
            TraceKind::Exit => runs.extend(open[lane].pop().map(|entry| Run {
                lane,
                function: entry.function.unwrap_or(""),
                start_ns: entry.time_ns,
                end_ns: event.time_ns,
            })),
            _ => {}
        }
    }
    runs.retain(|run: &Run<'_>| run.start_ns >= start_ns && !is_itself(run.function));
    flights.retain(|flight| flight.from.1 >= start_ns);
    (runs, flights)
}

/// The functions, the one that ran most often first.
fn by_count<'a>(runs: &[Run<'a>]) -> Vec<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    runs.iter()
        .for_each(|run| *counts.entry(run.function).or_default() += 1);
    let mut functions: Vec<&str> = counts.keys().copied().collect();
    functions.sort_by_key(|function| std::cmp::Reverse(counts[function]));
    functions
}

/// A round number of nanoseconds, so that the axis has about ten.
fn tick(length_ns: f64) -> f64 {
    let rough = length_ns / 10.0;
    let ten = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * ten);
    let next = steps.into_iter().find(|step| *step >= rough);
    next.unwrap_or(10.0 * ten)
}

#[cfg(test)]
mod tests {
    use smpcall::{PairCounters, TraceBuffer, Tracer};

    use super::*;
    use crate::svg::tests::legible;
    use crate::trace::workload::Span;

    const NAMES: [&str; 5] = [
        "a::look_up",
        "a::note",
        "a::reload",
        "a::drain_cache",
        "a::kick",
    ];

    /// Rounds of calls by CPU 0 to each other CPU, with what the target and the caller do meanwhile.
    fn drawn(cpus: usize, rounds: u64, round_ns: u64) -> Picture {
        let buffers: Vec<_> = (0..=cpus).map(|_| TraceBuffer::new()).collect();
        let pairs: Vec<_> = (0..(cpus + 1) * (cpus + 1))
            .map(|_| PairCounters::new())
            .collect();
        let (mut events, mut spans) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let start_ns = 1_000_000 + round * round_ns;
            for cpu in 1..cpus as u32 {
                let at = start_ns + round_ns / 2 * u64::from(cpu) / cpus as u64;
                let (from, to) = (Some(CpuId::new(0)), CpuId::new(cpu));
                let function = Some(NAMES[(round as usize + cpu as usize) % NAMES.len()]);
                let mut add = |time_ns, cpu, kind| {
                    events.push(TraceEvent {
                        time_ns,
                        cpu,
                        kind,
                        function,
                        request: 8 * to.index(),
                    });
                };
                add(at, from, TraceKind::Queue(to));
                add(at + 100, from, TraceKind::Send(to));
                add(at + round_ns / 4, Some(to), TraceKind::Entry);
                add(at + round_ns / 3, Some(to), TraceKind::Exit);
            }
            let name = if round % 2 == 0 {
                "on_each_cpu_cond"
            } else {
                "post, post"
            };
            let end_ns = start_ns + round_ns - round_ns / 50;
            spans.push(Span {
                cpu: Some(CpuId::new(0)),
                name,
                start_ns,
                end_ns,
            });
        }
        events.sort_by_key(|event| event.time_ns);
        draw(&Recording {
            tracer: Tracer::new(&buffers, &[], &pairs),
            events,
            spans,
        })
    }

    #[test]
    fn the_timeline_is_legible_at_any_number_of_cpus_and_any_length() {
        for cpus in [1, 2, 4, 16, 64, 200] {
            legible(&drawn(cpus, 6, 60_000), &format!("timeline of {cpus} CPUs"));
        }
        for round_ns in [600, 9_000, 7_000_000, 3_000_000_000] {
            legible(
                &drawn(2, 3, round_ns),
                &format!("timeline of {round_ns} ns a round"),
            );
        }
    }
}
