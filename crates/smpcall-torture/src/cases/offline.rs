//! CPUs that are not there: refused by name, left out of masks, and never lost.

use core::pin::pin;
use core::sync::atomic::{AtomicU32, Ordering};

use smpcall::{CallError, CpuId, CpuMask, CpuState, Csd, HotplugError, Refused, StartError};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq, ensure_matches};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    1 Nothing ids_that_no_cpu_has_are_refused_with_the_closure,
    2 Hotplug an_offline_cpu_is_refused_with_the_closure,
    2 Hotplug a_cpu_that_is_present_but_not_online_is_no_target,
    2 Hotplug a_cpu_goes_down_and_comes_back,
    1 Hotplug up_and_down_name_what_is_wrong,
    2 Hotplug a_refused_start_is_undone,
    2 Hotplug what_a_leaving_cpu_had_accepted_ran_before_it_was_gone,
    3 Hotplug posts_of_a_cpu_that_left_still_run,
    2 Hotplug a_late_interrupt_on_a_cpu_that_came_back_is_harmless,
    2 SlowHotplug a_cpu_that_does_not_leave_in_time_stays_online,
    2 SlowHotplug a_cpu_that_never_arrives_is_given_up,
    2 Slow a_stalled_call_is_reported_and_still_returns_its_result,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Tries each way to reach one CPU; all must be refused by this name, the closure coming back.
    fn every_way_is_refused(&self, cpu: CpuId, by: CallError) -> Check {
        let smp = self.smp();
        let Err(Refused { error, closure }) = smp.call(cpu, || 5) else {
            ensure!(false, "a call to CPU {cpu} ran");
            return Ok(());
        };
        ensure_eq!((error, closure()), (by, 5), "call");
        let ran = AtomicU32::new(0);
        // ORDERING: Relaxed — it must never run.
        let count = || {
            ran.fetch_add(1, Ordering::Relaxed);
        };
        let csd = Csd::new(count);
        ensure_eq!(smp.call_csd(cpu, &csd), Err(by), "call_csd");
        ensure!(!csd.is_queued(), "a refused descriptor is queued");
        let nothing = pin!(Csd::new(|| ()));
        ensure_eq!(smp.post_csd(cpu, nothing.as_ref()), Err(by), "post_csd");
        ensure_eq!(smp.post_task(cpu, nothing.as_ref()), Err(by), "post_task");
        ensure_eq!(smp.post(cpu, || ()).map_err(|r| r.error), Err(by), "post");
        ensure_eq!(
            smp.post_wait(cpu, || ()).map_err(|r| r.error),
            Err(by),
            "post_wait"
        );
        ensure_eq!(
            smp.run_on_cpu(cpu, count).map_err(|r| r.error),
            Err(by),
            "run_on_cpu"
        );
        ensure_eq!(smp.flush(cpu), Err(by), "flush");
        ensure_eq!(smp.nudge(cpu), Err(by), "nudge");
        ensure_eq!(ran.load(Ordering::Relaxed), 0, "functions that ran");
        if cpu.index() < CpuMask::<W>::CAPACITY {
            let only = CpuMask::of(cpu);
            let any = smp.call_any(&only, || ()).map_err(|r| r.error);
            ensure_eq!(any.map(|_| ()), Err(CallError::EmptyMask), "call_any");
            let any = smp.post_any(&only, || ()).map_err(|r| r.error);
            ensure_eq!(any, Err(CallError::EmptyMask), "post_any");
        }
        Ok(())
    }

    fn ids_that_no_cpu_has_are_refused_with_the_closure(&self) -> Check {
        let nr_cpu_ids = self.smp().nr_cpu_ids();
        let capacity = CpuMask::<W>::CAPACITY as u32;
        for id in [nr_cpu_ids, capacity - 1, capacity, u32::MAX] {
            if id < nr_cpu_ids {
                continue;
            }
            let cpu = CpuId::new(id);
            self.every_way_is_refused(cpu, CallError::NoSuchCpu { cpu, nr_cpu_ids })?;
            ensure_eq!(
                self.smp().cpu_up(cpu),
                Err(HotplugError::NoSuchCpu),
                "cpu_up"
            );
            ensure_eq!(
                self.smp().cpu_down(cpu),
                Err(HotplugError::NoSuchCpu),
                "cpu_down"
            );
            ensure_eq!(self.smp().cpu_state(cpu), CpuState::Offline, "its state");
            ensure!(!self.smp().is_online(cpu), "CPU {cpu} is online");
        }
        Ok(())
    }

    fn an_offline_cpu_is_refused_with_the_closure(&self) -> Check {
        let gone = self.other(0);
        self.smp().cpu_down(gone).or_fail("cpu_down")?;
        let refused = self.every_way_is_refused(gone, CallError::Offline { cpu: gone });
        self.smp().cpu_up(gone).or_fail("cpu_up")?;
        refused?;
        self.smp()
            .call(gone, || ())
            .or_fail("call to the CPU that came back")
    }

    /// os_anchors 5.3, 16: no mask form goes there, and no predicate is asked about it.
    fn a_cpu_that_is_present_but_not_online_is_no_target(&self) -> Check {
        let gone = self.other(0);
        self.smp().cpu_down(gone).or_fail("cpu_down")?;
        let online = self.online();
        ensure!(!online.contains(gone), "a CPU that went down is online");
        ensure!(
            self.smp().present_cpus().contains(gone),
            "a CPU that went down is not present"
        );
        let strays = AtomicU32::new(0);
        // ORDERING: Relaxed — the calls order it.
        let stray = |cpu| {
            strays.fetch_add(u32::from(cpu == gone), Ordering::Relaxed);
        };
        let all = self.smp().possible_cpus();
        let ran = self
            .smp()
            .on_each_cpu_mask(&all, stray)
            .or_fail("on_each_cpu_mask")?;
        ensure_eq!(ran, online, "CPUs that ran it");
        let ran = self.smp().call_many(&all, stray).or_fail("call_many")?;
        ensure_eq!(ran, self.others(), "CPUs that ran it");
        let mut asked = false;
        let ask = |cpu| {
            asked |= cpu == gone;
            true
        };
        self.smp()
            .on_each_cpu_cond(ask, stray)
            .or_fail("on_each_cpu_cond")?;
        ensure!(!asked, "the predicate was asked about an offline CPU");
        let posted = self.smp().post_many(&all, |_| ()).or_fail("post_many")?;
        ensure_eq!(posted, self.others(), "CPUs that were posted to");
        let kicked = self
            .smp()
            .kick_all_cpus_sync()
            .or_fail("kick_all_cpus_sync")?;
        ensure_eq!(kicked, self.others(), "CPUs that were kicked");
        ensure_eq!(strays.load(Ordering::Relaxed), 0, "runs on the offline CPU");
        self.smp().cpu_up(gone).or_fail("cpu_up")
    }

    fn a_cpu_goes_down_and_comes_back(&self) -> Check {
        let before = self.online();
        for cpu in self.others().iter().take(3) {
            for _ in 0..5 {
                self.smp().cpu_down(cpu).or_fail("cpu_down")?;
                ensure_eq!(
                    self.smp().cpu_state(cpu),
                    CpuState::Offline,
                    "state when down"
                );
                ensure_eq!(
                    self.online(),
                    before.and_not(&CpuMask::of(cpu)),
                    "CPUs online"
                );
                self.smp().cpu_up(cpu).or_fail("cpu_up")?;
                ensure_eq!(self.smp().cpu_state(cpu), CpuState::Online, "state when up");
                ensure_eq!(self.online(), before, "CPUs online");
                let right = self
                    .smp()
                    .call(cpu, || self.handled_by(cpu))
                    .or_fail("call")?;
                ensure!(
                    right,
                    "the CPU that came back runs calls in the wrong place"
                );
            }
        }
        Ok(())
    }

    fn up_and_down_name_what_is_wrong(&self) -> Check {
        let smp = self.smp();
        for cpu in self.online().iter().take(4) {
            ensure_eq!(smp.cpu_up(cpu), Err(HotplugError::AlreadyOnline), "cpu_up");
        }
        self.together(&self.some_cpus(1), |me| {
            ensure_eq!(
                smp.cpu_down(me),
                Err(HotplugError::Myself),
                "cpu_down of itself"
            );
            Ok(())
        })?;
        if let (None, 1) = (self.me(), smp.num_online_cpus()) {
            let last = self.other(0);
            ensure_eq!(smp.cpu_down(last), Err(HotplugError::LastCpu), "cpu_down");
        }
        if self.online().len() >= 2 {
            let gone = self.other(0);
            smp.cpu_down(gone).or_fail("cpu_down")?;
            let again = smp.cpu_down(gone);
            smp.cpu_up(gone).or_fail("cpu_up")?;
            ensure_eq!(again, Err(HotplugError::AlreadyOffline), "cpu_down again");
        }
        Ok(())
    }

    /// A start that the platform refuses leaves the CPU offline, and startable.
    fn a_refused_start_is_undone(&self) -> Check {
        let gone = self.other(0);
        self.smp().cpu_down(gone).or_fail("cpu_down")?;
        for _ in 0..3 {
            let refused = self.smp().cpu_up_by(gone, || Err(StartError::Refused(7)));
            let start = HotplugError::Start(StartError::Refused(7));
            ensure_eq!(refused, Err(start), "cpu_up_by");
            ensure_eq!(
                self.smp().cpu_state(gone),
                CpuState::Offline,
                "state after a refusal"
            );
        }
        self.smp().cpu_up(gone).or_fail("cpu_up after refusals")
    }

    /// Everything that was accepted ran when `cpu_down` returns (os_anchors 5.3, 4).
    fn what_a_leaving_cpu_had_accepted_ran_before_it_was_gone(&self) -> Check {
        let target = self.other(0);
        for round in 0..20 {
            self.scope((), |s| {
                let csd = pin!(s.csd(|_| ()));
                let task = pin!(s.csd(|_| ()));
                let mut accepted = 0;
                for _ in 0..(round % 8) {
                    accepted += u64::from(s.post(target, |_| ()).is_ok());
                }
                s.post_csd(target, csd.as_ref()).or_fail("post_csd")?;
                let post = || self.smp().post_task(target, task.as_ref());
                s.hand_out(post, |r| u64::from(r.is_ok()))
                    .or_fail("post_task")?;
                self.smp().cpu_down(target).or_fail("cpu_down")?;
                let ran = s.ran();
                self.smp().cpu_up(target).or_fail("cpu_up")?;
                ensure_eq!(ran, accepted + 2, "what ran before the CPU was gone");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The sender is gone when its posts run (os_anchors 5.3, 5).
    fn posts_of_a_cpu_that_left_still_run(&self) -> Check {
        let (sender, target) = (self.other(0), self.other(1));
        for _ in 0..5 {
            self.scope((), |s| {
                self.masked(&CpuMask::of(target), |_| {
                    let post_some = || {
                        for _ in 0..4 {
                            s.post(target, |_| ())?;
                        }
                        Ok::<(), CallError>(())
                    };
                    let posted = self.smp().run_on_cpu(sender, post_some);
                    posted.or_fail("run_on_cpu")?.or_fail("post")?;
                    self.smp().cpu_down(sender).or_fail("cpu_down")
                })?;
                self.wait("posts of a CPU that left ran", || s.ran() == 4)?;
                self.smp().cpu_up(sender).or_fail("cpu_up")
            })?;
        }
        Ok(())
    }

    /// Nudges and posts to a CPU that leaves may kick it after it left, or after it came back.
    fn a_late_interrupt_on_a_cpu_that_came_back_is_harmless(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            for _ in 0..20 {
                for _ in 0..3 {
                    // It may be leaving: a refusal is fine, a loss is not.
                    let _ = self.smp().nudge(target);
                    let _ = s.post(target, |_| ());
                }
                self.smp().cpu_down(target).or_fail("cpu_down")?;
                ensure!(
                    self.smp().nudge(target).is_err(),
                    "a nudge reached an offline CPU"
                );
                self.smp().cpu_up(target).or_fail("cpu_up")?;
                self.smp().call(target, || ()).or_fail("call")?;
            }
            Ok(())
        })
    }

    fn a_cpu_that_does_not_leave_in_time_stays_online(&self) -> Check {
        let target = self.other(0);
        let stage = AtomicU32::new(0);
        // ORDERING: Relaxed — stages of the case.
        let busy = |_| {
            stage.store(1, Ordering::Relaxed);
            let ended = || stage.load(Ordering::Relaxed) == 2;
            self.wait("the request to leave timed out", ended)
        };
        self.crew(&CpuMask::of(target), busy, || {
            self.wait("the target is busy", || stage.load(Ordering::Relaxed) == 1)?;
            let late = self.smp().cpu_down(target);
            let state = self.smp().cpu_state(target);
            let call = self
                .smp()
                .call(target, || 5)
                .map_err(|refused| refused.error);
            stage.store(2, Ordering::Relaxed);
            ensure_eq!(late, Err(HotplugError::Timeout), "cpu_down of a busy CPU");
            ensure_eq!(
                (state, call),
                (CpuState::Online, Ok(5)),
                "the CPU that stayed"
            );
            Ok(())
        })?;
        self.smp().cpu_down(target).or_fail("cpu_down later")?;
        self.smp().cpu_up(target).or_fail("cpu_up")
    }

    fn a_cpu_that_never_arrives_is_given_up(&self) -> Check {
        let target = self.other(0);
        self.smp().cpu_down(target).or_fail("cpu_down")?;
        let late = self.smp().cpu_up_by(target, || Ok(()));
        let state = self.smp().cpu_state(target);
        self.smp().cpu_up(target).or_fail("cpu_up later")?;
        ensure_matches!(late, Err(HotplugError::Timeout), "a CPU that never arrives");
        ensure_eq!(state, CpuState::Offline, "its state");
        Ok(())
    }

    /// Time runs out while the target is masked: that reports, and never ends the wait.
    fn a_stalled_call_is_reported_and_still_returns_its_result(&self) -> Check {
        use smpcall::Platform;
        let target = self.other(0);
        let limit = L::P::STALL_LIMIT_NS;
        let masked = AtomicU32::new(0);
        // ORDERING: Relaxed — stages of the case.
        let member = |_| {
            let guard = self.smp().irqs_off();
            masked.store(1, Ordering::Relaxed);
            self.pause_ns(limit + limit / 5);
            drop(guard);
            Ok(())
        };
        self.crew(&CpuMask::of(target), member, || {
            self.wait("the target is masked", || {
                masked.load(Ordering::Relaxed) == 1
            })?;
            let mut stack = [0_u64; 32];
            let start = self.now();
            let fill = || stack.fill(7);
            self.smp().call(target, fill).or_fail("call")?;
            let took = self.now() - start;
            ensure!(
                took > limit / 2,
                "the call returned after {took} ns, before the target ran it"
            );
            ensure_eq!(stack, [7; 32], "what a late call wrote");
            Ok(())
        })
    }
}
