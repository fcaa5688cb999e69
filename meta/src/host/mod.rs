//! The host of the core: everything that does IO.
//!
//! ```text
//! TCP -> compatibility -----\
//! QUIC streams -> service -> handlers -> group (Raft) -> log_store -> store (redb)
//!                               |           \-> state_machine -> core::apply
//!                               |-> liveness -> planner -> core::guardian
//!                               \-> clock -> purger -> PurgeTable
//! ```
//!
//! It must never change the state but through the group, and never let liveness decide about configurations: what the
//! planner asks for, primaries propose.
//!
//! Reading order: [`server`], [`service`], [`handlers`], [`planner`], [`purger`], [`group`], [`store`].
// Clocks and threads are banned by clippy.toml for the sake of the core; here they belong.
#![allow(clippy::disallowed_methods)]

pub mod admin;
pub mod clock;
mod compatibility;
pub mod config;
pub mod group;
pub mod handlers;
pub mod liveness;
pub mod log_store;
pub mod metrics;
mod operators;
pub mod planner;
pub mod purger;
pub mod server;
pub mod service;
pub mod state_machine;
pub mod store;
mod tables;

pub use clock::Clock;
pub use config::Config;
pub use server::{Server, ServerError};
