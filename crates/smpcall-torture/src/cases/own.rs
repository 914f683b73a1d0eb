//! What a CPU has of its own, and which CPU is near: per-CPU data, distances.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};

use smpcall::{CallError, CpuMask, Distance, PerCpu, PerCpuError, PerCpuSlot, Platform as _};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    1 Nothing per_cpu_data_is_each_cpus_own,
    1 Nothing using_per_cpu_data_is_a_context_that_cannot_wait,
    1 Nothing per_cpu_data_is_refused_without_a_cpu_or_a_place,
    2 Nothing calls_do_not_interrupt_the_use_of_per_cpu_data,
    2 Nothing the_nearest_cpu_of_a_mask_runs_it,
    2 Hotplug the_nearest_that_is_online_runs_it,
}

/// How many CPUs the cases' data has places for; a kernel's stack is small.
const PLACES: usize = 16;

type Counters = PerCpu<Cell<u64>, [PerCpuSlot<Cell<u64>>; PLACES]>;

fn counters() -> Counters {
    PerCpu::new([const { PerCpuSlot::new(Cell::new(0)) }; PLACES])
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// The CPUs that have a place, up to four of them.
    fn with_places(&self) -> CpuMask<W> {
        let places = CpuMask::first_n(PLACES);
        self.online().and(&places).iter().take(4).collect()
    }

    fn per_cpu_data_is_each_cpus_own(&self) -> Check {
        let mut counters = counters();
        let cpus = self.with_places();
        let shared = &counters;
        for cpu in &cpus {
            for _ in 0..=cpu.get() {
                let count = || shared.with(self.smp(), |own| own.set(own.get() + 1));
                let counted = self.smp().call(cpu, count).or_fail("call")?;
                ensure_eq!(counted, Ok(()), "the use on CPU {cpu}");
            }
        }
        for (index, value) in counters.values_mut().enumerate() {
            let mine = cpus.iter().any(|cpu| cpu.index() == index);
            let expected = if mine { index as u64 + 1 } else { 0 };
            ensure_eq!(value.get(), expected, "the value of CPU {index}");
        }
        Ok(())
    }

    fn using_per_cpu_data_is_a_context_that_cannot_wait(&self) -> Check {
        let Some(cpu) = self.with_places().first() else {
            return Ok(());
        };
        let counters = counters();
        let inside = || {
            counters.with(self.smp(), |own| {
                own.set(1);
                let nested = counters.with(self.smp(), |own| own.get());
                let waits = self.smp().kick_all_cpus_sync().err();
                (nested, waits, self.smp().poll())
            })
        };
        let (nested, waits, polled) = self
            .smp()
            .run_on_cpu(cpu, inside)
            .or_fail("run_on_cpu")?
            .or_fail("with")?;
        ensure_eq!(nested, Ok(1), "the nested use");
        ensure_eq!(waits, Some(CallError::InHandler), "a wait inside");
        ensure!(!polled, "a poll inside takes no calls");
        let after = self
            .smp()
            .run_on_cpu(cpu, || self.smp().platform().irqs_enabled());
        ensure!(after.or_fail("run_on_cpu")?, "interrupts are on again");
        Ok(())
    }

    fn per_cpu_data_is_refused_without_a_cpu_or_a_place(&self) -> Check {
        let counters = counters();
        let none: PerCpu<Cell<u64>, [PerCpuSlot<Cell<u64>>; 0]> = PerCpu::new([]);
        if self.me().is_none() {
            let refused = counters.with(self.smp(), |_| ());
            ensure_eq!(refused, Err(PerCpuError::NotACpu), "a foreign thread's use");
        }
        for cpu in &self.some_cpus(2) {
            let use_none = || none.with(self.smp(), |_| ());
            let refused = self.smp().call(cpu, use_none).or_fail("call")?;
            let expected = PerCpuError::NoPlace { cpu, places: 0 };
            ensure_eq!(refused, Err(expected), "a use without a place");
        }
        Ok(())
    }

    /// Two CPUs count in the data of one, by calls that arrive while it counts itself.
    fn calls_do_not_interrupt_the_use_of_per_cpu_data(&self) -> Check {
        let Some(cpu) = self.with_places().first() else {
            return Ok(());
        };
        if self.me() == Some(cpu) {
            return Ok(());
        }
        const TURNS: u64 = 300;
        let counters = counters();
        let slowly = |own: &Cell<u64>| {
            let before = own.get();
            for _ in 0..50 {
                core::hint::spin_loop();
            }
            own.set(before + 1);
        };
        for _ in 0..TURNS {
            let here = || counters.with(self.smp(), slowly).is_ok();
            ensure!(
                self.smp().call(cpu, here).or_fail("call")?,
                "the use by call"
            );
            ensure!(
                self.smp().run_on_cpu(cpu, here).or_fail("run_on_cpu")?,
                "the use in task context"
            );
        }
        let sum = || counters.with(self.smp(), Cell::get);
        let sum = self.smp().call(cpu, sum).or_fail("call")?;
        ensure_eq!(sum, Ok(2 * TURNS), "no use was lost");
        Ok(())
    }

    fn the_nearest_cpu_of_a_mask_runs_it(&self) -> Check {
        let others = self.others();
        let near = self.other(0);
        for farthest in [Distance::SELF, Distance::CACHE, Distance::NODE] {
            let within = self.smp().cpus_within(near, farthest);
            ensure!(
                within.contains(near),
                "a CPU is within {farthest} of itself"
            );
        }
        let ran = self.smp().call_any_near(near, &others, || self.me());
        let (cpu, ran_on) = ran.or_fail("call_any_near")?;
        ensure_eq!(cpu, near, "nothing is nearer than the CPU itself");
        ensure_eq!(ran_on, Some(near), "the CPU that ran it");
        let count = AtomicU32::new(0);
        let ran = self.smp().call_any_near(near, &CpuMask::EMPTY, || {
            // ORDERING: Relaxed — never run.
            count.fetch_add(1, Ordering::Relaxed)
        });
        let error = ran.map(drop).map_err(CallError::from);
        ensure_eq!(error, Err(CallError::EmptyMask), "of no CPU");
        ensure_eq!(count.into_inner(), 0, "runs of a refused call");
        Ok(())
    }

    fn the_nearest_that_is_online_runs_it(&self) -> Check {
        let near = self.other(0);
        self.smp().cpu_down(near).or_fail("cpu_down")?;
        let rest = self.online();
        let ran = self.smp().call_any_near(near, &rest, || self.me());
        let up = self.smp().cpu_up(near);
        let (cpu, ran_on) = ran.or_fail("call_any_near")?;
        up.or_fail("cpu_up")?;
        ensure_eq!(ran_on, Some(cpu), "the CPU that ran it");
        let nearest = rest.iter().map(|cpu| self.smp().distance(near, cpu)).min();
        ensure_eq!(
            Some(self.smp().distance(near, cpu)),
            nearest,
            "the distance"
        );
        Ok(())
    }
}
