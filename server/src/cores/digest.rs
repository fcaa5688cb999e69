//! A digest of the live rows of one copy, so that copies on different nodes can be compared.
//!
//! Copies are compared as live rows (key, value, expiry) at one applied decree: files differ, because each node
//! compacts in its own time.

use futures_channel::oneshot;
use pegasus_engine::table::{ReadMode, Scan, ScanRequest, Table};
use pegasus_wire::hash::partition_hash;
use pegasus_wire::limits::{READ_BYTES_TARGET, READ_ROWS_MAX, SCAN_ITERATIONS_MAX};
use pegasus_wire::{PartitionId, expiry};

use super::Core;
use crate::control::Digest;

impl Core {
    /// Computes a copy's digest in the pool and answers with it, or with why there is none.
    pub(crate) fn digest(&self, id: PartitionId, answer: oneshot::Sender<Result<Digest, String>>) {
        let table = match self.state.borrow().partitions.get(&id) {
            Some(partition) => partition.table.clone(),
            None => {
                // The asker may have gone away.
                let _ = answer.send(Err(format!("no copy of partition {id} on core {}", self.id)));
                return;
            }
        };
        let now_seconds = expiry::seconds_since_epoch(self.clock_micros());
        match self.shared.long_pool.run(move || digest(&table, now_seconds)) {
            Err(busy) => drop(answer.send(Err(busy.to_string()))),
            Ok(job) => self.later(async move {
                let result = job.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
                let _ = answer.send(result);
            }),
        }
    }
}

/// Walks all live rows. If mutations were applied meanwhile, says so instead of giving a digest of no one moment.
fn digest(table: &Table, now_seconds: u32) -> Result<Digest, String> {
    let decree = table.applied();
    let mut digest = Digest { decree: decree.0, rows: 0, digest: 0 };
    let mut start = Vec::new();
    let mut start_inclusive = true;
    loop {
        let request = ScanRequest {
            start: &start,
            start_inclusive,
            rows_max: READ_ROWS_MAX,
            bytes_max: READ_BYTES_TARGET,
            iterations_max: SCAN_ITERATIONS_MAX,
            ..ScanRequest::everything(now_seconds)
        };
        let outcome = match table.scan(&request, ReadMode::Blocking).map_err(|error| error.to_string())? {
            Scan::Done(outcome) => outcome,
            Scan::WouldBlock => return Err("a blocking scan answered that it would block".to_owned()),
        };
        for row in outcome.rows.iter() {
            digest.rows += 1;
            let mixed = partition_hash(row.key, b"")
                ^ partition_hash(row.value, b"").rotate_left(21)
                ^ u64::from(row.expiry_seconds).rotate_left(42);
            digest.digest = digest.digest.rotate_left(1).wrapping_add(mixed);
        }
        if outcome.complete {
            break;
        }
        start = outcome.resume_after;
        start_inclusive = false;
    }
    if table.applied() != decree {
        return Err(format!("the copy moved on from decree {decree} to {} meanwhile; ask again", table.applied()));
    }
    Ok(digest)
}
