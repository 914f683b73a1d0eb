//! Where the two CPUs are at the moment, told by how long a cache line takes between them.
//!
//! *One line*: both sides write the same line in turn. *Two lines*: each side writes its own and
//! reads the other's. Neighbours hand one line over in about half the time of two; far apart both
//! take several times as long; hardware threads of one core share their first cache, where
//! the line that both write is the slower way.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bench::lab::{Lab, Line, time_runs};
use crate::stats;

/// Runs per probe and kind; the middle one counts, so that one that was interrupted does not.
const RUNS: usize = 9;
/// Round trips per run.
const TRIPS: u64 = 32;
/// Two lines beyond this are far.
const FAR_NS: f64 = 220.0;
/// Two probes that differ by more than this factor do not agree.
const AGREEMENT: f64 = 1.25;

/// The limits that the probe itself measures.
pub(crate) const LIMITS: [&str; 2] = ["one_line", "two_lines"];

/// How far apart the CPUs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placement {
    /// They share a cache that is not their first.
    Near,
    /// They share none, or a slow way.
    Far,
    /// They are hardware threads of one core.
    Smt,
}

impl Placement {
    pub(crate) const ALL: [Self; 3] = [Self::Near, Self::Far, Self::Smt];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
            Self::Smt => "smt",
        }
    }

    /// By the probe's figures.
    fn of(one_line: f64, two_lines: f64) -> Self {
        match () {
            () if two_lines > FAR_NS => Self::Far,
            () if two_lines < one_line => Self::Smt,
            () => Self::Near,
        }
    }
}

/// What a probe found: nanoseconds per round trip, of each run.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) one_line: Vec<f64>,
    pub(crate) two_lines: Vec<f64>,
}

impl Probe {
    fn medians(&self) -> (f64, f64) {
        let [mut one, mut two] = [self.one_line.clone(), self.two_lines.clone()];
        (stats::median(&mut one), stats::median(&mut two))
    }

    /// The placement that two probes agree on.
    pub(crate) fn agreed(&self, other: &Self) -> Option<Placement> {
        let ((one, two), (other_one, other_two)) = (self.medians(), other.medians());
        let close = |a: f64, b: f64| a.max(b) <= a.min(b) * AGREEMENT;
        let placement = Placement::of(one, two);
        let agree = close(one, other_one) && close(two, other_two);
        (agree && placement == Placement::of(other_one, other_two)).then_some(placement)
    }
}

/// Hands a cache line to and fro.
pub(crate) fn probe(lab: &Lab) -> Probe {
    let [one, two] = [one_line(lab), two_lines(lab)];
    Probe {
        one_line: one,
        two_lines: two,
    }
}

fn one_line(lab: &Lab) -> Vec<f64> {
    let line = Arc::new(Line(AtomicU64::new(0)));
    let theirs = Arc::clone(&line);
    lab.duet(
        move |_| answer_one(&theirs.0, black_box(&theirs.0), RUNS as u64 * TRIPS),
        || time_trips(|first| ask_one(&line.0, black_box(&line.0), first, TRIPS)),
    )
}

fn two_lines(lab: &Lab) -> Vec<f64> {
    let lines = Arc::new([Line(AtomicU64::new(0)), Line(AtomicU64::new(0))]);
    let theirs = Arc::clone(&lines);
    lab.duet(
        move |_| answer_two(&theirs[0].0, &theirs[1].0),
        || time_trips(|first| ask_two(&lines[0].0, &lines[1].0, first)),
    )
}

/// Times runs of [`TRIPS`] round trips; nanoseconds per trip.
fn time_trips(mut trips: impl FnMut(u64)) -> Vec<f64> {
    let runs = time_runs(RUNS, 1, |run| trips(run * TRIPS));
    runs.into_iter().map(|run| run / TRIPS as f64).collect()
}

// The loops stand alone, as tight as they can be: what they take is the limit, so an instruction too
// many between the look and the store would make everything else look better than it is.
// ORDERING: Acquire and Release throughout, as a call would need them, in both directions.
//
// The one line has two names, one to store by and one to load by. With one name the compiler uses one
// register for both, and processors that rename memory (AMD's Zen family) guess that such a load
// gets what was stored last; here the other CPU has stored since, and each wrong guess costs some 15 ns:
// 90 ns instead of 55 a round trip where the CPUs are near.

/// Makes `count` round trips from trip `first` on.
#[inline(never)]
pub(crate) fn ask_one(store: &AtomicU64, load: &AtomicU64, first: u64, count: u64) {
    for trip in first..first + count {
        store.store(2 * trip + 1, Ordering::Release);
        while load.load(Ordering::Acquire) != 2 * trip + 2 {}
    }
}

/// Answers `count` round trips.
#[inline(never)]
pub(crate) fn answer_one(store: &AtomicU64, load: &AtomicU64, count: u64) {
    for trip in 0..count {
        while load.load(Ordering::Acquire) != 2 * trip + 1 {}
        store.store(2 * trip + 2, Ordering::Release);
    }
}

#[inline(never)]
fn ask_two(there: &AtomicU64, back: &AtomicU64, first: u64) {
    for trip in first + 1..=first + TRIPS {
        there.store(trip, Ordering::Release);
        while back.load(Ordering::Acquire) != trip {}
    }
}

#[inline(never)]
fn answer_two(there: &AtomicU64, back: &AtomicU64) {
    for trip in 1..=RUNS as u64 * TRIPS {
        while there.load(Ordering::Acquire) != trip {}
        back.store(trip, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_tell_the_placement() {
        assert_eq!(Placement::of(55.0, 110.0), Placement::Near);
        assert_eq!(Placement::of(320.0, 510.0), Placement::Far);
        assert_eq!(Placement::of(60.0, 46.0), Placement::Smt);
    }

    #[test]
    fn probes_that_differ_do_not_agree() {
        let probe = |one: f64, two: f64| Probe {
            one_line: vec![one],
            two_lines: vec![two],
        };
        assert_eq!(
            probe(55.0, 110.0).agreed(&probe(57.0, 105.0)),
            Some(Placement::Near)
        );
        assert_eq!(probe(55.0, 110.0).agreed(&probe(320.0, 510.0)), None);
        assert_eq!(probe(55.0, 110.0).agreed(&probe(80.0, 110.0)), None);
    }
}
