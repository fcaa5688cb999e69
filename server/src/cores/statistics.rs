//! What one core counts. Plain fields, changed by the core alone, copied out when the administration thread asks.

use std::time::Duration;

use hdrhistogram::Histogram;

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
    /// Writes handed to a replica.
    pub(crate) writes_proposed: u64,
    /// Writes refused before that.
    pub(crate) writes_refused: u64,
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
            writes_proposed: 0,
            writes_refused: 0,
            applies_inline: 0,
            applies_in_pool: 0,
            appends_stalled: 0,
            mutations_applied: 0,
            prepares_sent: 0,
            acknowledgements_sent: 0,
            flushes_for_log: 0,
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

    /// All counters with their names.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let metric = |name, help, value: u64| Metric { name, help, value: value as f64 };
        vec![
            metric("reads_inline_total", "Point reads answered inline.", self.reads_inline),
            metric("reads_in_pool_total", "Point reads that missed the cache.", self.reads_in_pool),
            metric("scans_inline_total", "Multi-row reads answered inline.", self.scans_inline),
            metric("scans_in_pool_total", "Multi-row reads run in the pool.", self.scans_in_pool),
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
