//! Rows between tables, files and pipes: import, export, and walks over all rows of a table.

pub mod checkpoint;
pub mod copied;
pub mod exporter;
pub mod flight;
pub mod format;
pub mod importer;
pub mod pegasus;
pub mod progress;
pub mod reader;
pub mod retry;
pub mod sizes;
pub mod walk;
