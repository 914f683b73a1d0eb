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
//! by the length of a loop before the path, and end when two in a row found nothing new.
//!
//! Where the timer is coarse (riscv64: a tick is 100 instructions), the path is moved instead, to
//! and fro under the timer's stroke: by the length of a loop before it.

use core::hint::black_box;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, Csd};
use smpcall_metal::{println, raw};
use smpcall_torture::{Check, Failure};

use crate::kernel::{SMP, option};
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
/// A path is over when the timer has come too late so many times in a row. The first rounds are
/// early: the timer fires before the path begins.
const TOO_LATE: u32 = 64;
/// Rounds of a pass at most, where the timer is as fine as an instruction; passes at most, and how many
/// instructions further ahead the timer is set in each. Rounds where it is coarse.
const ROUNDS: u32 = 5000;
const PASSES: u32 = 16;
const PASS_PAD: u32 = 29;
const COARSE_ROUNDS: u32 = 4000;
/// The timer's ticks, where it is coarse, and the longest way before the path, in instructions: what
/// the ticks are long, of which arming the timer takes a part.
const COARSE_TICKS: u64 = 24;
const COARSE_PAD: u32 = 2400;

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
/// The timer's handler saw something wrong.
static WRONG: AtomicU32 = AtomicU32::new(0);

/// The addresses that were interrupted: a hash table, 0 is free.
static PLACES: [AtomicU64; 4096] = [const { AtomicU64::new(0) }; 4096];

// ORDERING: Relaxed, on everything above — CPU 0 and its own interrupt handler; what CPU 1 counts is
// compared after a flush.

fn ran() {
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

/// The path between its marks, after about so many instructions: a turn of the loop is four.
#[inline(never)]
fn run(path: fn(), pad: u32) {
    for _ in 0..pad / 4 {
        // SAFETY: 1. It does nothing.
        unsafe { core::arch::asm!("nop", "nop", options(nomem, nostack, preserves_flags)) };
    }
    for _ in 0..pad % 4 {
        // SAFETY: 1. It does nothing, in one instruction, whatever the loop around it takes.
        unsafe { core::arch::asm!("nop", options(nomem, nostack, preserves_flags)) };
    }
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
    let rounds = if raw::NAME == "riscv64" {
        coarse(path)
    } else {
        fine(path)
    };
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

/// Passes until two in a row found nothing new; how many timers fired.
fn fine(path: fn()) -> Result<u32, Failure> {
    let (mut timers, mut idle_passes) = (0, 0);
    for pad in (0..PASSES).map(|pass| pass * PASS_PAD) {
        let before = places();
        timers += pass(path, pad)?;
        idle_passes = if places() == before {
            idle_passes + 1
        } else {
            0
        };
        if idle_passes == 2 {
            break;
        }
    }
    Ok(timers)
}

/// The timer fires one instruction later each round, until it comes too late.
fn pass(path: fn(), pad: u32) -> Result<u32, Failure> {
    let mut late = 0;
    for round in 1..ROUNDS {
        late = match strike(path, u64::from(pad + round), pad)? {
            Stroke::Late => late + 1,
            _ => 0,
        };
        if late >= TOO_LATE {
            return Ok(round);
        }
    }
    ensure!(false, "the path does not end within {ROUNDS} instructions");
    Ok(ROUNDS)
}

/// The path begins later each round until the timer comes too early, then earlier until it is late.
fn coarse(path: fn()) -> Result<u32, Failure> {
    let (mut pad, mut later) = (COARSE_PAD / 2, true);
    for _ in 0..COARSE_ROUNDS {
        // One instruction at a time while it is inside, so that none is left out.
        let step = match strike(path, COARSE_TICKS, pad)? {
            Stroke::Early => {
                later = false;
                7
            }
            Stroke::Late => {
                later = true;
                7
            }
            Stroke::Inside => 1,
        };
        pad = if later {
            pad + step
        } else {
            pad.saturating_sub(step)
        };
        ensure!(pad < COARSE_PAD, "the timer never comes");
    }
    Ok(COARSE_ROUNDS)
}

/// One round: when the timer struck.
fn strike(path: fn(), ticks: u64, pad: u32) -> Result<Stroke, Failure> {
    let before = FIRED.load(Ordering::Relaxed);
    STRUCK.store(false, Ordering::Relaxed);
    raw::interrupt_after(ticks);
    run(path, pad);
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
