//! The process-wide barrier: a protocol that fails without it, by each means, and how it differs
//! from a kick.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use smpcall_hosted::{
    BarrierMeans, CpuId, process_barrier, process_barrier_by, process_barrier_light,
};

#[path = "support/bed.rs"]
mod bed;

use bed::Bed;

/// Keeps two words out of each other's cache line.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

/// Two sides that each say that they are there, then look for the other: in every round one at least
/// must see the other.
#[derive(Default)]
struct Duel {
    round: Line<AtomicU64>,
    frequent: Line<AtomicU64>,
    rare: Line<AtomicU64>,
    /// The round that the frequent side has finished, and whether it saw the other, as the lowest bit.
    finished: Line<AtomicU64>,
}

/// Says that the duel is over.
const OVER: u64 = u64::MAX;

/// Spins until the word says something that passes, giving the processor away now and then.
fn await_word(word: &AtomicU64, passes: impl Fn(u64) -> bool) -> u64 {
    for turn in 1.. {
        let value = word.load(Ordering::Acquire);
        if passes(value) {
            return value;
        }
        if turn % 2_000 == 0 {
            thread::yield_now();
        }
    }
    unreachable!("the loop has no end")
}

impl Duel {
    fn frequent_side(&self) {
        let mut last = 0;
        loop {
            let round = await_word(&self.round.0, |round| round != last);
            if round == OVER {
                return;
            }
            self.frequent.0.store(round, Ordering::Relaxed);
            process_barrier_light();
            let seen = self.rare.0.load(Ordering::Relaxed) == round;
            let finished = round << 1 | u64::from(seen);
            self.finished.0.store(finished, Ordering::Release);
            last = round;
        }
    }

    /// Answers whether both missed each other.
    fn rare_side(&self, round: u64, barrier: &impl Fn()) -> bool {
        self.round.0.store(round, Ordering::Release);
        // Meets the other at another moment each time.
        (0..round % 6).for_each(|_| std::hint::spin_loop());
        self.rare.0.store(round, Ordering::Relaxed);
        barrier();
        let seen = self.frequent.0.load(Ordering::Relaxed) == round;
        let finished = await_word(&self.finished.0, |finished| finished >> 1 == round);
        !seen && finished & 1 == 0
    }
}

/// So many rounds, or until the time is up; answers in how many both missed each other.
fn misses(rounds: u64, barrier: impl Fn()) -> u64 {
    let duel = Duel::default();
    let end = Instant::now() + Duration::from_secs(1);
    thread::scope(|scope| {
        scope.spawn(|| duel.frequent_side());
        let missed = (1..=rounds)
            .take_while(|round| *round == 1 || Instant::now() < end)
            .filter(|round| duel.rare_side(*round, &barrier))
            .count() as u64;
        duel.round.0.store(OVER, Ordering::Release);
        missed
    })
}

#[test]
fn the_frequent_side_needs_no_fence_whatever_the_means() {
    let best = || assert_eq!(process_barrier(), process_barrier());
    assert_eq!(misses(10_000, best), 0);
    for (means, visits) in [
        (BarrierMeans::Expedited, 20_000),
        (BarrierMeans::Global, 20),
        (BarrierMeans::Migration, 200),
    ] {
        match process_barrier_by(means) {
            Ok(()) => {
                let by = || process_barrier_by(means).unwrap();
                assert_eq!(misses(visits, by), 0, "{means:?}");
            }
            Err(error) => println!("{means:?} is not to be had here: {error}"),
        }
    }
}

#[test]
fn the_best_means_that_the_kernel_has_is_taken() {
    let offered = rustix::thread::membarrier_query();
    let taken = process_barrier();
    if offered.contains(rustix::thread::MembarrierQuery::PRIVATE_EXPEDITED) {
        assert_eq!(taken, BarrierMeans::Expedited);
    }
    assert!(process_barrier_by(taken).is_ok());
    assert!(process_barrier_by(BarrierMeans::Migration).is_ok());
}

#[test]
fn it_waits_neither_for_masked_regions_nor_for_poll_points_and_serves_nobody() {
    let bed = Bed::new(2);
    let flags = Arc::new([const { AtomicBool::new(false) }; 2]);
    let theirs = Arc::clone(&flags);
    let job = bed.on(1, move |machine| {
        let [masked, go] = &*theirs;
        let _guard = machine.irqs_off();
        masked.store(true, Ordering::Release);
        while !go.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        assert!(machine.has_pending(), "the post still waits");
    });
    let [masked, go] = &*flags;
    while !masked.load(Ordering::Acquire) {
        thread::yield_now();
    }
    bed.post(CpuId::new(1), || ()).unwrap();
    process_barrier();
    process_barrier_by(BarrierMeans::Migration).unwrap();
    let in_a_handler = bed.call(CpuId::new(0), process_barrier).unwrap();
    println!("in a handler: {in_a_handler:?}");
    go.store(true, Ordering::Release);
    job.join().unwrap();
}
