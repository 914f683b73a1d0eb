//! Waited calls: they run where they were sent, once, and what they answer and write comes back.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CpuId, Platform};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::cx::Cx;
use crate::lab::Lab;
use crate::rng::Rng;

case_list! {
    1 Nothing call_returns_the_result,
    1 Nothing call_runs_on_the_cpu_that_was_asked,
    1 Nothing call_borrows_the_callers_stack,
    1 Nothing what_either_side_wrote_is_visible_to_the_other,
    1 Nothing large_closures_and_results_travel,
    1 Nothing aligned_closures_and_results_travel,
    1 Nothing calls_of_no_size_run,
    1 Nothing closures_and_results_are_dropped_once,
    2 Nothing a_waiter_waits_although_no_kick_was_needed,
}

/// Counts its drops.
struct Token<'a>(&'a AtomicU32);

impl Drop for Token<'_> {
    fn drop(&mut self) {
        // ORDERING: Relaxed — the call orders it before the caller's look.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A value with a cache line of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(64))]
struct Aligned(u64);

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Calls every CPU, this one included.
    fn call_returns_the_result(&self) -> Check {
        for cpu in &self.online() {
            for round in 0..20_u64 {
                let seven = self.smp().call(cpu, || 7 + round).or_fail("call")?;
                ensure_eq!(seven, 7 + round, "result from CPU {cpu}");
            }
        }
        Ok(())
    }

    fn call_runs_on_the_cpu_that_was_asked(&self) -> Check {
        for cpu in &self.online() {
            let ran_on = self.smp().call(cpu, || self.me()).or_fail("call")?;
            ensure_eq!(ran_on, Some(cpu), "the CPU that ran the call");
        }
        Ok(())
    }

    fn call_borrows_the_callers_stack(&self) -> Check {
        let mut seen = [0_u32; 4];
        for cpu in self.online().iter().take(64) {
            let slots = &mut seen;
            let write = || slots.iter_mut().for_each(|slot| *slot += cpu.get() + 1);
            self.smp().call(cpu, write).or_fail("call")?;
        }
        let sum: u32 = self.online().iter().take(64).map(|cpu| cpu.get() + 1).sum();
        ensure_eq!(seen, [sum; 4], "what the functions added up on our stack");
        Ok(())
    }

    /// Plain memory, written by one side and read by the other, many times and in every word.
    fn what_either_side_wrote_is_visible_to_the_other(&self) -> Check {
        let mut rng = Rng::new(1);
        let mut words = [0_u64; 64];
        for cpu in self.online().iter().take(16) {
            for round in 0..200 {
                let key = rng.next_u64() | 1;
                words.fill(key);
                let shared = &mut words;
                let swap = move || {
                    let right = shared.iter().all(|&word| word == key);
                    shared.fill(!key);
                    right
                };
                let right = self.smp().call(cpu, swap).or_fail("call")?;
                ensure!(right, "CPU {cpu} saw an old word in round {round}");
                let back = words.iter().all(|&word| word == !key);
                ensure!(
                    back,
                    "an old word came back from CPU {cpu} in round {round}"
                );
            }
        }
        Ok(())
    }

    /// Far more than the mailbox line holds, both ways and each way alone.
    fn large_closures_and_results_travel(&self) -> Check {
        let large: [u64; 32] = core::array::from_fn(|i| i as u64 * 3);
        for cpu in self.online().iter().take(16) {
            let back = self.smp().call(cpu, move || large.map(|x| x + 1));
            let back = back.or_fail("large both ways")?;
            ensure!(
                back.iter().zip(large).all(|(b, l)| *b == l + 1),
                "large both ways"
            );
            let sum = self.smp().call(cpu, move || large.iter().sum::<u64>());
            ensure_eq!(
                sum.or_fail("large closure")?,
                large.iter().sum::<u64>(),
                "sum"
            );
            let back = self
                .smp()
                .call(cpu, || [5_u64; 32])
                .or_fail("large result")?;
            ensure_eq!(back, [5; 32], "large result");
        }
        // Around the size of the line's payload: 48 bytes.
        let cpu = self.online().last().unwrap_or(CpuId::new(0));
        let (a, b, c) = ([1_u64; 5], [2_u64; 6], [3_u64; 7]);
        let sums = (
            self.smp()
                .call(cpu, move || a.map(|x| x * 2))
                .or_fail("five words")?,
            self.smp()
                .call(cpu, move || b.map(|x| x * 2))
                .or_fail("six words")?,
            self.smp()
                .call(cpu, move || c.map(|x| x * 2))
                .or_fail("seven words")?,
        );
        ensure_eq!(
            sums,
            ([2; 5], [4; 6], [6; 7]),
            "closures around the payload's size"
        );
        Ok(())
    }

    fn aligned_closures_and_results_travel(&self) -> Check {
        for cpu in self.online().iter().take(16) {
            let value = Aligned(u64::from(cpu.get()) + 9);
            let check = move || {
                let at = core::ptr::from_ref(&value) as usize;
                (value, at.is_multiple_of(64))
            };
            let (back, aligned) = self.smp().call(cpu, check).or_fail("aligned")?;
            ensure!(aligned, "the closure's capture is not aligned on CPU {cpu}");
            ensure_eq!(back, value, "aligned result");
        }
        Ok(())
    }

    fn calls_of_no_size_run(&self) -> Check {
        for cpu in self.online().iter().take(16) {
            self.smp()
                .call(cpu, || ())
                .or_fail("no capture, no result")?;
            let unit = self.smp().call(cpu, || [(); 3]).or_fail("no size")?;
            ensure_eq!(unit, [(); 3], "result of no size");
        }
        Ok(())
    }

    fn closures_and_results_are_dropped_once(&self) -> Check {
        let (given, answered) = (AtomicU32::new(0), AtomicU32::new(0));
        let mut calls = 0;
        for cpu in self.online().iter().take(16) {
            let token = Token(&given);
            let f = || {
                drop(token);
                Token(&answered)
            };
            let result = self.smp().call(cpu, f).or_fail("call")?;
            // ORDERING: Relaxed — the call has ordered the drop before this.
            ensure_eq!(
                answered.load(Ordering::Relaxed),
                calls,
                "results dropped before we got one"
            );
            drop(result);
            calls += 1;
            let drops = (
                given.load(Ordering::Relaxed),
                answered.load(Ordering::Relaxed),
            );
            ensure_eq!(drops, (calls, calls), "drops of closures and of results");
        }
        Ok(())
    }

    /// The target is rung already and masked, so no kick is sent for the call; it must be waited
    /// for all the same (os_anchors 5.3, 1).
    fn a_waiter_waits_although_no_kick_was_needed(&self) -> Check {
        let target = self.other(0);
        let (calling, before, after) = (AtomicU32::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let member = |_| {
            self.smp().poll();
            let guard = self.smp().irqs_off();
            // ORDERING: Relaxed — stages of the case; the library orders what matters.
            calling.store(1, Ordering::Relaxed);
            self.wait("the caller is about to call", || {
                calling.load(Ordering::Relaxed) == 2
            })?;
            self.pause_ns(1_000_000);
            after.store(self.lab().kicks(), Ordering::Relaxed);
            drop(guard);
            Ok(())
        };
        self.crew(&smpcall::CpuMask::of(target), member, || {
            self.wait("the target is masked", || {
                calling.load(Ordering::Relaxed) == 1
            })?;
            let posted = self.smp().post(target, || ());
            posted.or_fail("the post that rings the target")?;
            before.store(self.lab().kicks(), Ordering::Relaxed);
            calling.store(2, Ordering::Relaxed);
            let off = || !self.smp().platform().irqs_enabled();
            let ran = self.smp().call(target, off).or_fail("call")?;
            ensure!(ran, "the call ran in a context with interrupts on");
            let kicks = (
                before.load(Ordering::Relaxed),
                after.load(Ordering::Relaxed),
            );
            ensure_eq!(kicks.1, kicks.0, "kicks for a call to a rung CPU");
            Ok(())
        })
    }
}
