//! How a core stops in order, so that the others notice little: what it leads is handed over first.
//!
//! ```text
//!   leaving                            stopping                     stopped
//!   no learning, no checkpoints        nothing is admitted          replicas are told, ports closed,
//!   primaries hand over, and follow    what was admitted            tables flushed, log closed
//!   whoever leads now                  is answered
//! ```
//!
//! Every step is bounded in time: the meta service may be away, and the other members may be stopping as well.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use glommio::timer::sleep;
use pegasus_engine::table::Table;
use pegasus_replication::{Event, Phase, Role};
use pegasus_wire::PartitionId;

use super::{Core, TICK};

/// How long handing over may take.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long a former primary waits for the new one to be followed.
const FOLLOW: Duration = Duration::from_secs(1);
/// How long a core that stops waits for writes it has admitted.
const DRAIN: Duration = Duration::from_secs(1);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

impl Core {
    /// Stops the core in order: roles handed over, no new work, tables flushed so that the next start is quick, log
    /// closed.
    pub(crate) async fn stop(&self) {
        self.hand_over().await;
        {
            let mut state = self.state.borrow_mut();
            state.stopping = true;
            // Whoever waits there is answered.
            state.partitions.values_mut().filter_map(|partition| partition.gate.as_mut()).for_each(|gate| gate.empty());
        }
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
        let closing: (Vec<_>, Vec<_>) = {
            let mut state = self.state.borrow_mut();
            let tables = state.partitions.drain().map(|(_, partition)| partition.table).collect();
            (state.contexts.end_all(), tables)
        };
        let close = move || {
            let (_, tables): &(Vec<_>, Vec<Table>) = &closing;
            // What is being compacted would hold them open.
            tables.iter().for_each(Table::stop);
            drop(closing);
        };
        if let Ok(job) = self.shared.long_pool.run(close) {
            let _ = job.await;
        }
    }

    /// Hands over what this core leads, as far as there is somebody to take it.
    async fn hand_over(&self) {
        let led: BTreeSet<PartitionId> = {
            let mut state = self.state.borrow_mut();
            state.leaving = true;
            let leads = |partition: &&super::Partition| {
                let replica = &partition.replica;
                replica.role() == Role::Primary && !replica.configuration().secondaries.is_empty()
            };
            let led: BTreeSet<_> = state.partitions.values().filter(leads).map(|partition| partition.id).collect();
            state.events.extend(led.iter().map(|id| (*id, Event::HandOver)));
            led
        };
        self.settle();
        let handed_over = self.wait_until(HAND_OVER, || self.all(&led, |role, _| role != Role::Primary)).await;
        if !handed_over {
            tracing::warn!(core = self.id, "not everything that this core leads could be handed over");
        }
        // A new primary that finds nobody here would have to wait for a lease to run out.
        self.wait_until(FOLLOW, || self.all(&led, |role, phase| role != Role::Secondary || phase == Phase::Following))
            .await;
    }

    fn all(&self, of: &BTreeSet<PartitionId>, holds: impl Fn(Role, Phase) -> bool) -> bool {
        let state = self.state.borrow();
        of.iter().filter_map(|id| state.partitions.get(id)).all(|partition| {
            let description = partition.replica.describe();
            holds(description.role, description.phase)
        })
    }

    /// Waits until every write that was admitted is answered, for a bounded time: the other members may be stopping
    /// as well, and then it will not be.
    async fn drain_pending(&self) {
        self.wait_until(DRAIN, || self.state.borrow().pending.len() == 0).await;
    }

    /// Looks again and again until something holds; false if it does not in time.
    async fn wait_until(&self, patience: Duration, holds: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !holds() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    fn flush_job(&self, table: Table) -> impl Future<Output = Result<(), String>> + use<> {
        let job = self.shared.long_pool.run(move || table.flush());
        async move {
            let flushed = job.map_err(|busy| busy.to_string())?.await.map_err(|panicked| panicked.to_string())?;
            flushed.map(|_| ()).map_err(|error| error.to_string())
        }
    }
}
