//! Stall reports: a wait that takes long is told with the CPU and the function that hold it up, and so is
//! its end. Misuse that would wait for ever is an error at once.
//!
//! `cargo run -p smpcall-hosted --example stalls`

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use smpcall_hosted::{CpuId, Machine, WithoutClosure};

/// The culprit.
fn takes_long() -> &'static str {
    thread::sleep(Duration::from_millis(400));
    "done"
}

/// One stall, and three deadlocks that do not happen.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let machine = Machine::builder()
        .count(2)
        .stall_limit(Duration::from_millis(50))
        .reporter(move |report| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(report.to_string());
        })
        .boot()?;
    let (cpu0, cpu1) = (CpuId::new(0), CpuId::new(1));

    let answer = machine.call(cpu1, takes_long).without_closure()?;
    let said = lines.lock().unwrap_or_else(PoisonError::into_inner);
    said.iter().for_each(|line| println!("{line}"));
    let named = |line: &String| line.contains("CPU 1") && line.contains("takes_long");
    assert!(answer == "done" && said.iter().any(named));
    assert!(said.iter().any(|line| line.contains("answered")));
    drop(said);

    // A called function that waited would hold up its caller, who may be the one it waits for.
    let waits = || machine.call(cpu0, || ()).without_closure();
    let inside = machine.call(cpu1, waits).without_closure()?;
    println!("a call inside a called function: {:?}", inside.unwrap_err());

    // So would a wait with interrupts off; the wait that serves meanwhile says so by its guard.
    let machine = &machine;
    let off = machine.run_on_cpu(cpu1, || {
        let mut guard = machine.irqs_off();
        let plain = machine.call(cpu0, || ()).without_closure();
        let serving = machine.call_irqs_off(&mut guard, cpu0, || 7);
        (plain, serving.without_closure())
    });
    let (plain, serving) = off.without_closure()?;
    println!(
        "with interrupts off: {:?}, through the guard {serving:?}",
        plain.unwrap_err()
    );

    // A CPU cannot wait for its own end.
    let myself = machine.run_on_cpu(cpu1, || machine.cpu_down(cpu1));
    let error = myself.without_closure()?.unwrap_err();
    println!("taking oneself down: {error}");
    Ok(())
}
