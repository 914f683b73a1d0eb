//! Loom models of the post ring: E40 to E45, alone and in a whole instance.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use core::pin::Pin;
use core::ptr::NonNull;
use std::sync::{Arc, Mutex};

use loom::thread;

use super::{PostRing, Slot, run_node};
use crate::bell::{RUNG, STREAMING};
use crate::cpu::CpuId;
use crate::csd::Csd;
use crate::error::CallError;
use crate::queue::{Context, Node, Queue};
use crate::testing::{
    Loom, Plain, Small, become_cpu, fence_point, large_model, model, small_on, take_fences,
};

/// Posts that say which they are, in plain memory, and who ran.
struct World {
    ring: PostRing,
    queue: Queue,
    calls: [Call; 3],
    log: Mutex<Vec<u32>>,
}

/// A queued call with its number.
#[repr(C)]
struct Call {
    node: Node,
    number: Plain,
}

// SAFETY: a call is one side's at a time, as the ring's protocol says; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// Logs the call's number.
///
/// # Safety
/// As [`crate::queue::NodeFn`]; the context's platform is the [`World`]'s log.
unsafe fn log(context: &Context, node: NonNull<Node>) {
    // SAFETY: the node heads a `Call`.
    let call = unsafe { node.cast::<Call>().as_ref() };
    // SAFETY: `World::context` put the log there.
    let log = unsafe { &*context.platform.cast::<Mutex<Vec<u32>>>() };
    log.lock().unwrap().push(call.number.get());
}

impl World {
    fn new() -> Arc<Self> {
        let call = || Call {
            node: Node::new(),
            number: Plain::new(),
        };
        let world = Self {
            ring: PostRing::new(),
            queue: Queue::new(),
            calls: [call(), call(), call()],
            log: Mutex::default(),
        };
        world.ring.open_overflow();
        world.queue.open();
        Arc::new(world)
    }

    fn context(&self) -> Context {
        Context {
            platform: (&raw const self.log).cast(),
            area: core::ptr::null(),
            cpu: CpuId::new(0),
        }
    }

    /// The node of the call with this number, from 1.
    fn node(&self, number: u32) -> NonNull<Node> {
        let call = &self.calls[number as usize - 1];
        call.number.set(number);
        // SAFETY: 1 — the model queues each call once.
        unsafe { call.node.set_run(log) };
        NonNull::from(call).cast()
    }

    fn publish<'a>(&'a self, slot: &'a Slot, number: u32) {
        // SAFETY: 1 — the model's one source; 2 — `run_node` takes a node's address.
        unsafe { self.ring.publish(slot, run_node, self.node(number)) };
    }

    /// Posts by a slot once there is room; the instance has room for one.
    fn post(&self, number: u32) {
        let slot = loop {
            match self.ring.vacant::<1>() {
                Some(slot) => break slot,
                None => thread::yield_now(),
            }
        };
        self.publish(slot, number);
        self.ring.accept_slot();
    }

    /// Posts by the overflow.
    fn overflow(&self, number: u32) {
        // SAFETY: 1 — the model's one source; 2 — each call is queued once.
        let pushed = unsafe { self.ring.overflow(self.node(number)) };
        assert!(pushed.is_ok(), "the overflow is open");
    }

    fn push(&self, number: u32) {
        // SAFETY: 1, 2 — each call is queued once, and the world outlives it.
        let pushed = unsafe { self.queue.push(self.node(number)) };
        assert!(pushed.is_ok(), "the queue is open");
    }

    fn run_queue(&self) {
        // SAFETY: 1 — the model's one target.
        unsafe { self.queue.take_all().run(&self.context()) };
    }

    fn serve(&self) {
        // SAFETY: 1 — the model's one target.
        unsafe { self.ring.serve(&self.context(), || self.run_queue()) };
    }

    fn claim(&self) {
        // SAFETY: 1 — the model's one target.
        unsafe {
            self.ring
                .claim_and_serve(&self.context(), || self.run_queue());
        }
    }

    fn ran(&self) -> Vec<u32> {
        self.log.lock().unwrap().clone()
    }

    fn serve_until(&self, count: usize) {
        while self.ran().len() < count {
            self.serve();
            thread::yield_now();
        }
    }
}

/// One post against one look of the target's.
fn one_post_against(look: impl Fn(&World) + Sync + Send + Copy + 'static) {
    model(move || {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || world.post(1)
        });
        look(&world);
        source.join().unwrap();
        look(&world);
        assert_eq!(world.ran(), [1], "once");
    });
}

#[test]
fn e40_publish_hands_the_slot_to_the_target() {
    one_post_against(World::serve);
}

#[test]
fn e40_claim_hands_the_slot_to_the_target() {
    one_post_against(World::claim);
}

#[test]
fn e41_a_slot_is_filled_again_only_when_its_call_was_taken() {
    large_model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || {
                world.post(1);
                world.post(2);
                // The ring has two slots.
                world.post(3);
            }
        });
        world.serve_until(3);
        source.join().unwrap();
        assert_eq!(world.ran(), [1, 2, 3]);
        assert!(world.ring.is_idle(), "all that was posted is taken");
    });
}

#[test]
fn e42_exactly_one_of_retract_and_claim_gets_the_post() {
    model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || {
                let slot = world.ring.vacant::<1>().expect("the ring is empty");
                world.publish(slot, 1);
                let retracted = world.ring.retract(slot);
                if !retracted {
                    world.ring.accept_slot();
                }
                retracted
            }
        });
        world.claim();
        let retracted = source.join().unwrap();
        world.serve();
        assert_eq!(world.ran().len(), usize::from(!retracted));
    });
}

#[test]
fn e44_what_overflows_comes_after_the_slots_before_it() {
    model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || {
                world.post(1);
                world.overflow(2);
            }
        });
        world.serve_until(2);
        source.join().unwrap();
        assert_eq!(world.ran(), [1, 2]);
    });
}

#[test]
fn e44_a_slot_that_is_filled_after_an_overflow_comes_after_it() {
    large_model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || {
                world.overflow(1);
                world.post(2);
                world.overflow(3);
            }
        });
        world.serve_until(3);
        source.join().unwrap();
        assert_eq!(world.ran(), [1, 2, 3]);
    });
}

#[test]
fn e45_what_was_queued_before_the_lease_comes_before_the_first_slot() {
    model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || {
                world.push(1);
                world.post(2);
            }
        });
        world.run_queue();
        world.serve();
        source.join().unwrap();
        world.run_queue();
        world.serve();
        assert_eq!(world.ran(), [1, 2]);
    });
}

#[test]
fn a_closed_overflow_refuses_and_its_last_calls_are_run() {
    model(|| {
        let world = World::new();
        let source = thread::spawn({
            let world = world.clone();
            move || {
                // SAFETY: 1 — the model's one source; 2 — the call is queued once.
                unsafe { world.ring.overflow(world.node(1)) }.is_ok()
            }
        });
        // SAFETY: 1 — the model's one target.
        unsafe { world.ring.close(&world.context(), || ()) };
        let accepted = source.join().unwrap();
        assert_eq!(world.ran().len(), usize::from(accepted));
    });
}

/// A whole instance whose CPU 0 posts to CPU 1, in order.
struct Machine {
    smp: Small,
    log: Plain,
}

// SAFETY: the instance is `Sync`, and loom checks the plain memory.
unsafe impl Sync for Machine {}
// SAFETY: as above.
unsafe impl Send for Machine {}

const ZERO: CpuId = CpuId::new(0);
const ONE: CpuId = CpuId::new(1);

/// The machine's address, for a closure that is posted.
#[derive(Clone, Copy)]
struct At(*const Machine);
// SAFETY: the machine is `Sync` and outlives the models' threads.
unsafe impl Send for At {}
// SAFETY: as above.
unsafe impl Sync for At {}

impl At {
    /// The post with this number runs, after the one before it.
    fn see(self, number: u32) {
        // SAFETY: the machine outlives the models' threads.
        let log = unsafe { &(*self.0).log };
        assert_eq!(log.get() + 1, number, "out of order");
        log.set(number);
    }
}

impl Machine {
    fn new(platform: Loom) -> Arc<Self> {
        Arc::new(Self {
            smp: small_on(platform, &[0, 1]),
            log: Plain::new(),
        })
    }

    fn post(&self, number: u32) -> Result<(), CallError> {
        let at = At(self);
        Ok(self.smp.post(ONE, move || at.see(number))?)
    }

    /// A thread that is CPU 1.
    fn target(self: &Arc<Self>, what: impl FnOnce(&Self) + 'static) -> thread::JoinHandle<()> {
        let machine = self.clone();
        thread::spawn(move || {
            become_cpu(1);
            what(&machine);
        })
    }
}

/// A post by a ring against CPU 1 that leaves: it runs once, or comes back.
fn leaving_against(leave: impl Fn(&Small) + Sync + Send + Copy + 'static) {
    large_model(move || {
        let machine = Machine::new(Loom::with_rings());
        let leaver = machine.target(move |machine| leave(&machine.smp));
        become_cpu(0);
        let accepted = machine.post(1);
        leaver.join().unwrap();
        match accepted {
            Ok(()) => assert_eq!(machine.log.get(), 1, "accepted, so run once"),
            Err(CallError::Offline { .. }) => {
                assert_eq!(machine.log.get(), 0, "refused, so not run")
            }
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn a_post_by_ring_to_a_cpu_that_leaves_runs_once_or_comes_back() {
    leaving_against(|smp| smp.close_cpu(ONE));
}

#[test]
fn e42_a_post_that_ran_before_its_target_left_is_not_taken_back() {
    leaving_against(|smp| {
        smp.handle_ipi();
        smp.close_cpu(ONE);
    });
}

#[test]
fn a_post_by_ring_to_a_cpu_that_leaves_and_comes_back_runs_once_or_comes_back() {
    leaving_against(|smp| {
        smp.close_cpu(ONE);
        smp.open_cpu(ONE);
        smp.close_cpu(ONE);
    });
}

#[test]
fn a_descriptor_behind_a_full_ring_runs_after_it_and_once() {
    large_model(|| {
        let machine = Machine::new(Loom::with_rings());
        let at = At(&raw const *machine);
        let target = machine.target(|machine| {
            machine.smp.handle_ipi();
            machine.smp.close_cpu(ONE);
        });
        become_cpu(0);
        let first = machine.post(1).is_ok();
        {
            let number = 1 + u32::from(first);
            let csd = core::pin::pin!(Csd::new(move || at.see(number)));
            let csd: Pin<&Csd<_>> = csd.as_ref();
            let second = machine.smp.post_csd(ONE, csd).is_ok();
            drop(target.join());
            assert_eq!(machine.log.get(), u32::from(first) + u32::from(second));
        }
    });
}

/// What reports a stall runs in the wait of a call by mailbox, whose mark is set, and may post.
#[test]
fn a_post_inside_the_wait_of_a_call_comes_after_those_before_it() {
    large_model(|| {
        let machine = Machine::new(Loom::with_rings());
        let at = At(&raw const *machine);
        become_cpu(0);
        assert!(machine.post(1).is_ok());
        let csd = core::pin::pin!(Csd::new(move || at.see(2)));
        let csd: Pin<&Csd<_>> = csd.as_ref();
        let local = &machine.smp.own(ZERO).local;
        local.set_mailing(ONE.get() + 1);
        assert!(machine.smp.post_csd(ONE, csd).is_ok());
        assert_eq!(local.mailing(), ONE.get() + 1, "the call goes on");
        local.set_mailing(0);
        let target = machine.target(|machine| machine.smp.handle_ipi());
        drop(target.join());
        assert_eq!(machine.log.get(), 2);
    });
}

#[test]
fn posts_keep_their_order_when_the_lease_ends_between_them() {
    large_model(|| {
        let machine = Machine::new(Loom::with_rings());
        let target = machine.target(|machine| {
            machine.smp.handle_ipi();
            machine.smp.handle_ipi();
            machine.smp.close_cpu(ONE);
        });
        become_cpu(0);
        let mut accepted = 0;
        for _ in 0..2 {
            if machine.post(accepted + 1).is_ok() {
                accepted += 1;
            }
            // Lets the ring go if it is idle; the next post takes it again.
            machine.smp.release_all_lines(ZERO);
        }
        target.join().unwrap();
        assert_eq!(machine.log.get(), accepted);
    });
}

/// A CPU that streams stops, in some way, beside a post: whoever comes last sees the other.
fn streaming_against(stop: impl Fn(&Small) + Sync + Send + Copy + 'static) {
    large_model(move || {
        let machine = Machine::new(Loom::that_streams());
        let fences = machine.smp.platform().fences.clone().expect("it streams");
        let target = machine.target(move |machine| {
            machine.smp.idle_enter();
            let area = machine.smp.own(ONE);
            area.local.set_streaming();
            area.bell.start_streaming();
            stop(&machine.smp);
        });
        become_cpu(0);
        take_fences(&fences);
        fence_point();
        let accepted = machine.post(1);
        fence_point();
        fences.leave();
        target.join().unwrap();
        assert_eq!(accepted, Ok(()));
        if machine.log.get() == 0 {
            let bell = &machine.smp.own(ONE).bell;
            assert_eq!(bell.look(), RUNG, "accepted and forgotten");
        }
    });
}

#[test]
fn e43_a_cpu_that_streams_and_goes_back_to_work_sees_a_silent_post() {
    streaming_against(Small::idle_exit);
}

#[test]
fn e43_a_cpu_that_streams_and_sleeps_sees_a_silent_post() {
    streaming_against(|smp| {
        if !smp.falls_asleep(ONE, smp.own(ONE)) {
            smp.handle_ipi();
        }
    });
}
