//! The knobs of a run as words, `stutter_ms=50`: a kernel's command line has no other form.
//!
//! Decimal, the whole word, the last one wins. A word that is no knob belongs to somebody else and is
//! passed over; a knob whose value is not understood is an error that names it, as of the boot parameters.

use core::fmt;

use super::{Torture, op::Op};

/// Begins the knob of an operation's weight: `weight_kick=10`.
const WEIGHT: &str = "weight_";

/// A knob with a value that is no decimal number, or too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadKnob<'a> {
    /// The knob.
    pub name: &'a str,
    /// What it was set to.
    pub value: &'a str,
    /// What is wrong.
    pub reason: &'static str,
}

impl fmt::Display for BadKnob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            value,
            reason,
        } = self;
        write!(f, "smpcall: bad parameter {name}={value}: {reason}")
    }
}

impl core::error::Error for BadKnob<'_> {}

impl Torture {
    /// This run as the words of a command line want it.
    ///
    /// ```
    /// use smpcall_torture::torture::{Op, Torture};
    /// let torture = Torture::default().with("quiet seed=7 weight_kick=3").unwrap();
    /// assert_eq!(torture.seed, 7);
    /// assert_eq!(torture.weights[Op::Kick as usize], Some(3));
    /// assert!(Torture::default().with("seed=abc").is_err());
    /// ```
    ///
    /// # Errors
    /// The first knob with a bad value, or a weight of an operation that there is not.
    pub fn with(self, words: &str) -> Result<Self, BadKnob<'_>> {
        let mut torture = self;
        let words = words.split_ascii_whitespace();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let bad = |reason| BadKnob {
                name,
                value,
                reason,
            };
            if let Some(op) = name.strip_prefix(WEIGHT) {
                let op = Op::from_name(op).ok_or(bad("no such operation"))?;
                let weight = number(value).and_then(|weight| u32::try_from(weight).ok());
                torture.weights[op as usize] = Some(weight.ok_or(bad(NO_NUMBER))?);
            } else if let Some(knob) = torture.knob(name) {
                *knob = number(value).ok_or(bad(NO_NUMBER))?;
            }
        }
        Ok(torture)
    }

    /// The knob of this name.
    fn knob(&mut self, name: &str) -> Option<&mut u64> {
        Some(match name {
            "seed" => &mut self.seed,
            "seconds" => &mut self.seconds,
            "hotplug_interval_ms" => &mut self.hotplug_interval_ms,
            "hotplug_holdoff_ms" => &mut self.hotplug_holdoff_ms,
            "stutter_ms" => &mut self.stutter_ms,
            "long_wait_us" => &mut self.long_wait_us,
            "progress_ms" => &mut self.progress_ms,
            "holdoff_ms" => &mut self.holdoff_ms,
            "patience_ms" => &mut self.patience_ms,
            "foreigners" => &mut self.foreigners,
            _ => return None,
        })
    }
}

const NO_NUMBER: &str = "not a decimal number, or above 4000000000";

/// Times in nanoseconds must fit 64 bits.
const MOST: u64 = 4_000_000_000;

/// A decimal number, without a sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let n = text.parse().ok().filter(|_| digits);
    n.filter(|&n| n <= MOST)
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::Torture;

    #[test]
    fn a_bad_value_is_named_and_a_strangers_word_is_passed_over() {
        for bad in [
            "seed=",
            "seed=+1",
            "seconds=1s",
            "weight_kick=-1",
            "weight_kick=4294967296",
            "stutter_ms=99999999999",
        ] {
            let error = Torture::default().with(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
        let error = Torture::default().with("weight_call=1").unwrap_err();
        assert_eq!(error.reason, "no such operation");
        let words = "suite=torture maxcpus=2 seed=3 seed=4 -- x";
        let torture = Torture::default().with(words).unwrap();
        assert_eq!(torture.seed, 4);
    }
}
