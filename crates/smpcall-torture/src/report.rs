//! The lines that a kernel says on its serial port and a host reads.
//!
//! One line a fact, each beginning with [`PREFIX`]; a line that begins with `{` is a JSON record;
//! everything else is talk. Both sides use [`Line`], so that they cannot disagree. A run
//! has passed only if it closed its report with `smpcall: end ok`: silence is a failure.
//!
//! ```text
//! smpcall: Brought up 4 CPUs
//! smpcall: case call_returns_the_result ok
//! smpcall: case posts_keep_their_order FAILED: CPU 2 ran 7 before 6 (order.rs:31)
//! smpcall: 61 passed, 1 failed
//! smpcall: end failed
//! ```

use core::fmt;

/// Begins every line that the host understands.
pub const PREFIX: &str = "smpcall: ";
/// Begins the line of one case.
pub const CASE: &str = "case ";
/// What a case's line says after its name if it passed.
pub const CASE_OK: &str = "ok";
/// What it says otherwise, before the reason.
pub const CASE_FAILED: &str = "FAILED: ";
/// Closes the report of a run that passed.
pub const END_OK: &str = "end ok";
/// Closes the report of a run that did not.
pub const END_FAILED: &str = "end failed";
/// Begins the line about a boot parameter that was not understood.
pub const BAD_PARAMETER: &str = "bad parameter ";
/// Begins and ends the line that says how many CPUs are online.
pub const BROUGHT_UP: (&str, &str) = ("Brought up ", " CPUs");

/// A line of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line<'a> {
    /// Bring-up is over.
    BroughtUp(u64),
    /// A case begins; nobody counts it, it tells a watcher what hangs.
    CaseStarts(&'a str),
    /// A case passed.
    CaseOk(&'a str),
    /// A case failed.
    CaseFailed(&'a str, &'a str),
    /// How many cases passed and failed.
    Tally {
        /// Passed.
        passed: u64,
        /// Failed.
        failed: u64,
    },
    /// A boot parameter was not understood: `NAME=VALUE: reason`.
    BadParameter(&'a str),
    /// The last line: did everything pass?
    End(bool),
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        match self {
            Self::BroughtUp(n) => write!(f, "{}{n}{}", BROUGHT_UP.0, BROUGHT_UP.1),
            Self::CaseStarts(name) => write!(f, "running {name}"),
            Self::CaseOk(name) => write!(f, "{CASE}{name} {CASE_OK}"),
            Self::CaseFailed(name, reason) => write!(f, "{CASE}{name} {CASE_FAILED}{reason}"),
            Self::Tally { passed, failed } => write!(f, "{passed} passed, {failed} failed"),
            Self::BadParameter(what) => write!(f, "{BAD_PARAMETER}{what}"),
            Self::End(true) => f.write_str(END_OK),
            Self::End(false) => f.write_str(END_FAILED),
        }
    }
}

impl<'a> Line<'a> {
    /// Reads a line; `None` for talk.
    ///
    /// ```
    /// use smpcall_torture::report::Line;
    /// assert_eq!(Line::parse("smpcall: end ok\r"), Some(Line::End(true)));
    /// assert_eq!(Line::parse("OpenSBI v1.3"), None);
    /// ```
    pub fn parse(line: &'a str) -> Option<Self> {
        let said = line.strip_prefix(PREFIX)?.trim_end();
        match said {
            END_OK => return Some(Self::End(true)),
            END_FAILED => return Some(Self::End(false)),
            _ => {}
        }
        if let Some(case) = said.strip_prefix(CASE) {
            return Some(Self::parse_case(case));
        }
        if let Some(name) = said.strip_prefix("running ") {
            return Some(Self::CaseStarts(name));
        }
        if let Some(what) = said.strip_prefix(BAD_PARAMETER) {
            return Some(Self::BadParameter(what));
        }
        if let Some(rest) = said.strip_prefix(BROUGHT_UP.0) {
            let n = rest.strip_suffix(BROUGHT_UP.1)?.parse().ok()?;
            return Some(Self::BroughtUp(n));
        }
        let (passed, failed) = said.strip_suffix(" failed")?.split_once(" passed, ")?;
        Some(Self::Tally {
            passed: passed.parse().ok()?,
            failed: failed.parse().ok()?,
        })
    }

    /// A case's line that says neither is a failure.
    fn parse_case(case: &'a str) -> Self {
        let (name, said) = case.split_once(' ').unwrap_or((case, ""));
        if said == CASE_OK {
            return Self::CaseOk(name);
        }
        // The blanks at the line's end were cut off, and with an empty reason one of these.
        let reason = said.strip_prefix(CASE_FAILED.trim_end()).unwrap_or(said);
        Self::CaseFailed(name, reason.strip_prefix(' ').unwrap_or(reason))
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::Line;

    #[test]
    fn every_line_reads_back_as_it_was_said() {
        let lines = [
            Line::BroughtUp(4),
            Line::CaseStarts("call_runs"),
            Line::CaseOk("call_runs"),
            Line::CaseFailed("call_runs", "lost: it never ran"),
            Line::Tally {
                passed: 61,
                failed: 2,
            },
            Line::BadParameter("maxcpus=abc: not a decimal number"),
            Line::End(true),
            Line::End(false),
        ];
        for line in lines {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
    }

    #[test]
    fn a_garbled_case_is_a_failure_and_talk_is_nothing() {
        assert_eq!(
            Line::parse("smpcall: case call_runs okay"),
            Some(Line::CaseFailed("call_runs", "okay"))
        );
        for talk in ["", "ok", "smpcall: hello", "smpcall: 3 passed, x failed"] {
            assert_eq!(Line::parse(talk), None, "{talk}");
        }
    }
}
