//! Suite `hotplug`: a CPU that leaves and comes back a thousand times under fire, and one that never
//! comes.
//!
//! The boot CPU takes CPU 1 down and up; all others call it, post to it, and broadcast, from their
//! task context, without a pause. Each function counts itself, and each operation says how many it
//! was promised: at the end the sums must be equal. `cycles=N` on the command line is another number.
//! `absent=N` is a CPU that the ports add to those that exist: an APIC id that nobody has, an MPIDR
//! that PSCI refuses, a hart that OpenSBI does not know.

use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use smpcall::{CallError, CpuId, CpuMask, CpuState, Csd, HotplugError, Platform, Refused};
use smpcall_metal::{MAX_CPUS, Metal, WORDS, println, raw};
use smpcall_torture::Check;

use crate::kernel::{SMP, number};
use crate::suite::{Case, crew, ensure, expect};

/// The cases: the second only if the command line names a CPU that is not there.
pub(crate) fn cases() -> &'static [Case] {
    let all = number("absent").is_some();
    if all { CASES } else { &CASES[..1] }
}

const CASES: &[Case] = &[
    Case {
        name: "a_cpu_comes_and_goes_under_fire",
        min_cpus: 2,
        run: under_fire,
    },
    Case {
        name: "a_cpu_that_never_comes_is_reported_and_rolled_back",
        min_cpus: 1,
        run: never_comes,
    },
];

/// How often the CPU goes, unless the command line says otherwise.
const CYCLES: u64 = 1000;
/// The CPU that goes.
const VICTIM: CpuId = CpuId::new(1);

static STOP: AtomicBool = AtomicBool::new(false);
/// Functions that were promised to run, and those that did.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);
static RAN: AtomicU64 = AtomicU64::new(0);

/// Every function that is called here.
fn ran() {
    // ORDERING: Relaxed — a counter; the calls order what is compared.
    RAN.fetch_add(1, Ordering::Relaxed);
}

fn accept(n: usize) {
    // ORDERING: Relaxed — a counter; read when everybody has ended.
    ACCEPTED.fetch_add(n as u64, Ordering::Relaxed);
}

/// One operation of each kind in turn. A refusal is fine: the CPU is not there, or its lane is full.
fn fire(turn: u64) {
    static CSDS: [Csd<fn()>; MAX_CPUS] = [const { Csd::new(ran as fn()) }; MAX_CPUS];
    let all = SMP.possible_cpus();
    let promised = match turn % 6 {
        0 => usize::from(SMP.call(VICTIM, ran).is_ok()),
        1 => usize::from(SMP.post(VICTIM, ran).is_ok()),
        2 => SMP.on_each_cpu(|_| ran()).map_or(0, |cpus| cpus.len()),
        3 => match SMP.post_many(&all, |_| ran()) {
            Ok(cpus) => cpus.len(),
            Err(error) => error.posted.len(),
        },
        4 => {
            let csd = Pin::static_ref(&CSDS[raw::current_cpu() as usize]);
            usize::from(SMP.post_csd(VICTIM, csd).is_ok())
        }
        _ => SMP.call_many(&all, |_| ran()).map_or(0, |cpus| cpus.len()),
    };
    accept(promised);
}

/// What the other CPUs do.
fn fire_until_stopped() {
    let mut turn = u64::from(raw::current_cpu());
    // ORDERING: Relaxed — says when to end.
    while !STOP.load(Ordering::Relaxed) {
        fire(turn);
        raw::relax();
        turn += 1;
    }
}

fn under_fire() -> Check {
    let before = SMP.online_cpus();
    let gunners = before.and_not(&[CpuId::new(0), VICTIM].into_iter().collect());
    let cycles = number("cycles").unwrap_or(CYCLES);
    STOP.store(false, Ordering::Relaxed);
    let start = raw::now_ns();
    crew(
        &gunners,
        fire_until_stopped,
        || (0..cycles).try_for_each(cycle),
        // ORDERING: Relaxed — as above.
        || STOP.store(true, Ordering::Relaxed),
    )?;
    for cpu in &before {
        expect("flush", SMP.flush(cpu))?;
    }
    ensure!(SMP.online_cpus() == before, "not all are back");
    let (accepted, ran) = (
        ACCEPTED.load(Ordering::Relaxed),
        RAN.load(Ordering::Relaxed),
    );
    println!(
        "smpcall: CPU {VICTIM} went and came back {cycles} times in {} ms; {accepted} calls were accepted, {ran} ran",
        (raw::now_ns() - start) / 1_000_000
    );
    ensure!(accepted == ran, "{accepted} calls were accepted, {ran} ran");
    Ok(())
}

/// Down and up, with operations before, between and after.
fn cycle(turn: u64) -> Check {
    if turn % 100 == 99 {
        println!("smpcall: cycle {}", turn + 1);
    }
    (0..3).for_each(|i| fire(3 * turn + i));
    expect("cpu_down", SMP.cpu_down(VICTIM))?;
    let state = SMP.cpu_state(VICTIM);
    ensure!(state == CpuState::Offline, "it is {state:?} after cpu_down");
    refused(VICTIM)?;
    fire(2 + turn % 2);
    expect("cpu_up", SMP.cpu_up(VICTIM))?;
    expect(
        "call",
        SMP.call(VICTIM, || ()).map_err(|refused| refused.error),
    )
}

/// A call to a CPU that is not there.
fn refused(cpu: CpuId) -> Check {
    match SMP.call(cpu, || ()) {
        Err(Refused {
            error: CallError::Offline { .. },
            ..
        }) => Ok(()),
        other => {
            let other = other.map_err(|refused| refused.error);
            ensure!(false, "a call to an offline CPU: {other:?}");
            Ok(())
        }
    }
}

fn never_comes() -> Check {
    let last = expect(
        "a last CPU",
        SMP.present_cpus().last().ok_or("there is none"),
    )?;
    let online = SMP.online_cpus();
    for _ in 0..2 {
        ensure!(!online.contains(last), "CPU {last} is online");
        let start = raw::now_ns();
        let answer = SMP.cpu_up(last);
        let took = raw::now_ns() - start;
        println!(
            "smpcall: CPU {last}, absent: {answer:?} after {} us",
            took / 1000
        );
        let refused = matches!(answer, Err(HotplugError::Timeout | HotplugError::Start(_)));
        ensure!(refused, "cpu_up of an absent CPU: {answer:?}");
        ensure!(took < 2 * Metal::HOTPLUG_TIMEOUT_NS, "it took {took} ns");
        let state = SMP.cpu_state(last);
        ensure!(state == CpuState::Offline, "it is {state:?} afterwards");
        self::refused(last)?;
        let ran: CpuMask<WORDS> = expect("on_each_cpu", SMP.on_each_cpu(|_| ()))?;
        ensure!(ran == online, "ran on {ran}, not {online}");
    }
    if online.contains(VICTIM) {
        expect("cpu_down of another", SMP.cpu_down(VICTIM))?;
        expect("cpu_up of another", SMP.cpu_up(VICTIM))?;
    }
    Ok(())
}
