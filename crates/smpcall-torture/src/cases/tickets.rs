//! Tickets, rendezvous, and results of each CPU.

use core::mem::MaybeUninit;
use core::pin::pin;
use core::sync::atomic::{AtomicU32, Ordering};

use smpcall::{CallError, CpuId, CpuMask, TicketSlot};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    1 Nothing a_ticket_brings_the_result_of_a_post,
    2 Nothing a_ticket_is_not_done_while_its_target_is_masked,
    2 Nothing tickets_keep_their_order_among_posts,
    2 Nothing a_dropped_ticket_lets_its_call_run_and_its_slot_go,
    1 Nothing a_refused_ticket_hands_the_closure_back,
    2 Hotplug a_ticket_of_a_cpu_that_left_is_done,
    1 Nothing a_rendezvous_takes_all_cpus_through_its_phases_in_step,
    2 Nothing rendezvous_at_once_take_turns,
    1 Nothing results_of_each_cpu_stand_at_its_index,
}

/// Results at most so many CPUs have room for on the stack.
const ROOM: usize = 64;

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    fn a_ticket_brings_the_result_of_a_post(&self) -> Check {
        let slot = pin!(TicketSlot::<L::P, u64>::new());
        for cpu in &self.online() {
            let n = u64::from(cpu.get());
            let ticket = self.smp().submit(cpu, slot.as_ref(), move || n * 2 + 1);
            let ticket = ticket.or_fail("submit")?;
            ensure_eq!(ticket.target(), cpu, "the ticket's target");
            let result = self.smp().redeem(ticket).or_fail("redeem")?;
            ensure_eq!(result, n * 2 + 1, "the result from CPU {cpu}");
            ensure!(
                slot.is_free(),
                "the slot is in use after its ticket was redeemed"
            );
        }
        Ok(())
    }

    fn a_ticket_is_not_done_while_its_target_is_masked(&self) -> Check {
        let target = self.other(0);
        let slot = pin!(TicketSlot::<L::P, u32>::new());
        self.masked(&CpuMask::of(target), |mask| {
            let ticket = self.smp().submit(target, slot.as_ref(), || 9);
            let ticket = ticket.or_fail("submit")?;
            ensure!(!ticket.is_done(), "the ticket is done on a masked CPU");
            let busy = self.smp().submit(target, slot.as_ref(), || 1).map(drop);
            let busy = busy.map_err(|refused| refused.error);
            ensure_eq!(busy, Err(CallError::Busy), "its slot, once more");
            mask.let_go_at(self.now() + 500_000);
            ensure_eq!(
                self.smp().redeem(ticket).or_fail("redeem")?,
                9,
                "the result"
            );
            ensure_eq!(mask.ended(), 1, "masks that had ended when it was redeemed");
            Ok(())
        })
    }

    /// A ticket travels in the posted lane: what was posted before it ran before it.
    fn tickets_keep_their_order_among_posts(&self) -> Check {
        let target = self.other(0);
        let slot = pin!(TicketSlot::<L::P, ()>::new());
        self.scope((), |s| {
            for n in 1..=50_u64 {
                s.post_wait(target, |_| ()).or_fail("post_wait")?;
                let submit = || self.smp().submit(target, slot.as_ref(), s.once(|_| ()));
                let ticket = s.hand_out(submit, |ticket| u64::from(ticket.is_ok()));
                let ticket = ticket.map_err(|refused| refused.error).or_fail("submit")?;
                self.smp().redeem(ticket).or_fail("redeem")?;
                ensure_eq!(s.ran(), 2 * n, "what ran when the ticket was redeemed");
            }
            Ok(())
        })
    }

    fn a_dropped_ticket_lets_its_call_run_and_its_slot_go(&self) -> Check {
        let target = self.other(0);
        self.scope((), |s| {
            let slot = pin!(TicketSlot::<L::P, ()>::new());
            self.masked(&CpuMask::of(target), |_| {
                let submit = || self.smp().submit(target, slot.as_ref(), s.once(|_| ()));
                let ticket = s.hand_out(submit, |ticket| u64::from(ticket.is_ok()));
                drop(ticket.map_err(|refused| refused.error).or_fail("submit")?);
                Ok(())
            })?;
            self.wait("the call of a dropped ticket ran", || s.ran() == 1)?;
            self.wait("its slot is free", || slot.is_free())
        })
    }

    fn a_refused_ticket_hands_the_closure_back(&self) -> Check {
        let cpu = CpuId::new(self.smp().nr_cpu_ids());
        let slot = pin!(TicketSlot::<L::P, u32>::new());
        let Err(refused) = self.smp().submit(cpu, slot.as_ref(), || 5) else {
            ensure!(false, "a ticket for no CPU");
            return Ok(());
        };
        let named = matches!(refused.error, CallError::NoSuchCpu { .. });
        ensure!(named, "the refusal is {}", refused.error);
        ensure_eq!((refused.into_closure())(), 5, "the closure that came back");
        ensure!(slot.is_free(), "the slot of a refused ticket is in use");
        Ok(())
    }

    /// What was accepted ran before its CPU was gone, tickets as well.
    fn a_ticket_of_a_cpu_that_left_is_done(&self) -> Check {
        let target = self.other(0);
        let slot = pin!(TicketSlot::<L::P, u32>::new());
        for n in 0..5 {
            let ticket = self.smp().submit(target, slot.as_ref(), move || n);
            let ticket = ticket.or_fail("submit")?;
            self.smp().cpu_down(target).or_fail("cpu_down")?;
            let done = ticket.is_done();
            let result = self.smp().redeem(ticket).or_fail("redeem")?;
            self.smp().cpu_up(target).or_fail("cpu_up")?;
            ensure!(done, "a ticket was not done when its CPU was gone");
            ensure_eq!(result, n, "the result of a CPU that left");
        }
        Ok(())
    }

    /// Nobody is in a phase before everybody has ended the one before.
    fn a_rendezvous_takes_all_cpus_through_its_phases_in_step(&self) -> Check {
        for _ in 0..10 {
            let cpus = self.online();
            let all = cpus.len() as u32;
            let (phases, early) = ([const { AtomicU32::new(0) }; 3], AtomicU32::new(0));
            // ORDERING: Relaxed, all of them — the rendezvous alone must order its phases.
            let enter = |phase: usize, cpu: CpuId| {
                let wrong = !self.handled_by(cpu)
                    || (phase > 0 && phases[phase - 1].load(Ordering::Relaxed) != all);
                early.fetch_add(u32::from(wrong), Ordering::Relaxed);
                phases[phase].fetch_add(1, Ordering::Relaxed);
            };
            let (setup, action) = (|cpu| enter(0, cpu), |cpu| enter(1, cpu));
            let took_part = self
                .smp()
                .rendezvous(&cpus, setup, action, |cpu| enter(2, cpu));
            ensure_eq!(
                took_part.or_fail("rendezvous")?,
                cpus,
                "CPUs that took part"
            );
            ensure_eq!(
                early.load(Ordering::Relaxed),
                0,
                "phases begun too early, or elsewhere"
            );
            let ran = phases.each_ref().map(|phase| phase.load(Ordering::Relaxed));
            ensure_eq!(ran, [all; 3], "CPUs in each phase");
        }
        Ok(())
    }

    fn rendezvous_at_once_take_turns(&self) -> Check {
        let (inside, clashes) = (AtomicU32::new(0), AtomicU32::new(0));
        let cpus = self.some_cpus(4);
        self.together(&cpus, |me| {
            for _ in 0..10 {
                // ORDERING: Relaxed, all of them — only one initiator at a time changes it.
                let setup = |cpu| {
                    if cpu == me {
                        let others = inside.fetch_add(1, Ordering::Relaxed);
                        clashes.fetch_add(others, Ordering::Relaxed);
                    }
                };
                let teardown = |cpu| {
                    if cpu == me {
                        inside.fetch_sub(1, Ordering::Relaxed);
                    }
                };
                let took_part = self.smp().rendezvous(&cpus, setup, |_| (), teardown);
                ensure_eq!(
                    took_part.or_fail("rendezvous")?,
                    cpus,
                    "CPUs that took part"
                );
            }
            Ok(())
        })?;
        ensure_eq!(
            clashes.load(Ordering::Relaxed),
            0,
            "rendezvous inside another"
        );
        Ok(())
    }

    fn results_of_each_cpu_stand_at_its_index(&self) -> Check {
        let mask: CpuMask<W> = CpuMask::first_n(ROOM).and(&self.online());
        for round in 0..10_u32 {
            let mut room = [const { MaybeUninit::uninit() }; ROOM];
            let f = |cpu: CpuId| (self.me(), cpu.get() ^ round);
            let results = self.smp().on_each_cpu_mask_into(&mask, &mut room, f);
            let results = results.or_fail("on_each_cpu_mask_into")?;
            ensure_eq!(results.ran(), mask, "CPUs with a result");
            for cpu in &mask {
                let wanted = (Some(cpu), cpu.get() ^ round);
                ensure_eq!(results.get(cpu), Some(&wanted), "the result of CPU {cpu}");
            }
        }
        Ok(())
    }
}
