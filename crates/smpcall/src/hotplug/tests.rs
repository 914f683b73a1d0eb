//! Loom models of whole instances: calls of every kind against CPUs that leave and come back (E16,
//! E17), two CPUs that call each other, and a broadcast to two targets.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use core::pin::Pin;
use std::sync::Arc;

use loom::thread;

use super::{ARRIVED, DEAD, LEAVING, OFFLINE, ONLINE, STARTING};
use crate::callbacks::CpuCallbacks;
use crate::cpu::{CpuId, CpuMask};
use crate::csd::Csd;
use crate::error::CallError;
use crate::sync::{AtomicU32, Ordering};
use crate::testing::{Plain, Small, become_cpu, large_model, largest_model, model, small};

const ZERO: CpuId = CpuId::new(0);
const ONE: CpuId = CpuId::new(1);

/// An instance, and what its calls write.
struct World {
    smp: Small,
    runs: Plain,
}

// SAFETY: the instance is `Sync`, and loom checks the plain memory.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// The world's address, for a closure that is posted.
#[derive(Clone, Copy)]
struct At(*const World);
// SAFETY: the world is `Sync` and outlives the models' threads.
unsafe impl Send for At {}
// SAFETY: as above.
unsafe impl Sync for At {}

impl At {
    fn count(self) {
        // SAFETY: the world outlives the models' threads.
        unsafe { &*self.0 }.runs.add(1);
    }
}

impl World {
    fn new(online: &[u32]) -> Arc<Self> {
        Arc::new(Self {
            smp: small(online),
            runs: Plain::new(),
        })
    }

    /// A thread that is this CPU and does `what`.
    fn cpu<R: 'static>(
        self: &Arc<Self>,
        id: u32,
        what: impl FnOnce(&Self) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || {
            become_cpu(id);
            what(&world)
        })
    }
}

/// Who calls: a CPU has mailbox lines, a foreign thread queues records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Cpu,
    Foreign,
}

/// A caller against CPU 1 that leaves: the answer says whether the call was accepted.
fn leaving_against(
    caller: Caller,
    leave: impl Fn(&World) + Sync + Send + Copy + 'static,
    call: impl Fn(&World) -> Result<(), CallError> + Sync + Send + Copy + 'static,
) {
    large_model(move || {
        let world = World::new(&[0, 1]);
        let leaver = world.cpu(1, leave);
        if caller == Caller::Cpu {
            become_cpu(0);
        }
        let accepted = call(&world);
        leaver.join().unwrap();
        match accepted {
            Ok(()) => assert_eq!(world.runs.get(), 1, "accepted, so run once"),
            Err(CallError::Offline { .. }) => {
                assert_eq!(world.runs.get(), 0, "refused, so not run");
            }
            Err(error) => panic!("{error}"),
        }
    });
}

fn close(world: &World) {
    world.smp.close_cpu(ONE);
}

fn close_while_polling(world: &World) {
    world.smp.idle_enter();
    world.smp.close_cpu(ONE);
}

fn close_open_close(world: &World) {
    world.smp.close_cpu(ONE);
    world.smp.open_cpu(ONE);
    world.smp.close_cpu(ONE);
}

fn call(world: &World) -> Result<(), CallError> {
    let answer = world.smp.call(ONE, || {
        world.runs.add(1);
        7
    })?;
    assert_eq!(answer, 7);
    Ok(())
}

fn post(world: &World) -> Result<(), CallError> {
    let at = At(world);
    Ok(world.smp.post(ONE, move || at.count())?)
}

fn flush(world: &World) -> Result<(), CallError> {
    post(world)?;
    // What was posted has run when the flush, or the CPU, is over.
    match world.smp.flush(ONE) {
        Ok(()) => assert_eq!(world.runs.get(), 1),
        Err(error) => assert_eq!(error, CallError::Offline { cpu: ONE }),
    }
    Ok(())
}

fn call_csd(world: &World) -> Result<(), CallError> {
    let at = At(world);
    world.smp.call_csd(ONE, &Csd::new(move || at.count()))
}

fn post_csd_and_drop(world: &World) -> Result<(), CallError> {
    let at = At(world);
    let csd = core::pin::pin!(Csd::new(move || at.count()));
    let csd: Pin<&Csd<_>> = csd.as_ref();
    world.smp.post_csd(ONE, csd)
}

#[test]
fn a_mailed_call_to_a_cpu_that_leaves_runs_once_or_is_refused() {
    leaving_against(Caller::Cpu, close, call);
}

#[test]
fn a_mailed_call_to_a_polling_cpu_that_leaves_runs_once_or_is_refused() {
    leaving_against(Caller::Cpu, close_while_polling, call);
}

#[test]
fn a_mailed_call_to_a_cpu_that_leaves_and_comes_back_runs_once_or_is_refused() {
    leaving_against(Caller::Cpu, close_open_close, call);
}

#[test]
fn a_queued_call_to_a_cpu_that_leaves_runs_once_or_is_refused() {
    leaving_against(Caller::Foreign, close, call);
}

#[test]
fn a_queued_call_to_a_cpu_that_leaves_and_comes_back_runs_once_or_is_refused() {
    leaving_against(Caller::Foreign, close_open_close, call);
}

#[test]
fn a_post_to_a_cpu_that_leaves_runs_once_or_comes_back() {
    leaving_against(Caller::Cpu, close, post);
}

#[test]
fn a_flush_of_a_cpu_that_leaves_ends() {
    leaving_against(Caller::Cpu, close, flush);
}

#[test]
fn a_descriptor_called_on_a_cpu_that_leaves_and_comes_back_runs_once_or_is_refused() {
    leaving_against(Caller::Cpu, close_open_close, call_csd);
}

#[test]
fn a_descriptor_posted_to_a_cpu_that_leaves_runs_once_or_is_refused() {
    leaving_against(Caller::Cpu, close, post_csd_and_drop);
}

#[test]
fn a_broadcast_to_two_cpus_that_leave_runs_on_those_that_it_names() {
    largest_model(|| {
        let world = World::new(&[0, 1, 2]);
        let leavers =
            [1, 2].map(|id| world.cpu(id, move |world| world.smp.close_cpu(CpuId::new(id))));
        become_cpu(0);
        let wrote = [Plain::new(), Plain::new(), Plain::new()];
        let ran = world
            .smp
            .call_others(|cpu| wrote[cpu.index()].add(1))
            .unwrap();
        for cpu in &CpuMask::<1>::first_n(3) {
            assert_eq!(wrote[cpu.index()].get(), u32::from(ran.contains(cpu)));
        }
        for leaver in leavers {
            leaver.join().unwrap();
        }
    });
}

#[test]
fn two_cpus_that_call_each_other_both_finish() {
    large_model(|| {
        let world = World::new(&[0, 1]);
        // Each looks once more when it is through, as a CPU does until it leaves.
        let other = world.cpu(1, |world| {
            let answer = world.smp.call(ZERO, || 1);
            world.smp.close_cpu(ONE);
            answer.is_ok_and(|answer| answer == 1)
        });
        become_cpu(0);
        let answer = world.smp.call(ONE, || 2);
        world.smp.close_cpu(ZERO);
        let theirs = other.join().unwrap();
        let ours = answer.is_ok_and(|answer| answer == 2);
        assert!(ours || theirs, "only one of them can have left too early");
    });
}

#[test]
fn a_call_to_a_cpu_that_idles_is_answered() {
    large_model(|| {
        let world = World::new(&[0, 1]);
        let idler = world.cpu(1, |world| {
            world.smp.idle_enter();
            world.smp.idle_poll();
            world.smp.idle_exit();
            world.smp.close_cpu(ONE);
        });
        become_cpu(0);
        match call(&world) {
            Ok(()) => assert_eq!(world.runs.get(), 1),
            Err(error) => assert_eq!(error, CallError::Offline { cpu: ONE }),
        }
        idler.join().unwrap();
    });
}

#[test]
fn e16_who_sees_a_cpu_online_is_not_refused() {
    large_model(|| {
        let world = World::new(&[0]);
        let comer = world.cpu(1, |world| world.smp.open_cpu(ONE));
        become_cpu(0);
        let online = world.smp.is_online(ONE);
        let listed = world.smp.online_cpus().contains(ONE);
        let posted = post(&world);
        comer.join().unwrap();
        assert!(posted.is_ok() || !(online || listed));
    });
}

#[test]
fn e17_who_sees_a_state_sees_what_was_done_before() {
    model(|| {
        let world = World::new(&[]);
        let states = &world.smp.hotplug;
        states.set(ONE, OFFLINE);
        let asker = world.cpu(0, |world| {
            world.runs.set(1);
            world.smp.hotplug.set(ONE, STARTING);
        });
        if states.look(ONE) == STARTING {
            assert_eq!(world.runs.get(), 1);
        }
        asker.join().unwrap();
    });
}

#[test]
fn e17_who_makes_a_step_sees_what_was_done_before_and_publishes() {
    model(|| {
        let world = World::new(&[]);
        let states = &world.smp.hotplug;
        states.set(ONE, ONLINE);
        let cpu = world.cpu(1, |world| {
            let mine = world.smp.hotplug.step(ONE, LEAVING, DEAD);
            if mine {
                world.runs.add(1);
                assert!(world.smp.hotplug.step(ONE, DEAD, ARRIVED));
            }
            mine
        });
        world.runs.set(1);
        states.set(ONE, LEAVING);
        if states.look(ONE) == ARRIVED {
            assert_eq!(world.runs.get(), 2);
        }
        let mine = cpu.join().unwrap();
        assert_eq!(world.runs.get(), 1 + u32::from(mine));
    });
}

#[test]
fn e17_the_lock_hands_on_what_its_holders_wrote() {
    model(|| {
        let world = World::new(&[]);
        let other = world.cpu(1, |world| {
            let _lock = world.smp.lock_hotplug().unwrap();
            world.runs.add(1);
        });
        {
            let _lock = world.smp.lock_hotplug().unwrap();
            world.runs.add(1);
        }
        other.join().unwrap();
        assert_eq!(world.runs.get(), 2);
    });
}

#[test]
fn e17_who_sees_callbacks_sees_what_was_done_before_they_were_registered() {
    static CALLBACKS: CpuCallbacks = CpuCallbacks::NONE;
    model(|| {
        let world = World::new(&[]);
        let other = world.cpu(1, |world| {
            world.runs.set(1);
            world.smp.register(&CALLBACKS).unwrap();
        });
        if world.smp.hotplug.callbacks.iter().next().is_some() {
            assert_eq!(world.runs.get(), 1);
        }
        other.join().unwrap();
    });
}

#[test]
fn e25_a_cpu_that_comes_online_beside_a_kick_sees_what_was_stored_before() {
    large_model(|| {
        let world = World::new(&[0]);
        let stored = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
        let comer = world.cpu(1, {
            let stored = stored.clone();
            move |world| {
                world.smp.open_cpu(ONE);
                let seen = stored.0.load(Ordering::Relaxed);
                while stored.1.load(Ordering::Relaxed) == 0 {
                    world.smp.poll();
                    thread::yield_now();
                }
                seen
            }
        });
        become_cpu(0);
        stored.0.store(1, Ordering::Relaxed);
        let kicked = world.smp.kick_all_cpus_sync().unwrap();
        stored.1.store(1, Ordering::Relaxed);
        let seen = comer.join().unwrap();
        assert!(seen == 1 || kicked.contains(ONE), "neither told nor kicked");
    });
}

#[test]
fn a_cpu_that_is_asked_to_leave_leaves_once_and_can_come_back() {
    large_model(|| {
        let world = World::new(&[0, 1]);
        let cpu = world.cpu(1, |world| {
            while !world.smp.leave_if_asked() {
                thread::yield_now();
            }
        });
        become_cpu(0);
        world.smp.cpu_down(ONE).unwrap();
        assert!(!world.smp.is_online(ONE));
        assert_eq!(call(&world), Err(CallError::Offline { cpu: ONE }));
        cpu.join().unwrap();
        let back = world.cpu(1, |world| {
            while !world.smp.online_this_cpu() {
                thread::yield_now();
            }
        });
        world.smp.cpu_up(ONE).unwrap();
        assert!(world.smp.is_online(ONE));
        back.join().unwrap();
    });
}
