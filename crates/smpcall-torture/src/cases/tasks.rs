//! The may-sleep lane: work in a CPU's ordinary context.

use core::pin::pin;
use core::sync::atomic::{AtomicU32, Ordering};

use smpcall::{CallError, CpuId, CpuMask, Platform};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    1 Nothing run_on_cpu_runs_there_in_task_context_and_answers,
    2 Nothing a_task_may_wait_for_calls,
    2 Nothing a_cpu_takes_calls_while_it_runs_a_task,
    2 Nothing a_cpu_takes_calls_while_it_waits_for_a_task,
    2 Nothing tasks_of_one_source_keep_their_order,
    2 Nothing a_queued_task_is_busy,
    1 Nothing tasks_to_no_cpu_are_refused,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    fn run_on_cpu_runs_there_in_task_context_and_answers(&self) -> Check {
        for cpu in &self.online() {
            let on = || (self.me(), self.smp().platform().irqs_enabled());
            let (ran_on, irqs) = self.smp().run_on_cpu(cpu, on).or_fail("run_on_cpu")?;
            ensure_eq!(ran_on, Some(cpu), "the CPU that ran the task");
            ensure!(irqs, "the task on CPU {cpu} ran with interrupts off");
        }
        Ok(())
    }

    fn a_task_may_wait_for_calls(&self) -> Check {
        for cpu in self.others().iter().take(4) {
            let ask_all = || {
                self.smp()
                    .on_each_cpu(|_| ())
                    .map_err(|refused| refused.error)
            };
            let ran = self.smp().run_on_cpu(cpu, ask_all).or_fail("run_on_cpu")?;
            ensure_eq!(ran, Ok(self.online()), "CPUs that a task called");
        }
        Ok(())
    }

    fn a_cpu_takes_calls_while_it_runs_a_task(&self) -> Check {
        let target = self.other(0);
        let going = AtomicU32::new(1);
        // ORDERING: Relaxed — only says when to stop.
        let busy = |_| self.wait("the case ends", || going.load(Ordering::Relaxed) == 0);
        self.crew(&CpuMask::of(target), busy, || {
            for _ in 0..50 {
                let right = self
                    .smp()
                    .call(target, || self.handled_by(target))
                    .or_fail("call")?;
                ensure!(right, "a call into a task ran outside handler context");
            }
            going.store(0, Ordering::Relaxed);
            Ok(())
        })
    }

    /// The CPU that waits for its task on another one is called back from there.
    fn a_cpu_takes_calls_while_it_waits_for_a_task(&self) -> Check {
        let pair = self.some_cpus(2);
        let (Some(a), Some(b)) = (pair.first(), pair.last()) else {
            return Ok(());
        };
        // `a` may be any CPU but the one whose idle loop runs the task.
        let waiter = if self.me() == Some(b) { b } else { a };
        let runner = if waiter == a { b } else { a };
        self.together(&CpuMask::of(waiter), |_| {
            for _ in 0..20 {
                let back = || self.smp().call(waiter, || self.handled_by(waiter));
                let right = self.smp().run_on_cpu(runner, back).or_fail("run_on_cpu")?;
                ensure!(
                    right.or_fail("call back")?,
                    "the call back ran in the wrong place"
                );
            }
            Ok(())
        })
    }

    fn tasks_of_one_source_keep_their_order(&self) -> Check {
        let target = self.other(0);
        self.scope([const { AtomicU32::new(0) }; 2], |s| {
            let ([a, b, c], last) = ([1, 2, 3], &s.state[0]);
            let step = |n: u32| {
                s.csd(move |s: &crate::scope::Scope<L, [AtomicU32; 2], W, D>| {
                    // ORDERING: Relaxed — tasks of one CPU run one after another.
                    let before = s.state[0].swap(n, Ordering::Relaxed);
                    s.state[1].fetch_add(u32::from(before + 1 != n), Ordering::Relaxed);
                })
            };
            for _ in 0..30 {
                let csds = pin!([step(a), step(b), step(c)]);
                let csds = csds.as_ref();
                let before = s.ran();
                for i in 0..3 {
                    // SAFETY: an element of a pinned array is pinned.
                    let csd = unsafe { csds.map_unchecked(|csds| &csds[i]) };
                    let post = || self.smp().post_task(target, csd);
                    s.hand_out(post, |r| u64::from(r.is_ok()))
                        .or_fail("post_task")?;
                }
                self.wait("the tasks ran", || s.ran() == before + 3)?;
                last.store(0, Ordering::Relaxed);
            }
            ensure_eq!(
                s.state[1].load(Ordering::Relaxed),
                0,
                "tasks that ran out of order"
            );
            Ok(())
        })
    }

    fn a_queued_task_is_busy(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            let csd = pin!(s.csd(|_| ()));
            let csd = csd.as_ref();
            // The target runs a task already, so the next one waits.
            self.masked(&CpuMask::of(target), |_| {
                let post = || self.smp().post_task(target, csd);
                s.hand_out(post, |r| u64::from(r.is_ok()))
                    .or_fail("post_task")?;
                ensure_eq!(
                    self.smp().post_task(target, csd),
                    Err(CallError::Busy),
                    "again"
                );
                ensure_eq!(s.post_csd(target, csd), Err(CallError::Busy), "as a post");
                Ok(())
            })?;
            self.wait("the task ran", || s.ran() == 1)
        })
    }

    fn tasks_to_no_cpu_are_refused(&self) -> Check {
        let nowhere = CpuId::new(self.smp().nr_cpu_ids());
        let refused = self.smp().run_on_cpu(nowhere, || 5);
        let Err(refused) = refused else {
            ensure!(false, "a task ran on no CPU");
            return Ok(());
        };
        ensure!(
            matches!(refused.error, CallError::NoSuchCpu { .. }),
            "got {refused:?}"
        );
        ensure_eq!((refused.closure)(), 5, "the closure that came back");
        Ok(())
    }
}
