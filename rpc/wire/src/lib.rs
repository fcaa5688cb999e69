//! The vocabulary of Pegasus: ids, status codes, keys, limits and messages.
//!
//! Every other package speaks in these terms. This package is pure: it must never see a socket, a file, a
//! clock or a runtime. What it does to bytes is described in `docs/formats.md` and `docs/protocol.md`.
//!
//! Reading order: [`ids`], [`status`], [`limits`], [`hash`], [`key`], [`filter`], [`expiry`], [`environment`],
//! [`frame`], [`messages`].

pub mod config;
pub mod environment;
pub mod expiry;
pub mod filter;
pub mod frame;
pub mod hash;
pub mod ids;
pub mod key;
pub mod limits;
pub mod messages;
pub mod mutation;
pub mod status;

pub use config::{Configuration, Durability, NodeInfo, TableProperties};
pub use environment::Environment;
pub use frame::{Frame, FrameBuilder, FrameHeader, WireError};
pub use hash::{owner_core, partition_hash, partition_index};
pub use ids::{Ballot, ClusterId, Decree, NodeId, PartitionId, ReplicaIncarnation, TableId};
pub use messages::MessageKind;
pub use mutation::{Mutation, MutationKind};
pub use status::{Advice, Status};
