//! What a guest says on its serial port, and whether that makes a passed run.
//!
//! A line that begins with `smpcall: ` speaks to the host; a line that begins with `{` is a record
//! of a bench; everything else is talk. A run has passed only if the guest closed its report with
//! the good closing line and no case failed on the way: silence is a failure.

use serde_json::{Map, Value};

/// Begins every line that the host understands.
const PREFIX: &str = "smpcall: ";
/// Closes the report of a run that passed.
const END_OK: &str = "end ok";
/// Closes the report of a run that did not.
const END_FAILED: &str = "end failed";
/// Begins the line of one case.
const CASE: &str = "case ";
/// What a case's line says after its name if it passed.
const CASE_OK: &str = "ok";

/// Where a line belongs when only records are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// One JSON object.
    Record,
    /// For people.
    Talk,
}

/// The report so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Cases that passed.
    pub passed: u64,
    /// Cases that failed.
    pub failed: u64,
    /// What the closing line said, once it was there.
    pub end: Option<bool>,
    /// Lines that look like a record and are none.
    garbled: u64,
}

impl Report {
    /// Takes one line in.
    pub(crate) fn line(&mut self, line: &str) -> Line {
        if line.starts_with('{') {
            let record: serde_json::Result<Map<String, Value>> = serde_json::from_str(line);
            self.garbled += u64::from(record.is_err());
            return if record.is_ok() {
                Line::Record
            } else {
                Line::Talk
            };
        }
        match line.strip_prefix(PREFIX).map(str::trim_end) {
            Some(END_OK) => self.end = Some(self.end != Some(false)),
            Some(END_FAILED) => self.end = Some(false),
            Some(said) => {
                if let Some(case) = said.strip_prefix(CASE) {
                    self.case(case);
                }
            }
            None => {}
        }
        Line::Talk
    }

    /// Counts a case; one that says neither is a failure.
    fn case(&mut self, case: &str) {
        let said = case.split_once(' ').map_or("", |(_name, said)| said);
        let passed = said.split(' ').next() == Some(CASE_OK);
        *(if passed {
            &mut self.passed
        } else {
            &mut self.failed
        }) += 1;
    }

    /// Everything that is wrong with the finished report.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match self.end {
            Some(true) => {}
            Some(false) => faults.push("the guest says that it failed".to_owned()),
            None => faults.push(format!("the guest never said `{PREFIX}{END_OK}`")),
        }
        if self.failed > 0 {
            faults.push(format!("{} cases failed", self.failed));
        }
        if self.garbled > 0 {
            faults.push(format!(
                "{} lines begin like JSON and are not",
                self.garbled
            ));
        }
        faults
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::{Line, Report};

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.line(line);
        }
        report
    }

    #[test]
    fn a_closed_report_without_failures_has_no_faults() {
        let report = report(&["OpenSBI", "smpcall: case call_runs ok", "smpcall: end ok"]);
        assert_eq!((report.passed, report.failed), (1, 0));
        assert!(report.faults().is_empty());
    }

    #[test]
    fn a_failed_case_outweighs_a_good_closing_line() {
        let report = report(&["smpcall: case call_runs FAILED: lost", "smpcall: end ok"]);
        assert_eq!(report.faults().len(), 1);
    }

    #[test]
    fn silence_and_a_retracted_end_are_failures() {
        assert_eq!(report(&[]).faults().len(), 1);
        assert_eq!(
            report(&["smpcall: end failed", "smpcall: end ok"]).end,
            Some(false)
        );
    }

    #[test]
    fn records_are_whole_json_objects() {
        let mut report = Report::default();
        assert_eq!(
            report.line(r#"{"type":"icount","instructions":7}"#),
            Line::Record
        );
        assert_eq!(report.line(r#"{"type":"icount","#), Line::Talk);
        assert_eq!(report.garbled, 1);
    }
}
