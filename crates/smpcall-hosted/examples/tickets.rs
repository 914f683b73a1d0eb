//! Tickets: calls whose results are fetched later, waited for, polled or awaited.
//!
//! The room for a ticket is the caller's; nothing is allocated, and no runtime is assumed: any waker does.
//!
//! `cargo run -p smpcall-hosted --example tickets`

use std::pin::pin;

use smpcall_hosted::{CpuId, Machine, TicketSlot};

/// What the CPUs compute.
fn factorial(n: u64) -> u64 {
    (1..=n).product()
}

/// Three ways to get at a result, and one to let it go.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::builder().count(3).boot()?;
    let cpus = [CpuId::new(1), CpuId::new(2)];

    // Two calls under way at once; then each is waited for.
    let (one, other) = (
        pin!(TicketSlot::<u64>::new()),
        pin!(TicketSlot::<u64>::new()),
    );
    let first = machine.submit(cpus[0], one.as_ref(), || factorial(10))?;
    let second = machine.submit(cpus[1], other.as_ref(), || factorial(20))?;
    let redeem = |ticket| machine.redeem(ticket).map_err(|refused| refused.error);
    println!("10! = {}, 20! = {}", redeem(first)?, redeem(second)?);

    // Polled, for a caller that has something else to do meanwhile.
    let slot = pin!(TicketSlot::<u64>::new());
    let mut ticket = machine.submit(cpus[0], slot.as_ref(), || factorial(5))?;
    let mut turns = 0_u64;
    let answer = loop {
        match ticket.try_take() {
            Ok(answer) => break answer,
            Err(not_yet) => ticket = not_yet,
        }
        turns += 1;
        std::thread::yield_now();
    };
    let answer = answer.map_err(|_| "the function panicked")?;
    println!("5! = {answer}, after {turns} other things");

    // Awaited, here by tokio.
    let slot = pin!(TicketSlot::<u64>::new());
    let ticket = machine.submit(cpus[1], slot.as_ref(), || factorial(15))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let answer = runtime.block_on(ticket);
    let answer = answer.map_err(|_| "the function panicked")?;
    println!("15! = {answer}");

    // Dropped: the call runs all the same, and its slot is free when it has.
    let slot = pin!(TicketSlot::<u64>::new());
    drop(machine.submit(cpus[0], slot.as_ref(), || factorial(3))?);
    machine.flush(cpus[0])?;
    assert!(slot.is_free());
    Ok(())
}
