//! Suite `limits`: a machine that was told to start fewer CPUs than it has.
//!
//! Says the three masks, for the host to compare with what the command line asked for, and brings up the
//! CPUs that `maxcpus=` left out: that is allowed, as in the seed. What `nr_cpus=` cut off is no CPU.

use smpcall::{CallError, CpuId, HotplugError};
use smpcall_metal::{println, raw};
use smpcall_torture::Check;

use crate::kernel::SMP;
use crate::suite::{Case, ensure, expect};

/// The cases.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "cpus_that_were_left_out_are_refused_and_come_when_asked",
        min_cpus: 1,
        run: left_out,
    },
    Case {
        name: "ids_that_were_cut_off_are_no_cpus",
        min_cpus: 1,
        run: cut_off,
    },
];

/// Says the masks of the start, and what follows from them.
fn left_out() -> Check {
    let (possible, present, online) = (SMP.possible_cpus(), SMP.present_cpus(), SMP.online_cpus());
    println!("smpcall: possible {possible}, present {present}, online {online}");
    for cpu in &present.and_not(&online) {
        let refused = SMP.call(cpu, || ()).map_err(|refused| refused.error);
        ensure!(
            matches!(refused, Err(CallError::Offline { .. })),
            "a call to CPU {cpu}, which was not started: {refused:?}"
        );
        expect("cpu_up", SMP.cpu_up(cpu))?;
        let there = SMP.call(cpu, raw::current_cpu);
        let there = expect("call", there.map_err(|refused| refused.error))?;
        ensure!(there == cpu.get(), "a call to CPU {cpu} ran on {there}");
    }
    ensure!(SMP.online_cpus() == present, "not all came");
    Ok(())
}

fn cut_off() -> Check {
    let known = SMP.possible_cpus();
    for id in 0..raw::info().hw_ids.len() as u32 {
        let cpu = CpuId::new(id);
        if !known.contains(cpu) {
            let answer = SMP.cpu_up(cpu);
            ensure!(
                answer == Err(HotplugError::NoSuchCpu),
                "cpu_up({cpu}): {answer:?}"
            );
            let called = SMP.call(cpu, || ()).map_err(|refused| refused.error);
            ensure!(called.is_err(), "a call to CPU {cpu} ran");
        }
    }
    Ok(())
}
