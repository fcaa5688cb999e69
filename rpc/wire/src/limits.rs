//! A bound on everything, in one place, with the relations between the bounds checked at compile time.
//!
//! Sizes are in bytes unless the name says otherwise. The data model's defaults are those of Pegasus (its Java
//! client's write limiter for keys, its servers' `max_allowed_write_size` for all else).

/// Longest hash key.
pub const HASH_KEY_BYTES_MAX: usize = 1024;
/// Longest sort key.
pub const SORT_KEY_BYTES_MAX: usize = 1024;
/// Longest value: what a write of Pegasus's largest size has room for. Its Java client refuses more than 400 KiB; the
/// setting `limits.value_bytes` does the same for a table.
pub const VALUE_BYTES_MAX: usize = 1000 * 1024;
/// Most rows in one write of one hash key.
pub const WRITE_ROWS_MAX: usize = 1000;
/// Largest encoded write (the body of a `Write` frame), which is also the largest mutation payload.
pub const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// Most rows in one answer (multi_get, scan).
pub const READ_ROWS_MAX: usize = 3000;
/// An answer with rows stops growing here; the rest is fetched by the next request.
pub const READ_BYTES_TARGET: usize = 1024 * 1024;
/// Most rows looked at (also expired ones) before a scan answers with what it has.
pub const SCAN_ITERATIONS_MAX: usize = 3000;

/// Length of a frame header.
pub const FRAME_HEADER_BYTES: usize = 24;
/// Largest frame, header included. A larger one ends the connection before it is read.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Flow-control window of one stream; larger than the largest frame, so that a frame never waits for its own window.
pub const STREAM_WINDOW_BYTES: usize = 2 * FRAME_BYTES_MAX;
/// Flow-control window of one connection.
pub const CONNECTION_WINDOW_BYTES: usize = 8 * STREAM_WINDOW_BYTES;
/// Streams one connection may hold open: for data a handful, for peers one per partition.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 4096;
/// Requests of one stream in flight at a server; beyond it the server stops reading that stream.
pub const REQUESTS_PER_STREAM_MAX: usize = 1024;
/// Bytes queued for one stream's writer; beyond it the server stops reading that stream.
pub const OUTBOX_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
/// Connections one core accepts.
pub const CONNECTIONS_PER_CORE_MAX: usize = 10_000;
/// Handshakes one core works on at a time; beyond it new connections are refused.
pub const HANDSHAKES_PER_CORE_MAX: usize = 512;

/// Mutations a partition may have prepared and not committed.
pub const WINDOW_MUTATIONS_MAX: usize = 1024;
/// Payload bytes a partition may have prepared and not committed.
pub const WINDOW_BYTES_MAX: usize = 16 * WRITE_BYTES_MAX;
/// Partitions in one beacon; a core with more of them sends several.
pub const BEACON_ENTRIES_MAX: usize = 8192;
/// Bytes of a checkpoint in one frame.
pub const CHECKPOINT_CHUNK_BYTES: usize = 256 * 1024;
/// Files of one checkpoint.
pub const CHECKPOINT_FILES_MAX: usize = 16_384;
/// Length of a file's name in a checkpoint.
pub const CHECKPOINT_NAME_BYTES_MAX: usize = 64;
/// Members of a partition, the primary included.
pub const MEMBERS_MAX: usize = 5;
/// Partitions of a table.
pub const PARTITION_COUNT_MAX: u32 = 4096;
/// Length of a filter's pattern.
pub const FILTER_BYTES_MAX: usize = 1024;
/// Contexts of scans that one core keeps; beyond it the one that was idle longest ends.
pub const SCAN_CONTEXTS_MAX: usize = 4096;
/// Settings of a table's environment.
pub const ENVIRONMENT_ENTRIES_MAX: usize = 64;
/// Length of one setting's value.
pub const ENVIRONMENT_VALUE_BYTES_MAX: usize = 4096;
/// Length of a table's name.
pub const TABLE_NAME_BYTES_MAX: usize = 128;
/// Executors (cores) of one node. Also the step between the port ranges of two nodes on one host.
pub const CORES_MAX: u16 = 512;

/// The stored key has a two-byte hash key length, and FF FF at its start is reserved for the engine.
const _: () = assert!(HASH_KEY_BYTES_MAX < 0xFFFF);
/// One row of the largest size fits in a write.
const _: () = assert!(HASH_KEY_BYTES_MAX + SORT_KEY_BYTES_MAX + VALUE_BYTES_MAX < WRITE_BYTES_MAX);
/// The largest write fits in a frame, with room for its header and the prepare around it.
const _: () = assert!(WRITE_BYTES_MAX + 4096 < FRAME_BYTES_MAX);
/// An answer that passed its target by one row of the largest size still fits in a frame.
const _: () = assert!(
    READ_BYTES_TARGET + VALUE_BYTES_MAX + SORT_KEY_BYTES_MAX + HASH_KEY_BYTES_MAX + READ_ROWS_MAX * 64
        < FRAME_BYTES_MAX
);
/// The environment of a table fits in a frame many times over.
const _: () = assert!(ENVIRONMENT_ENTRIES_MAX * (ENVIRONMENT_VALUE_BYTES_MAX + 256) * 8 < FRAME_BYTES_MAX);
/// A beacon fits in a frame, and so does the list of a checkpoint's files.
const _: () = assert!(BEACON_ENTRIES_MAX * 48 + 4096 < FRAME_BYTES_MAX);
const _: () = assert!(CHECKPOINT_FILES_MAX * (CHECKPOINT_NAME_BYTES_MAX + 64) + 4096 < FRAME_BYTES_MAX);
const _: () = assert!(CHECKPOINT_CHUNK_BYTES + 4096 < FRAME_BYTES_MAX);
const _: () = assert!(STREAM_WINDOW_BYTES > FRAME_BYTES_MAX);
const _: () = assert!(CONNECTION_WINDOW_BYTES >= STREAM_WINDOW_BYTES);
const _: () = assert!(WINDOW_BYTES_MAX >= WRITE_BYTES_MAX);
