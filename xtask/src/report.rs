//! What a guest says on its serial port, and whether that makes a passed run.
//!
//! The lines are those of `smpcall_torture::report`, whose file is compiled here as well, by a link in
//! `report`: what kernel and host say is one text, and this program builds even where the core does not. A
//! line that begins with `{` is a record of a bench. A run has passed only if the guest closed its
//! report with the good closing line, no case failed on the way, and its own tally agrees.

use serde_json::{Map, Value};

use lines::Line;

#[expect(
    unreachable_pub,
    reason = "the file is a public module in its own crate"
)]
mod lines;

/// Where a line belongs when only records are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
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
    /// The case that has begun and not ended.
    pub running: Option<String>,
    /// Is there the record of a torture that went well?
    pub tortured: bool,
    /// The records of a bench.
    pub records: Vec<Value>,
    /// The guest's own count of cases.
    tally: Option<(u64, u64)>,
    /// Boot parameters that the guest did not understand.
    bad_parameters: Vec<String>,
    /// Lines that look like a record and are none.
    garbled: u64,
}

impl Report {
    /// Takes one line in.
    pub(crate) fn line(&mut self, line: &str) -> Kind {
        if line.starts_with('{') {
            let record: serde_json::Result<Map<String, Value>> = serde_json::from_str(line);
            self.garbled += u64::from(record.is_err());
            let Ok(record) = record else {
                return Kind::Talk;
            };
            self.tortured |= record.get("type") == Some(&"torture".into())
                && record.get("ok") == Some(&true.into());
            self.records.push(Value::Object(record));
            return Kind::Record;
        }
        match Line::parse(line) {
            Some(Line::CaseStarts(name)) => self.running = Some(name.to_owned()),
            Some(Line::CaseOk(_)) => self.case(true.into()),
            Some(Line::CaseFailed(..)) => self.case(false.into()),
            Some(Line::Tally { passed, failed }) => self.tally = Some((passed, failed)),
            Some(Line::BadParameter(what)) => self.bad_parameters.push(what.to_owned()),
            Some(Line::End(ok)) => self.end = Some(ok && self.end != Some(false)),
            Some(Line::BroughtUp(_)) | None => {}
        }
        Kind::Talk
    }

    /// Counts a case that ended.
    fn case(&mut self, counts: crate::test::Counts) {
        self.running = None;
        self.passed += counts.passed;
        self.failed += counts.failed;
    }

    /// Everything that is wrong with the finished report.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match self.end {
            Some(true) => {}
            Some(false) => faults.push("the guest says that it failed".to_owned()),
            None => faults.push(format!("the guest never said `{}`", Line::End(true))),
        }
        if let Some(case) = &self.running {
            faults.push(format!("case {case} began and did not end"));
        }
        if self
            .tally
            .is_some_and(|tally| tally != (self.passed, self.failed))
        {
            faults.push("the guest's tally is not what its cases say".to_owned());
        }
        let bad = self.bad_parameters.iter();
        faults.extend(bad.map(|what| format!("the guest refused the parameter {what}")));
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
    use super::{Kind, Report};

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
    fn a_tally_that_disagrees_and_a_case_without_an_end_are_faults() {
        let lost = report(&[
            "smpcall: case a ok",
            "smpcall: 2 passed, 0 failed",
            "smpcall: end ok",
        ]);
        assert_eq!(lost.faults().len(), 1);
        let hung = report(&["smpcall: running call_runs"]);
        assert_eq!(hung.running.as_deref(), Some("call_runs"));
        assert_eq!(hung.faults().len(), 2);
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
            Kind::Record
        );
        assert_eq!(report.line(r#"{"type":"icount","#), Kind::Talk);
        assert_eq!(report.garbled, 1);
        assert!(!report.tortured);
        report.line(r#"{"type":"torture","ok":false}"#);
        assert!(!report.tortured);
        report.line(r#"{"type":"torture","ok":true}"#);
        assert!(report.tortured);
    }
}
