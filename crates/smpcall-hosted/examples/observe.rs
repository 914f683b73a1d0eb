//! Watching a machine: a trace for ui.perfetto.dev, a stall that is named, tickets, a rendezvous.
//!
//! `cargo run --example observe -- trace.json`, then open the file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::pin::pin;
use std::thread;
use std::time::Duration;

use smpcall_hosted::{CpuId, Machine, TicketSlot, write_trace};

fn takes_long() -> &'static str {
    thread::sleep(Duration::from_millis(400));
    "done"
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::builder()
        .count(4)
        .stall_limit(Duration::from_millis(50))
        .trace(10_000)
        .boot()?;
    let cpu1 = CpuId::new(1);

    // The reporter, standard error here, names CPU 1, `takes_long`, and that it recovered.
    println!(
        "{}",
        machine
            .call(cpu1, takes_long)
            .map_err(|refused| refused.error)?
    );

    // A posted call whose result is fetched later.
    let slot = pin!(TicketSlot::<u64>::new());
    let ticket = machine.submit(cpu1, slot.as_ref(), || (1..=20).product())?;
    println!(
        "20! = {}",
        machine.redeem(ticket).map_err(|refused| refused.error)?
    );

    // Results of each CPU.
    let threads = machine.collect_each(|_| thread::current().name().map(str::to_owned));
    println!("{:?}", threads.map_err(|refused| refused.error)?);

    // No CPU acts before all are ready.
    let all = machine.online_cpus();
    let met = machine.rendezvous(&all, |_| (), |_| (), |_| ())?;
    println!("CPUs {met} acted together");

    let tracer = machine.trace().ok_or("built with a trace")?;
    for cpu in &all {
        let pair = tracer.pair(None, cpu);
        println!(
            "to CPU {cpu}: {} calls, {} interrupts sent, {} avoided",
            pair.calls,
            pair.ipis_sent,
            pair.ipis_avoided()
        );
    }
    if let Some(path) = std::env::args_os().nth(1) {
        let mut file = BufWriter::new(File::create(path)?);
        write_trace(&tracer, &mut file)?;
        file.flush()?;
    }
    Ok(())
}
