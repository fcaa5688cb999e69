//! Operations that read before they write: what follows from the newest value becomes a plain write.
//!
//! The newest value may still be uncommitted. So an operation reads through an overlay of what is prepared and not
//! applied, which is brought up to date only when somebody asks: plain puts never pay for it.
//!
//! ```text
//!   all that was proposed before is in the window      (queued events are handled first)
//!   overlay up to the window's last decree
//!   the row: in the overlay, else in the table, from memory
//!        |          |                    +-- not in memory: the pool reads it, then again from the start
//!        v          v
//!   decide (pure) --+-- a write  ----------> proposed; the next operation sees it
//!                   +-- nothing, from the overlay --> answered when the decree it read is applied
//!                   +-- nothing, from the table ----> answered at once
//! ```
//!
//! Between reading a row and proposing what follows from it nothing else happens on the core, so operations on one row
//! are exact however many are on their way.

use bytes::Bytes;
use pegasus_engine::execute::{Current, ExecuteError, check, increment};
use pegasus_engine::overlay::{Overlaid, Overlay};
use pegasus_engine::table::{Lookup, ReadMode, Table, TableError};
use pegasus_replication::{Event, Moment, Replica};
use pegasus_wire::environment::TableLimits;
use pegasus_wire::expiry::is_expired;
use pegasus_wire::messages::data::{CheckAndWrite, ExpiryChange, Increment, RowOperation, Write};
use pegasus_wire::{Ballot, Decree, PartitionId, Status, key};

use super::checks::{
    check_hash_key, check_operand, check_operations, check_row_key, check_sort_key, check_write_bytes,
};
use super::outcome::Refusal;
use super::partition::CopyId;
use super::payload;
use super::pending::{Checked, Completion};
use super::request::Request;
use super::{Core, Partition, State, clock};

/// How often a row is read in the pool, until it stays in memory long enough.
const POOL_READS_MAX: u32 = 3;

/// An operation that reads before it writes.
pub(crate) enum Operation<'a> {
    /// Adds to the number in a row.
    Increment(Increment<'a>),
    /// Writes if a row passes a check.
    CheckAndWrite(CheckAndWrite<'a>),
}

/// What an operation is taken from: it lives as long as the operation may have to wait for the disk.
pub(crate) trait Source: 'static {
    /// Runs with the operation, or says why there is none.
    fn with_operation<T>(&self, run: impl FnOnce(&Operation<'_>) -> T) -> Result<T, Refusal>;
}

/// What a partition's primary has prepared and not applied, by row, as far as somebody has asked.
#[derive(Default)]
pub(crate) struct WindowOverlay {
    rows: Overlay,
    /// Of the replica when rows were last added. Under one ballot nothing in a serving primary's window is replaced.
    ballot: Ballot,
}

/// What an operation comes to.
enum Decision {
    /// It writes.
    Write { payload: Bytes, completion: Completion },
    /// It writes nothing, having read up to a decree that is not applied yet, or only what is.
    Nothing { through: Option<Decree>, completion: Completion },
    /// The row is not in memory.
    Blocked { table: Table, stored: Vec<u8>, now_seconds: u32 },
    /// The row cannot be read.
    Failed(TableError),
}

impl Core {
    /// Carries out an operation that reads before it writes. `now` is a reading of the clock after it was received.
    pub(crate) fn execute(&self, request: Request, source: impl Source, now: Moment) {
        self.attempt(request, source, now, POOL_READS_MAX);
    }

    fn attempt(&self, request: Request, source: impl Source, now: Moment, pool_reads_left: u32) {
        // What was proposed before, also in the same batch of frames, is in the window from here on.
        self.handle_queued();
        let decided = source.with_operation(|operation| {
            let mut state = self.state.borrow_mut();
            self.decide(&mut state, operation, now)
        });
        let (copy, decision) = match decided.flatten() {
            Ok(decided) => decided,
            Err(refusal) => {
                self.count(|counters| counters.writes_refused += 1);
                return request.refuse(refusal);
            }
        };
        match decision {
            Decision::Write { payload, completion } => {
                let mut state = self.state.borrow_mut();
                self.propose(&mut state, copy.partition, request, payload, completion);
            }
            Decision::Nothing { through: Some(through), completion } => {
                let mut state = self.state.borrow_mut();
                let request = state.pending.insert(request, completion);
                state.events.push_back((copy.partition, Event::Await { request, through }));
            }
            Decision::Nothing { through: None, completion } => {
                let applied = self.state.borrow().partitions.get(&copy.partition).map(|copy| copy.replica.applied());
                completion.finish(&request, applied.ok_or(Status::NoSuchPartition));
            }
            Decision::Blocked { .. } if pool_reads_left == 0 => {
                request.refuse(Refusal::new(Status::Busy, "the row does not stay in memory; try again a little later"));
            }
            Decision::Blocked { table, stored, now_seconds } => {
                let read = move || table.read_row(&stored, now_seconds, ReadMode::Blocking).map(|_| ());
                self.read_then_attempt(request, source, (copy, read), pool_reads_left - 1);
            }
            Decision::Failed(error) => request.refuse(self.read_failed(copy, &error)),
        }
    }

    /// Reads a row in the pool, so that it is in memory, and begins again: its value may be another by then.
    fn read_then_attempt(
        &self,
        request: Request,
        source: impl Source,
        (copy, read): (CopyId, impl FnOnce() -> Result<(), TableError> + Send + 'static),
        pool_reads_left: u32,
    ) {
        self.count(|counters| counters.executions_in_pool += 1);
        let read = match self.shared.point_pool.run(read) {
            Ok(read) => read,
            Err(_) => return request.refuse(Refusal::plain(Status::Busy)),
        };
        let core = self.clone();
        self.later(async move {
            let read = read.await;
            let started = core.begin_run();
            match read {
                Ok(Ok(())) => core.attempt(request, source, clock::now(), pool_reads_left),
                Ok(Err(error)) => request.refuse(core.read_failed(copy, &error)),
                Err(error) => request.refuse(Refusal::new(Status::Internal, error.to_string())),
            }
            core.settle();
            core.end_run(started);
        });
    }

    fn decide(&self, state: &mut State, operation: &Operation<'_>, now: Moment) -> Result<(CopyId, Decision), Refusal> {
        let id = operation.partition();
        let default_expiry = self.with_writable(state, id, now, |partition| {
            operation.check(partition)?;
            Ok(self.default_expiry(partition))
        })?;
        let Some(partition) = state.partitions.get_mut(&id) else {
            return Err(Refusal::plain(Status::NoSuchPartition));
        };
        let mut stored = self.scratch.take();
        key::encode_into(&mut stored, operation.hash_key(), operation.sort_key());
        let now_seconds = self.now_seconds(partition);
        let decision = decide_on(partition, operation, &stored, now_seconds, default_expiry);
        self.scratch.replace(stored);
        Ok((partition.copy(), decision?))
    }
}

/// Reads the row and decides.
fn decide_on(
    partition: &mut Partition,
    operation: &Operation<'_>,
    stored: &[u8],
    now_seconds: u32,
    default_expiry: Option<u32>,
) -> Result<Decision, Refusal> {
    let Partition { overlay, replica, table, environment, .. } = partition;
    let decide = |row: Option<Current<'_>>, through| {
        let row = row.filter(|row| !is_expired(row.expiry_seconds, now_seconds));
        match operation.effect(row, &environment.limits, default_expiry) {
            Ok((Some(payload), completion)) => Decision::Write { payload, completion },
            Ok((None, completion)) => Decision::Nothing { through, completion },
            Err(refusal) => Decision::Nothing { through, completion: Completion::Refused(Box::new(refusal)) },
        }
    };
    if let Some(Overlaid { decree, row }) = overlay.look_up(replica, stored)? {
        let row = row.as_ref().map(|(value, expiry_seconds)| Current { value, expiry_seconds: *expiry_seconds });
        return Ok(decide(row, Some(decree)));
    }
    Ok(match table.read_row(stored, now_seconds, ReadMode::CacheOnly) {
        Ok(Lookup::Found { value, expiry_seconds }) => decide(Some(Current { value: &value, expiry_seconds }), None),
        Ok(Lookup::Missing) => decide(None, None),
        Ok(Lookup::WouldBlock) => Decision::Blocked { table: table.clone(), stored: stored.to_vec(), now_seconds },
        Err(error) => Decision::Failed(error),
    })
}

impl WindowOverlay {
    /// The newest that is prepared and not applied of the row with this stored key.
    fn look_up(&mut self, replica: &Replica, stored: &[u8]) -> Result<Option<Overlaid>, Refusal> {
        if self.ballot != replica.ballot() {
            self.rows.clear();
            self.ballot = replica.ballot();
        }
        self.rows.prune(replica.applied());
        for mutation in replica.unapplied(self.rows.through().next()) {
            // It was admitted here, so this is a mistake of ours.
            let indexed = self.rows.index(mutation);
            indexed.map_err(|error| Refusal::new(Status::Internal, error.to_string()))?;
        }
        Ok(self.rows.get(stored))
    }

    /// Forgets what is of no use any more: all of it is applied, or the replica is another's secondary by now.
    pub(crate) fn rest(&mut self, replica: &Replica) {
        if self.rows.through() <= replica.applied() || self.ballot != replica.ballot() {
            self.rows.clear();
        }
    }
}

impl Operation<'_> {
    fn partition(&self) -> PartitionId {
        match self {
            Operation::Increment(increment) => increment.partition,
            Operation::CheckAndWrite(check) => check.partition,
        }
    }

    fn hash_key(&self) -> &[u8] {
        match self {
            Operation::Increment(increment) => increment.hash_key,
            Operation::CheckAndWrite(check) => check.hash_key,
        }
    }

    /// Of the row that is read.
    fn sort_key(&self) -> &[u8] {
        match self {
            Operation::Increment(increment) => increment.sort_key,
            Operation::CheckAndWrite(check) => check.check_sort_key,
        }
    }

    /// What is wrong with it, whatever the row holds.
    fn check(&self, partition: &Partition) -> Result<(), Refusal> {
        match self {
            Operation::Increment(of) => check_row_key(partition, of.hash_key, of.sort_key)?,
            Operation::CheckAndWrite(of) => {
                check_hash_key(partition, of.hash_key)?;
                check_sort_key(of.check_sort_key)?;
            }
        }
        match self {
            Operation::Increment(Increment { expiry: ExpiryChange::Set(0), .. }) => Err(Refusal::new(
                Status::InvalidArgument,
                "a row cannot be set to expire at second 0, which means never: clear its expiry",
            )),
            Operation::Increment(_) => Ok(()),
            Operation::CheckAndWrite(check) => {
                check_operand(check.operand)?;
                check_operations(&partition.environment.limits, check.operations.iter().copied())
            }
        }
    }

    /// What follows from the row: a payload, if something is to be written, and what is answered when that is applied.
    fn effect(
        &self,
        row: Option<Current<'_>>,
        limits: &TableLimits,
        default_expiry: Option<u32>,
    ) -> Result<(Option<Bytes>, Completion), Refusal> {
        match self {
            Operation::Increment(of) => {
                let incremented = increment(row, of.increment, of.expiry).map_err(invalid)?;
                let (text, expiry_seconds) = (incremented.text(), incremented.expiry_seconds);
                let put = [RowOperation::Put { sort_key: of.sort_key, value: text.as_bytes(), expiry_seconds }];
                check_operations(limits, put.iter().copied())?;
                let payload = self.payload(&put, limits, default_expiry)?;
                Ok((Some(payload), Completion::Incremented { value: incremented.value }))
            }
            Operation::CheckAndWrite(of) => {
                let written = check(row.map(|row| row.value), of.check, of.operand).map_err(invalid)?;
                let payload = if written { Some(self.payload(of.operations, limits, default_expiry)?) } else { None };
                let value = row.filter(|_| of.return_value).map(|row| Bytes::copy_from_slice(row.value));
                let checked = Checked { written, exists: row.is_some(), value };
                Ok((payload, Completion::Checked(Box::new(checked))))
            }
        }
    }

    /// The payload of a write, whose rows get the table's time to live.
    fn payload(
        &self,
        operations: &[RowOperation<'_>],
        limits: &TableLimits,
        default_expiry: Option<u32>,
    ) -> Result<Bytes, Refusal> {
        let (partition, hash_key) = (self.partition(), self.hash_key());
        let payload = payload::encode_with_default(&Write { partition, hash_key, operations }, default_expiry);
        check_write_bytes(limits, payload.len())?;
        Ok(payload)
    }
}

fn invalid(error: ExecuteError) -> Refusal {
    let number = match &error {
        ExecuteError::Overflow { value, .. } => Some(*value),
        ExecuteError::ValueNotInteger(_) | ExecuteError::OperandNotInteger(_) => None,
    };
    Refusal { number, ..Refusal::new(Status::InvalidArgument, error.to_string()) }
}

#[cfg(test)]
mod tests {
    use pegasus_replication::{Recovered, ReplicaIdentity};
    use pegasus_wire::{
        ClusterId, Configuration, Durability, Mutation, MutationKind, NodeId, TableId, TableProperties,
    };

    use super::*;

    const ID: PartitionId = PartitionId { table: TableId(1), index: 0 };

    /// A replica under a ballot, that has applied so much and whose window holds these values of one row.
    fn replica(ballot: u64, applied: u64, values: &[&str]) -> Replica {
        let ballot = Ballot(ballot);
        let mutation = |(decree, value): (u64, &&str)| {
            let put = [RowOperation::Put { sort_key: b"s", value: value.as_bytes(), expiry_seconds: 0 }];
            let payload = payload::encode(&Write { partition: ID, hash_key: b"h", operations: &put });
            Mutation { ballot, decree: Decree(decree), timestamp_micros: 1, kind: MutationKind::Write, payload }
        };
        let configuration = Configuration { ballot, primary: Some(NodeId(1)), secondaries: Vec::new() };
        let mutations = (applied + 1..).zip(values).map(mutation).collect();
        let recovered = Recovered { applied: Decree(applied), mutations, ..Recovered::empty(configuration) };
        let table = TableProperties {
            table: ID.table,
            name: "table".to_owned(),
            partition_count: 1,
            replica_count: 1,
            durability: Durability::Synced,
        };
        let identity = ReplicaIdentity { cluster: ClusterId(1), node: NodeId(1), partition: ID, table };
        Replica::new(identity, recovered, Moment(0))
    }

    #[test]
    fn nothing_of_an_earlier_ballot_is_read() {
        let stored = key::encode(b"h", b"s");
        let mut overlay = WindowOverlay::default();
        let mut read = |replica: &Replica| {
            let Ok(overlaid) = overlay.look_up(replica, &stored) else { panic!("a sound window") };
            overlaid.map(|overlaid| (overlaid.decree.0, overlaid.row.map(|(value, _)| value)))
        };
        let found = |decree, value: &'static str| Some((decree, Some(Bytes::from_static(value.as_bytes()))));
        assert_eq!(read(&replica(3, 0, &["one"])), found(1, "one"));
        assert_eq!(read(&replica(3, 0, &["one", "two"])), found(2, "two"));
        // Another primary replaced them, under the same decrees.
        assert_eq!(read(&replica(5, 0, &["other"])), found(1, "other"));
        assert_eq!(read(&replica(6, 0, &[])), None);
    }

    #[test]
    fn what_is_of_no_use_any_more_is_forgotten() {
        let stored = key::encode(b"h", b"s");
        let mut overlay = WindowOverlay::default();
        let window = replica(3, 0, &["one"]);
        for later in [replica(4, 0, &["one"]), replica(3, 1, &[])] {
            assert!(matches!(overlay.look_up(&window, &stored), Ok(Some(_))));
            overlay.rest(&window);
            assert!(!overlay.rows.is_empty(), "it is not applied yet");
            overlay.rest(&later);
            assert!(overlay.rows.is_empty());
        }
    }
}
