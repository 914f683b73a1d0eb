//! Boot parameters: `nosmp`, `maxcpus=` and `nr_cpus=`.
//!
//! Decimal, the whole token, the last one wins. A value that is not understood is an error with one
//! line that names it; the system then starts no further CPU, so that a typo never turns into a
//! machine that runs differently from what was asked.
//!
//! DIVERGES: the seed's `nr_cpus=` with no number used an uninitialised value, and `maxcpus=-1`
//! became four billion (os_anchors 2.0, defects 10 and 11).

use core::fmt;

use crate::cpu::decimal;

/// What the command line says about CPUs.
///
/// ```
/// use smpcall::BootParams;
/// let params = BootParams::parse("console=ttyS0 maxcpus=2 nr_cpus=4", 256).unwrap();
/// assert_eq!((params.max_cpus, params.nr_cpus), (2, 4));
/// let bad = BootParams::parse("maxcpus=2junk", 256).unwrap_err();
/// assert_eq!(bad.to_string(), "smpcall: bad parameter maxcpus=2junk: not a decimal number");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootParams {
    /// How many CPUs bring-up starts, the boot CPU included; 0 and 1 both mean the boot CPU alone.
    #[doc(alias = "setup_max_cpus")]
    pub max_cpus: u32,
    /// Logical ids are below this.
    #[doc(alias = "nr_cpu_ids")]
    pub nr_cpus: u32,
    /// What `nr_cpus=` asked for, if that was more than the build supports.
    pub clamped_from: Option<u32>,
}

impl BootParams {
    /// No limit but the build's.
    pub const fn unlimited(capacity: u32) -> Self {
        Self {
            max_cpus: u32::MAX,
            nr_cpus: capacity,
            clamped_from: None,
        }
    }

    /// Reads a command line; tokens that are not ours are passed over.
    ///
    /// # Errors
    /// The first token of ours with a bad value.
    #[doc(alias = "nosmp")]
    #[doc(alias = "nrcpus")]
    #[doc(alias = "maxcpus")]
    #[doc(alias = "early_param")]
    pub fn parse(cmdline: &str, capacity: u32) -> Result<Self, BadParam<'_>> {
        let mut params = Self::unlimited(capacity);
        for token in cmdline.split_ascii_whitespace() {
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            match name {
                "nosmp" if token == "nosmp" => params.max_cpus = 0,
                "nosmp" => {
                    return Err(BadParam {
                        name,
                        value,
                        reason: Reason::TakesNoValue,
                    });
                }
                "maxcpus" => params.max_cpus = number(name, value)?,
                "nr_cpus" => params.limit_ids(number(name, value)?, capacity, value)?,
                _ => {}
            }
        }
        Ok(params)
    }

    fn limit_ids<'a>(&mut self, n: u32, capacity: u32, value: &'a str) -> Result<(), BadParam<'a>> {
        if n == 0 {
            return Err(BadParam {
                name: "nr_cpus",
                value,
                reason: Reason::Zero,
            });
        }
        self.nr_cpus = n.min(capacity);
        self.clamped_from = (n > capacity).then_some(n);
        Ok(())
    }

    /// The line that says that `nr_cpus=` was cut, if it was.
    pub fn notice(&self) -> Option<impl fmt::Display + use<>> {
        let Self {
            nr_cpus,
            clamped_from,
            ..
        } = *self;
        clamped_from.map(|asked| Clamped { asked, nr_cpus })
    }
}

/// The notice of a clamped `nr_cpus=`.
struct Clamped {
    asked: u32,
    nr_cpus: u32,
}

impl fmt::Display for Clamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, nr_cpus } = self;
        write!(
            f,
            "smpcall: nr_cpus={asked} is more than this build supports, using {nr_cpus}"
        )
    }
}

fn number<'a>(name: &'a str, value: &'a str) -> Result<u32, BadParam<'a>> {
    let reason = match decimal(value) {
        _ if value.is_empty() => Reason::Missing,
        Some(n) if n <= u64::from(u32::MAX) => return Ok(n as u32),
        None if !value.bytes().all(|b| b.is_ascii_digit()) => Reason::NotDecimal,
        _ => Reason::TooLarge,
    };
    Err(BadParam {
        name,
        value,
        reason,
    })
}

/// A boot parameter that was not understood; displays as the one line that tells the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadParam<'a> {
    /// The parameter's name.
    pub name: &'a str,
    /// What stood after the equals sign.
    pub value: &'a str,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a boot parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is no number.
    Missing,
    /// It is not a decimal number.
    NotDecimal,
    /// The number does not fit into 32 bits.
    TooLarge,
    /// `nr_cpus` cannot be zero.
    Zero,
    /// `nosmp` stands alone.
    TakesNoValue,
}

impl fmt::Display for BadParam<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::Missing => "a number is missing",
            Reason::NotDecimal => "not a decimal number",
            Reason::TooLarge => "the number is too large",
            Reason::Zero => "there must be at least one CPU",
            Reason::TakesNoValue => "takes no value",
        };
        write!(
            f,
            "smpcall: bad parameter {}={}: {reason}",
            self.name, self.value
        )
    }
}

impl core::error::Error for BadParam<'_> {}

#[cfg(all(test, not(loom)))]
mod tests;
