//! What a core does besides requests: hears the log's progress, ticks, frees log segments.

use std::time::Duration;

use glommio::timer::sleep;
use pegasus_engine::log::LogProgress;
use pegasus_engine::table::TableError;
use pegasus_replication::{Event, Moment};
use pegasus_wire::{PartitionId, Status};

use super::perform::{pool_failed, table_failed};
use super::{Core, Partition, TICK, clock};

/// A tick that comes later than this was held up, and what the others sent meanwhile with it.
const HELD_UP: Duration = Duration::from_millis(500);
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
            state.log_synced = progress.synced;
            let mut touched: Vec<PartitionId> = Vec::new();
            for (queue, reached) in
                [(&mut state.waiting_synced, progress.synced), (&mut state.waiting_written, progress.written)]
            {
                while let Some(wait) = queue.pop_front_if(|wait| wait.sequence <= reached) {
                    if let Some(partition) = state.partitions.get_mut(&wait.partition) {
                        if partition.durable.is_none() {
                            touched.push(wait.partition);
                        }
                        // While the durability changes, one that waits to be written may come before one that
                        // waits to be synced.
                        partition.durable = partition.durable.max(Some(wait.token));
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
            state.log_problem = reason.to_owned();
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
        let mut pace = Pace { last: clock::now(), held_up: false };
        loop {
            sleep(TICK).await;
            ticks += 1;
            let held_up = pace.is_held_up(clock::now());
            {
                let mut state = self.state.borrow_mut();
                // After a pause of the whole process its primaries' beacons lie in the socket: they are heard before
                // anybody concludes from their absence.
                if !held_up {
                    let ids: Vec<PartitionId> = state.partitions.keys().copied().collect();
                    state.events.extend(ids.into_iter().map(|id| (id, Event::Tick)));
                }
                for partition in state.partitions.values_mut() {
                    partition.overlay.rest(&partition.replica);
                }
                self.append_stalled(&mut state);
                self.look_at_durability(&mut state);
                self.look_at_slow(&mut state, clock::now());
            }
            self.settle();
            for id in self.log.pressure() {
                self.flush_for_log(id);
            }
            if ticks.is_multiple_of(MEMORY_LOOK_TICKS) {
                self.relieve_memory();
                self.expire_contexts();
                self.look_at_compactions(&mut self.state.borrow_mut());
                self.settle();
            }
            if ticks.is_multiple_of(FLUSHED_LOOK_TICKS) {
                {
                    let mut state = self.state.borrow_mut();
                    self.expire_leavers(&mut state);
                    self.look_at_shapes(&mut state);
                }
                self.settle();
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
        let incarnation = self.state.borrow().partitions.get(&id).map(|partition| partition.incarnation);
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
            // Of a copy that has been replaced meanwhile nothing is passed on.
            let current = |partition: &&mut Partition| Some(partition.incarnation) == incarnation;
            let Some(partition) = state.partitions.get_mut(&id).filter(current) else { return };
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
}

/// When the ticks came.
struct Pace {
    last: Moment,
    held_up: bool,
}

impl Pace {
    /// True for a tick that comes much too late, unless the one before it did as well: a core that is always late still
    /// has its ticks.
    fn is_held_up(&mut self, now: Moment) -> bool {
        let late = u128::from(now.since(self.last)) > HELD_UP.as_micros();
        self.last = now;
        self.held_up = late && !self.held_up;
        self.held_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tick_after_a_pause_is_left_out() {
        let mut pace = Pace { last: Moment(0), held_up: false };
        assert!(!pace.is_held_up(Moment(120_000)));
        assert!(pace.is_held_up(Moment(10_000_000)));
        assert!(!pace.is_held_up(Moment(10_100_000)));
        assert!(pace.is_held_up(Moment(20_000_000)));
        assert!(!pace.is_held_up(Moment(30_000_000)), "not two in a row");
    }
}
