//! Configuration of a storage node: one TOML file, defaults in one place, unknown keys are errors.

mod replication;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pegasus_wire::limits::CORES_MAX;
use serde::{Deserialize, Serialize};

pub use replication::Replication;

/// Tables are flushed for the log when three quarters of it are used and one segment is its reserve: with fewer than
/// this, the reserve alone would be left before anything is flushed.
const LOG_SEGMENTS_MIN: u64 = 5;
/// Least memory for the block cache, and for memtables.
const STORAGE_BYTES_MIN: usize = 1 << 20;
/// Shortest time that may count as slow; the same for the threshold of a table.
pub const SLOW_QUERY_MS_MIN: u32 = 20;

/// Everything a node is told. [`Config::validate`] must pass before it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name in logs and in the ready line.
    #[serde(default = "default_name")]
    pub name: String,
    /// Address of core 0; core `i` listens `i` ports above.
    pub listen: SocketAddr,
    /// Administration HTTP address: `/health`, `/metrics`, `/status`.
    pub admin_listen: SocketAddr,
    /// Executors; 0 means one per CPU. May change between runs: logs then move to their new owners.
    #[serde(default)]
    pub cores: u16,
    /// Where everything is kept.
    pub data_directory: PathBuf,
    /// Meta servers, in any order.
    pub meta_servers: Vec<SocketAddr>,
    /// Certificates.
    pub tls: Tls,
    /// The mutation logs.
    #[serde(default)]
    pub log: Log,
    /// RocksDB.
    #[serde(default)]
    pub storage: Storage,
    /// Leases, learning, removal.
    #[serde(default)]
    pub replication: Replication,
    /// Clients of Apache Pegasus.
    #[serde(default)]
    pub compatibility: Compatibility,
    /// Requests that take longer are counted and logged, for tables that have no threshold of their own.
    #[serde(default = "default_slow_query_ms")]
    pub slow_query_ms: u32,
    /// Whether executors are bound to CPUs.
    #[serde(default)]
    pub pin_cpus: PinCpus,
    /// A filter as of `tracing`'s `EnvFilter`, for example `info` or `pegasus_server=debug,info`.
    #[serde(default = "default_log_level")]
    pub log_level: String,
}

/// PEM files of mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// This node's certificate, with the role replica.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority all certificates of the cluster are verified against.
    pub ca: PathBuf,
}

/// Limits of one core's mutation log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Size of a segment file, a multiple of 1 MiB.
    pub segment_bytes: u64,
    /// All segments of one core together.
    pub budget_bytes: u64,
}

impl Default for Log {
    fn default() -> Self {
        Log { segment_bytes: 32 << 20, budget_bytes: 4 << 30 }
    }
}

/// Memory, threads and reserve of the node's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Block cache shared by all tables.
    pub block_cache_bytes: usize,
    /// Memtables of all tables together; beyond it the largest are flushed.
    pub write_buffer_bytes: usize,
    /// RocksDB's compaction and flush threads.
    pub background_threads: usize,
    /// Threads for point reads that missed the cache and for stalled writes.
    pub point_threads: usize,
    /// Threads for scans, flushes, opening and closing.
    pub long_threads: usize,
    /// Manual compactions that run at a time.
    pub compaction_threads: usize,
    /// Writes are refused while the file system has less than this free.
    pub disk_reserve_bytes: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            block_cache_bytes: 256 << 20,
            write_buffer_bytes: 256 << 20,
            background_threads: 2,
            point_threads: 2,
            long_threads: 2,
            compaction_threads: 1,
            disk_reserve_bytes: 256 << 20,
        }
    }
}

/// The protocol of Apache Pegasus's clients, on TCP at the numbers of the cores' ports. It is plaintext and asks nobody
/// who they are, so it is off unless it is turned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compatibility {
    /// Serve it.
    pub enabled: bool,
    /// Connections that one core accepts.
    pub connections_per_core_max: usize,
}

impl Default for Compatibility {
    fn default() -> Self {
        Compatibility { enabled: false, connections_per_core_max: 20_000 }
    }
}

/// Placement of executors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PinCpus {
    /// Pin when this node has a CPU per executor and is alone on the machine; the default leaves it to the kernel.
    #[default]
    None,
    /// Executor `i` runs on the machine's CPU `i`. Refused when there are fewer CPUs than executors.
    Auto,
}

fn default_name() -> String {
    "replica".to_owned()
}

fn default_slow_query_ms() -> u32 {
    100
}

fn default_log_level() -> String {
    "info".to_owned()
}

/// A configuration that cannot be used; the message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML of the known keys.
    #[error("the configuration file {path} is not valid: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// A value is out of its range.
    #[error("configuration key {key}: {problem}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Config =
            toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        config.validate()
    }

    /// Checks all ranges and fills in what depends on the machine.
    pub fn validate(mut self) -> Result<Config, ConfigError> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        if self.cores == 0 {
            self.cores = u16::try_from(cpus).unwrap_or(CORES_MAX).min(CORES_MAX);
        }
        check("cores", self.cores <= CORES_MAX, || format!("at most {CORES_MAX}, got {}", self.cores))?;
        check("listen", self.listen.port() != 0, || {
            "the port must not be 0: clients are told this address".to_owned()
        })?;
        check("listen", !self.listen.ip().is_unspecified(), || {
            format!("clients are told this address, so it must be one they can reach, not {}", self.listen.ip())
        })?;
        check("listen", self.listen.port().checked_add(self.cores).is_some(), || {
            format!("{} cores above port {} pass port 65535", self.cores, self.listen.port())
        })?;
        check("meta_servers", !self.meta_servers.is_empty(), || "name at least one meta server".to_owned())?;
        check(
            "log.segment_bytes",
            self.log.segment_bytes >= 4 << 20 && self.log.segment_bytes.is_multiple_of(1 << 20),
            || format!("a multiple of 1 MiB, at least 4 MiB; got {}", self.log.segment_bytes),
        )?;
        let budget_min = self.log.segment_bytes.saturating_mul(LOG_SEGMENTS_MIN);
        check("log.budget_bytes", self.log.budget_bytes >= budget_min, || {
            format!("at least {LOG_SEGMENTS_MIN} segments ({budget_min}); got {}", self.log.budget_bytes)
        })?;
        for (key, bytes) in [
            ("storage.block_cache_bytes", self.storage.block_cache_bytes),
            ("storage.write_buffer_bytes", self.storage.write_buffer_bytes),
        ] {
            check(key, bytes >= STORAGE_BYTES_MIN, || format!("at least {STORAGE_BYTES_MIN}; got {bytes}"))?;
        }
        check("storage.background_threads", (1..=64).contains(&self.storage.background_threads), || "1 to 64".into())?;
        check("storage.point_threads", (1..=64).contains(&self.storage.point_threads), || "1 to 64".into())?;
        check("storage.long_threads", (1..=64).contains(&self.storage.long_threads), || "1 to 64".into())?;
        let compaction_threads = self.storage.compaction_threads;
        check("storage.compaction_threads", (1..=16).contains(&compaction_threads), || "1 to 16".into())?;
        self.replication.validate()?;
        check("slow_query_ms", self.slow_query_ms >= SLOW_QUERY_MS_MIN, || {
            format!("at least {SLOW_QUERY_MS_MIN}; got {}", self.slow_query_ms)
        })?;
        check("pin_cpus", self.pin_cpus == PinCpus::None || usize::from(self.cores) <= cpus, || {
            format!("{} executors cannot each have one of {cpus} CPUs; use \"none\" or fewer cores", self.cores)
        })?;
        Ok(self)
    }
}

fn check(key: &'static str, holds: bool, problem: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Invalid { key, problem: problem() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        listen = "127.0.0.1:34801"
        admin_listen = "127.0.0.1:34901"
        cores = 1
        data_directory = "data"
        meta_servers = ["127.0.0.1:34601"]
        [tls]
        certificate = "replica.crt"
        key = "replica.key"
        ca = "ca.crt"
    "#;

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str::<Config>(text)
            .map_err(|error| error.to_string())
            .and_then(|config| config.validate().map_err(|error| error.to_string()))
    }

    #[test]
    fn a_minimal_file_gets_the_defaults_and_survives_printing() {
        let config = parse(MINIMAL).unwrap();
        assert_eq!(config.log, Log::default());
        assert_eq!(config.storage, Storage::default());
        assert_eq!(config.replication, Replication::default());
        let printed = toml::to_string(&config).unwrap();
        assert_eq!(parse(&printed).unwrap(), config);
    }

    #[test]
    fn unknown_keys_and_bad_ranges_are_refused() {
        assert!(parse(&MINIMAL.replace("cores = 1", "cores = 1\ncroes = 2")).unwrap_err().contains("croes"));
        let bad = [
            ("cores = 1", "cores = 600", "cores"),
            ("127.0.0.1:34801", "127.0.0.1:0", "listen"),
            ("127.0.0.1:34801", "0.0.0.0:34801", "listen"),
            ("127.0.0.1:34801", "127.0.0.1:65535", "listen"),
            ("[\"127.0.0.1:34601\"]", "[]", "meta_servers"),
            ("cores = 1", "slow_query_ms = 19", "slow_query_ms"),
        ];
        for (from, to, key) in bad {
            let message = parse(&MINIMAL.replacen(from, to, 1)).unwrap_err();
            assert!(message.contains(key), "{to}: {message}");
        }
    }
}
