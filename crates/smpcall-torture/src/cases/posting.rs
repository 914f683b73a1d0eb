//! Posting never blocks, and what is refused comes back.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq, ensure_matches};
use crate::cx::Cx;
use crate::lab::Lab;
use crate::scope::Scope;

case_list! {
    2 Nothing exactly_as_many_posts_fit_as_the_lane_has_room_for,
    2 Nothing a_full_lane_hands_the_closure_back,
    2 Nothing a_full_lane_does_not_stop_descriptors_and_waited_calls,
    2 Nothing post_wait_waits_for_room,
    3 Nothing post_wait_on_a_full_lane_is_refused_where_waiting_is,
    3 Nothing what_is_behind_a_full_lane_runs_in_the_same_drain,
    2 Nothing post_many_names_the_full_cpus_and_posts_to_the_others,
    2 Nothing post_any_to_a_full_lane_hands_the_closure_back,
    1 Nothing three_words_travel_in_a_posted_closure,
    1 Nothing a_local_post_has_run_when_it_returns,
    2 Nothing a_posted_closure_is_dropped_once,
    2 Nothing what_was_written_before_a_post_is_visible_to_it,
}

/// Counts its drops, and fits into a posted closure.
struct Token<L: Lab<W, D>, const W: usize, const D: usize>(
    core::ptr::NonNull<Scope<L, AtomicU32, W, D>>,
);

// SAFETY: it is used as a shared reference, and the scope outlives what was posted in it.
unsafe impl<L: Lab<W, D>, const W: usize, const D: usize> Send for Token<L, W, D> {}

impl<L: Lab<W, D>, const W: usize, const D: usize> Drop for Token<L, W, D> {
    fn drop(&mut self) {
        // SAFETY: the token is in a closure that is counted by the scope, or was handed back.
        let scope = unsafe { self.0.as_ref() };
        // ORDERING: Relaxed — `Scope::ran` orders it.
        scope.state.fetch_add(1, Ordering::Relaxed);
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Fills the lane of a masked target.
    fn fill<T: Sync + 'static>(&self, s: &Scope<L, T, W, D>, target: CpuId) -> Check {
        for n in 0..D {
            let posted = s.post(target, |_| ());
            ensure_eq!(posted, Ok(()), "post {n} of {D} to an empty lane");
        }
        Ok(())
    }

    fn exactly_as_many_posts_fit_as_the_lane_has_room_for(&self) -> Check {
        ensure!(D >= 8, "only {D} posts fit, at least 8 are promised");
        let target = self.other(0);
        self.scope((), |s| {
            self.masked(&CpuMask::of(target), |mask| {
                self.fill(s, target)?;
                let full = s.post(target, |_| ());
                ensure_eq!(full, Err(CallError::Full { cpu: target }), "one post more");
                ensure_eq!(s.ran(), 0, "posts that ran on a masked CPU");
                mask.let_go();
                self.wait("all posts ran", || s.ran() == D as u64)?;
                s.post(target, |_| ())
                    .or_fail("post after the lane was emptied")
            })
        })
    }

    fn a_full_lane_hands_the_closure_back(&self) -> Check {
        let target = self.other(0);
        self.scope(AtomicU32::new(0), |s| {
            self.masked(&CpuMask::of(target), |_| {
                self.fill(s, target)?;
                let token = Token(core::ptr::NonNull::from(s));
                let refused = self.smp().post(target, move || drop(token));
                let Err(refused) = refused else {
                    // It was accepted and will run with a token that the scope does not count.
                    self.fatal("a full lane accepted a post");
                };
                ensure_matches!(refused.error, CallError::Full { .. }, "the refusal");
                // ORDERING: Relaxed — nothing else counts here.
                let drops = || s.state.load(Ordering::Relaxed);
                ensure_eq!(drops(), 0, "drops of a refused closure");
                (refused.into_closure())();
                ensure_eq!(drops(), 1, "drops after the closure was run here");
                Ok(())
            })
        })
    }

    fn a_full_lane_does_not_stop_descriptors_and_waited_calls(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            self.masked(&CpuMask::of(target), |mask| {
                self.fill(s, target)?;
                let csd = core::pin::pin!(s.csd(|_| ()));
                s.post_csd(target, csd.as_ref())
                    .or_fail("post_csd beside a full lane")?;
                mask.let_go();
                self.smp().call(target, || ()).or_fail("call")?;
                self.wait("all posts ran", || s.ran() == D as u64 + 1)
            })
        })
    }

    /// A descriptor takes no room, so it is accepted behind as many closures as fit; a CPU that has work of its
    /// own drains once for all of it.
    fn what_is_behind_a_full_lane_runs_in_the_same_drain(&self) -> Check {
        let (target, poster) = (self.other(0), self.other(1));
        self.scope((), |s| {
            let (masked, posted) = (AtomicU64::new(0), AtomicU64::new(0));
            // ORDERING: Relaxed, all of them — stages of the case.
            let each = |me| {
                if me == target {
                    let guard = self.smp().irqs_off();
                    masked.store(1, Ordering::Relaxed);
                    self.wait("all are posted", || posted.load(Ordering::Relaxed) != 0)?;
                    drop(guard);
                    self.smp().poll();
                    let posted = posted.load(Ordering::Relaxed);
                    ensure_eq!(s.ran(), posted, "posts that ran in the first drain");
                    return Ok(());
                }
                self.wait("masked", || masked.load(Ordering::Relaxed) != 0)?;
                let accepted = Self::fill_up(s, target);
                let csd = core::pin::pin!(s.csd(|_| ()));
                s.post_csd(target, csd.as_ref()).or_fail("post_csd")?;
                posted.store(accepted + 1, Ordering::Relaxed);
                Ok(())
            };
            self.together(&CpuMask::of(target).or(&CpuMask::of(poster)), each)
        })
    }

    fn post_wait_waits_for_room(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            self.masked(&CpuMask::of(target), |mask| {
                self.fill(s, target)?;
                mask.let_go_at(self.now() + 1_000_000);
                s.post_wait(target, |_| ()).or_fail("post_wait")?;
                ensure_eq!(mask.ended(), 1, "masks that had ended when there was room");
                Ok(())
            })?;
            self.wait("all posts ran", || s.ran() == D as u64 + 1)
        })
    }

    /// Posts from here until there is no room; answers how many were accepted.
    fn fill_up<T: Sync + 'static>(s: &Scope<L, T, W, D>, target: CpuId) -> u64 {
        let mut accepted = 0;
        while s.post(target, |_| ()).is_ok() {
            accepted += 1;
        }
        accepted
    }

    /// Each context fills the room that it has itself: a CPU and its handler may have lanes of their own.
    fn post_wait_on_a_full_lane_is_refused_where_waiting_is(&self) -> Check {
        let (target, poster) = (self.other(0), self.other(1));
        self.scope((), |s| {
            let accepted = AtomicU64::new(0);
            let fill = || {
                // ORDERING: Relaxed — the calls order it.
                accepted.fetch_add(Self::fill_up(s, target), Ordering::Relaxed);
            };
            self.masked(&CpuMask::of(target), |_| {
                let inside = || {
                    fill();
                    s.post_wait(target, |_| ())
                };
                let refused = self.smp().call(poster, inside).or_fail("call")?;
                ensure_eq!(refused, Err(CallError::InHandler), "post_wait inside");
                let masked = || {
                    fill();
                    let guard = self.smp().irqs_off();
                    let refused = s.post_wait(target, |_| ());
                    drop(guard);
                    refused
                };
                let refused = self
                    .smp()
                    .run_on_cpu(poster, masked)
                    .or_fail("run_on_cpu")?;
                ensure_eq!(
                    refused,
                    Err(CallError::InterruptsOff),
                    "post_wait when masked"
                );
                Ok(())
            })?;
            // ORDERING: Relaxed — as above.
            let accepted = accepted.load(Ordering::Relaxed);
            ensure!(
                accepted >= 8,
                "only {accepted} posts fit, at least 8 are promised"
            );
            let inside = || s.post_wait(target, |_| ());
            self.wait("the posts ran", || s.ran() == accepted)?;
            self.smp()
                .call(poster, inside)
                .or_fail("call")?
                .or_fail("post_wait with room")
        })
    }

    fn post_many_names_the_full_cpus_and_posts_to_the_others(&self) -> Check {
        let target = self.other(0);
        let others = self.others();
        self.scope((), |s| {
            self.masked(&CpuMask::of(target), |_| {
                self.fill(s, target)?;
                let f = s.each(|_, _| ());
                let (posted, full) = s.post_mask(|| self.smp().post_many(&others, f));
                ensure_eq!(full, CpuMask::of(target), "CPUs with a full lane");
                let rest = others.and_not(&full);
                ensure_eq!(posted, rest, "CPUs that were posted to");
                self.wait("they ran it", || s.ran() == rest.len() as u64)
            })
        })
    }

    fn post_any_to_a_full_lane_hands_the_closure_back(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            self.masked(&CpuMask::of(target), |_| {
                self.fill(s, target)?;
                let refused = s.post_any(&CpuMask::of(target), |_| ());
                ensure_eq!(refused, Err(CallError::Full { cpu: target }), "post_any");
                Ok(())
            })
        })
    }

    fn three_words_travel_in_a_posted_closure(&self) -> Check {
        self.scope(AtomicU64::new(0), |s| {
            for cpu in self.online().iter().take(16) {
                // The scope's address is the third word.
                let (a, b) = (0x1234_5678_9abc_def0_u64, u64::from(cpu.get()));
                let f = move |s: &Scope<L, AtomicU64, W, D>| {
                    // ORDERING: Relaxed — `Scope::ran` orders it.
                    s.state.store(a ^ b, Ordering::Relaxed);
                };
                let before = s.ran();
                s.post(cpu, f).or_fail("post")?;
                self.wait("the post ran", || s.ran() == before + 1)?;
                ensure_eq!(
                    s.state.load(Ordering::Relaxed),
                    a ^ b,
                    "what the words made"
                );
            }
            Ok(())
        })
    }

    fn a_local_post_has_run_when_it_returns(&self) -> Check {
        self.together(&self.some_cpus(2), |me| {
            self.scope((), |s| {
                s.post(me, |_| ()).or_fail("post")?;
                ensure_eq!(s.ran(), 1, "local posts that ran");
                let csd = core::pin::pin!(s.csd(|_| ()));
                s.post_csd(me, csd.as_ref()).or_fail("post_csd")?;
                ensure_eq!(s.ran(), 2, "local descriptors that ran");
                s.post_any(&self.online(), |_| ()).or_fail("post_any")?;
                ensure_eq!(s.ran(), 3, "a post to any CPU, which is this one");
                Ok(())
            })
        })
    }

    fn a_posted_closure_is_dropped_once(&self) -> Check {
        self.scope(AtomicU32::new(0), |s| {
            for n in 1..=50_u64 {
                let token = Token(core::ptr::NonNull::from(s));
                let f = move |_: &Scope<L, AtomicU32, W, D>| drop(token);
                s.post_wait(self.other(0), f).or_fail("post_wait")?;
                self.wait("the post ran", || s.ran() == n)?;
                // ORDERING: Relaxed — `ran` ordered it.
                let drops = u64::from(s.state.load(Ordering::Relaxed));
                ensure_eq!(drops, n, "drops of what posted closures held");
            }
            Ok(())
        })
    }

    /// Plain message passing by posts, many times (os_anchors 5.3, 9).
    fn what_was_written_before_a_post_is_visible_to_it(&self) -> Check {
        struct Mail {
            value: AtomicU64,
            wrong: AtomicU64,
        }
        let mail = Mail {
            value: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
        };
        self.scope(mail, |s| {
            for n in 1..=1_000_u64 {
                // ORDERING: Relaxed — the post publishes it, which is what this case checks.
                s.state.value.store(n, Ordering::Relaxed);
                let f = move |s: &Scope<L, Mail, W, D>| {
                    let old = s.state.value.load(Ordering::Relaxed) < n;
                    s.state.wrong.fetch_add(u64::from(old), Ordering::Relaxed);
                };
                s.post_wait(self.other(n as usize % self.others().len()), f)
                    .or_fail("post")?;
            }
            self.wait("all posts ran", || s.ran() == 1_000)?;
            ensure_eq!(
                s.state.wrong.load(Ordering::Relaxed),
                0,
                "posts that saw an old value"
            );
            Ok(())
        })
    }
}
