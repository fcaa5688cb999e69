//! How the durability of a table changes under a copy that goes on serving.
//!
//! The descriptor of a copy says under which durability it acknowledges: after the machine was booted again, a copy
//! whose descriptor says `written` knows that it may lack what it acknowledged. So the descriptor must say so *before*
//! anything is acknowledged that is only written, and must go on saying so until everything of that kind is synced.
//!
//! ```text
//!             written is wanted                   the descriptor is stored
//!   Synced ----------------------> Lowering ------------------------------> Written
//!     ^  appends wait for a sync,   |  appends wait for a sync,              |  appends wait for the
//!     |  descriptors say synced     |  descriptors say written               |  write, descriptors say written
//!     |                             | synced is wanted     synced is wanted  |
//!     |        the log is synced    v                                        v
//!     +--------------------------- Raising ----> Lowering, if written is wanted again
//!              as far as it was    appends wait for a sync, descriptors say written
//! ```
//!
//! An uncertain copy stays in `Raising`: what it may have lost does not come back by a sync.

use pegasus_engine::log::LogSequence;
use pegasus_wire::Durability;

/// Under what a copy acknowledges, and what its descriptors say. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurabilityInForce {
    phase: Phase,
    /// Rises with every change, so that what was stored for an earlier one is told apart.
    change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Synced,
    Lowering,
    Written,
    Raising { through: LogSequence },
}

/// Names one change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change(u64);

impl DurabilityInForce {
    /// Of a copy whose stored descriptor says this.
    pub(crate) fn stored(durability: Durability) -> DurabilityInForce {
        let phase = match durability {
            Durability::Synced => Phase::Synced,
            Durability::Written => Phase::Written,
        };
        DurabilityInForce { phase, change: Change(0) }
    }

    /// When what is appended now may be acknowledged.
    pub(crate) fn of_appends(&self) -> Durability {
        if self.phase == Phase::Written { Durability::Written } else { Durability::Synced }
    }

    /// What a descriptor says that is stored now.
    pub(crate) fn in_descriptor(&self) -> Durability {
        if self.phase == Phase::Synced { Durability::Synced } else { Durability::Written }
    }

    /// Takes what is wanted from now on. `sync` asks the log for a sync and tells up to where. If this gives a change,
    /// a descriptor is to be stored, and [`DurabilityInForce::is_stored`] told of it.
    pub(crate) fn want(&mut self, wanted: Durability, sync: impl FnOnce() -> LogSequence) -> Option<Change> {
        let next = match (self.phase, wanted) {
            // Also out of Raising: the descriptor that said so may not have been stored before that began.
            (Phase::Synced | Phase::Raising { .. }, Durability::Written) => Phase::Lowering,
            (Phase::Written | Phase::Lowering, Durability::Synced) => Phase::Raising { through: sync() },
            _ => return None,
        };
        self.phase = next;
        self.change.0 += 1;
        (next == Phase::Lowering).then_some(self.change)
    }

    /// A descriptor that was asked for with a change is stored.
    pub(crate) fn is_stored(&mut self, change: Change) {
        if self.phase == Phase::Lowering && self.change == change {
            self.phase = Phase::Written;
        }
    }

    /// The log is synced up to here. True if descriptors may say so from now on, and one is to be stored.
    pub(crate) fn is_synced(&mut self, synced: LogSequence, uncertain: bool) -> bool {
        match self.phase {
            Phase::Raising { through } if through <= synced && !uncertain => {
                self.phase = Phase::Synced;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: Durability = Durability::Written;
    const SYNCED: Durability = Durability::Synced;

    fn never() -> LogSequence {
        panic!("nothing needs a sync")
    }

    fn says(durability: &DurabilityInForce, appends: Durability, stored: Durability) {
        assert_eq!((durability.of_appends(), durability.in_descriptor()), (appends, stored), "{durability:?}");
    }

    #[test]
    fn appends_are_written_only_after_the_descriptor_says_so() {
        let mut durability = DurabilityInForce::stored(SYNCED);
        says(&durability, SYNCED, SYNCED);
        assert_eq!(durability.want(SYNCED, never), None);
        let change = durability.want(WRITTEN, never).unwrap();
        says(&durability, SYNCED, WRITTEN);
        assert_eq!(durability.want(WRITTEN, never), None);
        durability.is_stored(change);
        says(&durability, WRITTEN, WRITTEN);
    }

    #[test]
    fn descriptors_say_synced_only_after_the_sync() {
        let mut durability = DurabilityInForce::stored(WRITTEN);
        assert!(!durability.is_synced(LogSequence(100), false), "nobody asked for it");
        assert_eq!(durability.want(SYNCED, || LogSequence(7)), None);
        says(&durability, SYNCED, WRITTEN);
        assert!(!durability.is_synced(LogSequence(6), false));
        says(&durability, SYNCED, WRITTEN);
        assert!(durability.is_synced(LogSequence(7), false));
        says(&durability, SYNCED, SYNCED);
        assert!(!durability.is_synced(LogSequence(8), false));
    }

    #[test]
    fn what_may_be_lost_already_is_not_made_good_by_a_sync() {
        let mut durability = DurabilityInForce::stored(WRITTEN);
        durability.want(SYNCED, || LogSequence(1));
        assert!(!durability.is_synced(LogSequence(9), true));
        says(&durability, SYNCED, WRITTEN);
        assert!(durability.is_synced(LogSequence(9), false));
    }

    #[test]
    fn back_and_forth() {
        let mut durability = DurabilityInForce::stored(SYNCED);
        let first = durability.want(WRITTEN, never).unwrap();
        // The descriptor is on its way: a later one has to say that it does not hold any more.
        durability.want(SYNCED, || LogSequence(3));
        says(&durability, SYNCED, WRITTEN);
        durability.is_stored(first);
        says(&durability, SYNCED, WRITTEN);
        assert!(durability.is_synced(LogSequence(3), false));
        let second = durability.want(WRITTEN, never).unwrap();
        // The one that says synced may still come after the first.
        durability.is_stored(first);
        says(&durability, SYNCED, WRITTEN);
        durability.is_stored(second);
        says(&durability, WRITTEN, WRITTEN);
        durability.want(SYNCED, || LogSequence(4));
        let third = durability.want(WRITTEN, never).unwrap();
        says(&durability, SYNCED, WRITTEN);
        durability.is_stored(third);
        says(&durability, WRITTEN, WRITTEN);
    }

    #[test]
    fn a_descriptor_on_its_way_is_not_taken_for_stored() {
        let mut durability = DurabilityInForce::stored(SYNCED);
        let first = durability.want(WRITTEN, never).unwrap();
        durability.want(SYNCED, || LogSequence(3));
        let second = durability.want(WRITTEN, never).unwrap();
        says(&durability, SYNCED, WRITTEN);
        durability.is_stored(first);
        says(&durability, SYNCED, WRITTEN);
        durability.is_stored(second);
        says(&durability, WRITTEN, WRITTEN);
    }
}
