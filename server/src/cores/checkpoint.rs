//! A primary's checkpoint on its way out to a learner.
//!
//! ```text
//!   FETCH_CHECKPOINT --> checked --> table flushed, files linked --> Checkpoint (what will come)
//!                                    (pool)                                |
//!                                                                          v
//!                      the node's rate allows --> next bytes read --> CHECKPOINT_CHUNK --> ...
//!                                                 (pool)              (flow control holds the sender back)
//! ```
//!
//! Only a node that this primary teaches under this very ballot, and told to take a checkpoint, gets one. A core sends
//! few at a time. The links are deleted when the learner has everything, or has gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use glommio::timer::sleep;
use pegasus_engine::copies;
use pegasus_engine::table::{CheckpointError, CheckpointReader, Table};
use pegasus_replication::Role;
use pegasus_rpc::{FrameReader, Outbox};
use pegasus_wire::limits::CHECKPOINT_CHUNK_BYTES;
use pegasus_wire::messages::peer::FetchCheckpoint;
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, Status};

use super::follow::refuse;
use super::partition::CopyId;
use super::perform::table_failed;
use super::{Core, State};

/// How long a learner may leave the last bytes untaken.
const UNTAKEN: Duration = Duration::from_secs(30);

/// An image being read, passed between core and pool; empty once it is deleted.
type Shared = Arc<Mutex<Option<CheckpointReader>>>;

/// A place among the checkpoints of a core, for as long as it lives.
struct Place(Core);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state.borrow_mut().checkpoints_served -= 1;
    }
}

impl Core {
    /// Serves one stream on which a learner asks for a table.
    pub(crate) async fn serve_checkpoint(self, frame: &Frame, outbox: Outbox, reader: FrameReader) {
        let (fetch, copy, table, place) = match self.admit_fetch(frame) {
            Ok(admitted) => admitted,
            Err((status, message)) => return refuse(frame, &outbox, status, message),
        };
        let id = copy.partition;
        let image: Shared = Arc::default();
        match self.make_image(copy, table, &image).await {
            Err((status, message)) => refuse(frame, &outbox, status, message),
            Ok(checkpoint) => {
                let (learner, files) = (fetch.sender, checkpoint.files.len());
                tracing::info!(partition = %id, %learner, applied = %checkpoint.applied, files, "sending a checkpoint");
                let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
                // A closed outbox is noticed by whoever sends the first bytes.
                let _ = outbox.push(|out| FrameBuilder::append(out, header, &checkpoint, &[]));
                match self.send_image(copy, &outbox, &image).await {
                    Ok(()) => tracing::info!(partition = %id, %learner, "a checkpoint was sent"),
                    Err(reason) => tracing::warn!(partition = %id, %learner, %reason, "a checkpoint was not sent"),
                }
                outbox.finish();
            }
        }
        self.delete_image(&image).await;
        drop(place);
        // Kept until here, so that the learner is not told that nobody listens to it.
        drop(reader);
    }

    /// Every reason to send no checkpoint.
    fn admit_fetch(&self, frame: &Frame) -> Result<(FetchCheckpoint, CopyId, Table, Place), (Status, String)> {
        let fetch: FetchCheckpoint = frame.decode().map_err(|error| (Status::Malformed, error.to_string()))?;
        self.check_peer(fetch.cluster, fetch.sender, fetch.receiver)?;
        let id = fetch.partition;
        self.check_owner(id)?;
        let mut guard = self.state.borrow_mut();
        let state: &mut State = &mut guard;
        let Some(partition) = state.partitions.get(&id) else {
            return Err((Status::NoSuchPartition, format!("no copy of partition {id} on this node")));
        };
        if let Some((status, message)) = &partition.problem {
            return Err((*status, message.clone()));
        }
        if partition.replica.role() != Role::Primary {
            return Err((Status::NotPrimary, format!("this node does not lead partition {id}")));
        }
        let (ballot, here) = (fetch.ballot, partition.replica.ballot());
        if ballot != here {
            return Err((Status::StaleBallot, format!("asked under ballot {ballot}, here it is {here}")));
        }
        let learner = fetch.sender;
        let taught = partition.replica.describe().learners.iter().any(|known| known.node == learner);
        if !taught || !partition.lessons.may_fetch(learner) {
            return Err((Status::Forbidden, format!("node {learner} was not told to take a checkpoint of {id}")));
        }
        if state.leaving {
            return Err((Status::ShuttingDown, "the node stops".to_owned()));
        }
        if state.checkpoints_served >= self.shared.config.replication.learners_per_core {
            return Err((Status::Busy, format!("{} checkpoints are being sent already", state.checkpoints_served)));
        }
        state.checkpoints_served += 1;
        Ok((fetch, partition.copy(), partition.table.clone(), Place(self.clone())))
    }

    /// Makes a checkpoint in the pool and says what is in it.
    async fn make_image(
        &self,
        copy: CopyId,
        table: Table,
        image: &Shared,
    ) -> Result<pegasus_wire::messages::peer::Checkpoint, (Status, String)> {
        let (shared, slot, id) = (self.shared.clone(), image.clone(), copy.partition);
        let make = move || {
            let directory = copies::fresh_checkpoint_directory(&shared.config.data_directory, id);
            let made = table.checkpoint(&shared.tables, &directory)?;
            let checkpoint = made.checkpoint().clone();
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.read());
            Ok::<_, CheckpointError>(checkpoint)
        };
        match self.insist(&self.shared.long_pool, make).await {
            Ok(Ok(checkpoint)) => Ok(checkpoint),
            Ok(Err(error)) => {
                let message = error.to_string();
                if let CheckpointError::Table(failure) = &error {
                    self.post_to(copy, table_failed(failure));
                    self.settle();
                }
                tracing::error!(partition = %id, %error, "a checkpoint could not be made");
                Err((Status::Busy, message))
            }
            Err(reason) => Err((Status::ShuttingDown, reason)),
        }
    }

    /// Sends the files. Each piece waits for its share of the node's rate, and until the stream has room for it.
    async fn send_image(&self, copy: CopyId, outbox: &Outbox, image: &Shared) -> Result<(), String> {
        while let Some(bytes) = self.next_piece(copy, image).await? {
            let pause = self.shared.checkpoint_rate.reserve(bytes.len(), Instant::now());
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let ready = self.runtime.timeout_at(Instant::now() + UNTAKEN, outbox.ready()).await;
            ready.ok_or("the learner takes nothing any more")?.map_err(|_| "the learner has gone")?;
            if self.state.borrow_mut().copy(copy).is_none() {
                return Err("the copy is not here any more".to_owned());
            }
            let header = FrameHeader::request(MessageKind::CHECKPOINT_CHUNK, 0, 0);
            let pushed = outbox.push(|out| FrameBuilder::append_empty(out, header, &bytes));
            pushed.map_err(|_| "the learner has gone")?;
            self.count(|counters| counters.checkpoint_bytes_sent += bytes.len() as u64);
        }
        Ok(())
    }

    async fn next_piece(&self, copy: CopyId, image: &Shared) -> Result<Option<Bytes>, String> {
        let slot = image.clone();
        let next = move || match slot.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(reader) => reader.next_chunk(),
            None => Ok(None),
        };
        let piece = self.insist(&self.shared.long_pool, next).await?.map_err(|error| error.to_string())?;
        debug_assert!(piece.as_ref().is_none_or(|piece| piece.len() <= CHECKPOINT_CHUNK_BYTES), "limits.rs: {copy:?}");
        Ok(piece)
    }

    async fn delete_image(&self, image: &Shared) {
        let reader = image.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.drop_in_pool(reader).await;
    }
}
