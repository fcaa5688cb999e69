//! Tells an operator about one copy, whatever its role and whatever its table refuses to clients.

use pegasus_replication::Role;
use pegasus_wire::messages::data::CopyReply;
use pegasus_wire::{PartitionId, Status};

use super::Core;
use super::outcome::{Outcome, Refusal};
use super::request::Request;

impl Core {
    /// Tells about a copy. What only RocksDB knows is asked in the pool: it takes locks.
    pub(crate) fn query_copy(&self, request: Request, id: PartitionId) {
        let (reply, table) = {
            let state = self.state.borrow();
            let partition = match self.find(&state, id) {
                Ok(partition) => partition,
                Err(refusal) => {
                    drop(state);
                    return request.refuse(refusal);
                }
            };
            let reply = CopyReply {
                primary: partition.replica.role() == Role::Primary,
                applied: partition.table.applied(),
                file_bytes: 0,
                estimated_rows: 0,
                compaction: partition.compaction.state,
                compaction_ended_seconds: partition.compaction.last.ended_seconds,
                compaction_percent: 0,
            };
            (reply, partition.table.clone())
        };
        let job = move || {
            let statistics = table.statistics();
            // A copy whose files cannot be listed says so elsewhere.
            let compaction_percent = table.compaction_percent().ok().flatten().unwrap_or(0);
            let (file_bytes, estimated_rows) = (statistics.file_bytes, statistics.keys_estimated);
            CopyReply { file_bytes, estimated_rows, compaction_percent, ..reply }
        };
        let job = match self.shared.point_pool.run(job) {
            Ok(job) => job,
            Err(busy) => return request.refuse(Refusal::new(Status::Busy, busy.to_string())),
        };
        self.later(async move {
            match job.await {
                Ok(reply) => request.answer(&Outcome::Copy(&reply)),
                Err(panicked) => request.refuse(Refusal::new(Status::Internal, panicked.to_string())),
            }
        });
    }
}
