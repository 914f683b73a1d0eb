//! A trace: every call's way as events, counters for each pair of CPUs, and a file for ui.perfetto.dev.
//!
//! `cargo run -p smpcall-hosted --example trace > trace.json`, then open the file.

use smpcall_hosted::{CpuId, Machine, WithoutClosure, write_trace};

/// A few calls, counted on standard error and drawn on standard output.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::builder().count(3).trace(10_000).boot()?;
    let cpu1 = CpuId::new(1);
    for n in 0..100 {
        machine.call(cpu1, || n).without_closure()?;
        machine.call_others(|_| ())?;
    }

    let tracer = machine.trace().ok_or("built with a trace")?;
    let pair = tracer.pair(None, cpu1);
    eprintln!(
        "to CPU 1: {} calls, {} interrupts sent, {} avoided; {} events lost",
        pair.calls,
        pair.ipis_sent,
        pair.ipis_avoided(),
        tracer.lost()
    );
    let mut file = Vec::new();
    write_trace(&tracer, &mut file)?;
    print!("{}", String::from_utf8(file)?);
    Ok(())
}
