//! What is measured and how: latency histograms, CPU clocks, the CPU time of server processes.
//!
//! Nothing here prints, and nothing here knows which command it measures for.

pub mod cpu;
pub mod latency;
pub mod measurement;
pub mod process;
pub mod servers;

pub use cpu::{ThreadClock, process_cpu, thread_cpu};
pub use latency::{Latency, LatencySummary};
pub use measurement::{Measurement, median, median_of};
pub use process::resident_bytes;
pub use servers::{CpuSnapshot, CpuUse, ServerProcess};
