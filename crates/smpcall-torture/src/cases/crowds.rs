//! Many callers: more sources than a target has mailbox lines, and all against all.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::CpuMask;

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::crew::CREW;
use crate::cx::Cx;
use crate::lab::Lab;
use crate::rng::Rng;

case_list! {
    7 Nothing more_callers_than_mailboxes_are_all_served,
    7 Nothing a_mailbox_goes_to_the_source_that_calls,
    2 Nothing everyone_calls_everyone,
    2 Nothing everyone_calls_broadcasts_posts_and_kicks_at_once,
    2 Nothing plain_memory_is_handed_round_by_calls,
    2 Nothing broadcasts_borrow_the_callers_stack_both_ways,
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Each caller counts on the target without any lock: calls on one CPU never overlap.
    fn more_callers_than_mailboxes_are_all_served(&self) -> Check {
        let target = self.other(0);
        let callers = self.some_cpus(CREW).and_not(&CpuMask::of(target));
        let (count, rounds) = (AtomicU32::new(0), 400);
        self.together(&callers, |me| {
            for n in 0..rounds {
                let add = move |count: &AtomicU32| {
                    // ORDERING: Relaxed — one CPU runs these, one after another.
                    let before = count.load(Ordering::Relaxed);
                    count.store(before + 1, Ordering::Relaxed);
                    n
                };
                let back = self.smp().call(target, || add(&count)).or_fail("call")?;
                ensure_eq!(back, n, "the result that CPU {me} got");
            }
            Ok(())
        })?;
        let wanted = rounds * callers.len() as u32;
        ensure_eq!(
            count.load(Ordering::Relaxed),
            wanted,
            "calls that ran on the target"
        );
        Ok(())
    }

    /// Sources that share a mailbox line use it in turn, long enough for it to change hands.
    fn a_mailbox_goes_to_the_source_that_calls(&self) -> Check {
        let target = self.other(0);
        let callers = self.some_cpus(CREW).and_not(&CpuMask::of(target));
        for turn in 0..3 {
            for (i, caller) in callers.iter().enumerate() {
                let call_often = |_| {
                    let large = [i as u64; 12];
                    for n in 0..150_u64 {
                        let small = self.smp().call(target, move || n + 1).or_fail("call")?;
                        let sum = move || large.iter().sum::<u64>() + n;
                        let sum = self.smp().call(target, sum).or_fail("call")?;
                        let wanted = (n + 1, 12 * i as u64 + n);
                        ensure_eq!((small, sum), wanted, "results in turn {turn}");
                    }
                    Ok(())
                };
                self.together(&CpuMask::of(caller), call_often)?;
            }
        }
        Ok(())
    }

    fn everyone_calls_everyone(&self) -> Check {
        let crew = self.some_cpus(CREW);
        self.together(&crew, |me| {
            let mut rng = Rng::fork(3, u64::from(me.get()));
            let online = self.online();
            for n in 0..200_u64 {
                let k = rng.below(online.len() as u64) as usize;
                let Some(target) = online.iter().nth(k) else {
                    continue;
                };
                let f = || (self.handled_by(target), n ^ 5);
                let (right, back) = self.smp().call(target, f).or_fail("call")?;
                ensure!(right, "a call to CPU {target} ran elsewhere");
                ensure_eq!(back, n ^ 5, "the result from CPU {target}");
            }
            Ok(())
        })
    }

    fn everyone_calls_broadcasts_posts_and_kicks_at_once(&self) -> Check {
        let crew = self.some_cpus(CREW);
        self.scope((), |s| {
            self.together(&crew, |me| {
                let mut rng = Rng::fork(4, u64::from(me.get()));
                let online = self.online();
                for _ in 0..60 {
                    let k = rng.below(online.len() as u64) as usize;
                    let Some(target) = online.iter().nth(k) else {
                        continue;
                    };
                    match rng.below(5) {
                        0 => drop(self.smp().call_others(|_| ()).or_fail("call_others")?),
                        1 => drop(self.smp().kick_all_cpus_sync().or_fail("kick")?),
                        2 => s.post_wait(target, |_| ()).or_fail("post_wait")?,
                        3 => drop(self.smp().call_any(&online, || ()).or_fail("call_any")?),
                        _ => self.smp().call(target, || ()).or_fail("call")?,
                    }
                }
                Ok(())
            })
        })
    }

    /// A value without atomics goes from CPU to CPU; whoever sees an old one fails.
    fn plain_memory_is_handed_round_by_calls(&self) -> Check {
        let mut value = [0_u64; 8];
        let ring = self.online();
        for round in 1..=20_u64 {
            for cpu in ring.iter().take(32) {
                let words = &mut value;
                let step = move || {
                    let same = words.iter().all(|word| *word == words[0]);
                    words.iter_mut().for_each(|word| *word += 1);
                    same
                };
                let same = self.smp().call(cpu, step).or_fail("call")?;
                ensure!(same, "CPU {cpu} saw words of different rounds");
            }
            let wanted = round * ring.iter().take(32).count() as u64;
            ensure_eq!(value, [wanted; 8], "the value after round {round}");
        }
        Ok(())
    }

    fn broadcasts_borrow_the_callers_stack_both_ways(&self) -> Check {
        let mut input = [0_u64; 16];
        for round in 1..=100_u64 {
            input.fill(round);
            let (wrong, sum) = (AtomicU32::new(0), AtomicU64::new(0));
            let f = |_| {
                let right = input.iter().all(|&word| word == round);
                // ORDERING: Relaxed — the broadcast orders it.
                wrong.fetch_add(u32::from(!right), Ordering::Relaxed);
                sum.fetch_add(round, Ordering::Relaxed);
            };
            let ran = self.smp().on_each_cpu(f).or_fail("on_each_cpu")?;
            ensure_eq!(wrong.load(Ordering::Relaxed), 0, "CPUs that saw old words");
            let wanted = round * ran.len() as u64;
            ensure_eq!(
                sum.load(Ordering::Relaxed),
                wanted,
                "what came back in round {round}"
            );
        }
        Ok(())
    }
}
