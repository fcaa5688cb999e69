//! What a measured figure is held against: the floor made of the machine's limits, and the guard rails.
//!
//! The floor of an operation is the sum of the parts it cannot do without, measured alone:
//!
//! - latency at depth 1: a get is one echo and one RocksDB get; a set on several replicas is two echoes in a row
//!   (client to primary, primary to secondary), one log write (with its fdatasync if the table is synced; primary and
//!   secondaries write at the same time as the echo, so this counts it once) and one RocksDB put;
//! - server CPU: a get is the serving side of one echo and one RocksDB get; a set on R replicas is the serving side of
//!   R echoes, the calling side of R - 1, and R RocksDB puts. The log is left out, because a group shares one write.
//!
//! It is a yardstick, not a proof: parts can overlap, and batching can beat it at depth.

use serde::Serialize;

use crate::compare::{ClusterLine, Limits, Round};
use crate::measure::Measurement;

/// The least an operation can take, as far as the limits tell; in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Floor {
    /// Latency; at depth 1 only, since at depth latency is queueing.
    pub latency_us: Option<f64>,
    /// CPU time of all servers.
    pub server_cpu_us: Option<f64>,
}

/// A figure with its floor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// What was measured.
    pub measurement: Measurement,
    /// What it is held against; nothing for the limits themselves.
    pub floor: Floor,
}

/// All lines of a round in the order they are shown: limits, then the cluster with its floors.
pub fn judge(round: &Round, replicas: u8) -> Vec<Judged> {
    let Limits { echo_alone, echo_deep, write, sync, pair, put, get } = &round.limits;
    let limits = [echo_alone, echo_deep, write, sync, pair, put, get];
    let limits = limits.map(|measurement| Judged { measurement: measurement.clone(), floor: Floor::default() });
    let cluster = round.cluster.iter().map(|line| Judged {
        measurement: line.measurement.clone(),
        floor: floor(line, &round.limits, f64::from(replicas)),
    });
    limits.into_iter().chain(cluster).collect()
}

fn floor(line: &ClusterLine, limits: &Limits, replicas: f64) -> Floor {
    let alone = line.measurement.depth == 1;
    let echo = if alone { &limits.echo_alone } else { &limits.echo_deep };
    let round_trip = limits.echo_alone.latency.p50_us;
    let serving = echo.server_cpu_us;
    let (latency_us, server_cpu_us) = if line.operation == "get" {
        (round_trip + limits.get.latency.p50_us, sum(&[(1.0, serving), (1.0, limits.get.client_cpu_us)]))
    } else {
        let log = if line.durability == "synced" { &limits.pair } else { &limits.write };
        let trips = if replicas > 1.0 { 2.0 } else { 1.0 };
        let parts = [(replicas, serving), (replicas - 1.0, echo.client_cpu_us), (replicas, limits.put.client_cpu_us)];
        (trips * round_trip + log.latency.p50_us + limits.put.latency.p50_us, sum(&parts))
    };
    Floor { latency_us: alone.then_some(latency_us), server_cpu_us }
}

/// The sum of parts, each so many times; `None` if one was not measured.
fn sum(parts: &[(f64, Option<f64>)]) -> Option<f64> {
    parts.iter().map(|(times, part)| part.map(|part| times * part)).sum()
}

/// A bound the foundation is meant to keep, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rail {
    /// What is bounded.
    pub name: String,
    /// The figure, if it was measured.
    pub measured: Option<f64>,
    /// The bound, if what it depends on was measured.
    pub limit: Option<f64>,
}

impl Rail {
    /// Whether the bound is kept; `None` if it cannot be told.
    pub fn kept(&self) -> Option<bool> {
        Some(self.measured? <= self.limit?)
    }
}

/// The guard rails: a get alone at most twice the echo; server CPU at depth 64 per get and per set.
pub fn rails(round: &Round) -> Vec<Rail> {
    let echo_us = round.limits.echo_alone.latency.p50_us;
    let mut rails = Vec::new();
    for ClusterLine { operation, measurement, .. } in &round.cluster {
        let name = &measurement.name;
        match (*operation, measurement.depth) {
            ("get", 1) => rails.push(Rail {
                name: format!("{name} p50 at depth 1: at most 2 echoes"),
                measured: (measurement.operations > 0).then_some(measurement.latency.p50_us),
                limit: (echo_us > 0.0).then_some(2.0 * echo_us),
            }),
            (_, depth) if depth > 1 => rails.push(Rail {
                name: format!("{name} server CPU at depth {depth}"),
                measured: measurement.server_cpu_us,
                limit: Some(if *operation == "get" { GET_CPU_US_MAX } else { SET_CPU_US_MAX }),
            }),
            _ => {}
        }
    }
    rails
}

/// Server CPU per get of a 1000-byte row.
const GET_CPU_US_MAX: f64 = 25.0;
/// Server CPU per set of a 1000-byte row on three replicas, all nodes together.
const SET_CPU_US_MAX: f64 = 120.0;

#[cfg(test)]
pub(crate) mod tests {
    use crate::measure::LatencySummary;

    use super::*;

    fn measurement(name: &str, depth: usize, p50_us: f64, client: Option<f64>, server: Option<f64>) -> Measurement {
        Measurement {
            name: name.to_owned(),
            depth,
            operations: 100,
            latency: LatencySummary { p50_us, ..LatencySummary::default() },
            client_cpu_us: client,
            server_cpu_us: server,
            ..Measurement::default()
        }
    }

    /// A round with figures that are easy to add.
    pub(crate) fn round() -> Round {
        let limits = Limits {
            echo_alone: measurement("quic echo 100 B", 1, 100.0, Some(60.0), Some(50.0)),
            echo_deep: measurement("quic echo 100 B", 64, 300.0, Some(2.0), Some(1.0)),
            write: measurement("direct write", 1, 50.0, Some(5.0), None),
            sync: measurement("fdatasync after a write", 1, 40.0, None, None),
            pair: measurement("write and fdatasync", 1, 90.0, Some(9.0), None),
            put: measurement("rocksdb put", 1, 3.0, Some(2.5), None),
            get: measurement("rocksdb get", 1, 4.0, Some(3.5), None),
        };
        let mut cluster = Vec::new();
        for durability in ["written", "synced"] {
            for (operation, cpu) in [("get", 20.0), ("set", 130.0)] {
                for (depth, p50_us) in [(1, 190.0), (64, 900.0)] {
                    let name = format!("{operation} ({durability})");
                    let measurement = measurement(&name, depth, p50_us, Some(1.0), Some(cpu));
                    cluster.push(ClusterLine { operation, durability: durability.to_owned(), measurement });
                }
            }
        }
        Round { limits, cluster }
    }

    fn floor_of(name: &str, depth: usize, replicas: u8) -> Floor {
        let lines = judge(&round(), replicas);
        let line = lines.iter().find(|line| line.measurement.name == name && line.measurement.depth == depth);
        line.unwrap().floor
    }

    #[test]
    fn floors_are_the_sums_of_their_parts() {
        assert_eq!(floor_of("get (synced)", 1, 3), Floor { latency_us: Some(104.0), server_cpu_us: Some(53.5) });
        assert_eq!(floor_of("set (written)", 1, 3).latency_us, Some(253.0));
        assert_eq!(floor_of("set (synced)", 1, 3).latency_us, Some(293.0));
        assert_eq!(floor_of("set (synced)", 1, 1).latency_us, Some(193.0));
        let deep = Floor { latency_us: None, server_cpu_us: Some(3.0 * 1.0 + 2.0 * 2.0 + 3.0 * 2.5) };
        assert_eq!(floor_of("set (synced)", 64, 3), deep);
        assert_eq!(floor_of("quic echo 100 B", 1, 3), Floor::default());
    }

    #[test]
    fn rails_tell_kept_from_broken_and_from_not_measured() {
        let mut round = round();
        let verdicts = |round: &Round| -> Vec<(String, Option<bool>)> {
            rails(round).iter().map(|rail| (rail.name.clone(), rail.kept())).collect()
        };
        let kept = verdicts(&round);
        assert_eq!(kept.len(), 6, "{kept:?}");
        assert_eq!(kept[0], ("get (written) p50 at depth 1: at most 2 echoes".to_owned(), Some(true)));
        assert_eq!(kept[1].1, Some(true));
        assert_eq!(kept[2], ("set (written) server CPU at depth 64".to_owned(), Some(false)));
        round.limits.echo_alone.latency.p50_us = 90.0;
        round.cluster[1].measurement.server_cpu_us = None;
        let broken = verdicts(&round);
        assert_eq!((broken[0].1, broken[1].1), (Some(false), None));
    }
}
