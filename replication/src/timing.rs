//! Time as the protocol needs it: readings of one node's clock, and how long leases and grace periods are.
//!
//! The protocol is safe if every node's clock runs at the right speed within `drift_permille`, also while the machine
//! is suspended (CLOCK_BOOTTIME). Readings of different nodes are never compared. Nothing here reads a clock.

use std::fmt;

/// A reading of this node's clock, microseconds since the machine started. Two readings of one node may be compared,
/// readings of different nodes may not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment this many microseconds later.
    pub fn after(self, micros: u64) -> Moment {
        Moment(self.0.saturating_add(micros))
    }

    /// Microseconds since an earlier moment; 0 if it is a later one.
    pub fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// How long things may take.
///
/// Invariant, checked by [`Timing::validate`]: a lease that its primary counts from the *sending* of a beacon ends
/// before the grace period that the member counts from its *receipt*, even if the primary's clock is slow by
/// `drift_permille` and the member's is fast by as much. So when a secondary may take over, the old primary has
/// stopped serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Pause between two beacons of a primary.
    pub beacon_interval_micros: u64,
    /// How long an answered beacon lets the primary serve, from its sending.
    pub lease_micros: u64,
    /// How long a secondary waits for its primary before it asks to take its place, from the last thing it heard.
    pub grace_micros: u64,
    /// A member that leaves a prepare unacknowledged for so long is removed.
    pub prepare_timeout_micros: u64,
    /// How much faster or slower than real time a clock may run, in thousandths.
    pub drift_permille: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            beacon_interval_micros: 500_000,
            lease_micros: 2_000_000,
            grace_micros: 3_000_000,
            prepare_timeout_micros: 2_000_000,
            drift_permille: 50,
        }
    }
}

impl Timing {
    /// Checks the invariant, and that a lease survives a lost beacon.
    ///
    /// # Errors
    /// Says which value is wrong and what it must be.
    pub fn validate(&self) -> Result<(), String> {
        let Timing { beacon_interval_micros, lease_micros, grace_micros, prepare_timeout_micros, drift_permille } =
            *self;
        if drift_permille >= 1000 {
            return Err(format!("a clock drift of {drift_permille} thousandths makes leases meaningless"));
        }
        if beacon_interval_micros == 0 || beacon_interval_micros.saturating_mul(2) > lease_micros {
            return Err(format!(
                "the beacon interval ({beacon_interval_micros} us) must be above zero and at most half the lease \
                 ({lease_micros} us)"
            ));
        }
        let longest_lease = u128::from(lease_micros) * u128::from(1000 + drift_permille);
        let shortest_grace = u128::from(grace_micros) * u128::from(1000 - drift_permille);
        if longest_lease >= shortest_grace {
            return Err(format!(
                "the lease ({lease_micros} us) must end before the grace period ({grace_micros} us) also when clocks \
                 drift by {drift_permille} thousandths: make the grace period longer"
            ));
        }
        if prepare_timeout_micros < beacon_interval_micros {
            return Err(format!(
                "the prepare timeout ({prepare_timeout_micros} us) must not be below the beacon interval \
                 ({beacon_interval_micros} us)"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Timing::default().validate(), Ok(()));
    }

    #[test]
    fn a_lease_must_end_before_the_grace_period_under_drift() {
        let timing = |lease_micros, grace_micros, drift_permille| Timing {
            lease_micros,
            grace_micros,
            drift_permille,
            ..Timing::default()
        };
        assert!(timing(2_000_000, 2_210_000, 50).validate().is_err());
        assert!(timing(2_000_000, 2_211_000, 50).validate().is_ok());
        assert!(timing(2_000_000, 2_000_000, 0).validate().is_err());
        assert!(timing(900_000, 3_000_000, 50).validate().is_err(), "no room for a lost beacon");
        assert!(timing(2_000_000, 3_000_000, 1000).validate().is_err());
        assert!(Timing { prepare_timeout_micros: 1, ..Timing::default() }.validate().is_err());
    }
}
