//! A cluster of which only one node is real: the meta service and the other members are played by the test, which so
//! says and refuses whatever it wants.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod follower;
pub(crate) mod led;
pub(crate) mod meta;
pub(crate) mod peer;
pub(crate) mod stage;

use std::future::Future;
use std::time::{Duration, Instant};

use pegasus_wire::{ClusterId, Durability, PartitionId, TableId, TableProperties};

use crate::support::PATIENCE;

/// The cluster of every scene.
pub(crate) const CLUSTER: ClusterId = ClusterId(0x00C0_FFEE);

/// The only table there is.
pub(crate) fn table() -> TableProperties {
    TableProperties {
        table: TableId(1),
        name: "table".to_owned(),
        partition_count: 4,
        replica_count: 3,
        durability: Durability::Synced,
    }
}

/// A partition of the table.
pub(crate) fn partition(index: u32) -> PartitionId {
    PartitionId::new(1, index)
}

/// Looks again and again until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
