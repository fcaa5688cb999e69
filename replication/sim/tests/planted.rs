//! The simulator is only worth what it finds: each planted bug must be found within a bounded number of seeds, and
//! the same seeds pass without it.

use pegasus_replication::{PlantedBug, Replica};
use pegasus_sim::{HostBug, Planted, run_seed};

/// Seeds a bug may take to be found. All are found much sooner; the margin is for changes of the simulator.
const SEEDS_MAX: u64 = 3000;

/// The first seed that finds it, with what it says.
fn found_by(planted: Planted) -> Option<(u64, String)> {
    std::panic::set_hook(Box::new(|_| {}));
    (1..=SEEDS_MAX).find_map(|seed| run_seed(seed, planted, false).err().map(|failure| (seed, failure.violation)))
}

#[track_caller]
fn must_find(name: &str, planted: Planted, violation: &str) {
    let found = found_by(planted);
    let (seed, said) = found.unwrap_or_else(|| panic!("{name} was not found in {SEEDS_MAX} seeds"));
    println!("{name}: seed {seed}: {said}");
    assert!(said.contains(violation), "{name} was found by something else: {said}");
}

fn replica(plant: fn(&mut Replica)) -> Planted {
    Planted { replica: Some(plant), host: None }
}

fn host(bug: HostBug) -> Planted {
    Planted { replica: None, host: Some(bug) }
}

#[test]
fn acknowledged_before_logged() {
    let planted = replica(|replica| replica.plant(PlantedBug::AcknowledgedBeforeLogged));
    must_find("acknowledged before logged", planted, "is acknowledged, but the durable log ends at");
}

#[test]
fn commit_by_majority() {
    let planted = replica(|replica| replica.plant(PlantedBug::CommitByMajority));
    must_find("commit by majority", planted, "has it not in its log");
}

#[test]
fn older_ballot_accepted() {
    let planted = replica(|replica| replica.plant(PlantedBug::OlderBallotAccepted));
    must_find("older ballot accepted", planted, "");
}

#[test]
fn inherited_window_skipped() {
    let planted = replica(|replica| replica.plant(PlantedBug::InheritedWindowSkipped));
    must_find("inherited window skipped", planted, "was seen before");
}

#[test]
fn stale_tail_not_truncated() {
    let planted = replica(|replica| replica.plant(PlantedBug::StaleTailNotTruncated));
    must_find("stale tail not truncated", planted, "is still logged");
}

#[test]
fn applied_before_committed() {
    let planted = replica(|replica| replica.plant(PlantedBug::AppliedBeforeCommitted));
    must_find("applied before committed", planted, "is applied before it is committed");
}

#[test]
fn ballot_not_stored() {
    let planted = replica(|replica| replica.plant(PlantedBug::BallotNotStored));
    must_find("ballot not stored", planted, "is stored");
}

#[test]
fn duplicate_apply_after_restart() {
    must_find("duplicate apply after restart", host(HostBug::DuplicateApplyAfterRestart), "is applied where");
}

#[test]
fn logged_too_early() {
    must_find("logged too early", host(HostBug::LoggedTooEarly), "");
}

#[test]
fn mutation_voids_tail() {
    must_find("mutation voids tail", host(HostBug::MutationVoidsTail), "dropped from a log");
}
