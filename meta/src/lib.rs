//! The meta service: which tables there are, which nodes hold which partition, and where the nodes are.
//!
//! - [`core`] is the state machine: pure, deterministic, no clock, no randomness, no IO. The simulator runs it as
//!   it is.
//! - `host` (feature `host`) replicates its commands through Raft, keeps them in redb, and answers nodes, clients
//!   and operators over QUIC and HTTP.
//!
//! The package must never see RocksDB, glommio, the replication protocol or a storage node's insides. The core
//! must never see the host.

pub mod core;
#[cfg(feature = "host")]
pub mod host;
