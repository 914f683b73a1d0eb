//! Suite `tlb`, a part of the conformance suite: a shootdown of translations that are really there.
//!
//! A second address space has one page more than the first. Its users, CPUs 0, 1 and 3, load it, read
//! the page, and so hold its translation. Then the page gets another frame. Who is not called still
//! reads the old frame: the first case counts that, and it happens at once in QEMU too, whose TLBs are
//! as private as a processor's and forget only what they are told to, or must for room. The second
//! case calls exactly the users, by a predicate. Two witnesses say that nobody else was interrupted:
//! the others sleep and count what wakes them, and the library's IPIs are one for each user and
//! call. (A few more where a user is slow: who waits beyond the grace rings it again. With one host
//! thread for all CPUs there is none.) From round to round the users go by IPIs that are not the
//! library's, and not in that count.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use smpcall::{CpuId, CpuMask};
use smpcall_metal::raw::{self, Frame};
use smpcall_metal::{Metal, WORDS, println};
use smpcall_torture::Check;

use crate::kernel::SMP;
use crate::suite::{Case, crew, ensure, expect, sleep, wait};

/// The cases.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_stale_translation_is_seen_without_a_call",
        min_cpus: 2,
        run: stale,
    },
    Case {
        name: "a_shootdown_of_exactly_the_users_leaves_none_stale",
        min_cpus: 1,
        run: shot_down,
    },
];

const TRIES: u64 = 1000;

/// What the frames say in their first words.
const SAYS: [u64; 2] = [0x5eed_0000, 0x5eed_1111];
static FRAMES: [Frame; 2] = [frame(SAYS[0]), frame(SAYS[1])];

const fn frame(says: u64) -> Frame {
    let mut words = [const { AtomicU64::new(0) }; 512];
    words[0] = AtomicU64::new(says);
    Frame(words)
}

/// Which round it is: each user reads the page once a round.
static ROUND: AtomicU32 = AtomicU32::new(0);
/// Users that have read in this round, and how many of them read something old.
static READ: AtomicU32 = AtomicU32::new(0);
static STALE: AtomicU32 = AtomicU32::new(0);
/// What a reader should see.
static TRUTH: AtomicU64 = AtomicU64::new(0);
/// No rounds any more.
static OVER: AtomicBool = AtomicBool::new(false);
/// CPUs that have taken their places: users have loaded the address space, the others fall asleep.
static PLACED: AtomicU32 = AtomicU32::new(0);
/// What woke CPUs that are no users.
static WOKEN: AtomicU32 = AtomicU32::new(0);

fn is_user(cpu: CpuId) -> bool {
    matches!(cpu.get(), 0 | 1 | 3)
}

/// What a CPU other than the first does.
fn take_part() {
    if is_user(CpuId::new(raw::current_cpu())) {
        use_page();
    } else {
        sleep_and_count();
    }
}

/// Sleeps, and counts every interrupt before the end.
fn sleep_and_count() {
    let were_on = raw::irq_save();
    // ORDERING: Release and Acquire — as in `use_page`.
    PLACED.fetch_add(1, Ordering::Release);
    loop {
        raw::wait_for_interrupt();
        if OVER.load(Ordering::Acquire) {
            break;
        }
        WOKEN.fetch_add(1, Ordering::Relaxed);
    }
    raw::irq_restore(were_on);
}

/// Reads the page once a round.
fn use_page() {
    raw::page_enter();
    // ORDERING: Acquire and Release, here and below — rounds hand over between the CPUs.
    let mut round = ROUND.load(Ordering::Acquire);
    PLACED.fetch_add(1, Ordering::Release);
    while !OVER.load(Ordering::Acquire) {
        sleep(|| ROUND.load(Ordering::Acquire) != round);
        round = ROUND.load(Ordering::Acquire);
        look();
        READ.fetch_add(1, Ordering::Release);
        raw::send_ipi(0);
    }
    raw::page_leave();
}

/// Reads the page and compares.
fn look() {
    // ORDERING: Relaxed — the round ordered the truth; the counts are read after the round.
    let stale = raw::page_read() != TRUTH.load(Ordering::Relaxed);
    STALE.fetch_add(u32::from(stale), Ordering::Relaxed);
}

/// One round: every user reads, here and elsewhere. How many other CPUs, and did this one, read old?
fn round(remote: u32) -> (u32, bool) {
    // ORDERING: Relaxed — published by the round's number, and read after all have read.
    READ.store(0, Ordering::Relaxed);
    STALE.store(0, Ordering::Relaxed);
    next_round();
    let own = raw::page_read() != TRUTH.load(Ordering::Relaxed);
    sleep(|| READ.load(Ordering::Acquire) == remote);
    (STALE.load(Ordering::Relaxed), own)
}

/// Sends the users into a round.
fn next_round() {
    ROUND.fetch_add(1, Ordering::Release);
    let others = others();
    let users = others.iter().filter(|&cpu| is_user(cpu));
    users.for_each(|cpu| raw::send_ipi(cpu.get()));
}

/// All CPUs but the first.
fn others() -> CpuMask<WORDS> {
    SMP.online_cpus().and_not(&CpuMask::of(CpuId::new(0)))
}

/// Points the page at a frame: what readers should see from now on.
fn point_at(which: usize) {
    raw::page_map(Some(&FRAMES[which]));
    // ORDERING: Relaxed — published by the round's number.
    TRUTH.store(SAYS[which], Ordering::Relaxed);
}

/// The users forget; answers who was called.
fn shoot_down() -> Result<CpuMask<WORDS>, smpcall_torture::Failure> {
    let called = SMP.on_each_cpu_cond(is_user, |_| raw::page_flush());
    expect("on_each_cpu_cond", called)
}

/// Everybody in place, `lead` here as a user, everybody back.
fn with_users(lead: impl FnOnce(u32) -> Check) -> Check {
    let others = others();
    let users = others.iter().filter(|&cpu| is_user(cpu)).count() as u32;
    // ORDERING: Relaxed — the posts publish it.
    OVER.store(false, Ordering::Relaxed);
    PLACED.store(0, Ordering::Relaxed);
    raw::page_build();
    raw::page_enter();
    point_at(0);
    let in_place = || PLACED.load(Ordering::Acquire) == others.len() as u32;
    let led = crew(
        &others,
        take_part,
        || {
            wait("everybody is in place", in_place)?;
            lead(users)
        },
        || {
            // ORDERING: Release — ends the members.
            OVER.store(true, Ordering::Release);
            ROUND.fetch_add(1, Ordering::Release);
            others.iter().for_each(|cpu| raw::send_ipi(cpu.get()));
        },
    );
    raw::page_leave();
    led
}

fn stale() -> Check {
    with_users(|remote| {
        let mut seen = 0;
        for _ in 0..TRIES {
            point_at(0);
            shoot_down()?;
            let (stale, own) = round(remote);
            ensure!(stale == 0 && !own, "stale after a shootdown");
            // On a processor that wants the entry empty in between this is wrong, and so is what
            // follows: no call.
            point_at(1);
            let (stale, _) = round(remote);
            seen += u64::from(stale > 0);
        }
        println!(
            "smpcall: without a call, another CPU read the old frame in {seen} of {TRIES} tries"
        );
        ensure!(seen > 0, "no stale translation in {TRIES} tries");
        Ok(())
    })
}

fn shot_down() -> Check {
    with_users(|remote| {
        shoot_down()?;
        let (start, before) = (raw::now_ns(), Metal::ipis_sent());
        // ORDERING: Relaxed, here and below — a counter; all CPUs have long been in their places.
        WOKEN.store(0, Ordering::Relaxed);
        let users: CpuMask<WORDS> = SMP
            .online_cpus()
            .iter()
            .filter(|&cpu| is_user(cpu))
            .collect();
        for i in 0..TRIES {
            let next = (i % 2) as usize;
            if raw::BREAK_FIRST {
                raw::page_map(None);
            } else {
                point_at(next);
            }
            let called = shoot_down()?;
            if raw::BREAK_FIRST {
                point_at(next);
            }
            ensure!(called == users, "called {called}, not {users}");
            let (stale, own) = round(remote);
            ensure!(
                stale == 0 && !own,
                "{stale} CPUs read the old frame, try {i}"
            );
        }
        let (sent, woken) = (Metal::ipis_sent() - before, WOKEN.load(Ordering::Relaxed));
        let (took, expected) = ((raw::now_ns() - start) / TRIES, u64::from(remote) * TRIES);
        println!(
            "smpcall: {TRIES} shootdowns of {remote} other users: {sent} IPIs, {took} ns each"
        );
        ensure!(woken == 0, "{woken} interrupts of CPUs that are no users");
        ensure!(sent >= expected, "{sent} IPIs, not {expected}");
        ensure!(
            sent <= expected + expected / 10,
            "{sent} IPIs, not {expected}"
        );
        Ok(())
    })
}
