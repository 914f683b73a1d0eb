//! What others register for CPUs that come and go: the order, and the way back.
//!
//! Callbacks are plain functions and stay registered for ever, so their journal is a `static`, and
//! they write only while a case has armed it for one CPU. The system must be alone in its process.

use core::sync::atomic::{AtomicU32, Ordering};

use smpcall::{CpuCallbacks, CpuId, CpuMask, CpuState, HotplugError};

use super::case_list;
use crate::check::{Check, OrFail, ensure, ensure_eq};
use crate::cx::Cx;
use crate::lab::Lab;

case_list! {
    2 HotplugAlone callbacks_run_in_order_up_and_down,
    2 HotplugAlone a_refusing_callback_undoes_those_before_it,
}

/// The CPU that the journal is about, plus one; 0 is none.
static ARMED: AtomicU32 = AtomicU32::new(0);
/// How many entries the journal has.
static USED: AtomicU32 = AtomicU32::new(0);
/// Shall the second subsystem refuse?
static REFUSES: AtomicU32 = AtomicU32::new(0);
const ROOM: usize = 64;
static JOURNAL: [AtomicU32; ROOM] = [const { AtomicU32::new(0) }; ROOM];

/// What happened.
#[derive(Clone, Copy)]
enum Step {
    Prepare,
    Starting,
    Dying,
    Dead,
}

/// Notes a step of a subsystem.
fn note(subsystem: u32, step: Step, cpu: CpuId) {
    // ORDERING: Relaxed — one CPU comes or goes at a time, and the library orders its steps.
    if ARMED.load(Ordering::Relaxed) == cpu.get() + 1 {
        let at = USED.fetch_add(1, Ordering::Relaxed) as usize;
        JOURNAL[at % ROOM].store(10 * subsystem + step as u32, Ordering::Relaxed);
    }
}

static FIRST: CpuCallbacks = CpuCallbacks {
    name: "first",
    prepare: |cpu| {
        note(1, Step::Prepare, cpu);
        Ok(())
    },
    starting: |cpu| note(1, Step::Starting, cpu),
    dying: |cpu| note(1, Step::Dying, cpu),
    dead: |cpu| note(1, Step::Dead, cpu),
};

static SECOND: CpuCallbacks = CpuCallbacks {
    name: "second",
    prepare: |cpu| {
        // ORDERING: Relaxed — set by the case that brings the CPU up.
        let armed = ARMED.load(Ordering::Relaxed) == cpu.get() + 1;
        if armed && REFUSES.load(Ordering::Relaxed) == 1 {
            return Err(-12);
        }
        note(2, Step::Prepare, cpu);
        Ok(())
    },
    starting: |cpu| note(2, Step::Starting, cpu),
    dying: |cpu| note(2, Step::Dying, cpu),
    dead: |cpu| note(2, Step::Dead, cpu),
};

/// Takes the journal: its entries and how many there are.
fn take() -> ([u32; ROOM], usize) {
    // ORDERING: Relaxed — the CPU has come or gone, which the library ordered.
    let used = USED.swap(0, Ordering::Relaxed) as usize;
    (
        core::array::from_fn(|i| JOURNAL[i].load(Ordering::Relaxed)),
        used.min(ROOM),
    )
}

impl<L: Lab<W, D>, const W: usize, const D: usize> Cx<'_, L, W, D> {
    /// Takes the CPU down, with the journal armed for it, and registers the callbacks if this
    /// instance does not have them yet.
    fn arm(&self, cpu: CpuId) -> Check {
        // ORDERING: Relaxed — as `note`.
        REFUSES.store(0, Ordering::Relaxed);
        ARMED.store(cpu.get() + 1, Ordering::Relaxed);
        USED.store(0, Ordering::Relaxed);
        self.smp().cpu_down(cpu).or_fail("cpu_down")?;
        if take().1 == 0 {
            self.smp().register(&FIRST).or_fail("register")?;
            self.smp().register(&SECOND).or_fail("register")?;
        }
        Ok(())
    }

    fn disarm(&self) {
        // ORDERING: Relaxed — as `note`.
        ARMED.store(0, Ordering::Relaxed);
        REFUSES.store(0, Ordering::Relaxed);
    }

    fn journal_is(&self, what: &str, wanted: &[u32]) -> Check {
        let (entries, used) = take();
        ensure_eq!(&entries[..used], wanted, "{what} (subsystem, step)");
        Ok(())
    }

    fn callbacks_run_in_order_up_and_down(&self) -> Check {
        let cpu = self.other(0);
        self.arm(cpu)?;
        for _ in 0..3 {
            self.smp().cpu_up(cpu).or_fail("cpu_up")?;
            self.journal_is("up", &[10, 20, 11, 21])?;
            self.smp().cpu_down(cpu).or_fail("cpu_down")?;
            let (entries, used) = take();
            let steps = |step: u32| entries[..used].iter().filter(|&&e| e % 10 == step).count();
            ensure_eq!(
                (steps(2), steps(3), used),
                (2, 2, 4),
                "dying, dead and all steps"
            );
            let dying_first = entries[..2].iter().all(|e| e % 10 == 2);
            ensure!(
                dying_first,
                "a callback's `dead` ran before another's `dying`"
            );
        }
        self.disarm();
        self.smp().cpu_up(cpu).or_fail("cpu_up")
    }

    /// What the first subsystem prepared is undone; the one that refused had prepared nothing.
    fn a_refusing_callback_undoes_those_before_it(&self) -> Check {
        let cpu = self.other(0);
        self.arm(cpu)?;
        // ORDERING: Relaxed — as `note`.
        REFUSES.store(1, Ordering::Relaxed);
        let refused = self.smp().cpu_up(cpu);
        let state = self.smp().cpu_state(cpu);
        REFUSES.store(0, Ordering::Relaxed);
        let undone = self.journal_is("a refused up", &[10, 13]);
        self.disarm();
        self.smp().cpu_up(cpu).or_fail("cpu_up later")?;
        let wanted = HotplugError::Callback {
            name: "second",
            code: -12,
        };
        ensure_eq!(refused, Err(wanted), "cpu_up");
        ensure_eq!(state, CpuState::Offline, "the state after a refusal");
        undone?;
        ensure!(self.online().contains(cpu), "the CPU did not come up later");
        let ran = self
            .smp()
            .call_many(&CpuMask::of(cpu), |_| ())
            .or_fail("call_many")?;
        ensure_eq!(ran, CpuMask::of(cpu), "CPUs that ran a call afterwards");
        Ok(())
    }
}
