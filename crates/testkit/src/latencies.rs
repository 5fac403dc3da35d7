//! Latencies, in a histogram.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies and their percentiles, to four significant digits.
#[derive(Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new(4).expect("four significant digits are allowed"))
    }
}

impl Latencies {
    /// Adds a latency; it is kept in microseconds.
    pub fn record(&mut self, latency: Duration) {
        let recorded = self.0.record(latency.as_micros() as u64);
        recorded.expect("a histogram without an upper bound grows");
    }

    /// The number of latencies.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that the share `quantile`, from 0 to 1, does not exceed; none without any.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let micros = self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Duration::from_micros(micros))
    }

    /// The share that exceeds `limit`, from 0 to 1.
    pub fn share_above(&self, limit: Duration) -> f64 {
        1.0 - self.0.percentile_below(limit.as_micros() as u64) / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_shares() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.99), None);
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis));
        }
        let p99 = latencies.quantile(0.99).unwrap().as_secs_f64();
        assert!((p99 - 0.099).abs() < 0.0001, "{p99}");
        assert_eq!(latencies.share_above(Duration::from_millis(75)), 0.25);
    }
}
