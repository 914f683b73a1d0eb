//! A trace: valid JSON, every exit with its entry, and counters that agree with the events.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use serde_json::Value;
use smpcall_hosted::{CpuId, CpuMask, Csd, Machine, TicketSlot, TraceKind, Tracer, write_trace};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

fn traced(cpus: usize, events: usize) -> Bed {
    Bed::of(
        Machine::builder()
            .count(cpus)
            .trace(events)
            .reporter(|report| bed::log(report)),
    )
}

/// Some of everything, from this thread or a CPU.
fn workload(machine: &Machine) {
    static CSD: Csd = Csd::new(|| ());
    let slot = pin!(TicketSlot::<u32>::new());
    for cpu in &machine.online_cpus() {
        machine.call(cpu, || ()).unwrap();
        machine.post_wait(cpu, || ()).unwrap();
        machine.run_on_cpu(cpu, || ()).unwrap();
        // Busy where another source is faster.
        let _ = machine.post_static_csd(cpu, &CSD);
        machine.call_csd(cpu, &Csd::new(|| ())).unwrap();
        machine.nudge(cpu).unwrap();
        let ticket = machine.submit(cpu, slot.as_ref(), || 7).unwrap();
        assert_eq!(machine.redeem(ticket).unwrap(), 7);
    }
    machine.call_any(&CpuMask::first_n(2), || ()).unwrap();
    machine.on_each_cpu(|_| ()).unwrap();
    machine.call_others(|_| ()).unwrap();
    machine.post_each(|_| ()).unwrap_or_default();
    for cpu in &machine.online_cpus() {
        machine.flush(cpu).unwrap();
    }
}

/// All that a machine did, as the file has it.
fn export(tracer: &Tracer<'_>) -> Value {
    let mut json = Vec::new();
    write_trace(tracer, &mut json).unwrap();
    serde_json::from_slice(&json).expect("valid JSON")
}

/// Checks the schema, and that slices nest; answers how many of each phase and name there are.
fn check(json: &Value) -> HashMap<(String, String), u64> {
    let mut open: HashMap<u64, Vec<String>> = HashMap::new();
    let mut started = HashSet::new();
    let mut counts = HashMap::new();
    let mut last = 0.0;
    for event in json["traceEvents"].as_array().expect("an array") {
        let text = |key: &str| event[key].as_str().expect(key).to_owned();
        let (ph, name) = (text("ph"), text("name"));
        let tid = event["tid"].as_u64().expect("tid");
        assert_eq!(event["pid"].as_u64(), Some(1));
        if ph == "M" {
            assert!(event["args"]["name"].is_string());
            continue;
        }
        let ts = event["ts"].as_f64().expect("ts");
        assert!(ts >= last, "events are in the order of time");
        last = ts;
        match ph.as_str() {
            "B" => open.entry(tid).or_default().push(name.clone()),
            "E" => assert_eq!(open.get_mut(&tid).and_then(Vec::pop).as_ref(), Some(&name)),
            "i" => assert!(event["args"]["to"].is_u64() && text("s") == "t"),
            "s" => assert!(started.insert(event["id"].as_u64().expect("id"))),
            "f" => assert!(started.remove(&event["id"].as_u64().expect("id"))),
            other => panic!("phase {other} is not one that we write"),
        }
        *counts
            .entry((ph.clone(), if ph == "i" { name } else { String::new() }))
            .or_insert(0) += 1;
    }
    counts
}

#[test]
fn every_exit_has_its_entry_and_the_counters_agree_with_the_events() {
    let bed = traced(3, 20_000);
    for _ in 0..20 {
        workload(&bed);
        let jobs = [0, 1].map(|cpu| bed.on(cpu, workload));
        jobs.into_iter().for_each(|job| job.join().unwrap());
    }
    // No CPU is inside a function any more.
    bed.on_each_cpu(|_| ()).unwrap();
    let cpus: Vec<CpuId> = bed.online_cpus().iter().collect();
    let tracer = bed.trace().unwrap();
    let json = export(&tracer);
    let counts = check(&json);
    let count = |ph: &str, name: &str| {
        counts
            .get(&(ph.to_owned(), name.to_owned()))
            .copied()
            .unwrap_or(0)
    };
    assert_eq!(tracer.lost(), 0);
    assert_eq!(count("B", ""), count("E", ""), "all have returned");
    let (mut calls, mut refused, mut sent, mut ran) = (0, 0, 0, 0);
    for &to in &cpus {
        let mut to_it = 0;
        for from in cpus.iter().copied().map(Some).chain([None]) {
            let pair = tracer.pair(from, to);
            to_it += pair.calls - pair.refused;
            calls += pair.calls;
            refused += pair.refused;
            sent += pair.ipis_sent;
            assert!(pair.ipis_avoided() <= pair.calls);
        }
        assert_eq!(to_it, tracer.ran(to), "CPU {to} ran what it was sent");
        ran += tracer.ran(to);
        assert!(tracer.drains(to) > 0);
    }
    assert_eq!(calls, count("i", "queue"));
    assert_eq!(refused, count("i", "refuse"));
    assert_eq!(sent, count("i", "send"));
    assert_eq!(ran, count("B", ""));
    assert!(count("f", "") > ran / 2, "arrows lead from queue to entry");
    let listed = json["smpcall"]["pairs"].as_array().unwrap();
    let listed: u64 = listed
        .iter()
        .map(|pair| pair["calls"].as_u64().unwrap())
        .sum();
    assert_eq!(listed, calls);
}

#[test]
fn a_function_that_was_called_is_named_with_its_cpu_and_time() {
    let bed = traced(2, 100);
    fn named() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let cpu = CpuId::new(1);
    bed.call(cpu, named).unwrap();
    let events: Vec<_> = bed.trace().unwrap().events_of(Some(cpu)).collect();
    let of = |kind: TraceKind| {
        let is_it = |event: &&smpcall_hosted::TraceEvent| {
            event.kind == kind && event.function.is_some_and(|name| name.ends_with("::named"))
        };
        *events.iter().find(is_it).expect("the event")
    };
    let (entry, exit) = (of(TraceKind::Entry), of(TraceKind::Exit));
    assert!(exit.time_ns - entry.time_ns >= 2_000_000);
    let queued = bed
        .trace()
        .unwrap()
        .events_of(None)
        .find(|event| event.kind == TraceKind::Queue(cpu));
    let queued = queued.expect("queued by this thread");
    assert!(queued.time_ns <= entry.time_ns);
    assert_eq!(queued.request, entry.request);
}

#[test]
fn a_full_buffer_loses_what_comes_later_and_says_how_much() {
    let bed = traced(2, 9);
    for _ in 0..100 {
        bed.call(CpuId::new(1), || ()).unwrap();
    }
    let tracer = bed.trace().unwrap();
    let counts = check(&export(&tracer));
    assert_eq!(tracer.events_of(Some(CpuId::new(1))).count(), 9);
    assert_eq!(counts[&("B".to_owned(), String::new())], 5);
    assert!(tracer.lost() >= 200 - 9, "{}", tracer.lost());
    assert_eq!(tracer.ran(CpuId::new(1)), 100, "counters go on");
}

#[test]
fn a_machine_without_a_trace_has_none() {
    assert!(Bed::new(1).trace().is_none());
}

#[test]
fn a_function_has_the_name_that_the_caller_gave_it_on_its_own_cpu_too() {
    fn named(_: CpuId) {}
    let bed = traced(2, 100);
    let run = |bed: &Machine| {
        bed.on_each_cpu(named).map(drop).expect("all are online");
        bed.post_each(named).map(drop).expect("there is room");
    };
    bed.on(0, run).join().expect("the job ends");
    bed.flush(CpuId::new(1)).expect("CPU 1 is online");
    for cpu in [0, 1].map(CpuId::new) {
        let entries = bed.trace().expect("a trace").events_of(Some(cpu));
        let names: Vec<_> = entries
            .filter(|event| event.kind == TraceKind::Entry)
            .filter_map(|event| event.function)
            .collect();
        let ours = names.iter().filter(|name| name.ends_with("::named"));
        assert_eq!(ours.count(), 2, "on CPU {cpu}: {names:?}");
    }
}
