//! The mutation log of one core: what a copy has prepared, on stable storage before it says so.
//!
//! All partitions of a core share one log, so that one write and one sync serve them all. It is a chain of log
//! writes in segment files:
//!
//! ```text
//!  append ---> pending ---> one log write ---> fdatasync ---> progress
//!  append --/                  |
//!  append --/                  v
//!            segment 3            segment 0            segment 5          segments 1, 2, 4
//!           +------------------+ +------------------+ +----------------+ +----------------+
//!           | w41 w42 ... w77  | | w78 w79 ... w112 | | w113 w114      | | zeroed, free   |
//!           +------------------+ +------------------+ +----------------+ +----------------+
//!            ^ head: oldest that is needed                     ^ end
//! ```
//!
//! **Writing.** [`Log::append`] gathers, [`Log::run`] writes whatever gathered while the last write was in flight
//! (group commit). Writes are direct, of whole 4 KiB blocks, into segments that were zeroed and synced before, so a
//! sync touches no metadata of the file system. A failed or short write, or a failed sync, closes the log for writing
//! until the process restarts: nothing is ever retried.
//!
//! **Recovery.** [`recover`] follows the chain from the head. What is missing at or below the highest sequence known
//! synced is *damage* and is reported with the partitions it hit; what is missing above it is *tail* and is cut, with
//! everything behind it. A start begins a new incarnation in a fresh segment, and what it cut stays void for ever.
//!
//! **Space.** A segment is given up when it is the oldest and every partition in it has flushed what it has there.
//! It is written again once a header that says so is synced. When the budget is used up, appends are refused.
//!
//! **Learners.** [`Log::read`] gives records back, in decree order, from the index; [`Log::pin`] keeps segments for
//! whoever still has to read them, up to half of the budget.
//!
//! What it must never do: decide what damage or a gap means for a copy; block its executor on the way from append to
//! progress; know of replication, tables or descriptors.
//!
//! Not done: a single record that is damaged costs its whole log write; there is no check of old segments in the
//! background; damage in the very last synced write cannot be told from a tail, unless the log was closed in order.
//!
//! Reading order: `record`, `format` (bytes), `state` (what is written when), `writer`, `space` (which segment is
//! what), `pins` and `read` (learners), `lives` and `walk` (recovery), `recovery`, `open`.

mod directory;
mod error;
mod file;
mod format;
#[cfg(test)]
mod format_tests;
mod handle;
mod history;
mod index;
mod lives;
mod meta;
mod open;
mod options;
mod pins;
mod prepare;
mod read;
mod record;
mod recovery;
mod scan;
mod space;
mod state;
mod statistics;
mod walk;
mod writer;

pub use directory::LogDirectory;
pub use error::{AppendRefused, LogError};
pub use file::{LogFault, LogHook, LogIo};
pub use format::PartitionRange;
pub use handle::Log;
pub use history::RecoveredPartition;
pub use options::LogOptions;
pub use pins::LogPin;
pub use record::{LogRecord, RecordKind};
pub use recovery::{Damage, DamagedPartitions, LogRecovery, RecoveryCopy, RecoveryScope, recover};
pub use state::{LogProgress, LogSequence};
pub use statistics::LogStatistics;
