//! From near to far: one scale for the terminal and the picture.
//!
//! It is logarithmic from the nearest pair to the farthest, or to half as much again: chance is not
//! shown as near and far.

use crate::latency::Pair;

/// The right end of the scale as a multiple of the left one, at least.
const NARROWEST: f64 = 1.5;
/// Nothing is nearer, in nanoseconds: what the clock's own cost leaves may be nothing.
const NEAREST_NS: f64 = 0.1;

/// Where the figures of some pairs lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    nearest_ns: f64,
    farthest_ns: f64,
}

impl Scale {
    /// The scale of these pairs; a CPU that calls itself is not on it.
    pub(super) fn of(pairs: &[Pair]) -> Self {
        let remote = pairs.iter().filter(|pair| pair.from != pair.to);
        let medians = remote.map(|pair| pair.median_ns.max(NEAREST_NS));
        // One CPU alone has no pair, and no scale.
        let nearest_ns = medians.clone().fold(f64::INFINITY, f64::min);
        let least = NARROWEST * nearest_ns;
        Self {
            nearest_ns,
            farthest_ns: medians.fold(0.0, |most, ns| ns.max(least).max(most)),
        }
    }

    /// From 0, the nearest pair, to 1, the farthest.
    pub(super) fn place(&self, ns: f64) -> f64 {
        let span = (self.farthest_ns / self.nearest_ns).ln();
        if span > 0.0 {
            (ns.max(NEAREST_NS) / self.nearest_ns).ln() / span
        } else {
            0.0
        }
    }

    /// The nanoseconds at a place between 0 and 1.
    pub(super) fn bound(&self, place: f64) -> f64 {
        self.nearest_ns * (self.farthest_ns / self.nearest_ns).powf(place)
    }

    /// The unit of the cells' figures, in nanoseconds; its name; the letters of the longest figure.
    pub(super) fn unit(&self) -> (f64, &'static str, usize) {
        let (scale, name) = match self.farthest_ns {
            ..1e4 => (1.0, "ns"),
            ..1e7 => (1e3, "us"),
            _ => (1e6, "ms"),
        };
        let longest = format!("{:.0}", self.farthest_ns / scale).len();
        (scale, name, longest + if scale > 1.0 { 2 } else { 0 })
    }

    /// A figure in that unit.
    pub(super) fn figure(&self, ns: f64) -> String {
        match self.unit() {
            (1.0, _, _) => format!("{ns:.0}"),
            (scale, _, _) => format!("{:.1}", ns / scale),
        }
    }
}
