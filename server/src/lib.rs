//! The storage node: the composition root of wire, rpc, engine and replication.
//!
//! A node runs one glommio executor per core ([`cores`]) and one administration thread ([`node`], [`meta_link`],
//! [`admin`]). A core owns its partitions outright: their replicas (protocol state), their tables, its log, its
//! port. It must never block and never wait for another thread; what may block runs in the node's pools.
//!
//! The path of a put: [`cores`]`::session` takes a batch of frames, `admit` refuses or proposes, `perform` carries
//! out the replica's effects, one log write takes all appends of the batch, and its completion drives commit,
//! apply and the answer.

pub mod admin;
pub mod compactions;
pub mod config;
pub mod control;
pub mod cores;
pub mod layout;
pub mod meta_link;
pub mod node;
pub mod tables;
pub mod utc;

pub use config::Config;
