//! What a core does besides requests: hears the log's progress, ticks, frees log segments, reports, stops.

use std::future::Future;
use std::time::{Duration, Instant};

use glommio::timer::sleep;
use pegasus_engine::log::LogProgress;
use pegasus_engine::table::TableError;
use pegasus_replication::Event;
use pegasus_wire::messages::control::ReplicaReport;
use pegasus_wire::{PartitionId, Status};

use super::perform::{pool_failed, table_failed};
use super::{Core, State, TICK};
use crate::control::{CoreReport, Metric, PartitionReport};

/// How long a core that stops waits for writes it has admitted.
const DRAIN: Duration = Duration::from_secs(1);
/// Ticks between two looks at the memory of all tables.
const MEMORY_LOOK_TICKS: u64 = 10;
/// Ticks between two looks at what RocksDB has flushed by itself.
const FLUSHED_LOOK_TICKS: u64 = 100;

impl Core {
    /// The log has written or synced more: tells every replica how far its records are durable.
    pub(crate) fn log_progressed(&self, progress: LogProgress) {
        let started = self.begin_run();
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let mut touched: Vec<PartitionId> = Vec::new();
            for (queue, reached) in
                [(&mut state.waiting_synced, progress.synced), (&mut state.waiting_written, progress.written)]
            {
                while let Some(wait) = queue.pop_front_if(|wait| wait.sequence <= reached) {
                    if let Some(partition) = state.partitions.get_mut(&wait.partition) {
                        if partition.durable.is_none() {
                            touched.push(wait.partition);
                        }
                        partition.durable = Some(wait.token);
                    }
                }
            }
            if let Some((_, waiter)) = state.sync_waiter.take_if(|(sequence, _)| *sequence <= progress.synced) {
                // The waiter may have given up.
                let _ = waiter.send(());
            }
            for id in touched {
                if let Some(through) = state.partitions.get_mut(&id).and_then(|partition| partition.durable.take()) {
                    state.events.push_back((id, Event::Logged { through }));
                }
            }
        }
        self.settle();
        self.end_run(started);
    }

    /// The log is closed for writing: no partition of this core can take writes until restart.
    pub(crate) fn log_failed(&self, reason: &str) {
        tracing::error!(core = self.id, %reason, "the mutation log is closed until restart");
        {
            let mut state = self.state.borrow_mut();
            state.log_failed = true;
            state.sync_waiter = None;
            let ids: Vec<PartitionId> = state.partitions.keys().copied().collect();
            for id in ids {
                let event = Event::Failed { status: Status::StorageFailed, reason: reason.to_owned() };
                state.events.push_back((id, event));
            }
        }
        self.settle();
    }

    /// Ticks until its task is cancelled.
    pub(crate) async fn tick_loop(self) {
        let mut ticks = 0u64;
        loop {
            sleep(TICK).await;
            ticks += 1;
            {
                let mut state = self.state.borrow_mut();
                let ids: Vec<PartitionId> = state.partitions.keys().copied().collect();
                state.events.extend(ids.into_iter().map(|id| (id, Event::Tick)));
                self.append_stalled(&mut state);
            }
            self.settle();
            for id in self.log.pressure() {
                self.flush_for_log(id);
            }
            if ticks.is_multiple_of(MEMORY_LOOK_TICKS) {
                self.relieve_memory();
            }
            if ticks.is_multiple_of(FLUSHED_LOOK_TICKS) {
                self.look_at_flushed();
            }
        }
    }

    /// Flushes a table whose unflushed mutations hold the oldest log segments.
    fn flush_for_log(&self, id: PartitionId) {
        if !self.state.borrow().partitions.contains_key(&id) {
            // Records of a copy that is gone hold nothing.
            return self.log.forget(id);
        }
        if self.flush(id) {
            self.count(|counters| counters.flushes_for_log += 1);
        }
    }

    /// While the node's tables hold too much in memory: flushes the one that holds most, if it is of this core. By
    /// itself RocksDB would flush the table that is written to, however small it is.
    fn relieve_memory(&self) {
        let tables = self.shared.tables.clone();
        // The handle stays in the pool: to drop the last one closes the table's files.
        let fullest = self.shared.long_pool.run(move || tables.memory_pressure().map(|table| table.partition()));
        let core = self.clone();
        self.later(async move {
            if let Ok(fullest) = fullest
                && let Ok(Some(id)) = fullest.await
                && core.flush(id)
            {
                core.count(|counters| counters.flushes_for_memory += 1);
            }
        });
    }

    /// Flushes a table of this core in the pool. False if that goes on already, or the copy is out of service.
    fn flush(&self, id: PartitionId) -> bool {
        let table = {
            let mut state = self.state.borrow_mut();
            let Some(partition) = state.partitions.get_mut(&id) else { return false };
            if partition.flushing || partition.problem.is_some() {
                return false;
            }
            partition.flushing = true;
            partition.table.clone()
        };
        self.then_flushed(id, move || table.flush());
        true
    }

    /// Asks every table what RocksDB has flushed by itself meanwhile. Those out of service too: RocksDB tries a flush
    /// that met a full disk again once there is room, and then the log need not keep their records any more.
    fn look_at_flushed(&self) {
        let tables: Vec<_> = {
            let mut state = self.state.borrow_mut();
            let idle = state.partitions.values_mut().filter(|partition| !partition.flushing);
            idle.map(|partition| {
                partition.flushing = true;
                (partition.id, partition.table.clone())
            })
            .collect()
        };
        for (id, table) in tables {
            self.then_flushed(id, move || table.read_flushed());
        }
    }

    fn then_flushed(
        &self,
        id: PartitionId,
        job: impl FnOnce() -> Result<pegasus_wire::Decree, TableError> + Send + 'static,
    ) {
        let core = self.clone();
        let job = self.shared.long_pool.run(job);
        self.later(async move {
            let flushed = match job {
                Ok(job) => match job.await {
                    Ok(flushed) => flushed.map(Some).map_err(|error| table_failed(&error)),
                    Err(panicked) => Err(pool_failed(panicked.to_string())),
                },
                Err(busy) => {
                    tracing::debug!(partition = %id, %busy, "flush put off");
                    Ok(None)
                }
            };
            let mut state = core.state.borrow_mut();
            let Some(partition) = state.partitions.get_mut(&id) else { return };
            partition.flushing = false;
            match flushed {
                Ok(Some(flushed)) => {
                    partition.flushed = flushed;
                    core.log.set_flushed(id, flushed);
                }
                Ok(None) => {}
                // RocksDB takes no more writes after a failed flush: the copy is out of service until the node
                // restarts. Nothing is lost, the log has it.
                Err(failed) => state.events.push_back((id, failed)),
            }
            drop(state);
            core.settle();
        });
    }

    /// The core's state for people and for registration.
    pub(crate) fn report(&self) -> CoreReport {
        let state = self.state.borrow();
        let mut partitions: Vec<_> = state.partitions.values().collect();
        partitions.sort_by_key(|partition| partition.id);
        CoreReport {
            core: self.id,
            replicas: partitions
                .iter()
                .map(|partition| ReplicaReport {
                    partition: partition.id,
                    ballot: partition.replica.configuration().ballot,
                    damaged: matches!(partition.problem, Some((Status::Damaged, _))),
                })
                .chain(state.broken.iter().map(|(&partition, (ballot, _))| ReplicaReport {
                    partition,
                    ballot: *ballot,
                    damaged: true,
                }))
                .collect(),
            partitions: partitions
                .iter()
                .map(|partition| PartitionReport {
                    partition: partition.id.to_string(),
                    table: partition.properties.name.clone(),
                    replica: partition.replica.describe().to_string(),
                    applied: partition.table.applied().0,
                    problem: partition.problem.as_ref().map(|(status, message)| format!("{status}: {message}")),
                })
                .chain(state.broken.iter().map(|(id, (_, problem))| PartitionReport {
                    partition: id.to_string(),
                    table: String::new(),
                    replica: "damaged".to_owned(),
                    applied: 0,
                    problem: Some(problem.clone()),
                }))
                .chain(state.missing.iter().map(|id| PartitionReport {
                    partition: id.to_string(),
                    table: String::new(),
                    replica: "missing".to_owned(),
                    applied: 0,
                    problem: Some("assigned to this node, but there is no copy in the data directory".to_owned()),
                }))
                .collect(),
            metrics: self.metrics(&state),
        }
    }

    fn metrics(&self, state: &State) -> Vec<Metric> {
        let mut metrics = state.counters.metrics();
        let mut gauge = |name, help, value: f64| metrics.push(Metric { name, help, value });
        gauge("partitions", "Copies on this core.", state.partitions.len() as f64);
        gauge("writes_pending", "Writes proposed and not answered.", state.pending.len() as f64);
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
        metrics
    }

    /// Stops the core in order: no new work, tables flushed so that the next start is quick, log closed.
    pub(crate) async fn stop(&self) {
        self.state.borrow_mut().stopping = true;
        self.drain_pending().await;
        {
            let mut state = self.state.borrow_mut();
            let ids: Vec<PartitionId> = state.partitions.keys().copied().collect();
            state.events.extend(ids.into_iter().map(|id| (id, Event::Shutdown)));
        }
        self.settle();
        // Answers that were just given leave before the connections are closed.
        sleep(TICK).await;
        self.endpoint.close().await;
        let flushes: Vec<_> = {
            let state = self.state.borrow();
            state.partitions.values().map(|partition| self.flush_job(partition.table.clone())).collect()
        };
        for flush in flushes {
            if let Err(reason) = flush.await {
                tracing::warn!(%reason, "a table was not flushed; the log still has what it needs");
            }
        }
        self.log.close().await;
        // Tables close (and RocksDB's threads are joined) off this thread.
        let closing: Vec<_> =
            self.state.borrow_mut().partitions.drain().map(|(_, partition)| partition.table).collect();
        if let Ok(job) = self.shared.long_pool.run(move || drop(closing)) {
            let _ = job.await;
        }
    }

    /// Waits until every write that was admitted is answered, for a bounded time: the other members may be stopping
    /// as well, and then it will not be.
    async fn drain_pending(&self) {
        let deadline = Instant::now() + DRAIN;
        while self.state.borrow().pending.len() > 0 && Instant::now() < deadline {
            sleep(TICK / 10).await;
        }
    }

    fn flush_job(&self, table: pegasus_engine::table::Table) -> impl Future<Output = Result<(), String>> + use<> {
        let job = self.shared.long_pool.run(move || table.flush());
        async move {
            let flushed = job.map_err(|busy| busy.to_string())?.await.map_err(|panicked| panicked.to_string())?;
            flushed.map(|_| ()).map_err(|error| error.to_string())
        }
    }
}
