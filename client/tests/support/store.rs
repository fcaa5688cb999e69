//! Rows in maps, answered as a storage node answers, but a few rows at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use pegasus_client::{TableId, now_seconds};
use pegasus_wire::expiry::is_expired;
use pegasus_wire::key::{decode, encode};
use pegasus_wire::messages::ErrorReply;
use pegasus_wire::messages::data::{ArchivedEndScan, ArchivedGet, CompactionState, CopyReply, GetReply, QueryCopy};
use pegasus_wire::{Decree, Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId, Status, partition_index};

/// A value and the second of its expiry.
pub type Cell = (Vec<u8>, u32);
/// Rows by stored key.
pub type Partition = BTreeMap<Vec<u8>, Cell>;

/// The rows of all tables. What one node acknowledges, the others have.
#[derive(Default)]
pub struct Store {
    partitions: Mutex<BTreeMap<PartitionId, Partition>>,
    /// Tables that the nodes know to be dropped.
    dropped: Mutex<HashSet<TableId>>,
}

/// Table 1 is called temp.
pub const TEMP: TableId = TableId(1);

impl Store {
    /// Rows of all tables.
    pub fn rows(&self) -> usize {
        self.lock().values().map(BTreeMap::len).sum()
    }

    /// Puts a row without asking anybody.
    pub fn put(&self, partition_count: u32, hash_key: &[u8], sort_key: &[u8], value: &[u8], expiry: u32) {
        let index = partition_index(hash_key, sort_key, partition_count);
        let mut partitions = self.lock();
        let rows = partitions.entry(PartitionId { table: TEMP, index }).or_default();
        rows.insert(encode(hash_key, sort_key), (value.to_vec(), expiry));
    }

    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The nodes hear that a table was dropped, or recalled.
    pub fn set_dropped(&self, table: TableId, dropped: bool) {
        let mut known = self.dropped.lock().unwrap();
        if dropped {
            known.insert(table)
        } else {
            known.remove(&table)
        };
    }

    /// The rows of a partition as they are now.
    pub fn snapshot(&self, partition: PartitionId) -> Partition {
        self.lock().get(&partition).cloned().unwrap_or_default()
    }

    /// Does something to the rows of a partition, in one step.
    pub fn change<T>(&self, partition: PartitionId, change: impl FnOnce(&mut Partition) -> T) -> T {
        change(self.lock().entry(partition).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Partition>> {
        self.partitions.lock().unwrap()
    }

    fn is_dropped(&self, table: TableId) -> bool {
        self.dropped.lock().unwrap().contains(&table)
    }
}

/// A storage node over the store.
pub struct Node {
    pub store: Arc<Store>,
    contexts: Mutex<Contexts>,
}

/// Snapshots of scans, by their ids.
struct Contexts {
    last: u64,
    kept: HashMap<u64, (PartitionId, Partition)>,
}

impl Node {
    /// Contexts of different nodes have different numbers.
    pub fn new(store: Arc<Store>, number: u64) -> Node {
        Node { store, contexts: Mutex::new(Contexts { last: number << 32, kept: HashMap::new() }) }
    }

    /// How many contexts it keeps.
    pub fn contexts(&self) -> usize {
        self.contexts.lock().unwrap().kept.len()
    }

    /// Forgets all contexts.
    pub fn lose_contexts(&self) {
        self.contexts.lock().unwrap().kept.clear();
    }

    pub fn answer(&self, frame: &Frame, out: &mut Vec<u8>) {
        let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
        match frame.header.kind {
            MessageKind::GET => self.get(frame, header, out),
            MessageKind::WRITE => self.write(frame, header, out),
            MessageKind::INCREMENT => self.increment(frame, header, out),
            MessageKind::CHECK_AND_WRITE => self.check_and_write(frame, header, out),
            MessageKind::MULTI_GET => self.multi_get(frame, header, out),
            MessageKind::SCAN => self.scan(frame, header, out),
            MessageKind::END_SCAN => {
                assert_eq!(frame.header.request_id, 0, "it is one way");
                let message = frame.body::<ArchivedEndScan>().unwrap();
                self.contexts.lock().unwrap().kept.remove(&message.context.to_native());
            }
            MessageKind::QUERY_COPY => query_copy(&frame.decode().unwrap(), header, out),
            other => panic!("a storage node was asked {other}"),
        }
    }

    /// False, and a refusal, if the table was dropped.
    pub fn serves(&self, partition: PartitionId, header: FrameHeader, out: &mut Vec<u8>) -> bool {
        let dropped = self.store.is_dropped(partition.table);
        if dropped {
            refuse(header, Status::NoSuchTable, "the table was dropped", out);
        }
        !dropped
    }

    /// The snapshot of a context, if it is known.
    pub fn known_context(&self, id: u64, partition: PartitionId) -> Option<Partition> {
        let contexts = self.contexts.lock().unwrap();
        contexts.kept.get(&id).filter(|(of, _)| *of == partition).map(|(_, rows)| rows.clone())
    }

    pub fn keep_context(&self, partition: PartitionId, rows: Partition) -> u64 {
        let mut contexts = self.contexts.lock().unwrap();
        contexts.last += 1;
        let id = contexts.last;
        contexts.kept.insert(id, (partition, rows));
        id
    }

    pub fn end_context(&self, id: u64) {
        self.contexts.lock().unwrap().kept.remove(&id);
    }

    fn get(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let get = frame.body::<ArchivedGet<'_>>().unwrap();
        let partition = PartitionId::from(&get.partition);
        if !self.serves(partition, header, out) {
            return;
        }
        match alive(&self.store.snapshot(partition), &encode(&get.hash_key, &get.sort_key)) {
            None => FrameBuilder::append_empty(out, FrameHeader { status: Status::NotFound, ..header }, &[]),
            Some((value, expiry)) => {
                let ttl_seconds = if *expiry == 0 { -1 } else { i64::from(*expiry) - i64::from(now_seconds()) };
                let value: &[u8] = if get.no_value { &[] } else { value };
                FrameBuilder::append(out, header, &GetReply { ttl_seconds }, value);
            }
        }
    }
}

/// A row, unless it has expired.
pub fn alive<'a>(rows: &'a Partition, stored: &[u8]) -> Option<&'a Cell> {
    rows.get(stored).filter(|(_, expiry)| !is_expired(*expiry, now_seconds()))
}

/// The hash key of a stored key.
pub fn hash_key_of(stored: &[u8]) -> &[u8] {
    decode(stored).unwrap().0
}

/// Answers with a status and its reason.
pub fn refuse(header: FrameHeader, status: Status, reason: &str, out: &mut Vec<u8>) {
    FrameBuilder::append(out, FrameHeader { status, ..header }, &ErrorReply::new(reason), &[]);
}

fn query_copy(asked: &QueryCopy, header: FrameHeader, out: &mut Vec<u8>) {
    let reply = CopyReply {
        primary: true,
        applied: Decree(7),
        file_bytes: u64::from(asked.partition.index) * 1000,
        estimated_rows: 3,
        compaction: CompactionState::Running,
        compaction_ended_seconds: 0,
        compaction_percent: 40,
    };
    FrameBuilder::append(out, header, &reply, &[]);
}
