//! Failures: where, and what was seen instead of what.
//!
//! Without an allocator, so the text has a fixed room and is cut off at its end.

use core::fmt::{self, Write};
use core::panic::Location;

/// What a case answers.
pub type Check = Result<(), Failure>;

const ROOM: usize = 96;

/// Why a case failed.
#[derive(Clone)]
pub struct Failure {
    at: &'static Location<'static>,
    used: u8,
    text: [u8; ROOM],
}

impl Failure {
    /// A failure seen by the calling line.
    #[track_caller]
    pub fn new(what: fmt::Arguments<'_>) -> Self {
        let mut failure = Self {
            at: Location::caller(),
            used: 0,
            text: [0; ROOM],
        };
        // A text that does not fit is cut off, which is better than none.
        let _ = failure.write_fmt(what);
        failure
    }

    /// What was seen.
    pub fn what(&self) -> &str {
        str::from_utf8(&self.text[..usize::from(self.used)]).unwrap_or("(not text)")
    }

    /// The line that saw it.
    pub fn at(&self) -> &'static Location<'static> {
        self.at
    }
}

impl Write for Failure {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let used = usize::from(self.used);
        let mut fits = s.len().min(ROOM - used);
        while !s.is_char_boundary(fits) {
            fits -= 1;
        }
        self.text[used..used + fits].copy_from_slice(&s.as_bytes()[..fits]);
        self.used += fits as u8;
        if fits == s.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = (self.at.file(), self.at.line());
        let file = file.rsplit_once('/').map_or(file, |(_, name)| name);
        write!(f, "{} ({file}:{line})", self.what())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Failure {}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format_args!($($text)+)));
        }
    };
}

/// Fails the case unless both are equal; the text says what they are.
macro_rules! ensure_eq {
    ($got:expr, $wanted:expr, $($text:tt)+) => {
        match ($got, $wanted) {
            (got, wanted) => {
                if got != wanted {
                    return Err($crate::Failure::new(format_args!(
                        "{}: got {got:?}, wanted {wanted:?}",
                        format_args!($($text)+)
                    )));
                }
            }
        }
    };
}

/// Fails the case unless the expression matches the pattern; the text says what it is.
macro_rules! ensure_matches {
    ($got:expr, $pattern:pat $(if $guard:expr)?, $($text:tt)+) => {
        match $got {
            $pattern $(if $guard)? => {}
            got => {
                return Err($crate::Failure::new(format_args!(
                    "{}: got {got:?}",
                    format_args!($($text)+)
                )));
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq, ensure_matches};

/// A refused call that should have been accepted, as a failure.
pub(crate) trait OrFail<T> {
    /// The value, or a failure that says what was refused.
    #[track_caller]
    fn or_fail(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    #[track_caller]
    fn or_fail(self, what: &str) -> Result<T, Failure> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(Failure::new(format_args!("{what}: {error}"))),
        }
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{Check, Failure};

    #[test]
    fn a_long_text_is_cut_off_at_a_character() {
        let long = "ü".repeat(100);
        let failure = Failure::new(format_args!("{long}"));
        assert_eq!(failure.what(), "ü".repeat(48));
    }

    #[test]
    fn a_failure_names_its_line() {
        let check = || -> Check {
            ensure_eq!(1 + 1, 3, "sum");
            Ok(())
        };
        let text = check().expect_err("not equal").to_string();
        assert!(
            text.starts_with("sum: got 2, wanted 3 (check.rs:"),
            "{text}"
        );
    }
}
