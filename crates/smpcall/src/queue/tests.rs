//! Loom models of the queue: E1 on both ways out, order, and the race of a push with a close.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::{Arc, Mutex};

use loom::thread;

use super::{Closed, Context, Node, Queue};
use crate::cpu::CpuId;
use crate::testing::{Plain, model};
use core::ptr::NonNull;

/// A queued call that says which it is, in plain memory.
#[repr(C)]
struct Call {
    node: Node,
    name: Plain,
}

/// The queue, its calls, and who ran.
struct World {
    queue: Queue,
    calls: [Call; 2],
    log: Mutex<Vec<u32>>,
}

// SAFETY: a call is one side's at a time, as the queue's protocol says; loom checks it.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// Logs the call's name.
///
/// # Safety
/// As [`super::NodeFn`]; the context's platform is the [`World`]'s log.
unsafe fn log(context: &Context, node: NonNull<Node>) {
    // SAFETY: the node heads a `Call`.
    let call = unsafe { node.cast::<Call>().as_ref() };
    // SAFETY: `World::context` put the log there.
    let log = unsafe { &*context.platform.cast::<Mutex<Vec<u32>>>() };
    log.lock().unwrap().push(call.name.get());
}

impl World {
    fn new() -> Arc<Self> {
        let call = || Call {
            node: Node::new(),
            name: Plain::new(),
        };
        let world = Self {
            queue: Queue::new(),
            calls: [call(), call()],
            log: Mutex::default(),
        };
        world.queue.open();
        Arc::new(world)
    }

    fn push(&self, index: usize) -> Result<bool, Closed> {
        let call = &self.calls[index];
        call.name.set(index as u32 + 1);
        // SAFETY: 1 — in no queue yet.
        unsafe { call.node.set_run(log) };
        // SAFETY: 1 — `run` is set, the world lives until the threads are joined; 2 — pushed once.
        unsafe { self.queue.push(NonNull::from(call).cast()) }
    }

    fn context(&self) -> Context {
        Context {
            platform: core::ptr::from_ref(&self.log).cast(),
            area: core::ptr::null(),
            cpu: CpuId::new(0),
        }
    }

    fn take_and_run(&self) {
        // SAFETY: 1 — this thread owns the queue.
        unsafe { self.queue.take_all().run(&self.context()) };
    }

    fn log(&self) -> Vec<u32> {
        self.log.lock().unwrap().clone()
    }
}

#[test]
fn e1_push_publishes_the_call() {
    model(|| {
        let world = World::new();
        let sender = thread::spawn({
            let world = world.clone();
            move || world.push(0).unwrap()
        });
        while world.log().is_empty() {
            world.take_and_run();
            thread::yield_now();
        }
        sender.join().unwrap();
        assert_eq!(world.log(), [1]);
    });
}

#[test]
fn e1_close_returns_what_was_pushed_and_refuses_the_rest() {
    model(|| {
        let world = World::new();
        let sender = thread::spawn({
            let world = world.clone();
            move || world.push(0)
        });
        // SAFETY: 1 — this thread owns the queue.
        unsafe { world.queue.close().run(&world.context()) };
        let pushed = sender.join().unwrap();
        assert_eq!(world.log().len(), usize::from(pushed.is_ok()));
        assert!(world.queue.looks_empty());
    });
}

#[test]
fn calls_of_one_sender_run_in_their_order_and_once() {
    model(|| {
        let world = World::new();
        let sender = thread::spawn({
            let world = world.clone();
            move || [world.push(0).unwrap(), world.push(1).unwrap()]
        });
        world.take_and_run();
        sender.join().unwrap();
        world.take_and_run();
        assert_eq!(world.log(), [1, 2]);
    });
}

#[test]
fn calls_of_two_senders_all_run_once() {
    model(|| {
        let world = World::new();
        let senders = [0, 1].map(|index| {
            let world = world.clone();
            thread::spawn(move || world.push(index).unwrap())
        });
        world.take_and_run();
        for sender in senders {
            sender.join().unwrap();
        }
        world.take_and_run();
        let mut log = world.log();
        log.sort_unstable();
        assert_eq!(log, [1, 2]);
    });
}
