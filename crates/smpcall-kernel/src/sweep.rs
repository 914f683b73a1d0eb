//! Suite `sweep`: interrupts at every instruction of the send paths.
//!
//! For QEMU with `-icount` and one instruction a translation block. A timer is set to fire one
//! instruction later each time while a path runs: a call, a post, a descriptor, a broadcast. Its
//! handler posts to the same CPU, and tries a waited call, which must be refused by name. Each
//! time, everything that was accepted must have run once. The addresses that were interrupted are
//! said at the end of each path, in lines `places PATH: ...`; `cargo xtask sweep` compares them with a
//! trace of the same image with `sweep=trace`, in which each path runs once between two marks, and
//! no timer is set.
//!
//! One pass over a path leaves gaps: QEMU gives each CPU its share of the time to the next timer, so where
//! CPU 0 stands when the timer fires depends on how far ahead it was set. The passes differ in that,
//! by the length of a loop before the path and by how long the other CPU makes its caller wait, and end
//! when some in a row found nothing new. `sweep_run=N` makes the passes of the Nth run, which are others.
//!
//! Where the timer is coarse (riscv64: a tick is 100 instructions), it is set at the beginning of a tick,
//! and the loop before the path does the rest.

use core::hint::black_box;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, Csd};
use smpcall_metal::{println, raw};
use smpcall_torture::{Check, Failure};

use crate::kernel::{SMP, number, option};
use crate::suite::{Case, ensure, expect, wait};

/// The cases.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_call_may_be_interrupted_anywhere",
        min_cpus: 2,
        run: || sweep("call", call),
    },
    Case {
        name: "a_post_may_be_interrupted_anywhere",
        min_cpus: 2,
        run: || sweep("post", post),
    },
    Case {
        name: "a_posted_descriptor_may_be_interrupted_anywhere",
        min_cpus: 2,
        run: || sweep("post_csd", post_csd),
    },
    Case {
        name: "a_broadcast_may_be_interrupted_anywhere",
        min_cpus: 2,
        run: || sweep("on_each_cpu", broadcast),
    },
    Case {
        name: "a_posted_broadcast_may_be_interrupted_anywhere",
        min_cpus: 2,
        run: || sweep("post_many", post_many),
    },
];

/// Who is called.
const TARGET: CpuId = CpuId::new(1);
/// Instructions of a timer's tick, under `-icount shift=0`.
const GRAIN: u32 = if matches!(raw::NAME.as_bytes(), b"riscv64") {
    100
} else {
    1
};
/// A path is over when the timer has come too late so many times in a row.
const TOO_LATE: u32 = 64;
/// How far the timer is set at most, in instructions, and the step from one early stroke to the next.
const FARTHEST: u32 = 30_000;
const STEP: u32 = 16;
/// Passes that find nothing new before the sweep ends, passes at most, and how many instructions
/// further ahead the timer is set in each; the sum begins anew at a bound.
const IDLE_PASSES: u32 = 3;
const PASSES: u32 = 16;
const PASS_PAD: u32 = 29;
const MOST_PAD: u32 = 900;
/// How many instructions a called function takes, so that its caller waits: so many, twice and three times
/// as many by turns, and one more in each pass.
const LONG: u32 = 500;

/// Functions that were promised to run, and those that did.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);
static RAN: AtomicU64 = AtomicU64::new(0);
/// The timer fired.
static FIRED: AtomicU32 = AtomicU32::new(0);
/// Between the marks; and whether the timer struck there in this round.
static INSIDE: AtomicBool = AtomicBool::new(false);
static STRUCK: AtomicBool = AtomicBool::new(false);
/// The timer strikes for the sweep.
static ACTIVE: AtomicBool = AtomicBool::new(false);
/// How many instructions a function takes on the CPU that is called.
static DAWDLE: AtomicU32 = AtomicU32::new(0);
/// The timer's handler saw something wrong.
static WRONG: AtomicU32 = AtomicU32::new(0);

/// The addresses that were interrupted: a hash table, 0 is free.
static PLACES: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];

// ORDERING: Relaxed, on everything above — CPU 0 and its own interrupt handler; what CPU 1 counts is
// compared after a flush.

fn ran() {
    if raw::current_cpu() == TARGET.get() {
        linger(DAWDLE.load(Ordering::Relaxed));
    }
    RAN.fetch_add(1, Ordering::Relaxed);
}

fn accept(n: usize) {
    ACCEPTED.fetch_add(n as u64, Ordering::Relaxed);
}

fn call() {
    accept(usize::from(SMP.call(TARGET, ran).is_ok()));
}

fn post() {
    accept(usize::from(SMP.post(TARGET, ran).is_ok()));
}

fn post_csd() {
    static CSD: Csd<fn()> = Csd::new(ran as fn());
    accept(usize::from(
        SMP.post_csd(TARGET, Pin::static_ref(&CSD)).is_ok(),
    ));
}

fn broadcast() {
    accept(SMP.on_each_cpu(|_| ran()).map_or(0, |cpus| cpus.len()));
}

fn post_many() {
    let all = SMP.possible_cpus();
    accept(match SMP.post_many(&all, |_| ran()) {
        Ok(cpus) => cpus.len(),
        Err(error) => error.posted.len(),
    });
}

/// The timer's interrupt, at `pc`.
pub(crate) fn on_timer(pc: u64) {
    if !ACTIVE.load(Ordering::Relaxed) {
        return;
    }
    FIRED.fetch_add(1, Ordering::Relaxed);
    if INSIDE.load(Ordering::Relaxed) {
        STRUCK.store(true, Ordering::Relaxed);
        note(pc);
    }
    accept(usize::from(SMP.post(TARGET, ran).is_ok()));
    let refused = SMP.call(TARGET, ran).map_err(|refused| refused.error);
    if !matches!(
        refused,
        Err(CallError::InterruptsOff | CallError::InHandler)
    ) {
        WRONG.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keeps an address.
fn note(pc: u64) {
    let start = pc as usize / 2;
    for i in 0..PLACES.len() {
        let slot = &PLACES[(start + i) % PLACES.len()];
        match slot.load(Ordering::Relaxed) {
            0 => return slot.store(pc, Ordering::Relaxed),
            other if other == pc => return,
            _ => {}
        }
    }
}

/// The marks, which a trace shows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn smpcall_sweep_begin() {
    INSIDE.store(true, Ordering::Relaxed);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn smpcall_sweep_end() {
    INSIDE.store(false, Ordering::Relaxed);
}

/// Takes about so many instructions: a turn of the loop is four.
#[inline(never)]
fn linger(instructions: u32) {
    for _ in 0..instructions / 4 {
        // SAFETY: 1. It does nothing.
        unsafe { core::arch::asm!("nop", "nop", options(nomem, nostack, preserves_flags)) };
    }
    for _ in 0..instructions % 4 {
        // SAFETY: 1. It does nothing, in one instruction, whatever the loop around it takes.
        unsafe { core::arch::asm!("nop", options(nomem, nostack, preserves_flags)) };
    }
}

/// The path between its marks, after about so many instructions. One copy of it, for the trace and the sweep.
#[inline(never)]
fn run(path: fn(), pad: u32) {
    linger(pad);
    smpcall_sweep_begin();
    black_box(path)();
    smpcall_sweep_end();
}

fn sweep(name: &str, path: fn()) -> Check {
    run(path, 0);
    settle()?;
    if option("sweep") == Some("trace") {
        run(path, 0);
        return settle();
    }
    PLACES
        .iter()
        .for_each(|place| place.store(0, Ordering::Relaxed));
    ACTIVE.store(true, Ordering::Relaxed);
    let rounds = passes(path);
    ACTIVE.store(false, Ordering::Relaxed);
    println!(
        "smpcall: {name}: {} timers, at {} places",
        rounds?,
        places()
    );
    say_places(name);
    Ok(())
}

/// When the timer struck.
#[derive(PartialEq, Eq)]
enum Stroke {
    /// Before the path began.
    Early,
    /// In it.
    Inside,
    /// After it was over.
    Late,
}

/// How many addresses were interrupted.
fn places() -> usize {
    let used = |place: &&AtomicU64| place.load(Ordering::Relaxed) != 0;
    PLACES.iter().filter(used).count()
}

/// Passes until some in a row found nothing new; how many timers fired.
fn passes(path: fn()) -> Result<u32, Failure> {
    let (mut timers, mut idle_passes) = (0, 0);
    // Another run makes other passes.
    let first = number("sweep_run").unwrap_or(0) as u32 * PASSES;
    for turn in first..first + PASSES {
        let before = places();
        DAWDLE.store(turn % 4 * LONG + turn, Ordering::Relaxed);
        timers += pass(path, turn * PASS_PAD % MOST_PAD)?;
        idle_passes = if places() == before {
            idle_passes + 1
        } else {
            0
        };
        if idle_passes == IDLE_PASSES {
            break;
        }
    }
    Ok(timers)
}

/// The timer fires one instruction later each round, from before the path until it comes too late.
fn pass(path: fn(), pad: u32) -> Result<u32, Failure> {
    let (mut after, mut step, mut late, mut rounds) = (pad + 1, STEP, 0, 0);
    while late < TOO_LATE {
        ensure!(
            after < FARTHEST,
            "the path does not end within {FARTHEST} instructions"
        );
        let stroke = strike(path, after, pad)?;
        rounds += 1;
        late = if stroke == Stroke::Late { late + 1 } else { 0 };
        if step > 1 && stroke != Stroke::Early {
            // The path began within the last step.
            (after, step, late) = (after.saturating_sub(STEP), 1, 0);
        }
        after += step;
    }
    Ok(rounds)
}

/// One round: when the timer struck, that was set so many instructions ahead, so many before the path.
fn strike(path: fn(), after: u32, pad: u32) -> Result<Stroke, Failure> {
    let before = FIRED.load(Ordering::Relaxed);
    STRUCK.store(false, Ordering::Relaxed);
    let ticks = after.div_ceil(GRAIN);
    if GRAIN > 1 {
        let now = raw::cycles();
        while raw::cycles() == now {}
    }
    raw::interrupt_after(u64::from(ticks));
    run(path, pad + ticks * GRAIN - after);
    let in_time = FIRED.load(Ordering::Relaxed) != before;
    wait("the timer", || FIRED.load(Ordering::Relaxed) != before)?;
    settle()?;
    let fired = FIRED.load(Ordering::Relaxed) - before;
    ensure!(fired == 1, "{fired} interrupts of a one-shot timer");
    let wrong = WRONG.load(Ordering::Relaxed);
    ensure!(wrong == 0, "a handler's waited call was not refused");
    Ok(match (STRUCK.load(Ordering::Relaxed), in_time) {
        (true, _) => Stroke::Inside,
        (false, true) => Stroke::Early,
        (false, false) => Stroke::Late,
    })
}

/// Everything that was accepted has run, once.
fn settle() -> Check {
    for cpu in &SMP.online_cpus() {
        expect("flush", SMP.flush(cpu))?;
    }
    let (accepted, ran) = (
        ACCEPTED.load(Ordering::Relaxed),
        RAN.load(Ordering::Relaxed),
    );
    ensure!(accepted == ran, "{accepted} were accepted, {ran} ran");
    Ok(())
}

/// The addresses, a few a line.
fn say_places(name: &str) {
    struct Few<'a>(&'a [u64]);
    impl core::fmt::Display for Few<'_> {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            self.0.iter().try_for_each(|pc| write!(f, " {pc:x}"))
        }
    }
    let mut few = [0; 12];
    let mut used = 0;
    for place in &PLACES {
        let pc = place.load(Ordering::Relaxed);
        if pc != 0 {
            few[used] = pc;
            used += 1;
        }
        if used == few.len() {
            println!("smpcall: places {name}:{}", Few(&few));
            used = 0;
        }
    }
    println!("smpcall: places {name}:{}", Few(&few[..used]));
}
