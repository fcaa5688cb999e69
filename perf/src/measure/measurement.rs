//! One measured thing: a name, a depth, its latencies, its rate and what it cost.

use std::time::Duration;

use serde::Serialize;

use crate::measure::latency::{Latency, LatencySummary};

/// The result of measuring one kind of operation at one depth.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measurement {
    /// What was done, for example "quic echo 100 B".
    pub name: String,
    /// Operations in flight at a time.
    pub depth: usize,
    /// Operations completed.
    pub operations: u64,
    /// Operations that failed; they count neither in `operations` nor in the latencies.
    pub errors: u64,
    /// Completed operations per second.
    pub per_second: f64,
    /// How long they took.
    pub latency: LatencySummary,
    /// CPU time of the measuring process per operation, in microseconds; without the server's where that is a
    /// thread of the same process.
    pub client_cpu_us: Option<f64>,
    /// CPU time of all servers together per operation, in microseconds.
    pub server_cpu_us: Option<f64>,
}

impl Measurement {
    /// A measurement of operations that went on for `wall`. CPU figures are added with the `with_` methods.
    pub fn new(name: impl Into<String>, depth: usize, latency: &Latency, wall: Duration) -> Measurement {
        let seconds = wall.as_secs_f64();
        let operations = latency.count();
        Measurement {
            name: name.into(),
            depth,
            operations,
            per_second: if seconds > 0.0 { operations as f64 / seconds } else { 0.0 },
            latency: latency.summary(),
            ..Measurement::default()
        }
    }

    /// Adds the CPU time the measuring side used.
    pub fn with_client_cpu(mut self, used: Duration) -> Measurement {
        self.client_cpu_us = per_operation_us(used, self.operations);
        self
    }

    /// Adds the CPU time the servers used.
    pub fn with_server_cpu(mut self, used: Duration) -> Measurement {
        self.server_cpu_us = per_operation_us(used, self.operations);
        self
    }
}

/// Microseconds of CPU per operation; `None` if there was no operation.
pub fn per_operation_us(used: Duration, operations: u64) -> Option<f64> {
    (operations > 0).then(|| used.as_secs_f64() * 1e6 / operations as f64)
}

/// The same thing measured in several rounds, as one: the median of each figure by itself (the slowest of all
/// for `max_us`, the sum for counts). `None` if there was no round.
pub fn median(rounds: &[Measurement]) -> Option<Measurement> {
    let first = rounds.first()?;
    let of = |figure: fn(&Measurement) -> f64| median_of(rounds.iter().map(figure).collect());
    let of_some = |figure: fn(&Measurement) -> Option<f64>| {
        let figures: Vec<f64> = rounds.iter().filter_map(figure).collect();
        (!figures.is_empty()).then(|| median_of(figures))
    };
    Some(Measurement {
        name: first.name.clone(),
        depth: first.depth,
        operations: rounds.iter().map(|round| round.operations).sum(),
        errors: rounds.iter().map(|round| round.errors).sum(),
        per_second: of(|round| round.per_second),
        latency: LatencySummary {
            mean_us: of(|round| round.latency.mean_us),
            p50_us: of(|round| round.latency.p50_us),
            p90_us: of(|round| round.latency.p90_us),
            p99_us: of(|round| round.latency.p99_us),
            p999_us: of(|round| round.latency.p999_us),
            max_us: rounds.iter().map(|round| round.latency.max_us).fold(0.0, f64::max),
        },
        client_cpu_us: of_some(|round| round.client_cpu_us),
        server_cpu_us: of_some(|round| round.server_cpu_us),
    })
}

/// The middle of some figures; of an even number, the mean of the two in the middle. Zero for none.
pub fn median_of(mut figures: Vec<f64>) -> f64 {
    if figures.is_empty() {
        return 0.0;
    }
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(p50_us: f64, max_us: f64, server_cpu_us: Option<f64>) -> Measurement {
        let latency = LatencySummary { p50_us, max_us, ..LatencySummary::default() };
        let name = "get".to_owned();
        Measurement { name, depth: 64, operations: 10, errors: 1, latency, server_cpu_us, ..Measurement::default() }
    }

    #[test]
    fn rates_and_costs_are_per_operation() {
        let mut latency = Latency::new();
        for _ in 0..100 {
            latency.record(Duration::from_micros(50));
        }
        let measurement = Measurement::new("get", 1, &latency, Duration::from_millis(500))
            .with_client_cpu(Duration::from_millis(1))
            .with_server_cpu(Duration::from_millis(2));
        assert_eq!(measurement.operations, 100);
        assert_eq!(measurement.per_second, 200.0);
        assert_eq!(measurement.client_cpu_us, Some(10.0));
        assert_eq!(measurement.server_cpu_us, Some(20.0));
    }

    #[test]
    fn nothing_measured_has_no_cost_and_no_rate() {
        let measurement = Measurement::new("get", 1, &Latency::new(), Duration::ZERO).with_client_cpu(Duration::ZERO);
        assert_eq!((measurement.per_second, measurement.client_cpu_us), (0.0, None));
    }

    #[test]
    fn the_median_is_taken_of_each_figure_by_itself() {
        let rounds = [round(30.0, 5.0, None), round(10.0, 9.0, Some(2.0)), round(20.0, 7.0, Some(4.0))];
        let median = median(&rounds).unwrap();
        assert_eq!(median.latency.p50_us, 20.0);
        assert_eq!(median.latency.max_us, 9.0);
        assert_eq!(median.server_cpu_us, Some(3.0));
        assert_eq!(median.client_cpu_us, None);
        assert_eq!((median.operations, median.errors), (30, 3));
    }

    #[test]
    fn no_rounds_no_median() {
        assert_eq!(median(&[]), None);
    }
}
