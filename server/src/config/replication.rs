//! How members watch each other, how learners are taught, and what becomes of copies that are not needed any more.

use pegasus_replication::Timing;
use pegasus_wire::limits::MEMBERS_MAX;
use serde::{Deserialize, Serialize};

use super::{ConfigError, check};

/// Learnings one core may take part in at a time, at most.
const LEARNERS_MAX: usize = 64;
/// Below this a checkpoint would not arrive in any useful time.
const CHECKPOINT_RATE_MIN: u64 = 1 << 20;
/// Ten years; a copy is held for some time, not for ever.
const HOLD_HOURS_MAX: u32 = 10 * 365 * 24;

/// Leases, learning, removal. All members of a cluster must agree on the lease, the grace period and the drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replication {
    /// Pause between two beacons to the same core.
    pub beacon_interval_ms: u64,
    /// How long an answered beacon lets a primary serve, from its sending.
    pub lease_ms: u64,
    /// How long a secondary waits for its primary before it asks to take its place.
    pub grace_ms: u64,
    /// A member that leaves a prepare unacknowledged for so long is removed.
    pub prepare_timeout_ms: u64,
    /// How much faster or slower than real time a clock may run, in hundredths.
    pub clock_drift_percent: u64,
    /// With fewer members than this a partition takes no new writes; never more than the table's replica count.
    pub min_members: usize,
    /// Learners that one core serves, and that it takes, at a time.
    pub learners_per_core: usize,
    /// What the node sends of checkpoints, all learners together.
    pub checkpoint_bytes_per_second: u64,
    /// How long a copy that was removed, or replaced because it was damaged, is kept aside.
    pub removed_copy_hold_hours: u32,
}

impl Default for Replication {
    fn default() -> Self {
        let timing = Timing::default();
        Replication {
            beacon_interval_ms: timing.beacon_interval_micros / 1000,
            lease_ms: timing.lease_micros / 1000,
            grace_ms: timing.grace_micros / 1000,
            prepare_timeout_ms: timing.prepare_timeout_micros / 1000,
            clock_drift_percent: timing.drift_permille / 10,
            min_members: 2,
            learners_per_core: 4,
            checkpoint_bytes_per_second: 32 << 20,
            removed_copy_hold_hours: 24,
        }
    }
}

impl Replication {
    /// The times in the form the protocol takes.
    pub fn timing(&self) -> Timing {
        Timing {
            beacon_interval_micros: self.beacon_interval_ms.saturating_mul(1000),
            lease_micros: self.lease_ms.saturating_mul(1000),
            grace_micros: self.grace_ms.saturating_mul(1000),
            prepare_timeout_micros: self.prepare_timeout_ms.saturating_mul(1000),
            drift_permille: self.clock_drift_percent.saturating_mul(10),
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.timing().validate().map_err(|problem| ConfigError::Invalid { key: "replication", problem })?;
        check("replication.min_members", (1..=MEMBERS_MAX).contains(&self.min_members), || {
            format!("1 to {MEMBERS_MAX}; got {}", self.min_members)
        })?;
        check("replication.learners_per_core", (1..=LEARNERS_MAX).contains(&self.learners_per_core), || {
            format!("1 to {LEARNERS_MAX}; got {}", self.learners_per_core)
        })?;
        let rate = self.checkpoint_bytes_per_second;
        check("replication.checkpoint_bytes_per_second", rate >= CHECKPOINT_RATE_MIN, || {
            format!("at least {CHECKPOINT_RATE_MIN}; got {rate}")
        })?;
        check("replication.removed_copy_hold_hours", self.removed_copy_hold_hours <= HOLD_HOURS_MAX, || {
            format!("at most {HOLD_HOURS_MAX}; got {}", self.removed_copy_hold_hours)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let replication = Replication::default();
        assert_eq!(replication.timing(), Timing::default());
        assert!(replication.validate().is_ok());
    }

    #[test]
    fn what_would_make_leases_unsafe_is_refused_and_named() {
        let good = Replication::default();
        let bad = [
            (Replication { grace_ms: good.lease_ms, ..good }, "grace period"),
            (Replication { clock_drift_percent: 30, ..good }, "drift"),
            (Replication { beacon_interval_ms: 1500, ..good }, "beacon interval"),
            (Replication { beacon_interval_ms: 0, ..good }, "beacon interval"),
            (Replication { prepare_timeout_ms: 10, ..good }, "prepare timeout"),
            (Replication { lease_ms: u64::MAX, ..good }, "lease"),
            (Replication { min_members: 0, ..good }, "min_members"),
            (Replication { min_members: MEMBERS_MAX + 1, ..good }, "min_members"),
            (Replication { learners_per_core: 0, ..good }, "learners_per_core"),
            (Replication { checkpoint_bytes_per_second: 10, ..good }, "checkpoint_bytes_per_second"),
            (Replication { removed_copy_hold_hours: u32::MAX, ..good }, "removed_copy_hold_hours"),
        ];
        for (replication, words) in bad {
            let message = replication.validate().unwrap_err().to_string();
            assert!(message.contains(words), "{replication:?}: {message}");
        }
    }
}
