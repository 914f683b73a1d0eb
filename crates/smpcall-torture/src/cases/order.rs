//! Lanes and their order.

use core::pin::pin;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CpuId, CpuMask, Csd};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::crew::CREW;
use crate::cx::Cx;
use crate::lab::Lab;
use crate::scope::Scope;

case_list! {
    2 Nothing posts_of_one_source_keep_their_order,
    3 Nothing posts_of_many_sources_keep_the_order_of_each,
    6 Nothing posts_of_sources_that_share_a_line_keep_the_order_of_each,
    3 Nothing a_handler_is_a_source_with_an_order_of_its_own,
    1 Nothing waited_calls_of_one_source_keep_their_order,
    2 Nothing a_waited_call_overtakes_posts_in_the_same_drain,
    1 Nothing flush_waits_for_what_was_posted,
    1 Nothing flush_runs_what_was_posted_to_the_own_cpu,
    3 Nothing posts_run_under_a_stream_of_waited_calls,
    2 Nothing racing_broadcasts_all_complete,
    3 Nothing a_call_in_the_middle_of_another_is_served,
}

/// The last number that each source's functions saw on one target, and how often one came too early.
struct Log {
    last: [AtomicU32; CREW + 1],
    wrong: AtomicU32,
}

impl Log {
    fn new() -> Self {
        Self {
            last: [const { AtomicU32::new(0) }; CREW + 1],
            wrong: AtomicU32::new(0),
        }
    }

    /// The function number `n` (from 1) of a source runs. One target runs one function at a time.
    fn see(&self, source: usize, n: u32) {
        // ORDERING: Relaxed — one CPU writes it; the case looks after everything ran.
        let before = self.last[source].swap(n, Ordering::Relaxed);
        if before + 1 != n {
            self.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn check(&self) -> Check {
        // ORDERING: Relaxed — everything ran, which `Scope::ran` ordered.
        ensure_eq!(
            self.wrong.load(Ordering::Relaxed),
            0,
            "functions that ran out of order"
        );
        Ok(())
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Posts `n` numbered functions of a source to a target: closures, descriptors and mask
    /// forms in turn.
    fn post_numbers(&self, s: &Scope<L, Log, W, D>, source: usize, target: CpuId, n: u32) -> Check {
        (1..=n).try_for_each(|number| self.post_number(s, source, target, number, number % 3))
    }

    /// Posts the function with this number: a descriptor (0), a closure (1), or by a mask form.
    fn post_number(
        &self,
        s: &Scope<L, Log, W, D>,
        source: usize,
        target: CpuId,
        number: u32,
        kind: u32,
    ) -> Check {
        match kind {
            0 => {
                let csd = pin!(s.csd(move |s| s.state.see(source, number)));
                // Dropping it at the end of this block waits until it has left the queue.
                s.post_csd(target, csd.as_ref()).or_fail("post_csd")
            }
            1 => {
                let f = move |s: &Scope<L, Log, W, D>| s.state.see(source, number);
                s.post_wait(target, f).or_fail("post_wait")
            }
            _ => loop {
                let f = s.each(move |s, _| s.state.see(source, number));
                let only = CpuMask::of(target);
                let (posted, _full) = s.post_mask(|| self.smp().post_many(&only, f));
                if !posted.is_empty() {
                    return Ok(());
                }
                self.pause_ns(1_000);
            },
        }
    }

    fn posts_of_one_source_keep_their_order(&self) -> Check {
        for target in self.others().iter().take(4) {
            self.scope(Log::new(), |s| {
                self.post_numbers(s, 0, target, 300)?;
                self.wait("all posts ran", || s.ran() == 300)?;
                s.state.check()
            })?;
        }
        Ok(())
    }

    fn posts_of_many_sources_keep_the_order_of_each(&self) -> Check {
        let target = self.other(0);
        let sources = self.some_cpus(CREW).and_not(&CpuMask::of(target));
        self.scope(Log::new(), |s| {
            self.together(&sources, |me| {
                let index = sources.iter().position(|cpu| cpu == me).unwrap_or(CREW);
                self.post_numbers(s, index, target, 200)
            })?;
            let sent = 200 * sources.len() as u64;
            self.wait("all posts ran", || s.ran() == sent)?;
            s.state.check()
        })
    }

    /// Sources whose ids are equal modulo four share a line of the target, and what lies beside it. They
    /// take turns: a source posts without a pause, in every kind, then calls, then lets the line rest, so
    /// that it goes to another in the middle of what was queued.
    fn posts_of_sources_that_share_a_line_keep_the_order_of_each(&self) -> Check {
        const EACH: u32 = 40;
        const ROUNDS: u32 = 12;
        let target = self.other(0);
        let candidates = self.online().and_not(&CpuMask::of(target));
        let of_line = |line: usize| candidates.iter().filter(move |cpu| cpu.index() % 4 == line);
        let line = (0..4)
            .max_by_key(|&line| of_line(line).count())
            .unwrap_or(0);
        let sources: CpuMask<W> = of_line(line).take(CREW).collect();
        ensure!(sources.len() >= 2, "the CPUs {candidates} share no line");
        self.scope(Log::new(), |s| {
            self.together(&sources, |me| {
                let index = sources.iter().position(|cpu| cpu == me).unwrap_or(CREW);
                for round in 0..ROUNDS {
                    let first = round * EACH + 1;
                    for number in first..first + EACH {
                        // Few descriptors: each is waited for before the next post.
                        let kind = if number % 8 == 0 { 0 } else { 1 + number % 2 };
                        self.post_number(s, index, target, number, kind)?;
                    }
                    self.smp().call(target, || ()).or_fail("call")?;
                    self.pause_ns(u64::from(round % 3) * 20_000);
                    self.smp().poll();
                }
                Ok(())
            })?;
            let sent = u64::from(ROUNDS * EACH) * sources.len() as u64;
            self.wait("all posts ran", || s.ran() == sent)?;
            s.state.check()
        })
    }

    /// A CPU's task context and its handlers post to the same target, each in its own order.
    fn a_handler_is_a_source_with_an_order_of_its_own(&self) -> Check {
        let (middle, target) = (self.other(0), self.other(1));
        self.scope(Log::new(), |s| {
            let member = |_| self.post_numbers(s, 0, target, 150);
            self.crew(&CpuMask::of(middle), member, || {
                for number in 1..=100_u32 {
                    let inside = || s.post(target, move |s| s.state.see(1, number));
                    while self.smp().call(middle, inside).or_fail("call")?.is_err() {
                        self.pause_ns(10_000);
                        ensure!(!self.has_failed(), "given up");
                    }
                }
                Ok(())
            })?;
            self.wait("all posts ran", || s.ran() == 250)?;
            s.state.check()
        })
    }

    fn waited_calls_of_one_source_keep_their_order(&self) -> Check {
        for target in self.online().iter().take(4) {
            let log = Log::new();
            for round in 0..100 {
                let n = 3 * round;
                self.smp()
                    .call(target, || log.see(0, n + 1))
                    .or_fail("call")?;
                let csd = pin!(Csd::new(|| log.see(0, n + 2)));
                self.smp().call_csd(target, &csd).or_fail("call_csd")?;
                let only = CpuMask::of(target);
                let each = self.smp().on_each_cpu_mask(&only, |_| log.see(0, n + 3));
                each.or_fail("on_each_cpu_mask")?;
            }
            log.check()?;
        }
        Ok(())
    }

    /// Posts are queued first, then a call, on a masked target; when it drains, the call runs
    /// first (os_anchors 5.3, 12). The target may let go too early for that, so there are many rounds.
    fn a_waited_call_overtakes_posts_in_the_same_drain(&self) -> Check {
        let target = self.other(0);
        for round in 1..=100_u64 {
            let ahead = self.scope((), |s| {
                let ahead = AtomicU64::new(u64::MAX);
                self.masked(&CpuMask::of(target), |mask| {
                    for _ in 0..4 {
                        s.post(target, |_| ()).or_fail("post")?;
                    }
                    ensure_eq!(s.ran(), 0, "posts that ran on a masked CPU");
                    mask.let_go_at(self.now() + 200_000 * round);
                    // ORDERING: Relaxed — the call orders it.
                    let look = || ahead.store(s.ran(), Ordering::Relaxed);
                    self.smp().call(target, look).or_fail("call")
                })?;
                self.wait("the posts ran", || s.ran() == 4)?;
                Ok(ahead.load(Ordering::Relaxed))
            })?;
            if ahead == 0 {
                return Ok(());
            }
        }
        ensure!(false, "no waited call overtook the posts before it");
        Ok(())
    }

    fn flush_waits_for_what_was_posted(&self) -> Check {
        for target in self.others().iter().take(8) {
            self.scope((), |s| {
                for round in 1..=20_u64 {
                    for _ in 0..5 {
                        s.post_wait(target, |_| ()).or_fail("post_wait")?;
                    }
                    self.smp().flush(target).or_fail("flush")?;
                    ensure_eq!(s.ran(), 5 * round, "posts that ran before `flush` returned");
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A CPU flushes itself after others posted to it while it was masked.
    fn flush_runs_what_was_posted_to_the_own_cpu(&self) -> Check {
        self.scope((), |s| {
            self.together(&self.some_cpus(1), |me| {
                self.smp().flush(me).or_fail("flush of nothing")?;
                if let Some(other) = self.online().iter().find(|&cpu| cpu != me) {
                    let guard = self.smp().irqs_off();
                    let mut guard = guard;
                    let back = || s.post(me, |_| ());
                    let posted = self.smp().call_irqs_off(&mut guard, other, back);
                    drop(guard);
                    posted.or_fail("call_irqs_off")?.or_fail("post")?;
                    self.smp().flush(me).or_fail("flush")?;
                    ensure_eq!(s.ran(), 1, "posts that ran before `flush` returned");
                }
                Ok(())
            })
        })
    }

    /// Two CPUs call the target without a pause; posts to it must run all the same.
    fn posts_run_under_a_stream_of_waited_calls(&self) -> Check {
        let target = self.other(0);
        let callers = self.some_cpus(4).and_not(&CpuMask::of(target));
        let posting = AtomicU32::new(1);
        self.scope((), |s| {
            let me = self.me();
            // ORDERING: Relaxed — only says when to stop.
            let calls = |_| {
                while posting.load(Ordering::Relaxed) != 0 && !self.has_failed() {
                    self.smp().call(target, || ()).or_fail("call")?;
                }
                Ok(())
            };
            let callers: CpuMask<W> = callers.iter().filter(|&cpu| Some(cpu) != me).collect();
            self.crew(&callers, calls, || {
                for _ in 0..50 {
                    s.post_wait(target, |_| ()).or_fail("post_wait")?;
                }
                self.smp().flush(target).or_fail("flush")?;
                posting.store(0, Ordering::Relaxed);
                ensure_eq!(s.ran(), 50, "posts that ran before `flush` returned");
                Ok(())
            })
        })
    }

    /// Every CPU of a crew broadcasts to all at once.
    fn racing_broadcasts_all_complete(&self) -> Check {
        let sources = self.some_cpus(CREW);
        let ran = AtomicU64::new(0);
        let rounds = 20;
        self.together(&sources, |_| {
            for _ in 0..rounds {
                let count = |_| {
                    ran.fetch_add(1, Ordering::Relaxed);
                };
                let all = self.smp().on_each_cpu(count).or_fail("on_each_cpu")?;
                ensure_eq!(all, self.online(), "CPUs that ran a broadcast");
            }
            Ok(())
        })?;
        let wanted = (rounds * sources.len() * self.online().len()) as u64;
        ensure_eq!(
            ran.load(Ordering::Relaxed),
            wanted,
            "runs of all broadcasts"
        );
        Ok(())
    }

    /// A CPU calls without a pause; a third one posts functions to it that post onward to the
    /// target of its calls, so that some arrive between enqueuing and kicking (os_anchors 5.3, 6).
    fn a_call_in_the_middle_of_another_is_served(&self) -> Check {
        let (middle, target) = (self.other(0), self.other(1));
        let going = AtomicU32::new(1);
        self.scope(target, |s| {
            let calls = |_| {
                // ORDERING: Relaxed — only says when to stop.
                while going.load(Ordering::Relaxed) != 0 && !self.has_failed() {
                    self.smp().call(target, || ()).or_fail("call")?;
                    let lot = self.smp().call_others(|_| ());
                    lot.or_fail("call_others")?;
                }
                Ok(())
            };
            self.crew(&CpuMask::of(middle), calls, || {
                for _ in 0..200 {
                    let onward = |s: &Scope<L, CpuId, W, D>| {
                        let _ = s.post(s.state, |_| ());
                    };
                    s.post_wait(middle, onward).or_fail("post_wait")?;
                }
                self.smp().flush(middle).or_fail("flush")?;
                going.store(0, Ordering::Relaxed);
                Ok(())
            })
        })
    }
}
