//! Order statistics of samples.

/// The sample that `fraction` of the samples lie below; 0 of none.
pub(crate) fn quantile(samples: &mut [f64], fraction: f64) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    let index = ((samples.len() - 1) as f64 * fraction).round() as usize;
    let (_, value, _) = samples.select_nth_unstable_by(index, f64::total_cmp);
    *value
}

/// The middle sample.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The sample that one in a hundred exceeds.
pub(crate) fn p99(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.99)
}

/// What reading the clock costs a sample that lies between two readings, in nanoseconds.
pub(crate) fn clock_cost_ns() -> f64 {
    let mut costs: Vec<f64> = (0..501)
        .map(|_| {
            let start = std::time::Instant::now();
            start.elapsed().as_nanos() as f64
        })
        .collect();
    median(&mut costs)
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::*;

    #[test]
    fn quantiles_pick_by_rank() {
        let mut samples: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(median(&mut samples), 50.0);
        assert_eq!(p99(&mut samples), 99.0);
        assert_eq!(median(&mut []), 0.0);
    }
}
