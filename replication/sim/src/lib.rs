//! A deterministic simulator of a replicated cluster: real replicas (`pegasus-replication`), everything else made of
//! numbers drawn from one seed.
//!
//! A run has two phases. First things break: nodes crash and lose what their logs had not confirmed, streams break
//! with messages on the way, links are cut, the meta service is away or loses answers, primaries are moved by force.
//! After every step the oracles in `checker.rs` look at disks, messages and answers. Then everything heals, and the
//! cluster must serve again, take writes in every partition, and make all copies equal.
//!
//! It must never look at a clock, a thread or any randomness but the seed's: a seed that fails fails for ever.

mod chaos;
mod checker;
mod disk;
mod host;
mod meta;
mod network;
mod options;
mod random;
mod run;
mod trace;
mod world;

pub use options::{HostBug, Options, Planted};
pub use random::Random;
pub use run::{Failure, run_options, run_seed};
pub use world::Statistics;
