//! CPUs come and go while others call them: what was accepted runs once, what was refused never.

use core::pin::pin;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask};

use super::case_list;
use crate::check::{Check, Failure, OrFail, ensure, ensure_eq};
use crate::crew::CREW;
use crate::cx::Cx;
use crate::lab::Lab;
use crate::scope::Scope;

case_list! {
    2 Hotplug calls_racing_with_hotplug_run_if_and_only_if_accepted,
    2 Hotplug posts_racing_with_hotplug_run_if_and_only_if_accepted,
    2 Hotplug descriptors_racing_with_hotplug_run_if_and_only_if_accepted,
    2 Hotplug tasks_racing_with_hotplug_run_if_and_only_if_accepted,
    2 Hotplug broadcasts_racing_with_hotplug_answer_exactly_who_ran,
    3 Hotplug any_racing_with_hotplug_finds_a_cpu_that_stays,
    3 Hotplug kicks_racing_with_hotplug_return,
    4 Hotplug cpus_that_take_each_other_down_do_not_deadlock,
}

/// How many times a target goes down and up in a case.
const CYCLES: u32 = 10;

/// What one function counts for its caller.
type Runs = AtomicU64;

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Takes `target` down and up while callers run `act` again and again, each told its number of
    /// the turn. The callers are CPUs that stay, this one or thread included.
    fn under_hotplug(&self, target: CpuId, act: impl Fn(u64) -> Check + Sync) -> Check {
        let me = self.me();
        let ending = AtomicU32::new(0);
        // ORDERING: Relaxed, all of them — only says when to stop.
        let act_all_the_time = |_| {
            let mut n = 0;
            while ending.load(Ordering::Relaxed) == 0 && !self.has_failed() {
                act(n)?;
                n += 1;
            }
            Ok(())
        };
        let keep = CpuMask::of(target).or(&me.map_or(CpuMask::EMPTY, CpuMask::of));
        let callers: CpuMask<W> = self.online().and_not(&keep).iter().take(CREW - 1).collect();
        if callers.is_empty() {
            return self.alternate(target, act);
        }
        let cycle = || {
            for _ in 0..CYCLES {
                self.smp().cpu_down(target).or_fail("cpu_down")?;
                self.pause_ns(20_000);
                self.smp().cpu_up(target).or_fail("cpu_up")?;
                self.pause_ns(50_000);
            }
            ending.store(1, Ordering::Relaxed);
            Ok(())
        };
        self.crew(&callers, act_all_the_time, cycle)
    }

    /// Two CPUs only: the caller is also the one that takes the target down.
    fn alternate(&self, target: CpuId, act: impl Fn(u64) -> Check) -> Check {
        for n in 0..u64::from(CYCLES) {
            (0..20).try_for_each(|k| act(20 * n + k))?;
            self.smp().cpu_down(target).or_fail("cpu_down")?;
            (0..5).try_for_each(&act)?;
            self.smp().cpu_up(target).or_fail("cpu_up")?;
        }
        Ok(())
    }

    /// A refusal must say that the CPU is offline.
    fn only_offline(&self, error: CallError) -> Check {
        ensure!(
            matches!(error, CallError::Offline { .. }),
            "refused: {error}"
        );
        Ok(())
    }

    fn calls_racing_with_hotplug_run_if_and_only_if_accepted(&self) -> Check {
        let target = self.other(0);
        let large = [1_u64; 16];
        self.under_hotplug(target, |n| {
            let ran = Runs::new(0);
            // ORDERING: Relaxed, here and below — the call orders it.
            let count = || ran.fetch_add(u64::from(self.handled_by(target)), Ordering::Relaxed);
            let accepted = if n % 2 == 0 {
                self.smp()
                    .call(target, count)
                    .map_err(|refused| refused.error)
            } else {
                let more = move || large.iter().sum::<u64>() - 16;
                let f = || count() + more();
                self.smp().call(target, f).map_err(|refused| refused.error)
            };
            let runs = u64::from(accepted.is_ok());
            accepted
                .map(|_| ())
                .or_else(|error| self.only_offline(error))?;
            ensure_eq!(
                ran.load(Ordering::Relaxed),
                runs,
                "runs of a call, accepted or not"
            );
            Ok(())
        })
    }

    fn posts_racing_with_hotplug_run_if_and_only_if_accepted(&self) -> Check {
        let target = self.other(0);
        self.scope((target, AtomicU32::new(0)), |s| {
            let accepted = AtomicU64::new(0);
            self.under_hotplug(target, |_| {
                let posted = s.post(target, move |s: &Scope<L, (CpuId, AtomicU32), W, D>| {
                    let stray = s.smp().current_cpu() != Some(s.state.0);
                    // ORDERING: Relaxed — `Scope::ran` orders it.
                    s.state.1.fetch_add(u32::from(stray), Ordering::Relaxed);
                });
                match posted {
                    // ORDERING: Relaxed — the crew's end orders it.
                    Ok(()) => {
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(CallError::Full { .. }) => self.pause_ns(2_000),
                    Err(error) => return self.only_offline(error),
                }
                Ok(())
            })?;
            self.smp().flush(target).or_fail("flush")?;
            ensure_eq!(s.ran(), accepted.load(Ordering::Relaxed), "posts that ran");
            ensure_eq!(
                s.state.1.load(Ordering::Relaxed),
                0,
                "posts that ran elsewhere"
            );
            Ok(())
        })
    }

    fn descriptors_racing_with_hotplug_run_if_and_only_if_accepted(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            let accepted = AtomicU64::new(0);
            let shared = pin!(s.csd(|_| ()));
            let shared = shared.as_ref();
            self.under_hotplug(target, |n| {
                let own = pin!(s.csd(|_| ()));
                let posted = match n % 2 {
                    0 => s.post_csd(target, own.as_ref()),
                    _ => s.post_csd(target, shared),
                };
                match posted {
                    // ORDERING: Relaxed — the crew's end orders it.
                    Ok(()) => {
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(CallError::Busy) => {}
                    Err(error) => return self.only_offline(error),
                }
                Ok(())
            })?;
            self.smp().flush(target).or_fail("flush")?;
            ensure_eq!(
                s.ran(),
                accepted.load(Ordering::Relaxed),
                "descriptors that ran"
            );
            Ok(())
        })
    }

    fn tasks_racing_with_hotplug_run_if_and_only_if_accepted(&self) -> Check {
        let target = self.other(0);
        self.under_hotplug(target, |_| {
            let ran = Runs::new(0);
            let count = || {
                // ORDERING: Relaxed — the task's end orders it.
                ran.fetch_add(u64::from(self.me() == Some(target)), Ordering::Relaxed);
            };
            let accepted = self
                .smp()
                .run_on_cpu(target, count)
                .map_err(|refused| refused.error);
            let runs = u64::from(accepted.is_ok());
            accepted.or_else(|error| self.only_offline(error))?;
            ensure_eq!(
                ran.load(Ordering::Relaxed),
                runs,
                "runs of a task, accepted or not"
            );
            Ok(())
        })
    }

    /// The mask that comes back is the set of CPUs that ran it, each once.
    fn broadcasts_racing_with_hotplug_answer_exactly_who_ran(&self) -> Check {
        let target = self.other(0);
        let stays = self.online().and_not(&CpuMask::of(target));
        self.under_hotplug(target, |n| {
            let runs = [const { AtomicU64::new(0) }; W];
            let twice = AtomicU32::new(0);
            let run = |cpu: CpuId| {
                let bit = 1 << (cpu.index() % 64);
                // ORDERING: Relaxed, here and below — the broadcast orders it.
                let before = runs[cpu.index() / 64].fetch_or(bit, Ordering::Relaxed);
                let wrong = before & bit != 0 || self.me() != Some(cpu);
                twice.fetch_add(u32::from(wrong), Ordering::Relaxed);
            };
            let said = if n % 2 == 0 {
                self.smp().on_each_cpu(run)
            } else {
                let all = CpuMask::first_n(CpuMask::<W>::CAPACITY);
                self.smp().on_each_cpu_mask(&all, run)
            };
            let said = said.or_fail("broadcast")?;
            let ran =
                CpuMask::from_words(core::array::from_fn(|w| runs[w].load(Ordering::Relaxed)));
            ensure_eq!(
                twice.load(Ordering::Relaxed),
                0,
                "double runs of a broadcast"
            );
            ensure_eq!(said, ran, "who ran it, as the broadcast says");
            ensure_eq!(
                stays.and_not(&ran),
                CpuMask::EMPTY,
                "CPUs that stayed and did not run"
            );
            Ok(())
        })
    }

    fn any_racing_with_hotplug_finds_a_cpu_that_stays(&self) -> Check {
        let (target, stays) = (self.other(0), self.other(1));
        let pair = CpuMask::of(target).or(&CpuMask::of(stays));
        self.under_hotplug(target, |_| {
            let (chosen, ran_on) = self
                .smp()
                .call_any(&pair, || self.me())
                .or_fail("call_any")?;
            ensure!(pair.contains(chosen), "CPU {chosen} is not one of {pair}");
            ensure_eq!(ran_on, Some(chosen), "the CPU that ran it");
            Ok(())
        })
    }

    fn kicks_racing_with_hotplug_return(&self) -> Check {
        let target = self.other(0);
        let stays = self.online().and_not(&CpuMask::of(target));
        self.under_hotplug(target, |_| {
            let kicked = self
                .smp()
                .kick_all_cpus_sync()
                .or_fail("kick_all_cpus_sync")?;
            let me = self.me().map_or(CpuMask::EMPTY, CpuMask::of);
            let missed = stays.and_not(&me).and_not(&kicked);
            ensure_eq!(
                missed,
                CpuMask::EMPTY,
                "CPUs that stayed and were not kicked"
            );
            Ok(())
        })
    }

    /// Two CPUs cycle a third and a fourth one, both through the one lock of up and down.
    fn cpus_that_take_each_other_down_do_not_deadlock(&self) -> Check {
        let pair = self.some_cpus(2);
        let rest = self.online().and_not(&pair);
        let mut rest = rest.iter();
        let none = || Failure::new(format_args!("too few CPUs"));
        let (c, d) = (rest.next().ok_or_else(none)?, rest.next().ok_or_else(none)?);
        self.together(&pair, |me| {
            let victim = if Some(me) == pair.first() { c } else { d };
            for _ in 0..CYCLES {
                self.smp().cpu_down(victim).or_fail("cpu_down")?;
                self.smp().call_others(|_| ()).or_fail("call_others")?;
                self.smp().cpu_up(victim).or_fail("cpu_up")?;
            }
            Ok(())
        })
    }
}
