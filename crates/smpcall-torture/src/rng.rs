//! Repeatable random numbers.
//!
//! `SplitMix64`: one word of state, one addition and a mix per number, and any two seeds give
//! unrelated streams. Good enough to choose operations by, and small enough for a handler.

/// A generator.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    ///
    /// ```
    /// let mut a = smpcall_torture::rng::Rng::new(7);
    /// let mut b = smpcall_torture::rng::Rng::new(7);
    /// assert_eq!(a.next_u64(), b.next_u64());
    /// ```
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for a part of a run, such as one CPU.
    #[must_use]
    pub const fn fork(seed: u64, part: u64) -> Self {
        Self(mix(seed ^ mix(part.wrapping_add(GOLDEN))))
    }

    /// What makes the rest of the stream: [`Rng::new`] of it goes on with it.
    #[must_use]
    pub const fn into_state(self) -> u64 {
        self.0
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        // The high half of a product: the bias of 2^-32 and less is no matter here.
        ((self.next_u64() as u128 * n as u128) >> 64) as u64
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::Rng;

    #[test]
    fn numbers_stay_below_their_limit_and_reach_every_value() {
        let mut rng = Rng::new(1);
        let mut seen = [0; 7];
        (0..7_000).for_each(|_| seen[rng.below(7) as usize] += 1);
        assert!(seen.iter().all(|&n| (800..1_200).contains(&n)), "{seen:?}");
    }

    #[test]
    fn parts_of_a_run_have_unrelated_streams() {
        let (mut a, mut b) = (Rng::fork(1, 0), Rng::fork(1, 1));
        assert!((0..100).all(|_| a.next_u64() != b.next_u64()));
    }
}
