//! A rendezvous: three phases in lock step, as for a change that no CPU may see half done.
//!
//! No CPU acts before all have set up, and none tears down before all have acted.
//!
//! `cargo run -p smpcall-hosted --example rendezvous`

use std::sync::atomic::{AtomicU32, Ordering};

use smpcall_hosted::Machine;

/// Counts who has come to each phase.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::builder().count(4).boot()?;
    let (ready, acted) = (AtomicU32::new(0), AtomicU32::new(0));
    let cpus = machine.online_cpus();

    let met = machine.rendezvous(
        &cpus,
        |_| {
            ready.fetch_add(1, Ordering::Relaxed);
        },
        |_| {
            // What the others did in the phase before is visible.
            assert_eq!(ready.load(Ordering::Relaxed), 4);
            acted.fetch_add(1, Ordering::Relaxed);
        },
        |_| assert_eq!(acted.load(Ordering::Relaxed), 4),
    )?;
    println!("CPUs {met} acted together");
    Ok(())
}
