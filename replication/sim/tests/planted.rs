//! The simulator is only worth what it finds: each planted bug must be found within a bounded number of seeds, and
//! the same seeds pass without it.

use pegasus_replication::{PlantedBug, Replica};
use pegasus_sim::{HostBug, Planted, Profile, run_seed};

/// Seeds a bug may take to be found. Most are found by one of the first ten.
const SEEDS_MAX: u64 = 2000;
/// Seeds that must pass without the bug, at least.
const CLEAN_SEEDS: u64 = 40;

/// Looks for a bug with runs of one kind. What is found says one of these things.
fn find(name: &str, planted: Planted, profile: Profile, finds: &[&str]) -> Result<(), String> {
    // Replicas that stop by an assertion of their own are findings; nobody needs to read of each.
    std::panic::set_hook(Box::new(|_| {}));
    let found = (1..=SEEDS_MAX).find_map(|seed| run_seed(profile, seed, planted, false).err());
    let failure = found.ok_or_else(|| format!("{name} was not found in {SEEDS_MAX} seeds of {profile}"))?;
    let said = failure.violation.lines().next().unwrap_or_default();
    println!("{name}: found after {} seeds of {profile}: {said}", failure.seed);
    if !finds.iter().any(|words| failure.violation.contains(words)) {
        return Err(format!("{name} was found by something else: {}", failure.violation));
    }
    for seed in 1..=failure.seed.max(CLEAN_SEEDS) {
        run_seed(profile, seed, Planted::default(), false).map_err(|failure| format!("without {name}: {failure}"))?;
    }
    Ok(())
}

fn in_replica(name: &str, plant: fn(&mut Replica), profile: Profile, finds: &[&str]) -> Result<(), String> {
    find(name, Planted { replica: Some(plant), host: None }, profile, finds)
}

fn in_host(bug: HostBug, profile: Profile, finds: &[&str]) -> Result<(), String> {
    find(&format!("{bug:?}"), Planted { replica: None, host: Some(bug) }, profile, finds)
}

/// Declares a test for each bug of the replica.
macro_rules! in_replica {
    ($($test:ident: $bug:ident, $profile:ident, $finds:expr;)*) => {
        $(#[test]
        fn $test() -> Result<(), String> {
            let plant = |replica: &mut Replica| replica.plant(PlantedBug::$bug);
            in_replica(stringify!($bug), plant, Profile::$profile, &$finds)
        })*
    };
}

/// Declares a test for each bug of the host.
macro_rules! in_host {
    ($($test:ident: $bug:ident, $profile:ident, $finds:expr;)*) => {
        $(#[test]
        fn $test() -> Result<(), String> {
            in_host(HostBug::$bug, Profile::$profile, &$finds)
        })*
    };
}

in_replica! {
    acknowledged_before_logged: AcknowledgedBeforeLogged, Crashing, ["is acknowledged, but the durable log ends at"];
    commit_by_majority: CommitByMajority, Crashing, ["is committed, but the log ends at"];
    older_ballot_accepted: OlderBallotAccepted, Behind, ["is still logged", "is acknowledged for ballot"];
    inherited_window_skipped: InheritedWindowSkipped, Crashing, ["was seen before", "was acknowledged before"];
    stale_tail_not_truncated: StaleTailNotTruncated, Crashing, ["is still logged"];
    applied_before_committed: AppliedBeforeCommitted, Crashing, ["is applied before it is committed"];
    ballot_not_stored: BallotNotStored, Crashing, ["is stored"];
    serves_after_lease: ServesAfterLease, Apart, ["serves at the same moment"];
    lease_from_answer: LeaseFromAnswer, Apart, ["serves at the same moment"];
    new_primary_starts_with_lease: NewPrimaryStartsWithLease, Late, ["serves at the same moment"];
    beacons_granted_after_claim: BeaconsGrantedAfterClaim, Apart, ["serves at the same moment"];
    takes_over_at_once: TakesOverAtOnce, Crashing, ["serves at the same moment"];
    learner_promoted_with_gap: LearnerPromotedWithGap, Learning, ["is committed, but the log ends at"];
    pending_learner_not_counted: PendingLearnerNotCounted, Learning, ["is committed, but the log ends at"];
    lost_answer_taken_as_refusal: LostAnswerTakenAsRefusal, Learning, ["it was never reached", "a replica stopped"];
    stale_configuration_accepted: StaleConfigurationAccepted, Apart, ["it was never reached", "a replica stopped"];
    commits_without_removed_member: CommitsWithoutRemovedMember, Apart, ["is committed, but the log ends at"];
}

in_host! {
    duplicate_apply_after_restart: DuplicateApplyAfterRestart, Crashing, ["is applied where", "is next"];
    logged_too_early: LoggedTooEarly, Crashing, ["log ends at"];
    mutation_voids_tail: MutationVoidsTail, Crashing, ["dropped from a log"];
    grace_shorter_than_lease: GraceShorterThanLease, Apart, ["serves at the same moment"];
    lease_checked_with_an_old_clock_reading: LeaseOldClock, Apart, ["was seen before"];
    read_answered_after_the_role_was_lost: ReadAfterRole, Handing, ["was seen before"];
    longest_log_wins: LongestLogWins, Powerless, ["log ends at", "is committed here", "dropped from a log"];
    log_collected_too_early: LogCollectedTooEarly, Crashing, ["log begins after"];
    retried_sync_believed: RetriedSyncBelieved, Failing, ["durable log"];
    cut_tail_revived: CutTailRevived, Crashing, ["is still logged"];
    failed_check_answered_early: FailedCheckAnsweredEarly, Crashing, ["which is not committed"];
    descriptor_before_log: DescriptorBeforeLog, Powerless, ["is still logged", "log ends at", "is committed here"];
}
