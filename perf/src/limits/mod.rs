//! `limits`: what this machine can do at best, each part by itself, in less than a minute.

pub mod disk;
pub mod echo;
pub mod log;
pub mod rocks;
pub mod tcp;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::failure::Failure;
use crate::measure::Measurement;
use crate::report::{Machine, OutputOptions, measurement_table};
use crate::workload::client_runtime;
use crate::workload::options::{parse_depth, parse_seconds, parse_value_bytes};

/// A part of the machine or of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// QUIC echo on the servers' transport.
    Echo,
    /// Bare TCP echo.
    Tcp,
    /// Direct writes and fdatasync by plain system calls.
    Disk,
    /// Appends to the engine's log, synced.
    Log,
    /// RocksDB on one thread with the engine's options.
    Rocksdb,
}

/// What the parts are measured with; `compare` measures them too.
#[derive(Clone, Debug, clap::Args)]
pub struct ProbeOptions {
    /// Bytes of each echo
    #[arg(long, default_value_t = 100, value_name = "BYTES", value_parser = parse_payload_bytes)]
    pub payload_bytes: usize,
    /// Bytes of each direct write; a multiple of 4096
    #[arg(long, default_value_t = 4096, value_name = "BYTES", value_parser = parse_block_bytes)]
    pub block_bytes: usize,
    /// Directory for test files; should be on the file system the nodes use
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
}

/// Options of `limits`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = PARTS)]
    pub parts: Vec<Part>,
    /// How long each line is measured
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// What they are measured with.
    #[command(flatten)]
    pub probe: ProbeOptions,
    /// Echoes in flight
    #[arg(long, value_delimiter = ',', default_values_t = DEPTHS, value_name = "N", value_parser = parse_depth)]
    pub depths: Vec<usize>,
    /// Length of the values in the log and in RocksDB
    #[arg(long, default_value_t = 1000, value_name = "BYTES", value_parser = parse_value_bytes)]
    pub value_bytes: usize,
    /// Threads of the echo client
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub client_threads: u16,
    /// Where the results go
    #[command(flatten)]
    pub output: OutputOptions,
}

/// What `limits` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Each line.
    pub measurements: Vec<Measurement>,
}

/// Measures the parts asked for and shows the figures.
pub fn run(options: &Options) -> Result<(), Failure> {
    let machine = Machine::now();
    let mut measurements = Vec::new();
    for part in &options.parts {
        options.output.progress(&format!("measuring {part:?}"));
        measurements.extend(measure(*part, options)?);
    }
    let text = format!("{machine}\n\n{}", measurement_table(&measurements).render());
    options.output.emit(&text, &Report { machine, measurements })
}

fn measure(part: Part, options: &Options) -> Result<Vec<Measurement>, Failure> {
    let seconds = Duration::from_secs_f64(options.seconds);
    let ProbeOptions { payload_bytes, block_bytes, ref directory } = options.probe;
    let depths = options.depths.as_slice();
    match part {
        Part::Echo => client_runtime(options.client_threads)?.block_on(echo::measure(payload_bytes, depths, seconds)),
        Part::Tcp => client_runtime(options.client_threads)?.block_on(tcp::measure(payload_bytes, depths, seconds)),
        Part::Disk => {
            let figures = disk::measure(directory, block_bytes, seconds)?;
            Ok(vec![figures.write, figures.sync, figures.pair])
        }
        Part::Log => log::measure(directory, options.value_bytes, &LOG_DEPTHS, seconds),
        Part::Rocksdb => {
            let figures = rocks::measure(directory, options.value_bytes, seconds)?;
            Ok(vec![figures.put, figures.get_recent, figures.get_cached])
        }
    }
}

/// Reads a length of echoes.
pub fn parse_payload_bytes(text: &str) -> Result<usize, String> {
    parse_value_bytes(text).and_then(|bytes| if bytes > 0 { Ok(bytes) } else { Err("must be at least 1".to_owned()) })
}

/// Reads a length of direct writes.
pub fn parse_block_bytes(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    if bytes > 0 && bytes <= BLOCK_BYTES_MAX && bytes.is_multiple_of(disk::ALIGNMENT_BYTES) {
        Ok(bytes)
    } else {
        Err(format!("must be a multiple of {} and at most {BLOCK_BYTES_MAX}", disk::ALIGNMENT_BYTES))
    }
}

/// What is measured unless parts are named: everything.
const PARTS: [Part; 5] = [Part::Echo, Part::Tcp, Part::Disk, Part::Log, Part::Rocksdb];
/// Echoes in flight unless depths are named.
const DEPTHS: [usize; 4] = [1, 16, 64, 256];
/// Appends in flight when the log is measured: alone, and shared by a group.
const LOG_DEPTHS: [usize; 2] = [1, 64];
const BLOCK_BYTES_MAX: usize = 16 * 1024 * 1024;
