//! Workloads: which rows, which operations, when, and what is recorded of them.

pub mod cluster;
pub mod drive;
pub mod keys;
pub mod mix;
mod native;
pub mod options;
pub mod perform;
pub mod record;
pub mod rows;
pub mod runtime;
pub mod thrift;

pub use cluster::{Cluster, Load, Prepared};
pub use drive::{Driven, Pace, Phases, drive};
pub use keys::{Distribution, KeyChooser};
pub use mix::{Mix, Operation};
pub use record::{Outcome, Record};
pub use rows::Rows;
pub use runtime::client_runtime;
