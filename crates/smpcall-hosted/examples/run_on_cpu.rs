//! Work in a CPU's ordinary context: tasks that may block, and jobs that run long and take calls between.
//!
//! `cargo run -p smpcall-hosted --example run_on_cpu`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use smpcall_hosted::{CpuId, Machine, WithoutClosure};

/// A task that sleeps, a task that waits for tasks, and a job with poll points.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Arc::new(Machine::builder().count(3).boot()?);
    let (cpu1, cpu2) = (CpuId::new(1), CpuId::new(2));

    // It may sleep and borrow, and its caller blocks without spinning.
    let name = String::from("borrowed");
    let length = machine.run_on_cpu(cpu1, || {
        thread::sleep(Duration::from_millis(1));
        name.len()
    });
    println!("{} letters", length.without_closure()?);

    // A task that waits for a task of its own caller's CPU: both idle meanwhile, and both finish.
    let nested = machine.run_on_cpu(cpu1, || {
        let on_two = || machine.run_on_cpu(cpu1, || 7).without_closure();
        machine.run_on_cpu(cpu2, on_two).without_closure()
    });
    assert_eq!(nested.without_closure()???, 7);

    // A job has its CPU for as long as it likes, and takes calls at its poll points.
    let stop = Arc::new(AtomicBool::new(false));
    let (busy, told) = (Arc::clone(&machine), Arc::clone(&stop));
    let job = machine.spawn_on(cpu1, move || {
        let mut turns = 0_u64;
        while !told.load(Ordering::Acquire) {
            turns += 1;
            busy.poll();
        }
        turns
    })?;
    let stops = || stop.store(true, Ordering::Release);
    machine.call(cpu1, stops).without_closure()?;
    let turns = job.join().map_err(|_| "the job panicked")?;
    println!("the job turned {turns} times before it was told to stop");

    // The job held the machine too; its CPU must not be the last to let go of it.
    while Arc::strong_count(&machine) > 1 {
        thread::yield_now();
    }
    Ok(())
}
