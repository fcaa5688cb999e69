//! Asks every partition all the time whether it takes writes: a write to each every few milliseconds, whether or not
//! the last one was answered, so that no single write that hangs hides how long the partition was away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pegasus_client::Table;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::chaos::recorder::{Ask, Clock, Performed, Recorded, perform};
use crate::chaos::rows::partition_of;
use crate::failure::Failure;

/// The rows of the probes: a few of each partition, numbered from `first` on.
pub fn probe_keys(first: u64, partition_count: u32) -> Vec<Vec<u64>> {
    let mut keys = vec![Vec::new(); partition_count as usize];
    for key in first.. {
        let of_partition = &mut keys[partition_of(key, partition_count) as usize];
        if of_partition.len() < KEYS_PER_PARTITION {
            of_partition.push(key);
        }
        if keys.iter().all(|keys| keys.len() == KEYS_PER_PARTITION) {
            break;
        }
    }
    keys
}

/// Probes of all partitions, at work on the runtime they were started on.
pub struct Probes {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Recorded>>,
}

struct Shared {
    stop: AtomicBool,
    watches: Mutex<Vec<Watch>>,
    changed: Notify,
}

/// Waits for one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// Writes that began earlier do not count.
    since_us: u64,
    /// When the first of the others was acknowledged.
    first_ok_us: Option<u64>,
}

impl Probes {
    /// Begins to probe. Keys by partition, as of [`probe_keys`].
    pub fn start(table: &Table, clock: &Arc<Clock>, keys: &[Vec<u64>]) -> Probes {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            watches: Mutex::new(vec![Watch::default(); keys.len()]),
            changed: Notify::new(),
        });
        let probe = |(partition, keys): (usize, &Vec<u64>)| {
            let probe = Probe {
                partition,
                keys: keys.clone(),
                table: table.clone(),
                clock: clock.clone(),
                shared: shared.clone(),
                recorded: Recorded::default(),
            };
            tokio::spawn(probe.run())
        };
        let tasks = keys.iter().enumerate().map(probe).collect();
        Probes { shared, tasks }
    }

    /// From now on only writes that begin at this moment or later count.
    pub fn watch_from(&self, since_us: u64) {
        let mut watches = self.shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.fill(Watch { since_us, first_ok_us: None });
    }

    /// When each of these partitions acknowledged the first write that counts.
    pub fn first_ok_us(&self, partitions: &[usize]) -> Vec<Option<u64>> {
        let watches = self.shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().map(|partition| watches[*partition].first_ok_us).collect()
    }

    /// Waits until all of these partitions have done so; false if they have not within that time.
    pub async fn wait_for(&self, partitions: &[usize], within: Duration) -> bool {
        let all = async {
            loop {
                let changed = self.shared.changed.notified();
                if self.first_ok_us(partitions).iter().all(Option::is_some) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(within, all).await.is_ok()
    }

    /// Ends the probes; what they recorded.
    pub async fn stop(self) -> Result<Recorded, Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut recorded = Recorded::default();
        for task in self.tasks {
            recorded.merge(task.await.map_err(Failure::at("a probe"))?);
        }
        Ok(recorded)
    }
}

struct Probe {
    partition: usize,
    keys: Vec<u64>,
    table: Table,
    clock: Arc<Clock>,
    shared: Arc<Shared>,
    recorded: Recorded,
}

impl Probe {
    async fn run(mut self) -> Recorded {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut under_way = JoinSet::new();
        let mut number = 0;
        while !self.shared.stop.load(Ordering::Relaxed) {
            tokio::select! {
                _ = ticks.tick(), if under_way.len() < UNDER_WAY_MAX => {
                    number += 1;
                    let ask = if number % 3 == 0 { Ask::Read } else { Ask::Set };
                    self.begin(&mut under_way, self.keys[number % self.keys.len()], ask);
                }
                Some(ended) = under_way.join_next() => self.note(ended),
            }
        }
        while let Some(ended) = under_way.join_next().await {
            self.note(ended);
        }
        self.recorded
    }

    fn begin(&self, under_way: &mut JoinSet<(u64, Performed)>, key: u64, ask: Ask) {
        let (table, clock) = (self.table.clone(), self.clock.clone());
        let client = PROBE_CLIENTS + self.partition as u32;
        under_way.spawn(async move { (key, perform(&table, &clock, client, key, ask).await) });
    }

    fn note(&mut self, ended: Result<(u64, Performed), tokio::task::JoinError>) {
        let (key, performed) = match ended {
            Ok(ended) => ended,
            Err(panicked) => return self.recorded.damaged.push(format!("a probe did not end well: {panicked}")),
        };
        let operation = performed.operation;
        if operation.is_acknowledged_write() {
            let mut watches = self.shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
            let watch = &mut watches[self.partition];
            if watch.first_ok_us.is_none() && operation.invoked_us >= watch.since_us {
                watch.first_ok_us = Some(operation.returned_us);
                self.shared.changed.notify_waiters();
            }
        }
        self.recorded.add(key, performed);
    }
}

const KEYS_PER_PARTITION: usize = 4;
/// Between two probes of a partition: the error of the times that are measured.
const INTERVAL: Duration = Duration::from_millis(20);
/// Probes of one partition at most; at the longest timeout more would begin.
const UNDER_WAY_MAX: usize = 512;
/// The number of the first partition's prober among the clients.
pub const PROBE_CLIENTS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_its_keys() {
        let keys = probe_keys(32, 8);
        for (partition, keys) in keys.iter().enumerate() {
            assert_eq!(keys.len(), KEYS_PER_PARTITION);
            assert!(keys.iter().all(|key| *key >= 32 && partition_of(*key, 8) == partition as u32));
        }
    }
}
