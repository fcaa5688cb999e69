//! What clients say to storage nodes. Every request names one partition and goes to the core that owns it.

#![expect(missing_docs, reason = "rkyv's derive makes a resolver for RowOperation whose fields it leaves undocumented")]

use rkyv::with::InlineAsBox;

use crate::ids::{Decree, PartitionId};

/// Reads one row. Answered with [`GetReply`] and the value as attachment, or `NotFound`.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct Get<'a> {
    /// The partition the key hashes to.
    pub partition: PartitionId,
    /// Hash key; not empty.
    #[rkyv(with = InlineAsBox)]
    pub hash_key: &'a [u8],
    /// Sort key; may be empty.
    #[rkyv(with = InlineAsBox)]
    pub sort_key: &'a [u8],
    /// Leave the value out (exist, ttl).
    pub no_value: bool,
}

/// Answer to [`Get`]; the value is the attachment.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct GetReply {
    /// Seconds left to live; -1 for a row without expiry.
    pub ttl_seconds: i64,
}

/// Reads rows of one hash key: those named in `sort_keys`, or if that is empty those in the range. Rows come in
/// the order asked (by keys) or ascending (by range).
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct MultiGet<'a> {
    /// The partition the hash key hashes to.
    pub partition: PartitionId,
    /// Hash key; not empty.
    #[rkyv(with = InlineAsBox)]
    pub hash_key: &'a [u8],
    /// Exactly these rows; empty means the range below.
    #[rkyv(with = InlineAsBox)]
    pub sort_keys: &'a [SortKey<'a>],
    /// First sort key of the range.
    #[rkyv(with = InlineAsBox)]
    pub start: &'a [u8],
    /// Last sort key of the range; empty means to the end of the hash key.
    #[rkyv(with = InlineAsBox)]
    pub stop: &'a [u8],
    /// Whether `start` itself belongs to the range.
    pub start_inclusive: bool,
    /// Whether `stop` itself belongs to the range.
    pub stop_inclusive: bool,
    /// Leave the values out.
    pub no_value: bool,
    /// Most rows wanted; 0 means the server's limit.
    pub rows_max: u32,
    /// Most bytes wanted (keys and values); 0 means the server's limit.
    pub bytes_max: u32,
}

/// One sort key of a list.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct SortKey<'a> {
    /// The bytes.
    #[rkyv(with = InlineAsBox)]
    pub bytes: &'a [u8],
}

/// Reads rows of one partition in stored-key order. There is no state at the server: a scan that is not complete
/// is continued by a request that starts after the last row's key.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct Scan<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// First stored key.
    #[rkyv(with = InlineAsBox)]
    pub start: &'a [u8],
    /// Exclusive end as a stored key; empty means to the end of the partition.
    #[rkyv(with = InlineAsBox)]
    pub stop: &'a [u8],
    /// Whether `start` itself belongs to the range.
    pub start_inclusive: bool,
    /// Leave the values out.
    pub no_value: bool,
    /// Only count: the answer has no rows but their number and the key to continue from.
    pub count_only: bool,
    /// Most rows wanted; 0 means the server's limit.
    pub rows_max: u32,
}

/// Answer to [`MultiGet`] and [`Scan`].
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct Rows<'a> {
    /// The rows found.
    #[rkyv(with = InlineAsBox)]
    pub rows: &'a [Row<'a>],
    /// Number of rows found, also when `count_only` left them out.
    pub count: u64,
    /// False if a limit stopped the read before the end of what was asked.
    pub complete: bool,
    /// Where to continue when not complete: the last key looked at (sort key or stored key), exclusive.
    #[rkyv(with = InlineAsBox)]
    pub resume_after: &'a [u8],
}

/// One row of an answer.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct Row<'a> {
    /// Sort key in answers to [`MultiGet`], stored key in answers to [`Scan`].
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    /// The value; empty with `no_value`.
    #[rkyv(with = InlineAsBox)]
    pub value: &'a [u8],
    /// Second at which the row expires, since 2016; 0 means never.
    pub expiry_seconds: u32,
}

/// Puts and deletes rows of one hash key atomically. The body of this frame is also the payload of the mutation:
/// the same bytes go into prepares, logs and write batches.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct Write<'a> {
    /// The partition the hash key hashes to.
    pub partition: PartitionId,
    /// Hash key; not empty.
    #[rkyv(with = InlineAsBox)]
    pub hash_key: &'a [u8],
    /// What to do, in order; 1 to `WRITE_ROWS_MAX` operations.
    #[rkyv(with = InlineAsBox)]
    pub operations: &'a [RowOperation<'a>],
}

/// One operation of a [`Write`].
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub enum RowOperation<'a> {
    /// Inserts or overwrites a row.
    Put {
        /// Sort key.
        #[rkyv(with = InlineAsBox)]
        sort_key: &'a [u8],
        /// Value.
        #[rkyv(with = InlineAsBox)]
        value: &'a [u8],
        /// Second at which the row expires, since 2016; 0 means never.
        expiry_seconds: u32,
    },
    /// Deletes a row; one that is not there is no error.
    Delete {
        /// Sort key.
        #[rkyv(with = InlineAsBox)]
        sort_key: &'a [u8],
    },
}

/// Answer to [`Write`]: it is durable on every member and applied at the primary.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct WriteReply {
    /// Where in the partition's history the write stands.
    pub decree: Decree,
}
