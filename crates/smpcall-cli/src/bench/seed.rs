//! The baseline: the seed's own algorithm on the same two threads.
//!
//! A queue under a lock, a lock flag per descriptor with full barriers on both of its ends, an
//! interrupt only for a queue that was empty (here nothing, for the target polls), a
//! descriptor per source for calls that are not waited for, and the local run after the remote wait.
//! Written from the seed's behaviour, with its pause left out of the waits, as elsewhere here.

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering, fence};

use crate::bench::Contender;
use crate::bench::lab::{Lab, Line, stopped, time_runs};
use crate::bench::limits::{POST_RUNS, POSTS, time_cold};
use crate::bench::ours::{CALLS, RUNS};

/// All rows.
pub(crate) fn all() -> Vec<Contender> {
    let row = |name, limit, block: fn(&Lab) -> Vec<f64>| {
        Contender::new(name, "seed_algorithm", limit, block)
    };
    vec![
        row("call_polling", "one_line", call_polling),
        row("call_polling_cold", "one_line_cold", call_polling_cold),
        row("broadcast_two", "two_lines", broadcast_two),
        row("post", "spsc64", post),
    ]
}

const LOCK: u32 = 1;

/// The seed's `call_single_data`.
#[repr(align(64))]
struct Descriptor {
    next: UnsafeCell<*mut Descriptor>,
    flags: AtomicU32,
    function: UnsafeCell<unsafe fn(*mut ())>,
    argument: UnsafeCell<*mut ()>,
}

impl Descriptor {
    fn new() -> Self {
        Self {
            next: UnsafeCell::new(ptr::null_mut()),
            flags: AtomicU32::new(0),
            function: UnsafeCell::new(|_| ()),
            argument: UnsafeCell::new(ptr::null_mut()),
        }
    }

    /// Waits until it is free, takes it, and fills it.
    fn fill(&self, function: unsafe fn(*mut ()), argument: *mut ()) {
        self.wait();
        // ORDERING: Relaxed — the seed's full barrier follows.
        self.flags.store(LOCK, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // SAFETY: free, and now locked by us: in no queue.
        unsafe { *self.function.get() = function };
        // SAFETY: as above.
        unsafe { *self.argument.get() = argument };
    }

    fn wait(&self) {
        // ORDERING: Acquire — the seed has none here, a defect; without it the result is not visible.
        while self.flags.load(Ordering::Acquire) & LOCK != 0 {}
    }

    /// Runs the function, then frees the descriptor.
    ///
    /// # Safety
    /// 1. It was taken from a queue, and its argument is what its function wants.
    unsafe fn run(&self) {
        // SAFETY: 1.
        let function = unsafe { *self.function.get() };
        // SAFETY: 1.
        let argument = unsafe { *self.argument.get() };
        // SAFETY: 1.
        unsafe { function(argument) };
        fence(Ordering::SeqCst);
        // ORDERING: Release — publishes the result.
        self.flags.store(0, Ordering::Release);
    }
}

/// The seed's `call_single_queue`.
struct Queue {
    lock: Line<AtomicBool>,
    head: AtomicPtr<Descriptor>,
    tail: UnsafeCell<*mut Descriptor>,
}

// SAFETY: the list is used under the lock.
unsafe impl Sync for Queue {}
// SAFETY: as above; what it points to outlives each call.
unsafe impl Send for Queue {}

impl Queue {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lock: Line(AtomicBool::new(false)),
            head: AtomicPtr::new(ptr::null_mut()),
            tail: UnsafeCell::new(ptr::null_mut()),
        })
    }

    fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        // ORDERING: Acquire and Release — a lock.
        while self.lock.0.swap(true, Ordering::Acquire) {}
        let result = f();
        self.lock.0.store(false, Ordering::Release);
        result
    }

    /// Puts a filled descriptor at the end; answers whether an interrupt is due.
    ///
    /// # Safety
    /// 1. The descriptor is in no queue and stays until it is free again.
    unsafe fn push(&self, descriptor: &Descriptor) -> bool {
        let new = ptr::from_ref(descriptor).cast_mut();
        self.locked(|| {
            // SAFETY: 1 — in no queue: ours.
            unsafe { *descriptor.next.get() = ptr::null_mut() };
            // ORDERING: Relaxed — under the lock.
            let was_empty = self.head.load(Ordering::Relaxed).is_null();
            if was_empty {
                // ORDERING: Relaxed — the target looks at it without the lock as a hint only.
                self.head.store(new, Ordering::Relaxed);
            } else {
                // SAFETY: under the lock.
                let tail = unsafe { *self.tail.get() };
                // SAFETY: the tail is in the queue, so it is alive.
                let tail = unsafe { &*tail };
                // SAFETY: under the lock.
                unsafe { *tail.next.get() = new };
            }
            // SAFETY: under the lock.
            unsafe { *self.tail.get() = new };
            was_empty
        })
    }

    /// The interrupt: takes the list, and runs it.
    fn drain(&self) {
        // ORDERING: Relaxed — a hint: nothing to do.
        if self.head.load(Ordering::Relaxed).is_null() {
            return;
        }
        // ORDERING: Relaxed — under the lock.
        let mut next = self.locked(|| self.head.swap(ptr::null_mut(), Ordering::Relaxed));
        while !next.is_null() {
            // SAFETY: queued, so alive until it is freed below.
            let descriptor = unsafe { &*next };
            // SAFETY: as above; taken from the queue: ours.
            next = unsafe { *descriptor.next.get() };
            // SAFETY: 1 — taken, once.
            unsafe { descriptor.run() };
        }
    }
}

/// A closure and its result, on the caller's stack.
struct Errand<F, R> {
    closure: Option<F>,
    result: Option<R>,
}

/// Runs an [`Errand`].
///
/// # Safety
/// 1. The argument is an `Errand<F, R>` that nobody else uses.
unsafe fn run_errand<F: FnOnce() -> R, R>(argument: *mut ()) {
    // SAFETY: 1.
    let errand = unsafe { &mut *argument.cast::<Errand<F, R>>() };
    errand.result = errand.closure.take().map(|closure| closure());
}

/// `smp_call_function_single` with `wait`.
fn call<F: FnOnce() -> R, R>(queue: &Queue, closure: F) -> Option<R> {
    let mut errand = Errand {
        closure: Some(closure),
        result: None,
    };
    let descriptor = Descriptor::new();
    descriptor.fill(run_errand::<F, R>, (&raw mut errand).cast());
    // SAFETY: 1 — new, and waited for.
    unsafe { queue.push(&descriptor) };
    descriptor.wait();
    errand.result
}

/// Lets the responder poll the queue while `ask` runs.
fn with_target<R>(lab: &Lab, ask: impl FnOnce(&Queue) -> R) -> R {
    let queue = Queue::new();
    let theirs = Arc::clone(&queue);
    let answer = move |stop: &AtomicBool| {
        while !stopped(stop) {
            theirs.drain();
        }
    };
    lab.duet(answer, || ask(&queue))
}

fn checked_call(queue: &Queue, i: u64) {
    assert_eq!(
        call(queue, move || black_box(i) + 1),
        Some(i + 1),
        "the result comes back"
    );
}

fn call_polling(lab: &Lab) -> Vec<f64> {
    with_target(lab, |queue| {
        time_runs(RUNS, CALLS, |i| checked_call(queue, i))
    })
}

fn call_polling_cold(lab: &Lab) -> Vec<f64> {
    with_target(lab, |queue| time_cold(lab, |i| checked_call(queue, i)))
}

/// `on_each_cpu`: remote first, and waited for, then the local run.
fn broadcast_two(lab: &Lab) -> Vec<f64> {
    with_target(lab, |queue| {
        time_runs(RUNS, CALLS, |i| {
            let f = || {
                black_box(i);
            };
            call(queue, f);
            f();
        })
    })
}

/// Words for the one descriptor that a source has for calls it does not wait for.
///
/// # Safety
/// 1. The argument is a `[u64; 3]` that nobody writes.
unsafe fn run_words(argument: *mut ()) {
    // SAFETY: 1.
    black_box(unsafe { *argument.cast::<[u64; 3]>() });
}

/// `smp_call_function_single` without `wait`: the next one waits until this one ran.
fn post(lab: &Lab) -> Vec<f64> {
    with_target(lab, |queue| {
        let descriptor = Descriptor::new();
        let mut words = [0; 3];
        let runs = time_runs(POST_RUNS, 1, |_| {
            for i in 0..POSTS {
                descriptor.wait();
                words = [i, i, i];
                descriptor.fill(run_words, (&raw mut words).cast());
                // SAFETY: 1 — free until just now, and waited for below.
                unsafe { queue.push(&descriptor) };
            }
            descriptor.wait();
        });
        runs.into_iter().map(|run| run / POSTS as f64).collect()
    })
}
