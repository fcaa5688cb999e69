//! Latency histograms: high dynamic range, three significant digits, nanoseconds in, microseconds out.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies of one kind of operation.
///
/// Values above two minutes are recorded as that, so that a stalled operation shows and never panics.
#[derive(Clone)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency::new()
    }
}

impl Latency {
    /// An empty histogram; about 200 KiB.
    pub fn new() -> Latency {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants in range");
        Latency { histogram }
    }

    /// Counts one operation that took this long.
    pub fn record(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanoseconds.max(1));
    }

    /// Adds all operations of another histogram.
    pub fn merge(&mut self, other: &Latency) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
    }

    /// Operations counted.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The figures to print. All are zero if nothing was counted.
    pub fn summary(&self) -> LatencySummary {
        if self.histogram.is_empty() {
            return LatencySummary::default();
        }
        let at = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        LatencySummary {
            mean_us: self.histogram.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.histogram.max() as f64 / 1000.0,
        }
    }
}

/// Percentiles of one histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Half of the operations were at most this slow.
    pub p50_us: f64,
    /// Nine in ten.
    pub p90_us: f64,
    /// 99 in a hundred.
    pub p99_us: f64,
    /// 999 in a thousand.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// The largest latency told apart: two minutes, longer than any operation is waited for.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_set() {
        let mut latency = Latency::new();
        for microseconds in 1..=1000 {
            latency.record(Duration::from_micros(microseconds));
        }
        let summary = latency.summary();
        let near = |measured: f64, expected: f64| (measured - expected).abs() <= expected * 0.002;
        assert_eq!(latency.count(), 1000);
        assert!(near(summary.p50_us, 500.0), "{summary:?}");
        assert!(near(summary.p90_us, 900.0), "{summary:?}");
        assert!(near(summary.p99_us, 990.0), "{summary:?}");
        assert!(near(summary.p999_us, 999.0), "{summary:?}");
        assert!(near(summary.max_us, 1000.0), "{summary:?}");
        assert!(near(summary.mean_us, 500.5), "{summary:?}");
    }

    #[test]
    fn extremes_are_kept_in_bounds() {
        let mut latency = Latency::new();
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(100_000));
        assert_eq!(latency.count(), 2);
        assert!(latency.summary().max_us >= LATENCY_NS_MAX as f64 / 1000.0);
        assert_eq!(Latency::new().summary(), LatencySummary::default());
    }

    #[test]
    fn merging_counts_both() {
        let mut left = Latency::new();
        left.record(Duration::from_micros(10));
        let mut right = Latency::new();
        right.record(Duration::from_micros(1000));
        left.merge(&right);
        assert_eq!(left.count(), 2);
        assert!(left.summary().max_us > 900.0);
    }
}
