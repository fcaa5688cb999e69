//! Bugs that a test may plant, to prove that the simulator would find them. Without the feature `planted-bugs`
//! nothing can be planted and the questions below are constant.

/// A mistake somebody could make. Each breaks one rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// A member acknowledges what it has only handed to its log.
    AcknowledgedBeforeLogged,
    /// The primary commits what a majority has logged.
    CommitByMajority,
    /// A member takes prepares of a superseded stream and ballot.
    OlderBallotAccepted,
    /// A new primary serves before its inherited window has committed.
    InheritedWindowSkipped,
    /// A member keeps what it prepared beyond the new primary's last decree.
    StaleTailNotTruncated,
    /// A member applies what is merely prepared.
    AppliedBeforeCommitted,
    /// A member answers under a new ballot before that ballot is durable.
    BallotNotStored,
    /// A primary serves without looking at its leases.
    ServesAfterLease,
    /// A primary counts a lease from the arrival of the answer instead of the sending of the beacon.
    LeaseFromAnswer,
    /// A new primary believes that it has a lease of every member.
    NewPrimaryStartsWithLease,
    /// A secondary goes on granting beacons after it asked to take over.
    BeaconsGrantedAfterClaim,
    /// A restarted secondary does not wait for its grace period, nor for what it granted before.
    TakesOverAtOnce,
    /// A learner is proposed as a secondary before it has everything.
    LearnerPromotedWithGap,
    /// A learner whose addition is proposed is not counted until the answer comes.
    PendingLearnerNotCounted,
    /// A proposal that was not answered is taken for refused.
    LostAnswerTakenAsRefusal,
    /// A configuration older than the one known is believed.
    StaleConfigurationAccepted,
    /// A removed member's writes are acknowledged before the new configuration is in force.
    CommitsWithoutRemovedMember,
}

/// The bug planted in one replica, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bugs {
    #[cfg(feature = "planted-bugs")]
    pub(crate) planted: Option<PlantedBug>,
}

impl Bugs {
    /// True if this bug was planted.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has(self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    /// True if this bug was planted.
    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn has(self, _bug: PlantedBug) -> bool {
        false
    }

    /// True if any was: the replica's own assertions are off then, so that the finding is the simulator's.
    pub(crate) fn any(self) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.planted.is_some();
        #[cfg(not(feature = "planted-bugs"))]
        false
    }
}
