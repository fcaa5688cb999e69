//! How results are shown: a table for people, JSON for machines.
//!
//! Nothing here measures.

pub mod machine;
pub mod output;
pub mod table;

pub use machine::Machine;
pub use output::OutputOptions;
pub use table::{TextTable, count, measurement_table, microseconds, optional_microseconds, ratio};
