//! IPIs and wake-ups: counted, not timed; and the calls that are made for their sake.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask, CpuState};

use super::case_list;
use crate::check::{Check, Failure, OrFail, ensure, ensure_eq, ensure_matches};
use crate::crew::CREW;
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    2 Nothing posts_to_a_rung_cpu_send_no_kick,
    2 Nothing a_burst_of_posts_from_many_sends_one_kick,
    4 Nothing simultaneous_broadcasts_send_at_most_one_kick_to_each_target,
    1 Nothing kick_all_cpus_sync_answers_all_others,
    2 Nothing kick_all_cpus_sync_waits_for_a_masked_cpu,
    2 Nothing what_was_stored_before_the_kick_is_visible_after_it,
    2 Nothing a_nudge_makes_a_waiting_cpu_look,
    1 Nothing handling_an_interrupt_without_cause_is_harmless,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    fn posts_to_a_rung_cpu_send_no_kick(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            let csd = core::pin::pin!(s.csd(|_| ()));
            self.masked(&CpuMask::of(target), |_| {
                let before = self.lab().kicks();
                s.post(target, |_| ()).or_fail("post")?;
                ensure_eq!(self.lab().kicks() - before, 1, "kicks for the first post");
                for _ in 1..D {
                    s.post(target, |_| ()).or_fail("post")?;
                }
                s.post_csd(target, csd.as_ref()).or_fail("post_csd")?;
                ensure_eq!(
                    self.lab().kicks() - before,
                    1,
                    "kicks for a lane full of posts"
                );
                Ok(())
            })
        })
    }

    /// A post may also ask another source for its line, which is a kick to that one; so there are several
    /// rounds, and one of them has to be without.
    fn a_burst_of_posts_from_many_sends_one_kick(&self) -> Check {
        let target = self.other(0);
        let sources = self.some_cpus(CREW).and_not(&CpuMask::of(target));
        let mut sent = 0;
        for _ in 0..5 {
            sent = self.kicks_of_a_burst(target, &sources)?;
            if sent == 1 {
                return Ok(());
            }
        }
        ensure_eq!(sent, 1, "kicks for posts of {} CPUs", sources.len());
        Ok(())
    }

    /// How many kicks are sent when all sources post to a masked target once.
    fn kicks_of_a_burst(&self, target: CpuId, sources: &CpuMask<W>) -> Result<u64, Failure> {
        let sent = AtomicU64::new(0);
        self.scope((), |s| {
            let (ready, masked, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
            // ORDERING: Relaxed, all of them — stages and figures of the case.
            let each = |me| {
                if me == target {
                    let all = sources.len() as u32;
                    // Making the crew act takes wake-ups as well: they are over now.
                    self.wait("all are there", || ready.load(Ordering::Relaxed) == all)?;
                    self.smp().poll();
                    let guard = self.smp().irqs_off();
                    let before = self.lab().kicks();
                    masked.store(1, Ordering::Relaxed);
                    self.wait("all have posted", || done.load(Ordering::Relaxed) == all)?;
                    sent.store(self.lab().kicks() - before, Ordering::Relaxed);
                    drop(guard);
                    return Ok(());
                }
                ready.fetch_add(1, Ordering::Relaxed);
                self.wait("the target is masked", || {
                    masked.load(Ordering::Relaxed) == 1
                })?;
                s.post(target, |_| ()).or_fail("post")?;
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            self.together(&sources.or(&CpuMask::of(target)), each)
        })?;
        // ORDERING: Relaxed — the crew has ended.
        Ok(sent.load(Ordering::Relaxed))
    }

    /// N broadcasts onto N masked CPUs: N kicks, not N times N (os_anchors 5.3, 13).
    fn simultaneous_broadcasts_send_at_most_one_kick_to_each_target(&self) -> Check {
        let all = self.some_cpus(CREW);
        let (me, half) = (self.me(), all.len() / 2);
        let targets = all.iter().filter(|&cpu| Some(cpu) != me);
        let targets: CpuMask<W> = targets.take(half).collect();
        let stages = [const { AtomicU32::new(0) }; 3];
        let [masked, near, looked] = &stages;
        let (before, worst) = (AtomicU64::new(0), AtomicU64::new(0));
        // ORDERING: Relaxed, all of them — stages and figures of the case.
        let hold = || {
            self.smp().poll();
            let guard = self.smp().irqs_off();
            // Making the crew act takes wake-ups as well: they are over when all are here.
            self.meet("all are here", masked, all.len())?;
            before.store(self.lab().kicks(), Ordering::Relaxed);
            self.meet("all are about to call", near, all.len())?;
            self.pause_ns(2_000_000);
            let sent = self.lab().kicks() - before.load(Ordering::Relaxed);
            worst.fetch_max(sent, Ordering::Relaxed);
            // All look before the first lets go: a CPU that drains may be kicked again.
            self.meet("all have looked", looked, targets.len())?;
            drop(guard);
            Ok(())
        };
        let ran = AtomicU64::new(0);
        let call = || {
            self.meet("all are here", masked, all.len())?;
            self.meet("all are about to call", near, all.len())?;
            let count = |_| {
                ran.fetch_add(1, Ordering::Relaxed);
            };
            let set = self.smp().call_many(&targets, count).or_fail("call_many")?;
            ensure_eq!(set, targets, "CPUs that ran it");
            Ok(())
        };
        self.together(&all, |cpu| match targets.contains(cpu) {
            true => hold(),
            false => call(),
        })?;
        let (sent, most) = (worst.load(Ordering::Relaxed), targets.len() as u64);
        ensure!(
            sent <= most,
            "{sent} kicks for broadcasts to {most} masked CPUs"
        );
        let sources = (all.len() - targets.len()) as u64;
        ensure_eq!(ran.load(Ordering::Relaxed), most * sources, "runs");
        Ok(())
    }

    fn kick_all_cpus_sync_answers_all_others(&self) -> Check {
        for _ in 0..20 {
            let kicked = self
                .smp()
                .kick_all_cpus_sync()
                .or_fail("kick_all_cpus_sync")?;
            ensure_eq!(kicked, self.others(), "CPUs that were kicked");
        }
        Ok(())
    }

    fn kick_all_cpus_sync_waits_for_a_masked_cpu(&self) -> Check {
        let target = self.other(0);
        for _ in 0..5 {
            self.masked(&CpuMask::of(target), |mask| {
                mask.let_go_at(self.now() + 500_000);
                self.smp()
                    .kick_all_cpus_sync()
                    .or_fail("kick_all_cpus_sync")?;
                ensure_eq!(
                    mask.ended(),
                    1,
                    "masks that had ended when the kick returned"
                );
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The seed's use of it: publish a new value, kick, and nobody uses the old one any more.
    fn what_was_stored_before_the_kick_is_visible_after_it(&self) -> Check {
        let reader = self.other(0);
        let (value, kicked, ended) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        // ORDERING: Relaxed, all of them — the kick alone must order them.
        let read = |_| {
            while ended.load(Ordering::Relaxed) == 0 && !self.has_failed() {
                let floor = kicked.load(Ordering::Relaxed);
                let seen = value.load(Ordering::Relaxed);
                ensure!(seen >= floor, "read {seen} after the kick for {floor}");
                self.smp().poll();
            }
            Ok(())
        };
        self.crew(&CpuMask::of(reader), read, || {
            for n in 1..=200 {
                value.store(n, Ordering::Relaxed);
                self.smp()
                    .kick_all_cpus_sync()
                    .or_fail("kick_all_cpus_sync")?;
                kicked.store(n, Ordering::Relaxed);
            }
            ended.store(1, Ordering::Relaxed);
            Ok(())
        })
    }

    /// A CPU that idles until a flag is set sees it when it is nudged.
    fn a_nudge_makes_a_waiting_cpu_look(&self) -> Check {
        let target = self.other(0);
        for _ in 0..20 {
            let (waiting, flag) = (AtomicU32::new(0), AtomicU32::new(0));
            // ORDERING: Relaxed — the nudge's Release publishes the flag.
            let member = |_| {
                waiting.store(1, Ordering::Relaxed);
                self.smp()
                    .idle_until(|| flag.load(Ordering::Relaxed) == 1 || self.has_failed());
                Ok(())
            };
            self.crew(&CpuMask::of(target), member, || {
                self.wait("it waits", || waiting.load(Ordering::Relaxed) == 1)?;
                self.pause_ns(100_000);
                flag.store(1, Ordering::Relaxed);
                self.smp().nudge(target).or_fail("nudge")
            })?;
        }
        let nowhere = self.smp().nudge(CpuId::new(u32::MAX));
        ensure_matches!(
            nowhere,
            Err(CallError::NoSuchCpu { .. }),
            "a nudge to no CPU"
        );
        Ok(())
    }

    fn handling_an_interrupt_without_cause_is_harmless(&self) -> Check {
        self.together(&self.some_cpus(4), |me| {
            for _ in 0..20 {
                let guard = self.smp().irqs_off();
                self.smp().handle_ipi();
                drop(guard);
                self.smp().poll();
                let inside = || self.smp().handle_ipi();
                self.smp().call(me, inside).or_fail("call")?;
            }
            ensure_eq!(
                self.smp().cpu_state(me),
                CpuState::Online,
                "the state of CPU {me}"
            );
            Ok(())
        })
    }
}
