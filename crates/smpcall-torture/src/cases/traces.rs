//! The tracer: every exit has its entry, and the counters say what the events say.

use smpcall::{CpuId, CpuMask, PairCounts, Platform, TraceEvent, TraceKind, Tracer};

use super::case_list;
use crate::check::{Check, Failure, OrFail, ensure, ensure_eq};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    2 Trace every_exit_has_its_entry_and_the_counters_agree_with_the_events,
    2 Trace a_called_function_is_traced_with_its_name_its_cpu_and_its_request,
    2 Trace posts_that_need_no_interrupt_of_their_own_are_counted,
}

/// How deep functions may nest: a call on the CPU itself inside a called function.
const DEPTH: usize = 8;

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    fn tracer(&self) -> Result<Tracer<'_>, Failure> {
        let tracer = self.smp().platform().tracer();
        tracer.ok_or_else(|| Failure::new(format_args!("the system keeps no trace")))
    }

    fn every_exit_has_its_entry_and_the_counters_agree_with_the_events(&self) -> Check {
        let tracer = self.tracer()?;
        for _ in 0..8 {
            self.calls_of_every_kind()?;
        }
        for cpu in &self.online() {
            self.smp().flush(cpu).or_fail("flush")?;
        }
        // Whoever answers this is in no function that came before.
        self.smp().on_each_cpu(|_| ()).or_fail("on_each_cpu")?;
        ensure_eq!(tracer.lost(), 0, "events that found their buffer full");
        for cpu in &self.online() {
            entries_and_exits_match(&tracer, cpu)?;
            self.counters_agree(&tracer, cpu)?;
        }
        Ok(())
    }

    /// From here, and from a handler of each other CPU.
    fn calls_of_every_kind(&self) -> Check {
        let smp = self.smp();
        for cpu in &self.others() {
            smp.call(cpu, || ()).or_fail("call")?;
            // A full lane is an event of no kind.
            let post = || drop(smp.post_others(|_| ()));
            smp.call(cpu, post).or_fail("call that posts")?;
            drop(smp.post(cpu, || ()));
        }
        smp.call_others(|_| ()).or_fail("call_others")?;
        drop(smp.post_others(|_| ()));
        smp.on_each_cpu(|_| ()).or_fail("on_each_cpu")?;
        smp.kick_all_cpus_sync().or_fail("kick_all_cpus_sync")?;
        Ok(())
    }

    /// What was sent to `to`, as events and as counters; and what it ran.
    fn counters_agree(&self, tracer: &Tracer<'_>, to: CpuId) -> Check {
        let mut sent_to_it = 0;
        for from in self.online().iter().map(Some).chain([None]) {
            let count = |kind| {
                tracer
                    .events_of(from)
                    .filter(|event| event.kind == kind)
                    .count() as u64
            };
            let events = PairCounts {
                calls: count(TraceKind::Queue(to)),
                refused: count(TraceKind::Refuse(to)),
                ipis_sent: count(TraceKind::Send(to)),
            };
            let counted = tracer.pair(from, to);
            ensure_eq!(counted, events, "counters and events of {from:?} to {to}");
            sent_to_it += counted.calls - counted.refused;
        }
        let events = tracer.events_of(Some(to));
        let entries = events.filter(|event| event.kind == TraceKind::Entry);
        ensure_eq!(tracer.ran(to), entries.count() as u64, "entries on {to}");
        ensure_eq!(tracer.ran(to), sent_to_it, "functions that {to} ran");
        ensure!(tracer.drains(to) > 0, "CPU {to} never looked for calls");
        Ok(())
    }

    fn a_called_function_is_traced_with_its_name_its_cpu_and_its_request(&self) -> Check {
        fn named() {}
        let (tracer, target) = (self.tracer()?, self.other(0));
        self.smp().call(target, named).or_fail("call")?;
        let last = |cpu, kind| {
            let is_it = |event: &TraceEvent| {
                event.kind == kind && event.function.is_some_and(|name| name.ends_with("::named"))
            };
            let event = tracer.events_of(cpu).filter(is_it).last();
            event.ok_or_else(|| Failure::new(format_args!("no {kind:?} of it on {cpu:?}")))
        };
        let queued = last(self.me(), TraceKind::Queue(target))?;
        let entry = last(Some(target), TraceKind::Entry)?;
        let exit = last(Some(target), TraceKind::Exit)?;
        ensure_eq!(entry.request, queued.request, "the request of the entry");
        ensure_eq!(exit.request, queued.request, "the request of the exit");
        let times = [queued.time_ns, entry.time_ns, exit.time_ns];
        ensure!(times.is_sorted(), "queue, entry and exit at {times:?} ns");
        Ok(())
    }

    fn posts_that_need_no_interrupt_of_their_own_are_counted(&self) -> Check {
        let (tracer, target) = (self.tracer()?, self.other(0));
        self.masked(&CpuMask::of(target), |_| {
            let before = tracer.pair(self.me(), target);
            for _ in 0..D {
                self.smp().post(target, || ()).or_fail("post")?;
            }
            let after = tracer.pair(self.me(), target);
            ensure_eq!(after.calls - before.calls, D as u64, "calls");
            ensure_eq!(after.ipis_sent - before.ipis_sent, 1, "interrupts");
            Ok(())
        })
    }
}

/// Each function that returned had begun, and the one that began last returned first.
fn entries_and_exits_match(tracer: &Tracer<'_>, cpu: CpuId) -> Check {
    let mut open = [0; DEPTH];
    let mut depth = 0;
    for event in tracer.events_of(Some(cpu)) {
        match event.kind {
            TraceKind::Entry => {
                ensure!(
                    depth < DEPTH,
                    "{DEPTH} functions inside each other on {cpu}"
                );
                open[depth] = event.request;
                depth += 1;
            }
            TraceKind::Exit => {
                ensure!(depth > 0, "an exit without its entry on {cpu}");
                depth -= 1;
                ensure_eq!(
                    event.request,
                    open[depth],
                    "the request of an exit on {cpu}"
                );
            }
            _ => {}
        }
    }
    ensure_eq!(depth, 0, "functions that never returned on {cpu}");
    Ok(())
}
