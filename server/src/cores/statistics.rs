//! What one core counts. Plain fields, changed by the core alone, copied out when the administration thread asks.

use std::time::Duration;

use hdrhistogram::Histogram;
use pegasus_replication::Counters as ReplicaCounters;

use super::report;
use crate::control::Metric;

/// Counters of one core since its start.
pub(crate) struct Counters {
    /// Point reads answered from memtable or block cache.
    pub(crate) reads_inline: u64,
    /// Point reads that went to the pool.
    pub(crate) reads_in_pool: u64,
    /// Multi-row reads answered inline.
    pub(crate) scans_inline: u64,
    /// Multi-row reads that went to the pool.
    pub(crate) scans_in_pool: u64,
    /// Snapshots kept for scans.
    pub(crate) scan_contexts_made: u64,
    /// Of those, the ones that had to go for others.
    pub(crate) scan_contexts_evicted: u64,
    /// Rows that operations which read before they write had to wait for.
    pub(crate) executions_in_pool: u64,
    /// Writes handed to a replica.
    pub(crate) writes_proposed: u64,
    /// Writes refused before that.
    pub(crate) writes_refused: u64,
    /// Requests refused because their table denies them, was dropped, or is not known yet.
    pub(crate) requests_denied: u64,
    /// Requests that had to wait because their table is throttled.
    pub(crate) requests_held: u64,
    /// Requests refused because their table is throttled.
    pub(crate) requests_throttled: u64,
    /// Reads that took longer than their table's threshold.
    pub(crate) slow_reads: u64,
    /// Writes that took longer than their table's threshold.
    pub(crate) slow_writes: u64,
    /// Manual compactions that ended whole.
    pub(crate) compactions: u64,
    /// Manual compactions that failed.
    pub(crate) compactions_failed: u64,
    /// Batches applied inline.
    pub(crate) applies_inline: u64,
    /// Batches applied in the pool because RocksDB was stalling writes.
    pub(crate) applies_in_pool: u64,
    /// Records that had to wait because the log had no room.
    pub(crate) appends_stalled: u64,
    /// Mutations applied.
    pub(crate) mutations_applied: u64,
    /// Prepares sent.
    pub(crate) prepares_sent: u64,
    /// Acknowledgements sent.
    pub(crate) acknowledgements_sent: u64,
    /// Tables flushed so that the log could be freed.
    pub(crate) flushes_for_log: u64,
    /// Beacons sent.
    pub(crate) beacons_sent: u64,
    /// Beacons not sent because earlier ones to the same core were unanswered.
    pub(crate) beacons_withheld: u64,
    /// Beacons that got no answer in time.
    pub(crate) beacons_unanswered: u64,
    /// Beacons of other cores.
    pub(crate) beacons_heard: u64,
    /// Entries in them that were refused here.
    pub(crate) beacon_entries_declined: u64,
    /// Times a primary that served lost a lease.
    pub(crate) leases_lapsed: u64,
    /// Learners that became members with what the primary had in memory.
    pub(crate) learned_from_window: u64,
    /// Learners that became members after the primary read its log for them.
    pub(crate) learned_from_log: u64,
    /// Learners that became members after they took a checkpoint.
    pub(crate) learned_from_checkpoint: u64,
    /// Connections of clients of Pegasus.
    pub(crate) compatibility_connections: u64,
    /// Of those, the ones that were ended because of what arrived on them.
    pub(crate) compatibility_broken: u64,
    /// Requests of clients of Pegasus.
    pub(crate) compatibility_requests: u64,
    /// Bytes of checkpoints sent.
    pub(crate) checkpoint_bytes_sent: u64,
    /// Bytes of checkpoints received.
    pub(crate) checkpoint_bytes_received: u64,
    /// Checkpoints that became a copy of this core.
    pub(crate) checkpoints_taken: u64,
    /// Checkpoints that could not be had.
    pub(crate) checkpoints_failed: u64,
    /// Copies set aside because the meta service said so.
    pub(crate) copies_removed: u64,
    /// What the replicas of copies that are gone had counted.
    pub(crate) replicas: ReplicaCounters,
    /// Tables flushed because all tables together held too much in memory.
    pub(crate) flushes_for_memory: u64,
    /// How long the core ran without yielding, in microseconds.
    runs: Histogram<u64>,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            reads_inline: 0,
            reads_in_pool: 0,
            scans_inline: 0,
            scans_in_pool: 0,
            scan_contexts_made: 0,
            scan_contexts_evicted: 0,
            executions_in_pool: 0,
            writes_proposed: 0,
            writes_refused: 0,
            requests_denied: 0,
            requests_held: 0,
            requests_throttled: 0,
            slow_reads: 0,
            slow_writes: 0,
            compactions: 0,
            compactions_failed: 0,
            applies_inline: 0,
            applies_in_pool: 0,
            appends_stalled: 0,
            mutations_applied: 0,
            prepares_sent: 0,
            acknowledgements_sent: 0,
            flushes_for_log: 0,
            beacons_sent: 0,
            beacons_withheld: 0,
            beacons_unanswered: 0,
            beacons_heard: 0,
            beacon_entries_declined: 0,
            leases_lapsed: 0,
            learned_from_window: 0,
            learned_from_log: 0,
            learned_from_checkpoint: 0,
            compatibility_connections: 0,
            compatibility_broken: 0,
            compatibility_requests: 0,
            checkpoint_bytes_sent: 0,
            checkpoint_bytes_received: 0,
            checkpoints_taken: 0,
            checkpoints_failed: 0,
            copies_removed: 0,
            replicas: ReplicaCounters::default(),
            flushes_for_memory: 0,
            runs: Histogram::new_with_bounds(1, 60_000_000, 2).expect("constant bounds are valid"),
        }
    }
}

impl Counters {
    /// Records a run without yielding.
    pub(crate) fn record_run(&mut self, length: Duration) {
        self.runs.saturating_record(u64::try_from(length.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Keeps what a replica has counted that is gone.
    pub(crate) fn add_replica(&mut self, counters: &ReplicaCounters) {
        report::add(&mut self.replicas, counters);
    }

    /// All counters with their names, and those of the replicas.
    pub(crate) fn metrics(&self, replicas: &ReplicaCounters) -> Vec<Metric> {
        let mut metrics = self.own_metrics();
        metrics.extend(self.table_metrics());
        metrics.extend(self.compatibility_metrics());
        metrics.extend(self.membership_metrics(replicas));
        metrics
    }

    /// What comes of the settings of tables.
    fn table_metrics(&self) -> Vec<Metric> {
        let metric = |name, help, value: u64| Metric { name, help, value: value as f64 };
        vec![
            metric("requests_denied_total", "Requests whose table denies them or was dropped.", self.requests_denied),
            metric("requests_held_total", "Requests that waited because of a throttle.", self.requests_held),
            metric("requests_throttled_total", "Requests refused because of a throttle.", self.requests_throttled),
            metric("slow_reads_total", "Reads slower than their table's threshold.", self.slow_reads),
            metric("slow_writes_total", "Writes slower than their table's threshold.", self.slow_writes),
            metric("compactions_total", "Manual compactions that ended.", self.compactions),
            metric("compactions_failed_total", "Manual compactions that failed.", self.compactions_failed),
        ]
    }

    /// What comes of clients of Pegasus.
    fn compatibility_metrics(&self) -> Vec<Metric> {
        let metric = |name, help, value: u64| Metric { name, help, value: value as f64 };
        vec![
            metric("compatibility_requests_total", "Requests of clients of Pegasus.", self.compatibility_requests),
            metric(
                "compatibility_connections_total",
                "Connections of clients of Pegasus.",
                self.compatibility_connections,
            ),
            metric(
                "compatibility_broken_total",
                "Connections of clients of Pegasus that broke the protocol.",
                self.compatibility_broken,
            ),
        ]
    }

    fn membership_metrics(&self, replicas: &ReplicaCounters) -> Vec<Metric> {
        let metric = |name, help, value: u64| Metric { name, help, value: value as f64 };
        vec![
            metric("beacons_sent_total", "Beacons sent.", self.beacons_sent),
            metric("beacons_withheld_total", "Beacons held back behind unanswered ones.", self.beacons_withheld),
            metric("beacons_unanswered_total", "Beacons without an answer.", self.beacons_unanswered),
            metric("beacons_refused_total", "Leases that members refused.", replicas.beacons_refused),
            metric("beacons_heard_total", "Beacons of other cores.", self.beacons_heard),
            metric("beacons_declined_total", "Leases refused to other cores.", self.beacon_entries_declined),
            metric("leases_lapsed_total", "Times a serving primary lost a lease.", self.leases_lapsed),
            metric("takeovers_total", "Takeovers that succeeded.", replicas.takeovers),
            metric("removals_total", "Members whose removal was proposed.", replicas.removals),
            metric("additions_total", "Learners whose addition was proposed.", replicas.additions),
            metric("hand_overs_total", "Times the primary's role was offered to another.", replicas.hand_overs),
            metric("learned_from_window_total", "Learners that needed memory only.", self.learned_from_window),
            metric("learned_from_log_total", "Learners that needed the log.", self.learned_from_log),
            metric("learned_from_checkpoint_total", "Learners that needed a checkpoint.", self.learned_from_checkpoint),
            metric("log_mutations_sent_total", "Mutations read from the log for learners.", replicas.sent_from_log),
            metric("checkpoints_told_total", "Learners told to take a checkpoint.", replicas.checkpoints_told),
            metric("checkpoints_taken_total", "Checkpoints that became a copy here.", self.checkpoints_taken),
            metric("checkpoints_failed_total", "Checkpoints that could not be had.", self.checkpoints_failed),
            metric("checkpoint_sent_bytes_total", "Bytes of checkpoints sent.", self.checkpoint_bytes_sent),
            metric("checkpoint_received_bytes_total", "Bytes of checkpoints received.", self.checkpoint_bytes_received),
            metric("copies_removed_total", "Copies set aside as not needed.", self.copies_removed),
            metric("prepares_resent_total", "Mutations sent again to members.", replicas.resent),
            metric("mutations_truncated_total", "Mutations a new primary did not have.", replicas.truncated),
        ]
    }

    fn own_metrics(&self) -> Vec<Metric> {
        let metric = |name, help, value: u64| Metric { name, help, value: value as f64 };
        vec![
            metric("reads_inline_total", "Point reads answered inline.", self.reads_inline),
            metric("reads_in_pool_total", "Point reads that missed the cache.", self.reads_in_pool),
            metric("scans_inline_total", "Multi-row reads answered inline.", self.scans_inline),
            metric("scans_in_pool_total", "Multi-row reads run in the pool.", self.scans_in_pool),
            metric("scan_contexts_made_total", "Snapshots kept for scans.", self.scan_contexts_made),
            metric("scan_contexts_evicted_total", "Of those, ended for others.", self.scan_contexts_evicted),
            metric("executions_in_pool_total", "Rows of incr and check_and_* not in cache.", self.executions_in_pool),
            metric("writes_proposed_total", "Writes handed to a replica.", self.writes_proposed),
            metric("writes_refused_total", "Writes refused at admission.", self.writes_refused),
            metric("applies_inline_total", "Batches applied inline.", self.applies_inline),
            metric("applies_in_pool_total", "Batches applied in the pool (write stall).", self.applies_in_pool),
            metric("appends_stalled_total", "Records that waited for room in the log.", self.appends_stalled),
            metric("mutations_applied_total", "Mutations applied.", self.mutations_applied),
            metric("prepares_sent_total", "Prepares sent to secondaries.", self.prepares_sent),
            metric("acknowledgements_sent_total", "Acknowledgements sent to primaries.", self.acknowledgements_sent),
            metric("flushes_for_log_total", "Table flushes that free log segments.", self.flushes_for_log),
            metric("flushes_for_memory_total", "Table flushes that free memory.", self.flushes_for_memory),
            metric("run_length_p50_microseconds", "Median run without yielding.", self.runs.value_at_quantile(0.5)),
            metric(
                "run_length_p99_microseconds",
                "99 % of runs are at most this long.",
                self.runs.value_at_quantile(0.99),
            ),
            metric("run_length_p999_microseconds", "99.9 % of runs.", self.runs.value_at_quantile(0.999)),
            metric("run_length_max_microseconds", "Longest run without yielding.", self.runs.max()),
            metric("runs_total", "Runs recorded.", self.runs.len()),
        ]
    }
}
