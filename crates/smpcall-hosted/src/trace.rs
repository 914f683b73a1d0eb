//! A machine's trace: its storage, and a file that Perfetto and Chrome's tracing page open.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io;

use smpcall::{CpuId, PairCounters, TraceBuffer, TraceEvent, TraceKind, TraceSlot, Tracer};

use crate::Machine;

/// A machine's storage for events and counters.
#[derive(Debug)]
pub(crate) struct TraceStorage {
    buffers: Box<[TraceBuffer]>,
    slots: Box<[TraceSlot]>,
    pairs: Box<[PairCounters]>,
}

impl TraceStorage {
    /// Of CPUs `0..cpus` and the threads that are none, with room for so many events each.
    pub(crate) fn new(cpus: usize, events: usize) -> Self {
        let buffers = cpus + 1;
        Self {
            buffers: (0..buffers).map(|_| TraceBuffer::new()).collect(),
            slots: (0..buffers * events).map(|_| TraceSlot::new()).collect(),
            pairs: (0..buffers * buffers)
                .map(|_| PairCounters::new())
                .collect(),
        }
    }

    #[inline]
    pub(crate) fn tracer(&self) -> Tracer<'_> {
        Tracer::new(&self.buffers, &self.slots, &self.pairs)
    }
}

impl Machine {
    /// The trace so far, if the machine was built with one ([`Builder::trace`](crate::Builder::trace)).
    pub fn trace(&self) -> Option<Tracer<'_>> {
        smpcall::Platform::tracer(self.platform())
    }
}

/// Writes a trace in the JSON form that `ui.perfetto.dev` and `chrome://tracing` open.
///
/// A CPU is a thread there, and so are all threads that are no CPU together. Called functions are
/// slices, with an arrow from where each was queued; interrupts and wake-ups are instants. The
/// counters are in `smpcall`, which viewers pass over.
///
/// ```
/// use smpcall_hosted::{CpuId, Machine, write_trace};
/// let machine = Machine::builder().count(2).trace(1000).boot()?;
/// machine.call(CpuId::new(1), || ())?;
/// let mut json = Vec::new();
/// write_trace(&machine.trace().ok_or("no trace")?, &mut json)?;
/// assert!(json.starts_with(b"{"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of the writer.
pub fn write_trace(tracer: &Tracer<'_>, to: &mut impl io::Write) -> io::Result<()> {
    let mut events: Vec<TraceEvent> = tracer.events().collect();
    // Stable: what one CPU did at one moment stays in its order.
    events.sort_by_key(|event| event.time_ns);
    let mut export = Export::new(tracer.cpus());
    events.iter().for_each(|event| export.event(event));
    writeln!(to, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    writeln!(to, "{}],", export.lines.join(",\n"))?;
    writeln!(to, "\"smpcall\":{}}}", counters(tracer))
}

/// The lines of an export.
struct Export {
    lines: Vec<String>,
    /// The thread that stands for those that are no CPU.
    foreign: usize,
    /// Calls under way, by target and request.
    flows: HashMap<(CpuId, usize), VecDeque<u64>>,
    next_flow: u64,
}

impl Export {
    fn new(foreign: usize) -> Self {
        let name = |tid: usize, name: &str| {
            format!(
                r#"{{"ph":"M","pid":1,"tid":{tid},"name":"thread_name","args":{{"name":"{name}"}}}}"#
            )
        };
        let mut lines = vec![
            r#"{"ph":"M","pid":1,"tid":0,"name":"process_name","args":{"name":"smpcall"}}"#
                .to_owned(),
            name(foreign, "foreign threads"),
        ];
        lines.extend((0..foreign).map(|cpu| name(cpu, &format!("CPU {cpu}"))));
        Self {
            lines,
            foreign,
            flows: HashMap::new(),
            next_flow: 1,
        }
    }

    fn event(&mut self, event: &TraceEvent) {
        let tid = event.cpu.map_or(self.foreign, CpuId::index);
        let place = format!(
            r#""pid":1,"tid":{tid},"ts":{}.{:03}"#,
            event.time_ns / 1000,
            event.time_ns % 1000
        );
        let function = escaped(event.function.unwrap_or(""));
        let instant = |what: &str, to: CpuId| {
            format!(
                r#"{{"ph":"i","s":"t","cat":"{what}","name":"{what}",{place},"args":{{"to":{to},"function":"{function}"}}}}"#
            )
        };
        let slice =
            |ph: &str| format!(r#"{{"ph":"{ph}","cat":"call","name":"{function}",{place}}}"#);
        match event.kind {
            TraceKind::Queue(to) => {
                self.lines.push(instant("queue", to));
                if event.request != 0 {
                    let flow = self.next_flow;
                    self.next_flow += 1;
                    self.flows
                        .entry((to, event.request))
                        .or_default()
                        .push_back(flow);
                    self.lines.push(format!(
                        r#"{{"ph":"s","cat":"flow","name":"call","id":{flow},{place}}}"#
                    ));
                }
            }
            TraceKind::Refuse(to) => self.lines.push(instant("refuse", to)),
            TraceKind::Send(to) => self.lines.push(instant("send", to)),
            TraceKind::Entry => {
                self.lines.push(slice("B"));
                let flow = event
                    .cpu
                    .and_then(|cpu| self.flows.get_mut(&(cpu, event.request))?.pop_front());
                if let Some(flow) = flow {
                    self.lines.push(format!(
                        r#"{{"ph":"f","bp":"e","cat":"flow","name":"call","id":{flow},{place}}}"#
                    ));
                }
            }
            TraceKind::Exit => self.lines.push(slice("E")),
            _ => {}
        }
    }
}

/// As the inside of a JSON string.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => escaped.extend(['\\', letter]),
            control if control < ' ' => {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\u{:04x}", control as u32);
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// The counters as a JSON object; pairs that had nothing to do with each other are left out.
fn counters(tracer: &Tracer<'_>) -> String {
    let cpus = || (0..tracer.cpus() as u32).map(CpuId::new);
    let mut pairs = Vec::new();
    for from in cpus().map(Some).chain([None]) {
        for to in cpus() {
            let counts = tracer.pair(from, to);
            if counts == smpcall::PairCounts::default() {
                continue;
            }
            let from = from.map_or("null".to_owned(), |from| from.to_string());
            let per_ipi = counts.calls_per_ipi();
            let per_ipi = per_ipi.map_or("null".to_owned(), |calls| calls.to_string());
            pairs.push(format!(
                r#"{{"from":{from},"to":{to},"calls":{},"refused":{},"ipis_sent":{},"ipis_avoided":{},"calls_per_ipi":{per_ipi}}}"#,
                counts.calls,
                counts.refused,
                counts.ipis_sent,
                counts.ipis_avoided(),
            ));
        }
    }
    let ran = |cpu| {
        let (ran, drains) = (tracer.ran(cpu), tracer.drains(cpu));
        format!(r#"{{"cpu":{cpu},"ran":{ran},"drains":{drains}}}"#)
    };
    let ran: Vec<String> = cpus().map(ran).collect();
    format!(
        r#"{{"lost":{},"cpus":[{}],"pairs":[{}]}}"#,
        tracer.lost(),
        ran.join(","),
        pairs.join(",\n")
    )
}
