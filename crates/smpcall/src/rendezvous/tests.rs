//! Loom models of the rendezvous: the barriers (E26) and the lock (E27).

use std::sync::Arc;

use loom::thread;

use super::{Meeting, RendezvousLock, leave};
use crate::cpu::CpuId;
use crate::sync::{AtomicU32, Ordering};
use crate::testing::{Loom, Plain, model};

#[test]
fn e26_what_one_cpu_did_in_a_phase_is_visible_to_the_other_in_the_next() {
    model(|| {
        // Leaked, for loom's threads borrow nothing; a few hundred bytes for each execution.
        let marks: &'static [Plain; 6] = Box::leak(Box::new(std::array::from_fn(|_| Plain::new())));
        let leave_mark = |phase: usize, cpu: CpuId| marks[2 * phase + cpu.index()].set(1);
        let see_mark = |phase: usize, cpu: CpuId| {
            assert_eq!(marks[2 * phase + 1 - cpu.index()].get(), 1);
        };
        let setup = Box::leak(Box::new(move |cpu| leave_mark(0, cpu)));
        let action = Box::leak(Box::new(move |cpu| {
            see_mark(0, cpu);
            leave_mark(1, cpu);
        }));
        let teardown = Box::leak(Box::new(move |cpu| {
            see_mark(1, cpu);
            leave_mark(2, cpu);
        }));
        let meeting = Meeting::<Loom, _, _, _, 1>::new(setup, action, teardown);
        let meeting: &'static Meeting<'static, Loom, _, _, _, 1> = Box::leak(Box::new(meeting));
        // ORDERING: Relaxed — the threads are started after it.
        meeting.expected.store(2, Ordering::Relaxed);
        let take_part = |cpu: u32| {
            let platform = Loom::new();
            meeting.take_part(&platform, CpuId::new(cpu), |_| thread::yield_now());
            leave(&meeting.arrived);
        };
        let second = thread::spawn(move || take_part(1));
        take_part(0);
        while !meeting.have_arrived(3) {
            thread::yield_now();
        }
        assert_eq!(marks[5].get(), 1, "the initiator sees the teardown");
        second.join().unwrap();
    });
}

#[test]
fn e27_the_lock_hands_on_the_seats() {
    model(|| {
        let world = Arc::new((AtomicU32::new(0), Plain::new()));
        let turn = |world: &(AtomicU32, Plain), name: u32| {
            loop {
                if let Some(lock) = RendezvousLock::try_lock(&world.0, name) {
                    world.1.add(1);
                    drop(lock);
                    return;
                }
                thread::yield_now();
            }
        };
        let second = thread::spawn({
            let world = Arc::clone(&world);
            move || turn(&world, 2)
        });
        turn(&world, 1);
        second.join().unwrap();
        assert_eq!(world.1.get(), 2);
        // ORDERING: Relaxed — joined.
        assert_eq!(world.0.load(Ordering::Relaxed), 0);
    });
}
