//! Calls to sets of CPUs: exactly those, each once, and the predicate's manners.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask, Platform, PostManyError, Refused};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq, ensure_matches};
use crate::cx::Cx;
use crate::lab::Lab;
use crate::rng::Rng;
use crate::scope::Scope;

case_list! {
    1 Nothing call_any_prefers_this_cpu,
    2 Nothing call_any_runs_on_a_cpu_of_the_mask_nearest_first,
    1 Nothing any_of_an_empty_mask_is_refused_with_the_closure,
    1 Nothing many_runs_on_exactly_the_mask_without_this_cpu,
    1 Nothing others_runs_on_all_but_this_cpu,
    1 Nothing each_runs_on_all_cpus,
    1 Nothing each_of_a_mask_runs_here_only_if_this_cpu_is_in_it,
    1 Nothing each_on_condition_runs_where_the_predicate_says,
    1 Nothing the_predicate_is_asked_once_for_each_cpu_before_anything_runs,
    1 Nothing a_predicate_that_rejects_all_touches_nothing,
    1 Nothing empty_masks_are_fine_for_many_and_each,
    1 Nothing masks_are_cut_to_the_cpus_that_are_online,
    2 Nothing the_local_run_overlaps_the_remote_ones,
    1 Nothing results_per_cpu_go_to_the_callers_storage,
    1 Nothing posted_masks_run_on_exactly_their_cpus,
}

/// Which CPUs ran, and how often one ran where it should not, twice, or with the wrong id.
struct Hits<const W: usize> {
    words: [AtomicU64; W],
    wrong: AtomicU32,
}

impl<const W: usize> Hits<W> {
    fn new() -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; W],
            wrong: AtomicU32::new(0),
        }
    }

    /// A function that was told `cpu` runs on `here`.
    fn hit(&self, cpu: CpuId, here: Option<CpuId>) {
        let bit = 1 << (cpu.index() % 64);
        // ORDERING: Relaxed — the calls order it before the case's look.
        let before = self.words[cpu.index() / 64].fetch_or(bit, Ordering::Relaxed);
        let wrong = before & bit != 0 || here != Some(cpu);
        self.wrong.fetch_add(u32::from(wrong), Ordering::Relaxed);
    }

    /// Takes the set of CPUs that ran since the last look.
    fn take(&self) -> CpuMask<W> {
        // ORDERING: Relaxed — everything ran, as the caller knows.
        CpuMask::from_words(core::array::from_fn(|w| {
            self.words[w].swap(0, Ordering::Relaxed)
        }))
    }

    fn check(&self, what: &str, said: &CpuMask<W>, wanted: &CpuMask<W>) -> Check {
        ensure_eq!(self.take(), *wanted, "CPUs that ran {what}");
        ensure_eq!(*said, *wanted, "CPUs that {what} says ran it");
        // ORDERING: Relaxed — as above.
        ensure_eq!(
            self.wrong.load(Ordering::Relaxed),
            0,
            "wrong or double runs of {what}"
        );
        Ok(())
    }
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Random sets of CPUs, some of which do not exist.
    fn random_masks(&self, n: usize) -> impl Iterator<Item = CpuMask<W>> + use<L, W, D> {
        let ids = u64::from(self.smp().nr_cpu_ids()) + 2;
        let capacity = CpuMask::<W>::CAPACITY as u64;
        let mut rng = Rng::new(5);
        let mut mask = move || {
            let size = rng.below(ids) + 1;
            let mut id = || CpuId::new(rng.below(ids).min(capacity - 1) as u32);
            (0..size).map(|_| id()).collect::<CpuMask<W>>()
        };
        (0..n).map(move |_| mask())
    }

    /// This CPU as a set.
    fn here(&self) -> CpuMask<W> {
        self.me().map_or(CpuMask::EMPTY, CpuMask::of)
    }

    fn call_any_prefers_this_cpu(&self) -> Check {
        self.together(&self.some_cpus(4), |me| {
            let (ran, here) = self
                .smp()
                .call_any(&self.online(), || self.me())
                .or_fail("any")?;
            ensure_eq!((ran, here), (me, Some(me)), "the CPU that was chosen");
            Ok(())
        })
    }

    fn call_any_runs_on_a_cpu_of_the_mask_nearest_first(&self) -> Check {
        let platform = self.smp().platform();
        for mask in self.random_masks(50) {
            let candidates = mask.and(&self.others());
            if candidates.is_empty() {
                continue;
            }
            let any = self.smp().call_any(&candidates, || self.me());
            let (ran, here) = any.or_fail("call_any")?;
            ensure!(
                candidates.contains(ran),
                "CPU {ran} is not in the mask {candidates}"
            );
            ensure_eq!(here, Some(ran), "the CPU that ran it");
            let Some(me) = self.me() else { continue };
            let node = platform.node_of(me);
            let near = candidates.iter().any(|cpu| platform.node_of(cpu) == node);
            let is_near = platform.node_of(ran) == node;
            ensure!(
                is_near || !near,
                "CPU {ran} is far, and a near one is in {candidates}"
            );
        }
        Ok(())
    }

    fn any_of_an_empty_mask_is_refused_with_the_closure(&self) -> Check {
        let nowhere = CpuMask::of(CpuId::new(CpuMask::<W>::CAPACITY as u32 - 1));
        let nowhere = nowhere.and_not(&self.online());
        for mask in [CpuMask::EMPTY, nowhere] {
            let refused = self.smp().call_any(&mask, || 5);
            let Err(Refused { error, closure }) = refused else {
                ensure!(false, "call_any ran on no CPU");
                return Ok(());
            };
            ensure_eq!((error, closure()), (CallError::EmptyMask, 5), "call_any");
            let refused = self
                .smp()
                .post_any(&mask, || ())
                .map_err(|refused| refused.error);
            ensure_matches!(refused, Err(CallError::EmptyMask), "post_any");
        }
        Ok(())
    }

    fn many_runs_on_exactly_the_mask_without_this_cpu(&self) -> Check {
        let hits = Hits::new();
        for mask in self.random_masks(30) {
            let ran = self.smp().call_many(&mask, |cpu| hits.hit(cpu, self.me()));
            hits.check(
                "call_many",
                &ran.or_fail("call_many")?,
                &mask.and(&self.others()),
            )?;
        }
        Ok(())
    }

    fn others_runs_on_all_but_this_cpu(&self) -> Check {
        let hits = Hits::new();
        for _ in 0..10 {
            let ran = self.smp().call_others(|cpu| hits.hit(cpu, self.me()));
            hits.check("call_others", &ran.or_fail("call_others")?, &self.others())?;
        }
        Ok(())
    }

    fn each_runs_on_all_cpus(&self) -> Check {
        let hits = Hits::new();
        for _ in 0..10 {
            let ran = self.smp().on_each_cpu(|cpu| hits.hit(cpu, self.me()));
            hits.check("on_each_cpu", &ran.or_fail("on_each_cpu")?, &self.online())?;
        }
        Ok(())
    }

    fn each_of_a_mask_runs_here_only_if_this_cpu_is_in_it(&self) -> Check {
        let hits = Hits::new();
        let with = |mask: CpuMask<W>| {
            let ran = self
                .smp()
                .on_each_cpu_mask(&mask, |cpu| hits.hit(cpu, self.me()));
            let wanted = mask.and(&self.online());
            hits.check(
                "on_each_cpu_mask",
                &ran.or_fail("on_each_cpu_mask")?,
                &wanted,
            )
        };
        for mask in self.random_masks(15) {
            with(mask.or(&self.here()))?;
            with(mask.and_not(&self.here()))?;
        }
        with(self.here())
    }

    fn each_on_condition_runs_where_the_predicate_says(&self) -> Check {
        let hits = Hits::new();
        for mask in self.random_masks(30) {
            let wanted = |cpu| mask.contains(cpu);
            let ran = self
                .smp()
                .on_each_cpu_cond(wanted, |cpu| hits.hit(cpu, self.me()));
            let ran = ran.or_fail("on_each_cpu_cond")?;
            hits.check("on_each_cpu_cond", &ran, &mask.and(&self.online()))?;
        }
        Ok(())
    }

    /// The local CPU is asked for with its own id as well (os_anchors 5.3, 2).
    fn the_predicate_is_asked_once_for_each_cpu_before_anything_runs(&self) -> Check {
        for n in 0..10_u32 {
            let (asked, ran) = (Hits::new(), AtomicU32::new(0));
            let mut early = 0;
            let wanted = |cpu: CpuId| {
                asked.hit(cpu, Some(cpu));
                // ORDERING: Relaxed — a run before the last question is the error.
                early += ran.load(Ordering::Relaxed);
                (cpu.get() + n).is_multiple_of(2)
            };
            let count = |_| {
                ran.fetch_add(1, Ordering::Relaxed);
            };
            self.smp()
                .on_each_cpu_cond(wanted, count)
                .or_fail("on_each_cpu_cond")?;
            ensure_eq!(early, 0, "functions that ran before the last question");
            let all = asked.take();

            ensure_eq!(all, self.online(), "CPUs that were asked about");
            ensure_eq!(
                asked.wrong.load(Ordering::Relaxed),
                0,
                "CPUs asked about twice"
            );
        }
        Ok(())
    }

    fn a_predicate_that_rejects_all_touches_nothing(&self) -> Check {
        let ran = AtomicU32::new(0);
        let count = |_| {
            // ORDERING: Relaxed — it must never run.
            ran.fetch_add(1, Ordering::Relaxed);
        };
        let kicks = self.lab().kicks();
        for _ in 0..20 {
            let set = self
                .smp()
                .on_each_cpu_cond(|_| false, count)
                .or_fail("waited")?;
            ensure_eq!(set, CpuMask::EMPTY, "CPUs that ran it");
            let set = self
                .smp()
                .post_each_cond(|_| false, |_| ())
                .or_fail("posted")?;
            ensure_eq!(set, CpuMask::EMPTY, "CPUs that were posted to");
        }
        ensure_eq!(ran.load(Ordering::Relaxed), 0, "functions that ran");
        ensure_eq!(self.lab().kicks(), kicks, "kicks that were sent");
        Ok(())
    }

    fn empty_masks_are_fine_for_many_and_each(&self) -> Check {
        let none = CpuMask::EMPTY;
        let fail = |_| -> () { core::hint::black_box(()) };
        ensure_eq!(
            self.smp().call_many(&none, fail).or_fail("call_many")?,
            none,
            "call_many"
        );
        let each = self
            .smp()
            .on_each_cpu_mask(&none, fail)
            .or_fail("on_each_cpu_mask")?;
        ensure_eq!(each, none, "on_each_cpu_mask");
        let posted = self.smp().post_many(&none, |_| ()).or_fail("post_many")?;
        ensure_eq!(posted, none, "post_many");
        let posted = self
            .smp()
            .post_each_mask(&none, |_| ())
            .or_fail("post_each_mask")?;
        ensure_eq!(posted, none, "post_each_mask");
        Ok(())
    }

    fn masks_are_cut_to_the_cpus_that_are_online(&self) -> Check {
        let hits = Hits::new();
        let all = CpuMask::first_n(CpuMask::<W>::CAPACITY);
        let ran = self
            .smp()
            .on_each_cpu_mask(&all, |cpu| hits.hit(cpu, self.me()));
        hits.check(
            "the whole mask",
            &ran.or_fail("on_each_cpu_mask")?,
            &self.online(),
        )?;
        let ran = self.smp().call_many(&all, |cpu| hits.hit(cpu, self.me()));
        hits.check("the whole mask", &ran.or_fail("call_many")?, &self.others())
    }

    /// The local function and a remote one wait for each other: they can only both end if they run
    /// at the same time.
    fn the_local_run_overlaps_the_remote_ones(&self) -> Check {
        self.together(&self.some_cpus(1), |me| {
            for n in 2..4 {
                let met = AtomicU32::new(0);
                let others = self.online().and_not(&CpuMask::of(me));
                let other = others.iter().take(n - 1).collect::<CpuMask<W>>();
                let set = other.or(&CpuMask::of(me));
                let late = AtomicU32::new(0);
                let meet = |_| {
                    // ORDERING: Relaxed — a count that only grows.
                    met.fetch_add(1, Ordering::Relaxed);
                    let all = || met.load(Ordering::Relaxed) as usize >= set.len();
                    let met = self.wait("the runs meet", all);
                    late.fetch_add(u32::from(met.is_err()), Ordering::Relaxed);
                };
                self.smp()
                    .on_each_cpu_mask(&set, meet)
                    .or_fail("on_each_cpu_mask")?;
                ensure_eq!(late.load(Ordering::Relaxed), 0, "runs that met nobody");
            }
            Ok(())
        })
    }

    fn results_per_cpu_go_to_the_callers_storage(&self) -> Check {
        let slots = [const { AtomicU64::new(0) }; 64];
        let fill = |cpu: CpuId| {
            // ORDERING: Relaxed — the broadcast orders it.
            slots[cpu.index() % 64].fetch_add(u64::from(cpu.get()) + 1, Ordering::Relaxed);
        };
        self.smp().on_each_cpu(fill).or_fail("on_each_cpu")?;
        for (i, slot) in slots.iter().enumerate() {
            let cpus = self.online();
            let here = cpus.iter().filter(|cpu| cpu.index() % 64 == i);
            let wanted: u64 = here.map(|cpu| u64::from(cpu.get()) + 1).sum();
            ensure_eq!(slot.load(Ordering::Relaxed), wanted, "slot {i}");
        }
        Ok(())
    }

    /// The twins that do not wait.
    fn posted_masks_run_on_exactly_their_cpus(&self) -> Check {
        self.scope(Hits::new(), |s| {
            let hit = |s: &Scope<L, Hits<W>, W, D>, cpu| s.state.hit(cpu, s.smp().current_cpu());
            for mask in self.random_masks(10) {
                let (here, smp) = (self.here(), self.smp());
                let online = mask.and(&self.online());
                let remote = online.and_not(&here);
                let many = || smp.post_many(&mask, s.each(hit));
                self.check_posted(s, "post_many", many, &remote)?;
                let each = || smp.post_each_mask(&mask, s.each(hit));
                self.check_posted(s, "post_each_mask", each, &online)?;
                let cond = || smp.post_each_cond(|cpu| mask.contains(cpu), s.each(hit));
                self.check_posted(s, "post_each_cond", cond, &online)?;
                let others = || smp.post_others(s.each(hit));
                self.check_posted(s, "post_others", others, &self.others())?;
                let all = || smp.post_each(s.each(hit));
                self.check_posted(s, "post_each", all, &self.online())?;
            }
            Ok(())
        })
    }

    fn check_posted<F>(
        &self,
        s: &Scope<L, Hits<W>, W, D>,
        what: &str,
        post: impl FnOnce() -> Result<CpuMask<W>, PostManyError<F, W>>,
        wanted: &CpuMask<W>,
    ) -> Check {
        let before = s.ran();
        let (posted, full) = s.post_mask(post);
        ensure_eq!(full, CpuMask::EMPTY, "CPUs with a full lane after {what}");
        self.wait("the posts ran", || s.ran() == before + posted.len() as u64)?;
        s.state.check(what, &posted, wanted)
    }
}
