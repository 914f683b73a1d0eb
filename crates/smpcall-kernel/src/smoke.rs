//! Suite `smoke`: short, for machines of hundreds of CPUs, which share the host's few.

use core::sync::atomic::{AtomicU64, Ordering};

use smpcall::{CpuId, CpuMask};
use smpcall_metal::{WORDS, println, raw};
use smpcall_torture::Check;

use crate::kernel::SMP;
use crate::suite::{Case, ensure, expect, wait};

/// The cases.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "every_cpu_that_exists_is_online",
        min_cpus: 1,
        run: all_online,
    },
    Case {
        name: "a_call_to_each_runs_there",
        min_cpus: 1,
        run: each,
    },
    Case {
        name: "a_broadcast_runs_everywhere_once",
        min_cpus: 1,
        run: everywhere,
    },
    Case {
        name: "a_call_from_the_last_reaches_all_others",
        min_cpus: 2,
        run: from_the_last,
    },
    Case {
        name: "the_last_cpu_leaves_and_comes_back",
        min_cpus: 2,
        run: last_restarts,
    },
];

static RUNS: AtomicU64 = AtomicU64::new(0);

fn all_online() -> Check {
    let (online, exist) = (SMP.num_online_cpus(), raw::info().hw_ids.len());
    ensure!(online == exist, "{online} of {exist} are online");
    Ok(())
}

fn each() -> Check {
    for cpu in &SMP.online_cpus() {
        let there = SMP
            .call(cpu, raw::current_cpu)
            .map_err(|refused| refused.error);
        let there = expect("call", there)?;
        ensure!(there == cpu.get(), "a call to CPU {cpu} ran on {there}");
    }
    Ok(())
}

fn everywhere() -> Check {
    let online = SMP.online_cpus();
    let start = raw::now_ns();
    for round in 1..=20 {
        // ORDERING: Relaxed — the calls and the flush order the counts.
        RUNS.store(0, Ordering::Relaxed);
        let ran = expect("on_each_cpu", SMP.on_each_cpu(|_| count()))?;
        ensure!(ran == online, "ran on {ran}, not {online}");
        let odd = expect(
            "on_each_cpu_cond",
            SMP.on_each_cpu_cond(|cpu| cpu.get() % 2 == 1, |_| count()),
        )?;
        let kicked = expect("kick_all_cpus_sync", SMP.kick_all_cpus_sync())?;
        ensure!(kicked.len() + 1 == online.len(), "kicked {kicked}");
        let posted = match SMP.post_many(&online, |_| count()) {
            Ok(posted) => posted.len(),
            Err(error) => error.posted.len(),
        };
        let expected = (online.len() + odd.len() + posted) as u64;
        wait("the posts ran", || RUNS.load(Ordering::Relaxed) >= expected)?;
        let runs = RUNS.load(Ordering::Relaxed);
        ensure!(
            runs == expected,
            "round {round}: {runs} runs, not {expected}"
        );
    }
    println!(
        "smpcall: 20 rounds of 4 broadcasts in {} ms",
        (raw::now_ns() - start) / 1_000_000
    );
    Ok(())
}

fn count() {
    // ORDERING: Relaxed — a counter.
    RUNS.fetch_add(1, Ordering::Relaxed);
}

fn last() -> Result<CpuId, smpcall_torture::Failure> {
    expect(
        "a last CPU",
        SMP.online_cpus().last().ok_or("there is none"),
    )
}

fn from_the_last() -> Check {
    let others = |cpu| SMP.online_cpus().and_not(&CpuMask::of(cpu));
    let last = last()?;
    let there = SMP.run_on_cpu(last, || SMP.call_many(&others(last), |_| ()));
    let there = there.map_err(|refused| refused.error);
    let ran: CpuMask<WORDS> = expect("call_many", expect("run_on_cpu", there)?)?;
    ensure!(ran == others(last), "it ran on {ran}");
    Ok(())
}

fn last_restarts() -> Check {
    let last = last()?;
    for _ in 0..10 {
        expect("cpu_down", SMP.cpu_down(last))?;
        expect("on_each_cpu", SMP.on_each_cpu(|_| ()))?;
        expect("cpu_up", SMP.cpu_up(last))?;
        expect(
            "call",
            SMP.call(last, || ()).map_err(|refused| refused.error),
        )?;
    }
    Ok(())
}
