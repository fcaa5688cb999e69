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

/// Where in a key a pattern has to be. An empty pattern matches every key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq))]
#[repr(u8)]
pub enum FilterKind {
    /// Every key matches.
    #[default]
    None = 0,
    /// Anywhere in the key.
    Anywhere = 1,
    /// At its start.
    Prefix = 2,
    /// At its end.
    Postfix = 3,
    /// The whole key.
    Exact = 4,
}

/// Which keys are wanted.
#[derive(Clone, Copy, Debug, Default, rkyv::Archive, rkyv::Serialize)]
pub struct Filter<'a> {
    /// Where the pattern has to be.
    pub kind: FilterKind,
    /// The pattern.
    #[rkyv(with = InlineAsBox)]
    pub pattern: &'a [u8],
}

/// A range of sort keys.
#[derive(Clone, Copy, Debug, rkyv::Archive, rkyv::Serialize)]
pub struct SortKeys<'a> {
    /// The first one.
    #[rkyv(with = InlineAsBox)]
    pub start: &'a [u8],
    /// The last one; empty means to the end of the hash key.
    #[rkyv(with = InlineAsBox)]
    pub stop: &'a [u8],
    /// Whether `start` itself belongs to the range.
    pub start_inclusive: bool,
    /// Whether `stop` itself belongs to the range.
    pub stop_inclusive: bool,
}

impl SortKeys<'_> {
    /// All sort keys of a hash key.
    pub const ALL: SortKeys<'static> = SortKeys { start: b"", stop: b"", start_inclusive: true, stop_inclusive: true };
}

/// Reads rows of one hash key: those named in `sort_keys`, or if that is empty those in the range. Rows come in
/// the order asked (by keys) or ascending (by range), also when they were collected from the end.
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
    /// The range.
    pub range: SortKeys<'a>,
    /// Which sort keys of the range are wanted.
    pub filter: Filter<'a>,
    /// Collect from the end of the range backwards: of a read that a limit stops, the last rows are answered.
    pub reverse: bool,
    /// Leave the values out.
    pub no_value: bool,
    /// Only count: the answer has no rows but their number and where to continue.
    pub count_only: bool,
    /// Most rows wanted; 0 means the server's limit.
    pub rows_max: u32,
    /// Most bytes wanted (sort keys and values), and the row that passes it; 0 means the server's limit.
    pub bytes_max: u32,
}

/// One sort key of a list.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct SortKey<'a> {
    /// The bytes.
    #[rkyv(with = InlineAsBox)]
    pub bytes: &'a [u8],
}

/// Reads rows of one partition in stored-key order, or against it.
///
/// A scan needs no state at the server: one that is not complete is continued by a request that begins after the last
/// key looked at (`start` or, in reverse, `stop`). With `keep_context` the server keeps a snapshot for it, so that all
/// answers are of one moment, for as long as the context is known; a context that is not known any more (it was idle
/// too long, the partition has another primary) is replaced by a new one, and the answer names that one.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct Scan<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The context of the answer before; 0 for none.
    pub context: u64,
    /// Keep a context if this answer does not end the scan.
    pub keep_context: bool,
    /// First stored key.
    #[rkyv(with = InlineAsBox)]
    pub start: &'a [u8],
    /// Whether `start` itself belongs to the range.
    pub start_inclusive: bool,
    /// Exclusive end as a stored key; empty means to the end of the partition.
    #[rkyv(with = InlineAsBox)]
    pub stop: &'a [u8],
    /// From the end to the start; rows are answered in that order.
    pub reverse: bool,
    /// Only these sort keys of each hash key: the server jumps from one hash key to the next.
    pub sort_keys: SortKeys<'a>,
    /// Which hash keys are wanted.
    pub hash_key_filter: Filter<'a>,
    /// Which sort keys are wanted.
    pub sort_key_filter: Filter<'a>,
    /// Leave the values out.
    pub no_value: bool,
    /// Only count: the answer has no rows but their number and the key to continue from.
    pub count_only: bool,
    /// Most rows wanted; 0 means the server's limit.
    pub rows_max: u32,
}

/// Tells a server that a context is not needed any more; one way. Contexts that nobody uses end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct EndScan {
    /// The partition.
    pub partition: PartitionId,
    /// The context.
    pub context: u64,
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
    /// The context that the rows are of, and to continue with when not complete; 0 for none.
    pub context: u64,
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

/// Puts and deletes rows of one hash key atomically, in their order. The body of this frame is also the payload of the
/// mutation: the same bytes go into prepares, logs and write batches.
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
#[derive(Clone, Copy, Debug, rkyv::Archive, rkyv::Serialize)]
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
    /// Deletes all rows in a range of sort keys, those written earlier in the same write included.
    DeleteRange {
        /// Which.
        range: SortKeys<'a>,
    },
}

/// Answer to [`Write`]: it is durable on every member and applied at the primary.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct WriteReply {
    /// Where in the partition's history the write stands.
    pub decree: Decree,
}

/// What happens to the time to live of a row that is incremented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum ExpiryChange {
    /// It stays; a new row has none.
    #[default]
    Keep,
    /// The row expires at this second, since 2016; not 0.
    Set(u32),
    /// The row does not expire any more.
    Clear,
}

/// Adds to the number in a row (Pegasus: incr). A row that is missing, expired or empty counts as 0. What follows is
/// replicated as an ordinary write.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct Increment<'a> {
    /// The partition the hash key hashes to.
    pub partition: PartitionId,
    /// Hash key; not empty.
    #[rkyv(with = InlineAsBox)]
    pub hash_key: &'a [u8],
    /// Sort key.
    #[rkyv(with = InlineAsBox)]
    pub sort_key: &'a [u8],
    /// What to add.
    pub increment: i64,
    /// What becomes of the time to live.
    pub expiry: ExpiryChange,
}

/// Answer to [`Increment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct IncrementReply {
    /// The number in the row now.
    pub value: i64,
    /// Where in the partition's history the write stands.
    pub decree: Decree,
}

/// A condition on the value of a row; the operand comes with it. Numbers are Pegasus's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq))]
#[repr(u8)]
pub enum Check {
    /// Always.
    Nothing = 0,
    /// The row is missing or expired. All that follow but the next one need a row that exists.
    NotExist = 1,
    /// It is missing, expired or empty.
    NotExistOrEmpty = 2,
    /// It exists.
    Exist = 3,
    /// It exists and is not empty.
    NotEmpty = 4,
    /// The operand occurs in the value.
    MatchAnywhere = 5,
    /// The value begins with the operand.
    MatchPrefix = 6,
    /// The value ends with the operand.
    MatchPostfix = 7,
    /// Value < operand, as bytes.
    BytesLess = 8,
    /// Value <= operand, as bytes.
    BytesLessOrEqual = 9,
    /// Value = operand, as bytes.
    BytesEqual = 10,
    /// Value >= operand, as bytes.
    BytesGreaterOrEqual = 11,
    /// Value > operand, as bytes.
    BytesGreater = 12,
    /// Value < operand, as decimal numbers of 64 bits.
    IntegerLess = 13,
    /// Value <= operand, as numbers.
    IntegerLessOrEqual = 14,
    /// Value = operand, as numbers.
    IntegerEqual = 15,
    /// Value >= operand, as numbers.
    IntegerGreaterOrEqual = 16,
    /// Value > operand, as numbers.
    IntegerGreater = 17,
}

impl Check {
    /// All of them, by number.
    pub const ALL: [Check; 18] = [
        Check::Nothing,
        Check::NotExist,
        Check::NotExistOrEmpty,
        Check::Exist,
        Check::NotEmpty,
        Check::MatchAnywhere,
        Check::MatchPrefix,
        Check::MatchPostfix,
        Check::BytesLess,
        Check::BytesLessOrEqual,
        Check::BytesEqual,
        Check::BytesGreaterOrEqual,
        Check::BytesGreater,
        Check::IntegerLess,
        Check::IntegerLessOrEqual,
        Check::IntegerEqual,
        Check::IntegerGreaterOrEqual,
        Check::IntegerGreater,
    ];

    /// The check with this number, which is Pegasus's.
    pub fn from_code(code: u8) -> Option<Check> {
        Check::ALL.get(usize::from(code)).copied()
    }
}

impl From<ArchivedCheck> for Check {
    fn from(archived: ArchivedCheck) -> Check {
        // Both enums have the same numbers, which are those of the list.
        Check::ALL[archived as usize]
    }
}

/// Writes if the value of a row passes a check (Pegasus: check_and_set, check_and_mutate). The row checked and the
/// rows written share a hash key. What follows is replicated as an ordinary write.
#[derive(Debug, rkyv::Archive, rkyv::Serialize)]
pub struct CheckAndWrite<'a> {
    /// The partition the hash key hashes to.
    pub partition: PartitionId,
    /// Hash key; not empty.
    #[rkyv(with = InlineAsBox)]
    pub hash_key: &'a [u8],
    /// Sort key of the row checked.
    #[rkyv(with = InlineAsBox)]
    pub check_sort_key: &'a [u8],
    /// The condition.
    pub check: Check,
    /// Its operand.
    #[rkyv(with = InlineAsBox)]
    pub operand: &'a [u8],
    /// What to do if it holds, in order; 1 to `WRITE_ROWS_MAX` operations.
    #[rkyv(with = InlineAsBox)]
    pub operations: &'a [RowOperation<'a>],
    /// Answer with the value that was checked.
    pub return_value: bool,
}

/// Answer to [`CheckAndWrite`]; the value that was checked is the attachment, if it was asked for and exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CheckReply {
    /// The check held and the operations are carried out.
    pub written: bool,
    /// The row that was checked exists.
    pub exists: bool,
    /// Where in the partition's history the write stands; if nothing was written, up to where it was read.
    pub decree: Decree,
}

/// Asks a node about its copy of a partition, whatever its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct QueryCopy {
    /// The partition.
    pub partition: PartitionId,
}

/// Answer to [`QueryCopy`].
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CopyReply {
    /// True on the primary.
    pub primary: bool,
    /// The last decree applied.
    pub applied: Decree,
    /// Bytes of its table's files.
    pub file_bytes: u64,
    /// Rows of its table, as RocksDB estimates them.
    pub estimated_rows: u64,
    /// What its manual compaction does.
    pub compaction: CompactionState,
    /// Unix second at which the last one ended; 0 if there was none.
    pub compaction_ended_seconds: u64,
    /// How far the running one is, in percent of the bytes it began with.
    pub compaction_percent: u8,
}

/// What a copy's manual compaction does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum CompactionState {
    /// Nothing.
    #[default]
    Idle,
    /// It waits for its turn.
    Queued,
    /// It runs.
    Running,
}
