//! What is throttled, and whether the rate was held. Pure.

use serde::Serialize;

use crate::workload::{Mix, Operation};

/// What a throttle counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Requests.
    Operations,
    /// Bytes of keys and values.
    Bytes,
}

/// One setting of a table.
#[derive(Clone, Debug)]
pub struct Case {
    /// The setting.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What is asked of the table.
    pub operation: Operation,
    /// What the throttle counts.
    pub unit: Unit,
    /// Units a second.
    pub rate: u64,
}

/// What a case came to.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// The setting and its value.
    pub setting: String,
    /// What the throttle counts.
    pub unit: Unit,
    /// Units a second that were allowed; `None`: without a throttle.
    pub allowed: Option<u64>,
    /// Units a second that were carried out.
    pub measured: f64,
    /// Median latency of the throttled table, in milliseconds.
    pub p50_ms: f64,
    /// Operations on the throttled table that failed.
    pub errors: u64,
    /// 99th percentile of the other table on the same cores, in milliseconds.
    pub neighbour_p99_ms: f64,
    /// Its median.
    pub neighbour_p50_ms: f64,
    /// Operations a second of the other table.
    pub neighbour_rate: f64,
}

/// All cases: both ways of holding back, of reads and of writes, by number and by size.
pub fn cases(operations: u64, bytes: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, operation) in [("write", Operation::Set), ("read", Operation::Get)] {
        for how in ["delay", "reject"] {
            // Delayed requests wait for their turn; refused ones are sent again by the client.
            let wait_ms = if how == "delay" { DELAY_MS } else { 0 };
            for (unit, rate) in [(Unit::Operations, operations), (Unit::Bytes, bytes)] {
                let key = match (kind, unit) {
                    ("write", Unit::Operations) => "replica.write_throttling",
                    ("write", Unit::Bytes) => "replica.write_throttling_by_size",
                    (_, Unit::Operations) => "replica.read_throttling",
                    (_, Unit::Bytes) => "replica.read_throttling_by_size",
                };
                cases.push(Case { key, value: format!("{rate}*{how}*{wait_ms}"), operation, unit, rate });
            }
        }
    }
    cases
}

impl Case {
    /// What is asked of the table.
    pub fn mix(&self) -> Mix {
        Mix::only(self.operation)
    }

    /// The setting and its value.
    pub fn setting(&self) -> String {
        format!("{} = {}", self.key, self.value)
    }
}

impl Held {
    /// The measured rate over the one that was allowed.
    pub fn ratio(&self) -> Option<f64> {
        self.allowed.map(|allowed| self.measured / allowed as f64)
    }

    /// What is wrong: the rate was not held within a tenth.
    pub fn problem(&self) -> Option<String> {
        let ratio = self.ratio().filter(|ratio| !(1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(ratio))?;
        let Held { setting, measured, .. } = self;
        Some(format!("{setting}: {measured:.0} a second, {ratio:.2} times what is allowed"))
    }
}

/// How far a rate may be off.
const TOLERANCE: f64 = 0.1;
/// Longer than any request waits behind those that are under way here.
const DELAY_MS: u32 = 2000;

#[cfg(test)]
mod tests {
    use pegasus_wire::environment::Environment;
    use pegasus_wire::messages::control::EnvironmentEntry;

    use super::*;

    fn held(allowed: Option<u64>, measured: f64) -> Held {
        Held {
            setting: "x".to_owned(),
            unit: Unit::Operations,
            allowed,
            measured,
            p50_ms: 1.0,
            errors: 0,
            neighbour_p99_ms: 1.0,
            neighbour_p50_ms: 1.0,
            neighbour_rate: 1.0,
        }
    }

    #[test]
    fn a_tenth_is_allowed() {
        for measured in [905.0, 1000.0, 1095.0] {
            assert_eq!(held(Some(1000), measured).problem(), None, "{measured}");
        }
        for measured in [890.0, 1110.0, 0.0] {
            assert!(held(Some(1000), measured).problem().is_some(), "{measured}");
        }
        assert_eq!(held(None, 5.0).problem(), None);
    }

    #[test]
    fn every_setting_is_one() {
        let cases = cases(1000, 1_000_000);
        assert_eq!(cases.len(), 8);
        for Case { key, value, .. } in cases {
            let entry = EnvironmentEntry { key: key.to_owned(), value };
            let environment = Environment::parse(&[entry]).unwrap();
            let throttles = [
                environment.write_throttle,
                environment.write_bytes_throttle,
                environment.read_throttle,
                environment.read_bytes_throttle,
            ];
            assert_eq!(throttles.iter().filter(|throttle| !throttle.is_off()).count(), 1);
        }
    }
}
