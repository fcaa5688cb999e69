//! One core's storage.
//!
//! - [`log`]: what the copies of one core have prepared, on io_uring, durable before they say so;
//! - [`table`]: the rows of one copy of a partition, in RocksDB without its write-ahead log, and its checkpoints;
//! - [`overlay`]: what is prepared and not applied, by row; [`execute`]: what operations come to that read before they
//!   write;
//! - [`descriptor`]: the durable facts about one copy; [`identity`]: those about the node;
//! - [`copies`]: how copies come, are replaced and go, safe against a crash at every step;
//! - [`pool`]: threads for everything that may block, kept off the serving CPUs; [`byte_rate`]: a bound on bytes a
//!   second;
//! - [`affinity`], [`disk`]: what the machine offers.
//!
//! This package knows nothing of replication, connections or the meta service: it is told what is committed and
//! keeps it. What it writes to disk is drawn in `docs/formats.md`.

pub mod affinity;
pub mod byte_rate;
pub mod copies;
pub mod descriptor;
pub mod disk;
pub mod durable_file;
pub mod execute;
pub mod identity;
pub mod log;
pub mod overlay;
pub mod pool;
pub mod table;
