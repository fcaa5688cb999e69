//! A bound on everything that a peer can send.

use pegasus_wire::limits::WRITE_BYTES_MAX;

use crate::messages::read::KeyValue;
use crate::messages::write::Mutate;

/// Largest body of a request that is carried out. Pegasus takes writes of 1 MiB by default, headers and names come on
/// top.
pub const BODY_BYTES_MAX: usize = 2 * WRITE_BYTES_MAX;
/// Largest body that is passed over, so that a client which sends too much is told so; a larger one ends the
/// connection.
pub const BODY_BYTES_PASSED_OVER_MAX: usize = 64 << 20;
/// Largest meta structure of a v1 header; its five small fields need 37 bytes.
pub const META_BYTES_MAX: usize = 1024;
/// Largest answer that a client of ours reads.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Most entries of a list or a map.
pub const LIST_ENTRIES_MAX: usize = 16_384;
/// Deepest nesting of structures that are skipped.
pub const DEPTH_MAX: usize = 16;
/// Longest name of a method; Pegasus cuts longer ones.
pub const NAME_BYTES_MAX: usize = 47;
/// Pegasus's bound on the rows that one multi_get looks at and a scan answers.
pub const MULTI_GET_ROWS_MAX: u32 = 3000;
/// Pegasus's bound on the rows of one batch of a scan.
pub const SCAN_ROWS_MAX: u32 = 1000;

/// The longest list of a request takes no more memory than a body may: rows with all their fields missing are the
/// worst, a byte each.
const _: () = assert!(LIST_ENTRIES_MAX * size_of::<KeyValue<'_>>() <= BODY_BYTES_MAX);
const _: () = assert!(LIST_ENTRIES_MAX * size_of::<Mutate<'_>>() <= BODY_BYTES_MAX);
