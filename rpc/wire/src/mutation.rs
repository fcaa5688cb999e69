//! A mutation: the unit that is prepared, logged, committed and applied.

use bytes::Bytes;

use crate::ids::{Ballot, Decree};

/// What a mutation's payload is. Numbers are stored in logs and sent in prepares; they are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MutationKind {
    /// No payload; only moves the decree on.
    Empty = 0,
    /// The body of a `Write` frame (see [`crate::messages::data::Write`]).
    Write = 1,
}

impl MutationKind {
    /// The kind with this number.
    pub fn from_code(code: u8) -> Option<MutationKind> {
        match code {
            0 => Some(MutationKind::Empty),
            1 => Some(MutationKind::Write),
            _ => None,
        }
    }
}

/// One mutation of one partition. Cloning shares the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Ballot under which it was (last) prepared.
    pub ballot: Ballot,
    /// Its position in the partition's history.
    pub decree: Decree,
    /// When the primary stamped it: microseconds since the Unix epoch, strictly rising within a partition.
    pub timestamp_micros: u64,
    /// What the payload is.
    pub kind: MutationKind,
    /// The payload, checked when it was admitted; in one piece with the frame it arrived in where possible.
    pub payload: Bytes,
}
