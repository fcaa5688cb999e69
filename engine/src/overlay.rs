//! What is prepared and not applied, by row: the newest value of a row is here if it is not in the table.
//!
//! ```text
//!          table              overlay
//!   [1 .. applied] | applied+1 .. through()
//!                  |
//!   the row is in the overlay?  yes: that is its newest value (or it is deleted)
//!                               no:  the newest value is in the table
//! ```
//!
//! The owner of a partition builds it when somebody asks, from the mutations in the window, and prunes what is applied.
//! Rows are kept as pieces of the mutations' payloads: nothing is copied, and what is pruned is freed. It holds at most
//! what the window does.
//!
//! It must never be asked about a row before every mutation in the window is in it, and it must be cleared when a
//! mutation in the window is replaced (another ballot).

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use pegasus_wire::frame::{WireError, read_body};
use pegasus_wire::messages::data::{ArchivedRowOperation, ArchivedWrite, SortKeys};
use pegasus_wire::{Decree, MessageKind, Mutation, MutationKind, key};

/// The mutations above the applied decree of one partition, by row.
#[derive(Debug, Default)]
pub struct Overlay {
    hash_keys: HashMap<Bytes, Rows>,
    /// What was written, oldest first, for pruning. A hash key is in `hash_keys` as long as it is here.
    written: VecDeque<Written>,
    through: Decree,
}

/// The newest thing that is to happen to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlaid {
    /// The mutation that does it.
    pub decree: Decree,
    /// Value and expiry (seconds since 2016; 0 means never) that the row will have, expired or not; `None` if it will
    /// be deleted.
    pub row: Option<(Bytes, u32)>,
}

/// What is to happen to the rows of one hash key.
#[derive(Debug, Default)]
struct Rows {
    /// The newest put or delete of each sort key.
    rows: HashMap<Bytes, (Position, Option<(Bytes, u32)>)>,
    /// Range deletes, oldest first. One that contains all of an older one takes its place.
    ranges: VecDeque<DeletedRange>,
    /// How often the hash key is in `written`.
    writes: usize,
}

/// Orders operations: by mutation, then by place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    decree: Decree,
    operation: usize,
}

#[derive(Debug)]
struct DeletedRange {
    position: Position,
    start: Bytes,
    stop: Bytes,
    start_inclusive: bool,
    stop_inclusive: bool,
}

#[derive(Debug)]
struct Written {
    decree: Decree,
    hash_key: Bytes,
    /// `None` for a range.
    sort_key: Option<Bytes>,
}

impl Overlay {
    /// Takes in a mutation, which must be the next one after [`Overlay::through`]. An error means that its payload is
    /// not what was admitted; the overlay is of no use from then on.
    pub fn index(&mut self, mutation: &Mutation) -> Result<(), WireError> {
        assert_eq!(mutation.decree, self.through.next(), "the overlay has the window without gaps");
        self.through = mutation.decree;
        if mutation.kind == MutationKind::Empty {
            return Ok(());
        }
        let write = read_body::<ArchivedWrite<'_>>(MessageKind::WRITE, &mutation.payload)?;
        let piece = |bytes: &[u8]| mutation.payload.slice_ref(bytes);
        let hash_key = piece(&write.hash_key);
        for (operation, change) in write.operations.iter().enumerate() {
            let rows = self.hash_keys.entry(hash_key.clone()).or_default();
            let position = Position { decree: mutation.decree, operation };
            let sort_key = match change {
                ArchivedRowOperation::Put { sort_key, value, expiry_seconds } => {
                    let row = Some((piece(value), expiry_seconds.to_native()));
                    rows.rows.insert(piece(sort_key), (position, row));
                    Some(piece(sort_key))
                }
                ArchivedRowOperation::Delete { sort_key } => {
                    rows.rows.insert(piece(sort_key), (position, None));
                    Some(piece(sort_key))
                }
                ArchivedRowOperation::DeleteRange { range } => {
                    rows.add_range(DeletedRange {
                        position,
                        start: piece(&range.start),
                        stop: piece(&range.stop),
                        start_inclusive: range.start_inclusive,
                        stop_inclusive: range.stop_inclusive,
                    });
                    None
                }
            };
            rows.writes += 1;
            self.written.push_back(Written { decree: mutation.decree, hash_key: hash_key.clone(), sort_key });
        }
        Ok(())
    }

    /// Forgets what is applied: the table has it. Raises [`Overlay::through`] to `applied` if that is higher, so that
    /// mutations which were applied before anybody asked need not be taken in.
    pub fn prune(&mut self, applied: Decree) {
        while let Some(written) = self.written.pop_front_if(|written| written.decree <= applied) {
            let rows = self.hash_keys.get_mut(&written.hash_key).expect("written rows are there until they are pruned");
            rows.writes -= 1;
            if rows.writes == 0 {
                self.hash_keys.remove(&written.hash_key);
            } else {
                rows.forget(&written, applied);
            }
        }
        self.through = self.through.max(applied);
    }

    /// The last mutation taken in, or known to be applied.
    pub fn through(&self) -> Decree {
        self.through
    }

    /// True if it holds no rows.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// What is to happen to the row with this stored key; `None` if nothing is: the table has its newest value.
    pub fn get(&self, stored_key: &[u8]) -> Option<Overlaid> {
        let (hash_key, sort_key) = key::decode(stored_key).ok()?;
        let rows = self.hash_keys.get(hash_key)?;
        let row = rows.rows.get(sort_key);
        let range = rows.ranges.iter().rev().find(|range| range.as_sort_keys().contains(sort_key));
        match (row, range) {
            (Some((position, row)), range) if range.is_none_or(|range| range.position < *position) => {
                Some(Overlaid { decree: position.decree, row: row.clone() })
            }
            (_, Some(range)) => Some(Overlaid { decree: range.position.decree, row: None }),
            (_, None) => None,
        }
    }

    /// Forgets everything, as if it were new.
    pub fn clear(&mut self) {
        *self = Overlay::default();
    }
}

impl Rows {
    fn add_range(&mut self, range: DeletedRange) {
        while self.ranges.pop_back_if(|older| range.contains_all_of(older)).is_some() {}
        self.ranges.push_back(range);
    }

    /// Drops what one applied operation left behind, if nothing newer took its place.
    fn forget(&mut self, written: &Written, applied: Decree) {
        match &written.sort_key {
            Some(sort_key) => {
                if self.rows.get(sort_key).is_some_and(|(position, _)| position.decree <= applied) {
                    self.rows.remove(sort_key);
                }
            }
            None => {
                self.ranges.pop_front_if(|range| range.position.decree <= applied);
            }
        }
    }
}

impl DeletedRange {
    fn as_sort_keys(&self) -> SortKeys<'_> {
        SortKeys {
            start: &self.start,
            stop: &self.stop,
            start_inclusive: self.start_inclusive,
            stop_inclusive: self.stop_inclusive,
        }
    }

    /// True if every sort key of `other` is in this range. May be false where it is so: then both ranges are kept.
    fn contains_all_of(&self, other: &DeletedRange) -> bool {
        let starts =
            self.start < other.start || (self.start == other.start && (self.start_inclusive || !other.start_inclusive));
        let stops =
            self.stop > other.stop || (self.stop == other.stop && (self.stop_inclusive || !other.stop_inclusive));
        starts && (self.stop.is_empty() || (stops && !other.stop.is_empty()))
    }
}
