//! Bounds of one cluster, chosen so that every answer fits into one frame.

use pegasus_wire::limits::{FRAME_BYTES_MAX, MEMBERS_MAX, PARTITION_COUNT_MAX, TABLE_NAME_BYTES_MAX};

/// Tables of a cluster.
pub const TABLES_MAX: usize = 1024;
/// Partitions of all tables together.
pub const PARTITIONS_MAX: u32 = 16 * 1024;
/// Nodes registered at once.
pub const NODES_MAX: usize = 1024;
/// Learners that one node may be asked to be or to teach at a time (configurable below this).
pub const LEARNERS_PER_NODE_MAX: u32 = 64;

/// Upper bounds of archived sizes, in bytes: partition id, ballot, primary, list header, secondaries.
const PARTITION_BYTES_MAX: usize = 8 + 8 + 16 + 8 + 8 * MEMBERS_MAX;
const TABLE_BYTES_MAX: usize = TABLE_NAME_BYTES_MAX + 64;
const NODE_BYTES_MAX: usize = 160;
const ADDITION_BYTES: usize = 24;
const REMOVAL_BYTES: usize = 16;

/// The largest answer to a watch: a node that is a member of everything, or shall remove copies of everything.
const _: () = assert!(
    PARTITIONS_MAX as usize * (PARTITION_BYTES_MAX + REMOVAL_BYTES)
        + TABLES_MAX * TABLE_BYTES_MAX
        + NODES_MAX * NODE_BYTES_MAX
        + LEARNERS_PER_NODE_MAX as usize * ADDITION_BYTES
        + 4096
        < FRAME_BYTES_MAX
);
/// One table of the largest size fits.
const _: () = assert!(PARTITION_COUNT_MAX <= PARTITIONS_MAX);
