//! Import and export: rows between a table and a file or pipe.

pub mod checkpoint;
pub mod exporter;
pub mod flight;
pub mod format;
pub mod importer;
pub mod progress;
pub mod reader;
