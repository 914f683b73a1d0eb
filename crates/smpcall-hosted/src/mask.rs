//! The soft interrupt mask of a thread: "interrupts off" without a system call.
//!
//! Two words of the thread, which its own signal handler looks at too. A signal that arrives while
//! interrupts are off is only noted; whoever turns them on again serves it. So a masked region costs
//! two stores and a load, where a signal mask costs two system calls.
//!
//! ```text
//!         (1) save, thread                    (3) interrupt, handler
//!   ON ────────────────────▶ OFF ──────────────────────────────────▶ OFF, noted
//!   ▲ └─(4) interrupt, handler: serves, with interrupts off            │
//!   ├───── (2) restore, thread ───── OFF                               │
//!   └───── (5) restore, thread: serves, until nothing is noted ◀───────┘
//! ```
//!
//! Everything happens on one thread, so program order is the order, for the handler too, and compiler
//! fences keep it (E71). What matters is that (2) turns interrupts on first and looks for a note
//! afterwards: the other way round a signal between the two would be noted and never served.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

/// One thread's words.
#[derive(Debug)]
pub(crate) struct SoftMask {
    on: AtomicBool,
    noted: AtomicBool,
}

impl SoftMask {
    /// Interrupts are on.
    pub(crate) const fn new() -> Self {
        Self {
            on: AtomicBool::new(true),
            noted: AtomicBool::new(false),
        }
    }

    /// Are interrupts on?
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        // ORDERING: Relaxed — the thread's own word (E71).
        self.on.load(Ordering::Relaxed)
    }

    /// Turns interrupts off: (1). Answers whether they were on.
    #[inline]
    pub(crate) fn save(&self) -> bool {
        let were_on = self.is_on();
        preempted_here();
        // ORDERING: Relaxed — the thread's own word; the fence keeps the region behind it (E71).
        self.on.store(false, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        preempted_here();
        were_on
    }

    /// Turns interrupts on, then serves what was noted meanwhile: (2), (5).
    #[inline]
    pub(crate) fn restore(&self, serve: impl Fn()) {
        compiler_fence(Ordering::SeqCst);
        // ORDERING: Relaxed — as `save`; the fences keep the region before it and the look behind it.
        self.on.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        preempted_here();
        // ORDERING: Relaxed — written on this thread (E71).
        if self.noted.load(Ordering::Relaxed) {
            self.serve_noted(serve);
        }
    }

    /// The signal's handler: serves, or notes for later: (3), (4).
    pub(crate) fn interrupt(&self, serve: impl Fn()) {
        if self.is_on() {
            self.serve_noted(serve);
        } else {
            // ORDERING: Relaxed — read on this thread (E71).
            self.noted.store(true, Ordering::Relaxed);
        }
    }

    /// Serves with interrupts off, again for what is noted meanwhile; interrupts are on before and
    /// after.
    #[cold]
    fn serve_noted(&self, serve: impl Fn()) {
        loop {
            self.save();
            // ORDERING: Relaxed — the thread's own word. Before serving: what is noted from here on
            // may come too late for this turn.
            self.noted.store(false, Ordering::Relaxed);
            preempted_here();
            serve();
            preempted_here();
            compiler_fence(Ordering::SeqCst);
            // ORDERING: Relaxed — as `restore`.
            self.on.store(true, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            preempted_here();
            // ORDERING: Relaxed — as `restore`.
            if !self.noted.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// In the tests of this file: a place where a signal may arrive.
#[inline(always)]
fn preempted_here() {
    #[cfg(test)]
    tests::step();
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    //! Every way in which up to two signals may interrupt a masked region, tried one by one.

    use std::cell::Cell;

    use super::SoftMask;

    thread_local! {
        static WORLD: Cell<Option<&'static World>> = const { Cell::new(None) };
    }

    /// A thread, and what was asked of it.
    struct World {
        mask: SoftMask,
        /// How many steps until each of the signals arrives.
        signals: [Cell<Option<u32>>; 2],
        /// Calls that were sent and have not run.
        pending: Cell<u32>,
        ran: Cell<u32>,
        serving: Cell<bool>,
        /// Inside the region that must not be interrupted.
        masked: Cell<bool>,
        in_handler: Cell<u32>,
    }

    impl World {
        fn serve(&self) {
            assert!(!self.masked.get(), "served inside a masked region");
            assert!(!self.serving.replace(true), "served while serving");
            assert!(!self.mask.is_on(), "served with interrupts off");
            self.ran.set(self.ran.get() + self.pending.replace(0));
            step();
            self.serving.set(false);
        }

        /// Sends a call and raises the signal.
        fn signal(&self) {
            self.pending.set(self.pending.get() + 1);
            self.in_handler.set(self.in_handler.get() + 1);
            self.mask.interrupt(|| self.serve());
            self.in_handler.set(self.in_handler.get() - 1);
        }
    }

    /// A place where a signal may arrive; a handler is interrupted by no second signal of its kind.
    pub(super) fn step() {
        let Some(world) = WORLD.get() else { return };
        if world.in_handler.get() > 0 {
            return;
        }
        for signal in &world.signals {
            match signal.get() {
                Some(0) => {
                    signal.set(None);
                    world.signal();
                }
                left => signal.set(left.map(|left| left - 1)),
            }
        }
    }

    /// Two nested masked regions and some open code, with signals after so many steps.
    fn run(first: u32, second: u32) -> bool {
        let world: &'static World = Box::leak(Box::new(World {
            mask: SoftMask::new(),
            signals: [Cell::new(Some(first)), Cell::new(Some(second))],
            pending: Cell::new(0),
            ran: Cell::new(0),
            serving: Cell::new(false),
            masked: Cell::new(false),
            in_handler: Cell::new(0),
        }));
        WORLD.set(Some(world));
        step();
        let outer = world.mask.save();
        assert!(outer);
        world.masked.set(true);
        step();
        let inner = world.mask.save();
        assert!(!inner);
        step();
        world.masked.set(false);
        world.mask.restore(|| world.serve());
        step();
        WORLD.set(None);
        let sent = world.signals.iter().filter(|signal| signal.get().is_none());
        let sent = sent.count() as u32;
        assert_eq!((world.ran.get(), world.pending.get()), (sent, 0));
        assert!(world.mask.is_on());
        sent == 2
    }

    #[test]
    fn a_signal_at_any_step_is_served_once_and_never_inside_the_region() {
        let mut both_arrived = 0;
        for first in 0..40 {
            for second in 0..40 {
                both_arrived += u32::from(run(first, second));
            }
        }
        assert!(both_arrived >= 100, "{both_arrived} orders were tried");
    }
}
