//! A result of each CPU: in a vector, or in the caller's own storage, which is nothing's allocation.
//!
//! `cargo run -p smpcall-hosted --example results`

use std::mem::MaybeUninit;

use smpcall_hosted::{CpuId, CpuMask, Machine, WithoutClosure, host_cpu};

/// The same question in both ways, and a function that only some CPUs run.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::builder().count(4).boot()?;

    // Allocates before it calls anybody.
    let hosts = machine.collect_each(|_| host_cpu()).without_closure()?;
    for (cpu, host) in &hosts {
        println!("CPU {cpu} runs on the computer's CPU {host}");
    }

    // Slot i is CPU i's; the results are dropped with the answer.
    let mut slots = [const { MaybeUninit::uninit() }; 4];
    let even: CpuMask = [CpuId::new(0), CpuId::new(2)].into_iter().collect();
    let squares = machine
        .on_each_cpu_mask_into(&even, &mut slots, |cpu| cpu.get() * cpu.get())
        .without_closure()?;
    println!("CPUs {} answered", squares.ran());
    assert_eq!(squares.get(CpuId::new(2)), Some(&4));
    assert_eq!(squares.get(CpuId::new(1)), None);
    Ok(())
}
