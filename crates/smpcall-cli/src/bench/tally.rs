//! The samples, kept apart by placement, and the rows that come of them.

use serde_json::{Value, json};

use crate::bench::Contender;
use crate::bench::lab::Lab;
use crate::bench::placement::{LIMITS, Placement, Probe};
use crate::output::{self, human_ns, ns};
use crate::{host, stats};

/// Samples of one contender: one list per placement.
type Samples = [Vec<f64>; Placement::ALL.len()];

/// Everything that was measured.
pub(crate) struct Tally {
    /// Per contender.
    samples: Vec<Samples>,
    /// Of the probe's own limits.
    probes: [Samples; LIMITS.len()],
    kept: u64,
    discarded: u64,
}

impl Tally {
    pub(crate) fn new(contenders: usize) -> Self {
        Self {
            samples: (0..contenders).map(|_| Samples::default()).collect(),
            probes: Default::default(),
            kept: 0,
            discarded: 0,
        }
    }

    /// Keeps a block if the probes around it agree.
    pub(crate) fn take(
        &mut self,
        contender: usize,
        before: &Probe,
        after: &Probe,
        block: Vec<f64>,
    ) {
        if let Some(placement) = self.take_probe(before, after) {
            self.samples[contender][placement as usize].extend(block);
        }
    }

    /// Keeps the probe if it agrees with the one before.
    pub(crate) fn take_probe(&mut self, before: &Probe, after: &Probe) -> Option<Placement> {
        let Some(placement) = before.agreed(after) else {
            self.discarded += 1;
            return None;
        };
        self.kept += 1;
        self.probes[0][placement as usize].extend(&after.one_line);
        self.probes[1][placement as usize].extend(&after.two_lines);
        Some(placement)
    }

    /// The contenders that have no placement in which both they and their limit have samples.
    pub(crate) fn missing<'a>(&self, contenders: &'a [Contender]) -> Vec<&'a Contender> {
        let compared = |contender: &Contender, samples: &Samples| {
            Placement::ALL.into_iter().any(|placement| {
                let limit = self.limit_samples(contender.limit, placement, contenders);
                !samples[placement as usize].is_empty() && limit.is_some()
            })
        };
        let pairs = contenders.iter().zip(&self.samples);
        pairs
            .filter(|(contender, samples)| !compared(contender, samples))
            .map(|(contender, _)| contender)
            .collect()
    }

    /// A row per contender and placement in which it can be compared; the limits come first.
    pub(crate) fn rows(&self, contenders: &[Contender]) -> Vec<Value> {
        let mut rows = Vec::new();
        for placement in Placement::ALL {
            for (name, samples) in LIMITS.into_iter().zip(&self.probes) {
                rows.extend(self.row(name, "limit", name, placement, samples, contenders));
            }
            for (contender, samples) in contenders.iter().zip(&self.samples) {
                let Contender {
                    name, peer, limit, ..
                } = *contender;
                rows.extend(self.row(name, peer, limit, placement, samples, contenders));
            }
        }
        rows
    }

    fn row(
        &self,
        name: &str,
        peer: &str,
        limit: &str,
        placement: Placement,
        samples: &Samples,
        contenders: &[Contender],
    ) -> Option<Value> {
        let samples = &samples[placement as usize];
        if samples.is_empty() {
            return None;
        }
        let mut limits = self.limit_samples(limit, placement, contenders)?.clone();
        let mut samples = samples.clone();
        let median = stats::median(&mut samples);
        let ratio = median / stats::median(&mut limits);
        Some(json!({
            "type": "bench",
            "name": name,
            "peer": peer,
            "placement": placement.name(),
            "median_ns": ns(median),
            "p99_ns": ns(stats::p99(&mut samples)),
            "ratio_to_limit": (ratio * 1000.0).round() / 1000.0,
            "limit": limit,
            "samples": samples.len(),
        }))
    }

    /// The samples of a limit in a placement, if there are any.
    fn limit_samples(
        &self,
        limit: &str,
        placement: Placement,
        contenders: &[Contender],
    ) -> Option<&Vec<f64>> {
        let samples = match LIMITS.iter().position(|&name| name == limit) {
            Some(index) => &self.probes[index],
            None => {
                let is_limit = |c: &Contender| c.name == limit && c.peer == "limit";
                &self.samples[contenders.iter().position(is_limit)?]
            }
        };
        let samples = &samples[placement as usize];
        (!samples.is_empty()).then_some(samples)
    }

    /// The rows for people.
    pub(crate) fn show(&self, lab: &Lab, rows: &[Value]) -> std::io::Result<()> {
        let host = |cpu| host::host_cpu_of(&lab.machine, cpu).unwrap_or_default();
        output::line(format!(
            "From CPU {} to CPU {}. {} blocks kept, {} discarded because the placement changed \
             around them.",
            host(lab.caller),
            host(lab.responder),
            self.kept,
            self.discarded
        ))?;
        let header = [
            "placement",
            "what",
            "who",
            "median",
            "p99",
            "of the limit",
            "which is",
        ];
        let mut table = output::table(&header, &[3, 4, 5]);
        for row in rows {
            let figure = |name: &str| human_ns(row[name].as_f64().unwrap_or(0.0));
            let ratio = row["ratio_to_limit"].as_f64().unwrap_or(0.0);
            table.add_row(vec![
                output::text(&row["placement"]),
                output::text(&row["name"]),
                output::text(&row["peer"]),
                figure("median_ns"),
                figure("p99_ns"),
                format!("{ratio:.2} x"),
                output::text(&row["limit"]),
            ]);
        }
        // Which limit a row has is the same in each run; its spread may be looked up.
        output::print(table, &[6, 4])
    }
}
