//! A core's state for people, for metrics and for registration with the meta service.

use pegasus_replication::{Counters as ReplicaCounters, Role};
use pegasus_wire::messages::control::{ReplicaReport, ReplicaState};
use pegasus_wire::messages::data::CompactionState;
use pegasus_wire::{Ballot, Decree, PartitionId};

use super::partition::Partition;
use super::{Core, State};
use crate::control::{CoreReport, Metric, PartitionReport};

impl Core {
    /// The core's state for people and for registration.
    pub(crate) fn report(&self) -> CoreReport {
        let mut state = self.state.borrow_mut();
        for partition in state.partitions.values_mut() {
            let learners = partition.replica.describe().learners;
            partition.lessons.keep(|node| learners.iter().any(|learner| learner.node == node));
        }
        CoreReport {
            core: self.id,
            problem: state.log_failed.then(|| format!("the mutation log is closed: {}", state.log_problem)),
            replicas: replica_reports(&state),
            partitions: partition_reports(&state),
            metrics: self.metrics(&state),
        }
    }

    fn metrics(&self, state: &State) -> Vec<Metric> {
        let mut metrics = state.counters.metrics(&replica_counters(state));
        let mut gauge = |name, help, value: f64| metrics.push(Metric { name, help, value });
        gauge("partitions", "Copies on this core.", state.partitions.len() as f64);
        let taught: usize = state.partitions.values().map(|partition| partition.lessons.len()).sum();
        gauge("learners_taught", "Learners that primaries of this core teach.", taught as f64);
        let learning = state.partitions.values().filter(|partition| partition.replica.role() == Role::Learner).count();
        gauge("learners", "Copies of this core that learn.", learning as f64);
        gauge("checkpoints_being_sent", "Checkpoints being sent to learners.", state.checkpoints_served as f64);
        gauge("writes_pending", "Writes proposed and not answered.", state.pending.len() as f64);
        gauge("scan_contexts", "Snapshots kept for scans now.", state.contexts.len() as f64);
        gauge("compatibility_scans", "Scans of clients of Pegasus under way.", self.scanners.len() as f64);
        let held: usize =
            state.partitions.values().filter_map(|partition| partition.gate.as_ref()).map(|gate| gate.held()).sum();
        gauge("requests_held", "Requests that wait because of a throttle now.", held as f64);
        let of_state = |wanted| state.partitions.values().filter(|one| one.compaction.state == wanted).count() as f64;
        gauge("compactions_running", "Manual compactions that run.", of_state(CompactionState::Running));
        gauge("compactions_queued", "Manual compactions that wait for their turn.", of_state(CompactionState::Queued));
        gauge("log_appends_waiting", "Records that wait for room in the log.", state.stalled.len() as f64);
        gauge("log_closed", "1 after a failed log write or sync.", f64::from(u8::from(state.log_failed)));
        let log = self.log.statistics();
        gauge("log_writes_total", "Log writes.", log.writes as f64);
        gauge("log_syncs_total", "Log syncs.", log.syncs as f64);
        gauge("log_records_total", "Log records.", log.records as f64);
        gauge("log_bytes_total", "Bytes written to the log.", log.written_bytes as f64);
        gauge("log_segments_used", "Segments that hold needed records.", log.segments_live as f64);
        gauge(
            "log_write_p50_microseconds",
            "Median time of a log write.",
            log.write_micros.value_at_quantile(0.5) as f64,
        );
        gauge("log_sync_p50_microseconds", "Median time of a log sync.", log.sync_micros.value_at_quantile(0.5) as f64);
        gauge("log_sync_p99_microseconds", "99 % of log syncs.", log.sync_micros.value_at_quantile(0.99) as f64);
        gauge("log_records_per_write_p50", "Group commit.", log.records_per_write.value_at_quantile(0.5) as f64);
        gauge("log_segments_free", "Segments ready for writing.", log.segments_free as f64);
        gauge("log_pins", "Learners that the log is kept for.", log.pins as f64);
        gauge("log_pins_broken_total", "Learners that the log could not be kept for.", log.pins_broken as f64);
        gauge("log_read_bytes_total", "Bytes read back from the log.", log.read_bytes as f64);
        metrics
    }
}

/// What replicas have counted, those of copies that are gone included.
fn replica_counters(state: &State) -> ReplicaCounters {
    let mut sum = state.counters.replicas;
    for partition in state.partitions.values() {
        add(&mut sum, &partition.replica.describe().counters);
    }
    sum
}

/// Adds what one replica has counted.
pub(crate) fn add(sum: &mut ReplicaCounters, one: &ReplicaCounters) {
    sum.suspicious_configurations += one.suspicious_configurations;
    sum.superseded_messages += one.superseded_messages;
    sum.unexpected_messages += one.unexpected_messages;
    sum.duplicates += one.duplicates;
    sum.truncated += one.truncated;
    sum.resent += one.resent;
    sum.refusals_sent += one.refusals_sent;
    sum.refusals_received += one.refusals_received;
    sum.beacons_refused += one.beacons_refused;
    sum.takeovers += one.takeovers;
    sum.removals += one.removals;
    sum.additions += one.additions;
    sum.hand_overs += one.hand_overs;
    sum.sent_from_log += one.sent_from_log;
    sum.checkpoints_told += one.checkpoints_told;
}

fn sorted(state: &State) -> Vec<&Partition> {
    let mut partitions: Vec<_> = state.partitions.values().collect();
    partitions.sort_by_key(|partition| partition.id);
    partitions
}

/// Every copy, and every one that should be there, as the meta service wants to know.
fn replica_reports(state: &State) -> Vec<ReplicaReport> {
    let held = sorted(state).into_iter().map(|partition| ReplicaReport {
        partition: partition.id,
        ballot: partition.stored.ballot,
        state: partition.state(),
        last: match partition.stored.state {
            // Of copies that may have lost something, the one that has most is looked for.
            ReplicaState::Uncertain => partition.stored.last,
            _ => partition.replica.last(),
        },
    });
    let unfit = state.broken.iter().map(|(&partition, broken)| ReplicaReport {
        partition,
        ballot: broken.ballot,
        state: broken.state(),
        last: Decree(0),
    });
    let missing = state.missing.iter().map(|&partition| ReplicaReport {
        partition,
        ballot: Ballot(0),
        state: ReplicaState::Missing,
        last: Decree(0),
    });
    held.chain(unfit).chain(missing).collect()
}

fn word(state: ReplicaState) -> String {
    format!("{state:?}").to_lowercase()
}

fn partition_reports(state: &State) -> Vec<PartitionReport> {
    let absent = |id: &PartitionId, state: ReplicaState, problem: String| PartitionReport {
        partition: id.to_string(),
        table: String::new(),
        replica: word(state),
        state: word(state),
        applied: 0,
        problem: Some(problem),
    };
    let held = sorted(state).into_iter().map(|partition| PartitionReport {
        partition: partition.id.to_string(),
        table: partition.properties.name.clone(),
        replica: partition.replica.describe().to_string(),
        state: word(partition.state()),
        applied: partition.table.applied().0,
        problem: partition.problem.as_ref().map(|(status, message)| format!("{status}: {message}")),
    });
    let unfit = state.broken.iter().map(|(id, broken)| absent(id, broken.state(), broken.problem.1.clone()));
    let missing = state.missing.iter().map(|id| {
        absent(
            id,
            ReplicaState::Missing,
            "assigned to this node, but there is no copy in the data directory".to_owned(),
        )
    });
    held.chain(unfit).chain(missing).collect()
}
