//! CPU numbers and sets of CPUs.
//!
//! A [`CpuId`] is a *logical* id; what the hardware calls a CPU (APIC id, MPIDR, hart id) is the
//! platform's own type. A [`CpuMask`] holds up to `64 * W` CPUs; it prints and parses the kernel's
//! list form, `0-3,8`. [`AtomicCpuMask`] is the shared form: possible, present and online live in it.

use core::fmt;
use core::str::FromStr;

use crate::sync::{AtomicU64, Ordering, loom_const_fn, ord};

/// A logical CPU number.
///
/// ```
/// let cpu = smpcall::CpuId::new(3);
/// assert_eq!(cpu.to_string(), "3");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct CpuId(u32);

impl CpuId {
    /// The CPU with this logical number; whether it exists is checked where it is used.
    #[inline]
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as an array index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU{}", self.0)
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of logical CPUs below `64 * W` (the seed's `cpumask`).
///
/// ```
/// use smpcall::{CpuId, CpuMask};
/// let mask: CpuMask = "0-3,8".parse().unwrap();
/// assert!(mask.contains(CpuId::new(2)) && !mask.contains(CpuId::new(4)));
/// assert_eq!(mask.len(), 5);
/// assert_eq!(mask.to_string(), "0-3,8");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "cpumask")]
pub struct CpuMask<const W: usize = 4> {
    words: [u64; W],
}

impl<const W: usize> CpuMask<W> {
    /// How many CPUs the mask can name.
    pub const CAPACITY: usize = 64 * W;

    /// No CPU.
    pub const EMPTY: Self = Self { words: [0; W] };

    /// The empty set.
    #[doc(alias = "cpumask_clear")]
    pub const fn new() -> Self {
        Self::EMPTY
    }

    /// The CPUs `0..n`, cut at the capacity.
    pub fn first_n(n: usize) -> Self {
        let mut mask = Self::EMPTY;
        for (w, word) in mask.words.iter_mut().enumerate() {
            *word = match n.saturating_sub(64 * w) {
                0 => 0,
                rest if rest >= 64 => u64::MAX,
                rest => (1 << rest) - 1,
            };
        }
        mask
    }

    /// One CPU; empty if it is beyond the capacity.
    #[doc(alias = "cpumask_of")]
    pub fn of(cpu: CpuId) -> Self {
        let mut mask = Self::EMPTY;
        mask.insert(cpu);
        mask
    }

    /// Adds a CPU. Answers whether it fits and was not there yet.
    #[doc(alias = "cpumask_set_cpu")]
    #[inline]
    pub fn insert(&mut self, cpu: CpuId) -> bool {
        let Some(word) = self.words.get_mut(cpu.index() / 64) else {
            return false;
        };
        let bit = 1 << (cpu.index() % 64);
        let added = *word & bit == 0;
        *word |= bit;
        added
    }

    /// Takes a CPU out. Answers whether it was there.
    #[doc(alias = "cpumask_clear_cpu")]
    #[inline]
    pub fn remove(&mut self, cpu: CpuId) -> bool {
        let Some(word) = self.words.get_mut(cpu.index() / 64) else {
            return false;
        };
        let bit = 1 << (cpu.index() % 64);
        let had = *word & bit != 0;
        *word &= !bit;
        had
    }

    /// Is the CPU in the set?
    #[doc(alias = "cpumask_test_cpu")]
    #[inline]
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.words
            .get(cpu.index() / 64)
            .is_some_and(|word| word >> (cpu.index() % 64) & 1 == 1)
    }

    /// How many CPUs are in the set.
    #[doc(alias = "cpumask_weight")]
    pub fn len(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Is no CPU in the set?
    #[doc(alias = "cpumask_empty")]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The lowest CPU.
    #[doc(alias = "cpumask_first")]
    #[inline]
    pub fn first(&self) -> Option<CpuId> {
        self.iter().next()
    }

    /// The highest CPU.
    #[doc(alias = "find_last_bit")]
    pub fn last(&self) -> Option<CpuId> {
        let (w, word) = self
            .words
            .iter()
            .enumerate()
            .rfind(|(_, word)| **word != 0)?;
        Some(CpuId((64 * w + 63 - word.leading_zeros() as usize) as u32))
    }

    /// The CPUs in rising order.
    #[doc(alias = "for_each_cpu")]
    #[inline]
    pub fn iter(&self) -> CpuIter<'_> {
        CpuIter {
            words: &self.words,
            base: 0,
            word: self.words.first().copied().unwrap_or(0),
        }
    }

    /// The CPUs of word `w`.
    #[inline]
    pub(crate) fn in_word(&self, w: usize) -> impl Iterator<Item = CpuId> + use<W> {
        let mut bits = self.words[w];
        core::iter::from_fn(move || {
            let bit = bits.trailing_zeros();
            (bits != 0).then(|| {
                bits &= bits - 1;
                CpuId(64 * w as u32 + bit)
            })
        })
    }

    /// Are there none, one or more in the first `words` words, and which is the one?
    #[inline]
    pub(crate) fn crowd(&self, words: usize) -> Crowd {
        let mut only = Crowd::Nobody;
        for (w, &word) in self.words[..words.min(W)].iter().enumerate() {
            if word == 0 {
                continue;
            }
            if word & (word - 1) != 0 || matches!(only, Crowd::One(_)) {
                return Crowd::Several;
            }
            only = Crowd::One(CpuId(64 * w as u32 + word.trailing_zeros()));
        }
        only
    }

    /// The words, bit `i` of word `w` being CPU `64 * w + i`.
    #[inline]
    pub const fn words(&self) -> &[u64; W] {
        &self.words
    }

    /// The mask with these words.
    #[inline]
    pub const fn from_words(words: [u64; W]) -> Self {
        Self { words }
    }

    /// The mask of a word computed for each index.
    #[inline]
    pub(crate) fn from_fn(f: impl FnMut(usize) -> u64) -> Self {
        Self {
            words: core::array::from_fn(f),
        }
    }

    /// The CPUs in both.
    #[doc(alias = "cpumask_and")]
    #[must_use]
    #[inline]
    pub fn and(&self, other: &Self) -> Self {
        Self::from_fn(|w| self.words[w] & other.words[w])
    }

    /// The CPUs in either.
    #[doc(alias = "cpumask_or")]
    #[must_use]
    #[inline]
    pub fn or(&self, other: &Self) -> Self {
        Self::from_fn(|w| self.words[w] | other.words[w])
    }

    /// The CPUs in this one only.
    #[doc(alias = "cpumask_andnot")]
    #[must_use]
    #[inline]
    pub fn and_not(&self, other: &Self) -> Self {
        Self::from_fn(|w| self.words[w] & !other.words[w])
    }

    /// Parses the list form: decimal numbers and ranges with commas between; empty is empty.
    ///
    /// # Errors
    /// Names what is wrong and where: a part that is no number, a range that falls, a CPU beyond
    /// the capacity.
    #[doc(alias = "cpulist_parse")]
    pub fn parse_list(text: &str) -> Result<Self, ParseListError<'_>> {
        let mut mask = Self::EMPTY;
        let text = text.trim();
        if text.is_empty() {
            return Ok(mask);
        }
        for part in text.split(',') {
            let fail = |reason| Err(ParseListError { part, reason });
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (Some(low), Some(high)) = (decimal(low), decimal(high)) else {
                return fail(ListFault::NotANumber);
            };
            if low > high {
                return fail(ListFault::FallingRange);
            }
            if high >= Self::CAPACITY as u64 {
                return fail(ListFault::BeyondCapacity {
                    capacity: Self::CAPACITY,
                });
            }
            (low..=high).for_each(|cpu| {
                mask.insert(CpuId(cpu as u32));
            });
        }
        Ok(mask)
    }
}

/// A decimal number that is the whole token: no sign, no blank, no overflow.
pub(crate) fn decimal(token: &str) -> Option<u64> {
    token
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| token.parse().ok())?
}

/// How many CPUs a mask has, as far as a sender cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// None.
    Nobody,
    /// This one.
    One(CpuId),
    /// Two or more.
    Several,
}

impl<const W: usize> Default for CpuMask<W> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const W: usize> FromIterator<CpuId> for CpuMask<W> {
    /// CPUs beyond the capacity are left out.
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        let mut mask = Self::EMPTY;
        cpus.into_iter().for_each(|cpu| {
            mask.insert(cpu);
        });
        mask
    }
}

impl<'a, const W: usize> IntoIterator for &'a CpuMask<W> {
    type Item = CpuId;
    type IntoIter = CpuIter<'a>;
    fn into_iter(self) -> CpuIter<'a> {
        self.iter()
    }
}

impl<const W: usize> FromStr for CpuMask<W> {
    type Err = ListFault;
    fn from_str(text: &str) -> Result<Self, ListFault> {
        Self::parse_list(text).map_err(|error| error.reason)
    }
}

impl<const W: usize> fmt::Display for CpuMask<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(low) = cpus.next() {
            let mut high = low;
            while cpus.peek().is_some_and(|next| next.0 == high.0 + 1) {
                high = CpuId(high.0 + 1);
                cpus.next();
            }
            write!(f, "{comma}{low}")?;
            if high != low {
                write!(f, "-{high}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl<const W: usize> fmt::Debug for CpuMask<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuMask({self})")
    }
}

/// The CPUs of a mask in rising order.
#[derive(Debug, Clone)]
pub struct CpuIter<'a> {
    words: &'a [u64],
    base: usize,
    word: u64,
}

impl Iterator for CpuIter<'_> {
    type Item = CpuId;
    #[inline]
    fn next(&mut self) -> Option<CpuId> {
        while self.word == 0 {
            self.base += 1;
            self.word = *self.words.get(self.base)?;
        }
        let bit = self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        Some(CpuId((64 * self.base + bit) as u32))
    }
}

/// Why a CPU list was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListFault {
    /// A part is not a decimal number or a range of two.
    NotANumber,
    /// A range ends below its start.
    FallingRange,
    /// A CPU does not fit into the mask.
    BeyondCapacity {
        /// How many CPUs the mask can name.
        capacity: usize,
    },
}

impl fmt::Display for ListFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber => f.write_str("not a decimal number or a range of two"),
            Self::FallingRange => f.write_str("the range ends below its start"),
            Self::BeyondCapacity { capacity } => write!(f, "the mask holds CPUs below {capacity}"),
        }
    }
}

impl core::error::Error for ListFault {}

/// A CPU list that was not understood, with the part at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseListError<'a> {
    /// The part between commas.
    pub part: &'a str,
    /// What is wrong with it.
    pub reason: ListFault,
}

impl fmt::Display for ParseListError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad CPU list part `{}`: {}", self.part, self.reason)
    }
}

impl core::error::Error for ParseListError<'_> {}

/// A mask that CPUs change while others read it.
#[derive(Debug)]
pub(crate) struct AtomicCpuMask<const W: usize> {
    words: [AtomicU64; W],
}

impl<const W: usize> AtomicCpuMask<W> {
    loom_const_fn! {
        /// The empty mask.
        pub(crate) fn new() -> Self {
            #[cfg(not(loom))]
            { Self { words: [const { AtomicU64::new(0) }; W] } }
            #[cfg(loom)]
            { Self { words: core::array::from_fn(|_| AtomicU64::new(0)) } }
        }
    }

    /// Adds a CPU.
    pub(crate) fn insert(&self, cpu: CpuId) {
        // ORDERING: Release — publishes the CPU's opened area; pairs with `load` and `contains` (E16).
        self.words[cpu.index() / 64]
            .fetch_or(1 << (cpu.index() % 64), ord!("e16_online_relaxed", Release));
    }

    /// Takes a CPU out.
    pub(crate) fn remove(&self, cpu: CpuId) {
        // ORDERING: Relaxed — nothing new is published; the doorbell decides who is offline (E9).
        self.words[cpu.index() / 64].fetch_and(!(1 << (cpu.index() % 64)), Ordering::Relaxed);
    }

    /// A copy; each word is read once.
    #[inline]
    pub(crate) fn load(&self) -> CpuMask<W> {
        // ORDERING: Acquire — a CPU seen here has an opened area (E16).
        CpuMask::from_fn(|w| self.words[w].load(ord!("e16_load_relaxed", Acquire)))
    }

    /// Is the CPU in the mask now?
    #[inline]
    pub(crate) fn contains(&self, cpu: CpuId) -> bool {
        self.words.get(cpu.index() / 64).is_some_and(|word| {
            // ORDERING: Acquire — a CPU seen here has an opened area (E16).
            word.load(ord!("e16_contains_relaxed", Acquire)) >> (cpu.index() % 64) & 1 == 1
        })
    }

    /// Replaces the mask; only before other CPUs run.
    pub(crate) fn store(&self, mask: &CpuMask<W>) {
        for (word, &value) in self.words.iter().zip(mask.words()) {
            // ORDERING: Release — as `insert` (E16).
            word.store(value, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
