//! Bounds of one cluster, chosen so that every answer fits into one frame.

use pegasus_wire::limits::{FRAME_BYTES_MAX, MEMBERS_MAX, PARTITION_COUNT_MAX, TABLE_NAME_BYTES_MAX};

/// Tables of a cluster, those included that were dropped and are still held.
pub const TABLES_MAX: usize = 1024;
/// Partitions of all tables together, those of dropped tables included.
pub const PARTITIONS_MAX: u32 = 16 * 1024;
/// Nodes registered at once.
pub const NODES_MAX: usize = 1024;
/// What the environments of all tables may take in a message, in bytes: every node is told those of its tables.
pub const ENVIRONMENTS_BYTES_MAX: usize = 1024 * 1024;
/// The longest that a dropped table is held: ten years.
pub const HOLD_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;
/// Copies of purged tables that one node is told to remove at a time. When it has, it is told of the next ones.
pub const PURGED_REMOVALS_MAX: usize = 1024;
/// Learners that one node may be asked to be or to teach at a time (configurable below this).
pub const LEARNERS_PER_NODE_MAX: u32 = 64;

/// Upper bounds of archived sizes, in bytes: partition id, ballot, primary, list header, secondaries.
const PARTITION_BYTES_MAX: usize = 8 + 8 + 16 + 8 + 8 * MEMBERS_MAX;
/// Properties, state and the head of the list of settings.
const TABLE_BYTES_MAX: usize = TABLE_NAME_BYTES_MAX + 128;
const NODE_BYTES_MAX: usize = 160;
const ADDITION_BYTES: usize = 24;
const REMOVAL_BYTES: usize = 16;

/// The largest answer to a watch: a node that is a member of everything, or shall remove copies of everything.
const _: () = assert!(
    PARTITIONS_MAX as usize * (PARTITION_BYTES_MAX + REMOVAL_BYTES)
        + TABLES_MAX * TABLE_BYTES_MAX
        + ENVIRONMENTS_BYTES_MAX
        + PURGED_REMOVALS_MAX * REMOVAL_BYTES
        + NODES_MAX * NODE_BYTES_MAX
        + LEARNERS_PER_NODE_MAX as usize * ADDITION_BYTES
        + 4096
        < FRAME_BYTES_MAX
);
/// One table of the largest size fits.
const _: () = assert!(PARTITION_COUNT_MAX <= PARTITIONS_MAX);
