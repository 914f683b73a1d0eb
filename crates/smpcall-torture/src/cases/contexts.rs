//! Where called functions run, and what may be done there: interrupts off, no waits, posts allowed.

use core::pin::pin;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask, Csd, HotplugError, Platform};

use super::case_list;
use crate::check::{Check, Failure, OrFail, ensure, ensure_eq, ensure_matches};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    1 Nothing functions_run_with_interrupts_off,
    1 Nothing a_local_call_runs_inline_and_restores_the_interrupts,
    1 Nothing waiting_inside_a_called_function_is_refused,
    1 Nothing a_plain_wait_with_interrupts_off_is_refused,
    2 Nothing posting_with_interrupts_off_works,
    1 Nothing called_functions_may_post,
    2 Nothing called_functions_may_post_back_and_forth,
    2 Nothing two_cpus_that_call_each_other_with_interrupts_off_both_finish,
    2 Nothing a_ring_of_calls_with_interrupts_off_finishes,
    1 Nothing a_wait_with_interrupts_off_inside_a_called_function_is_refused,
    2 Nothing a_masked_cpu_runs_nothing_until_it_lets_go,
    1 Nothing a_forgotten_guard_leaves_interrupts_off_and_nothing_else,
    1 Nothing interrupts_stay_off_until_the_last_guard_goes_in_any_order,
    2 Nothing armed_cpus_that_call_each_other_all_finish,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Where and how a function runs: this CPU, with interrupts off?
    pub(super) fn handled_by(&self, cpu: CpuId) -> bool {
        self.me() == Some(cpu) && !self.smp().platform().irqs_enabled()
    }

    fn functions_run_with_interrupts_off(&self) -> Check {
        let wrong = AtomicU32::new(0);
        // ORDERING: Relaxed — the waited call orders it.
        let judge = |right: bool| {
            wrong.fetch_add(u32::from(!right), Ordering::Relaxed);
        };
        for cpu in &self.online() {
            let right = self
                .smp()
                .call(cpu, || self.handled_by(cpu))
                .or_fail("call")?;
            ensure!(right, "`call` on CPU {cpu} ran outside handler context");
            let csd = pin!(Csd::new(|| judge(self.handled_by(cpu))));
            self.smp().call_csd(cpu, &csd).or_fail("call_csd")?;
        }
        let each = |cpu| judge(self.handled_by(cpu));
        self.smp().on_each_cpu(each).or_fail("on_each_cpu")?;
        self.smp().call_others(each).or_fail("call_others")?;
        ensure_eq!(
            wrong.load(Ordering::Relaxed),
            0,
            "waited functions outside handler context"
        );
        self.posted_functions_run_with_interrupts_off()
    }

    fn posted_functions_run_with_interrupts_off(&self) -> Check {
        self.scope(AtomicU32::new(0), |s| {
            let judge = |s: &crate::scope::Scope<L, AtomicU32, W, D>, cpu: CpuId| {
                let smp = s.smp();
                let right = smp.current_cpu() == Some(cpu) && !smp.platform().irqs_enabled();
                // ORDERING: Relaxed — `ran` orders it.
                s.state.fetch_add(u32::from(!right), Ordering::Relaxed);
            };
            for cpu in self.online().iter().take(16) {
                s.post(cpu, move |s| judge(s, cpu)).or_fail("post")?;
                let csd = pin!(s.csd(move |s| judge(s, cpu)));
                s.post_csd(cpu, csd.as_ref()).or_fail("post_csd")?;
            }
            let (posted, _) = s.post_mask(|| self.smp().post_each(s.each(judge)));
            let sent = 2 * self.online().iter().take(16).count() + posted.len();
            self.wait("the posts ran", || s.ran() == sent as u64)?;
            let wrong = s.state.load(Ordering::Relaxed);
            ensure_eq!(wrong, 0, "posted functions outside handler context");
            Ok(())
        })
    }

    fn a_local_call_runs_inline_and_restores_the_interrupts(&self) -> Check {
        self.together(&self.some_cpus(4), |me| {
            let platform = self.smp().platform();
            for _ in 0..10 {
                let right = self
                    .smp()
                    .call(me, || self.handled_by(me))
                    .or_fail("call")?;
                ensure!(right, "a local call ran outside handler context");
                ensure!(platform.irqs_enabled(), "a local call left interrupts off");
                let guard = self.smp().irqs_off();
                // A local call waits for nobody, so it is fine with interrupts off.
                let right = self
                    .smp()
                    .call(me, || self.handled_by(me))
                    .or_fail("call")?;
                let still_off = !platform.irqs_enabled();
                drop(guard);
                ensure!(right && still_off, "a local call turned interrupts on");
            }
            Ok(())
        })
    }

    fn waiting_inside_a_called_function_is_refused(&self) -> Check {
        for cpu in self.online().iter().take(8) {
            let inside = || self.every_wait_is_refused(cpu, CallError::InHandler);
            self.smp().call(cpu, inside).or_fail("call")??;
        }
        Ok(())
    }

    /// Tries each way to wait from `cpu`; all must be refused by this name.
    fn every_wait_is_refused(&self, cpu: CpuId, by: CallError) -> Check {
        let smp = self.smp();
        let other = self.others().first().unwrap_or(cpu);
        let mask = self.online();
        let nothing = |_: CpuId| ();
        let csd = pin!(Csd::new(|| ()));
        if other != cpu {
            ensure_eq!(smp.call(other, || ()).map_err(|r| r.error), Err(by), "call");
            ensure_eq!(smp.call_csd(other, &csd), Err(by), "call_csd");
            let only = CpuMask::of(other);
            let any = smp.call_any(&only, || ()).map_err(|r| r.error);
            ensure_eq!(any.map(|_| ()), Err(by), "call_any");
        }
        ensure_eq!(
            smp.call_many(&mask, nothing).map_err(|r| r.error),
            Err(by),
            "call_many"
        );
        ensure_eq!(
            smp.call_others(nothing).map_err(|r| r.error),
            Err(by),
            "call_others"
        );
        ensure_eq!(
            smp.on_each_cpu(nothing).map_err(|r| r.error),
            Err(by),
            "on_each_cpu"
        );
        let masked = smp.on_each_cpu_mask(&mask, nothing).map_err(|r| r.error);
        ensure_eq!(masked, Err(by), "on_each_cpu_mask");
        let cond = smp.on_each_cpu_cond(|_| true, nothing).map_err(|r| r.error);
        ensure_eq!(cond, Err(by), "on_each_cpu_cond");
        ensure_eq!(smp.kick_all_cpus_sync(), Err(by), "kick_all_cpus_sync");
        ensure_eq!(smp.flush(other), Err(by), "flush");
        let slept = smp.run_on_cpu(other, || ()).map_err(|r| r.error);
        ensure_eq!(slept, Err(by), "run_on_cpu");
        if other != cpu {
            ensure_eq!(
                smp.cpu_down(other),
                Err(HotplugError::Context(by)),
                "cpu_down"
            );
            ensure_eq!(smp.cpu_up(other), Err(HotplugError::Context(by)), "cpu_up");
        }
        Ok(())
    }

    fn a_plain_wait_with_interrupts_off_is_refused(&self) -> Check {
        self.together(&self.some_cpus(2), |me| {
            let guard = self.smp().irqs_off();
            let refused = self.every_wait_is_refused(me, CallError::InterruptsOff);
            drop(guard);
            refused
        })
    }

    fn posting_with_interrupts_off_works(&self) -> Check {
        self.scope((), |s| {
            self.together(&self.some_cpus(4), |me| {
                let target = self.other(0);
                let guard = self.smp().irqs_off();
                let posted = s.post(target, |_| ());
                let off = !self.smp().platform().irqs_enabled();
                drop(guard);
                posted.or_fail("post with interrupts off")?;
                ensure!(off, "a post from CPU {me} turned interrupts on");
                Ok(())
            })
        })
    }

    fn called_functions_may_post(&self) -> Check {
        self.scope((), |s| {
            let mut sent = 0;
            for cpu in self.online().iter().take(8) {
                for target in self.online().iter().take(4) {
                    let nested = || s.post(target, |_| ());
                    self.smp()
                        .call(cpu, nested)
                        .or_fail("call")?
                        .or_fail("post inside")?;
                    s.post(cpu, move |s| {
                        let _ = s.post(target, |_| ());
                    })
                    .or_fail("post")?;
                    sent += 3;
                }
                self.wait("nested posts ran", || s.ran() == sent)?;
            }
            Ok(())
        })
    }

    /// A chain of posts between two CPUs, each made by the one before it.
    fn called_functions_may_post_back_and_forth(&self) -> Check {
        struct Chain<L, const W: usize, const D: usize>(
            AtomicU64,
            [CpuId; 2],
            core::marker::PhantomData<fn(L)>,
        );
        fn hop<L: Lab<W, D>, const W: usize, const D: usize>(
            s: &crate::scope::Scope<L, Chain<L, W, D>, W, D>,
        ) {
            // ORDERING: Relaxed — the chain is one thread of control; posts order it.
            let n = s.state.0.fetch_add(1, Ordering::Relaxed);
            if n < 200 {
                // A refusal breaks the chain, which the case notices.
                let _ = s.post(s.state.1[n as usize % 2], hop);
            }
        }
        let a = self.other(0);
        let b = self.others().iter().nth(1).or(self.me()).unwrap_or(a);
        let chain = Chain(AtomicU64::new(0), [a, b], core::marker::PhantomData);
        self.scope(chain, |s| {
            s.post(b, hop).or_fail("post")?;
            self.wait("the chain of posts ended", || s.ran() == 201)
        })
    }

    /// With interrupts off, neither would ever take the other's call (os_anchors 5.3, 7).
    fn two_cpus_that_call_each_other_with_interrupts_off_both_finish(&self) -> Check {
        let pair = self.some_cpus(2);
        self.call_round_with_interrupts_off(&pair, 200)
    }

    fn a_ring_of_calls_with_interrupts_off_finishes(&self) -> Check {
        let ring = self.some_cpus(6);
        self.call_round_with_interrupts_off(&ring, 40)
    }

    /// Each CPU calls the next one, all with interrupts off from before the first call on.
    fn call_round_with_interrupts_off(&self, ring: &CpuMask<W>, rounds: u32) -> Check {
        let masked = AtomicU32::new(0);
        self.together(ring, |me| {
            let after = ring.iter().find(|&cpu| cpu > me).or(ring.first());
            let next = after.ok_or_else(|| Failure::new(format_args!("an empty ring")))?;
            let mut guard = self.smp().irqs_off();
            // ORDERING: Relaxed — a count that only grows.
            masked.fetch_add(1, Ordering::Relaxed);
            let all = ring.len() as u32;
            self.wait("all are masked", || masked.load(Ordering::Relaxed) >= all)?;
            for round in 0..rounds {
                let ran = self
                    .smp()
                    .call_irqs_off(&mut guard, next, || self.handled_by(next));
                ensure!(
                    ran.or_fail("call_irqs_off")?,
                    "round {round} ran on the wrong CPU"
                );
                let off = !self.smp().platform().irqs_enabled();
                ensure!(off, "call_irqs_off turned interrupts on");
            }
            // The others may still wait for us: they are served when the guard goes.
            drop(guard);
            Ok(())
        })
    }

    fn a_wait_with_interrupts_off_inside_a_called_function_is_refused(&self) -> Check {
        for cpu in self.online().iter().take(4) {
            let Some(other) = self.online().iter().find(|&other| other != cpu) else {
                return Ok(());
            };
            let inside = || {
                let mut guard = self.smp().irqs_off();
                let refused = self.smp().call_irqs_off(&mut guard, other, || ());
                refused.map_err(|refused| refused.error)
            };
            let refused = self.smp().call(cpu, inside).or_fail("call")?;
            ensure_matches!(refused, Err(CallError::InHandler), "call_irqs_off inside");
        }
        Ok(())
    }

    fn a_masked_cpu_runs_nothing_until_it_lets_go(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            self.masked(&CpuMask::of(target), |mask| {
                s.post(target, |_| ()).or_fail("post")?;
                self.pause_ns(2_000_000);
                ensure_eq!(s.ran(), 0, "functions that ran on a masked CPU");
                mask.let_go();
                self.wait("the post ran after the mask", || s.ran() == 1)
            })
        })
    }

    fn a_forgotten_guard_leaves_interrupts_off_and_nothing_else(&self) -> Check {
        self.together(&self.some_cpus(2), |me| {
            let platform = self.smp().platform();
            core::mem::forget(self.smp().irqs_off());
            let off = !platform.irqs_enabled();
            let refused = self.smp().kick_all_cpus_sync();
            let local = self.smp().call(me, || 3).map_err(|refused| refused.error);
            platform.irqs_restore(true);
            ensure!(off, "a forgotten guard let interrupts come on");
            ensure_eq!(refused, Err(CallError::InterruptsOff), "waiting after it");
            ensure_eq!(local, Ok(3), "a local call after it");
            Ok(())
        })
    }

    fn interrupts_stay_off_until_the_last_guard_goes_in_any_order(&self) -> Check {
        self.together(&self.some_cpus(2), |me| {
            for first in 0..2 {
                let mut guards = [(); 2].map(|()| Some(self.smp().irqs_off()));
                guards[first] = None;
                let off = !self.smp().platform().irqs_enabled();
                guards[1 - first] = None;
                ensure!(
                    off,
                    "the first of two guards turned interrupts on, CPU {me}"
                );
                let on = self.smp().platform().irqs_enabled();
                ensure!(on, "the last of two guards left interrupts off, CPU {me}");
            }
            Ok(())
        })
    }

    fn armed_cpus_that_call_each_other_all_finish(&self) -> Check {
        self.together(&self.some_cpus(4), |me| {
            let target = self.other(0);
            for n in 0..100_u64 {
                // `false`: something had come, and has run.
                self.smp().arm();
                let answer = self.smp().call(target, || n).or_fail("call while armed")?;
                self.smp().disarm();
                ensure_eq!(answer, n, "CPU {me} was given another's answer");
                ensure!(!self.smp().is_armed(), "CPU {me} is still armed");
            }
            Ok(())
        })
    }
}
