//! Options that several commands share: the cluster, its servers, the rows and the operations.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pegasus_wire::Durability;
use pegasus_wire::limits::VALUE_BYTES_MAX;

use crate::failure::Failure;
use crate::measure::{ServerProcess, servers};
use crate::report::OutputOptions;
use crate::workload::cluster::Load;
use crate::workload::drive::{Pace, Phases};
use crate::workload::keys::{Distribution, KEYS_MAX, KeyChooser};
use crate::workload::mix::Mix;

/// What every command on a cluster is told.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonOptions {
    /// Where the cluster is.
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// Which processes are looked at.
    #[command(flatten)]
    pub servers: ServerOptions,
    /// The rows.
    #[command(flatten)]
    pub table: TableOptions,
    /// Where the results go.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Where the cluster is.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterOptions {
    /// Meta server addresses, separated by commas [default: $PEGASUS_META, else 127.0.0.1:34601]
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS")]
    pub meta: Vec<SocketAddr>,
    /// Directory with ca.crt, client.crt and client.key [default: $PEGASUS_TLS, else ./onebox/tls]
    #[arg(long, value_name = "DIR")]
    pub tls: Option<PathBuf>,
    /// How long an operation may take before it counts as failed
    #[arg(long, default_value_t = 5000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub timeout_ms: u64,
    /// Threads of the client
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub client_threads: u16,
}

impl ClusterOptions {
    /// The meta servers: as given, else from the environment, else those of a onebox.
    pub fn meta_servers(&self) -> Result<Vec<SocketAddr>, Failure> {
        if !self.meta.is_empty() {
            return Ok(self.meta.clone());
        }
        let text = std::env::var("PEGASUS_META").unwrap_or_else(|_| META_DEFAULT.to_owned());
        let addresses: Result<Vec<_>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        addresses.map_err(Failure::at(format!("read the meta server addresses {text:?}")))
    }

    /// The directory of the client's identity: as given, else from the environment, else that of a onebox.
    pub fn tls_directory(&self) -> PathBuf {
        self.tls
            .clone()
            .unwrap_or_else(|| std::env::var_os("PEGASUS_TLS").map_or_else(|| TLS_DEFAULT.into(), PathBuf::from))
    }

    /// How long an operation may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The phases of a drive on this cluster; what is in flight at the end has the time it may take.
    pub fn phases(&self, warmup: Duration, measured_seconds: f64) -> Phases {
        let measured = Duration::from_secs_f64(measured_seconds);
        Phases { warmup, measured, drain: self.timeout() + DRAIN_RESERVE }
    }
}

/// Which processes the server CPU time is read from, or whose threads are traced.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerOptions {
    /// Process ids of the storage nodes, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "PID", conflicts_with = "onebox")]
    pub server_pids: Vec<u32>,
    /// Onebox directory whose storage nodes are measured [default: ./onebox, if there is one]
    #[arg(long, value_name = "DIR")]
    pub onebox: Option<PathBuf>,
}

impl ServerOptions {
    /// The storage nodes; none if none were named and there is no onebox here, or only a stopped one.
    pub fn find(&self) -> Result<Vec<ServerProcess>, Failure> {
        if !self.server_pids.is_empty() {
            return servers::from_pids(&self.server_pids);
        }
        match &self.onebox {
            Some(directory) => servers::from_onebox(directory),
            None => Ok(servers::from_onebox(Path::new(ONEBOX_DEFAULT)).unwrap_or_default()),
        }
    }

    /// The storage nodes, of which there must be some.
    pub fn require(&self) -> Result<Vec<ServerProcess>, Failure> {
        let servers = self.find()?;
        if servers.is_empty() {
            return Err(Failure::new("no storage nodes found: name them with --onebox DIR or --server-pids"));
        }
        Ok(servers)
    }
}

/// The table, made if it is missing.
#[derive(Clone, Debug, clap::Args)]
pub struct TableOptions {
    /// Partitions of the table, if it is made
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub partitions: u32,
    /// Replicas of each partition, if the table is made
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub replicas: u8,
    /// Rows
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = parse_keys)]
    pub keys: u64,
    /// Length of each value
    #[arg(long, default_value_t = 1000, value_name = "BYTES", value_parser = parse_value_bytes)]
    pub value_bytes: usize,
}

/// What is done to the rows.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkloadOptions {
    /// Table to use [default: perf_synced or perf_written, by --durability]
    #[arg(long)]
    pub table: Option<String>,
    /// When writes are acknowledged: synced or written; a property of the table, used if it is made
    #[arg(long, default_value = "synced")]
    pub durability: Durability,
    /// Shares of the operations get, set, del, exist, incr, cas, del_range, multi_get (of 100 rows) and scan (of 1000)
    #[arg(long, default_value = "get=50,set=50")]
    pub mix: Mix,
    /// How operations are spread over the rows
    #[arg(long, value_enum, default_value = "uniform")]
    pub distribution: Distribution,
    /// Operations in flight; with --rate the most there may be
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = parse_depth)]
    pub depth: usize,
    /// Clients, each with its own socket and connections; the operations in flight are shared out over them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
}

impl WorkloadOptions {
    /// The table's name.
    pub fn table_name(&self) -> String {
        self.table.clone().unwrap_or_else(|| table_of(self.durability))
    }

    /// The load on a table with this many rows.
    pub fn load(&self, keys: u64, pace: Pace) -> Result<Load, Failure> {
        let keys = KeyChooser::new(self.distribution, keys)?;
        Ok(Load { mix: self.mix.clone(), keys, depth: self.depth, pace })
    }
}

/// The table a durability is measured with unless another is named.
pub fn table_of(durability: Durability) -> String {
    format!("perf_{durability}")
}

/// Reads a number of operations in flight.
pub fn parse_depth(text: &str) -> Result<usize, String> {
    parse_within(text, 1, DEPTH_MAX)
}

/// Reads a time in seconds, which may have decimals.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if seconds > 0.0 && seconds <= SECONDS_MAX {
        Ok(seconds)
    } else {
        Err(format!("the time must be above 0 and at most {SECONDS_MAX} seconds"))
    }
}

/// Reads a number of operations per second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is not a rate"))?;
    if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err("the rate must be above 0".to_owned()) }
}

/// Reads a number of rows.
pub fn parse_keys(text: &str) -> Result<u64, String> {
    parse_within(text, 1, KEYS_MAX as usize).map(|keys| keys as u64)
}

/// Reads a length of values.
pub fn parse_value_bytes(text: &str) -> Result<usize, String> {
    parse_within(text, 0, VALUE_BYTES_MAX)
}

/// Reads a whole number within these bounds.
pub fn parse_within(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(format!("must be {least} to {most}")) }
}

/// Most operations in flight.
pub const DEPTH_MAX: usize = 65_536;
/// For an operation to be told that its time is over.
const DRAIN_RESERVE: Duration = Duration::from_secs(1);
/// A day: every command ends by itself.
const SECONDS_MAX: f64 = 86_400.0;
const META_DEFAULT: &str = "127.0.0.1:34601";
const TLS_DEFAULT: &str = "./onebox/tls";
/// Where a onebox is unless it is said.
pub const ONEBOX_DEFAULT: &str = "./onebox";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept() {
        assert_eq!(parse_depth("64"), Ok(64));
        assert!(parse_depth("0").is_err() && parse_depth("65537").is_err() && parse_depth("x").is_err());
        assert_eq!(parse_keys("10000"), Ok(10_000));
        assert!(parse_keys("0").is_err() && parse_keys(&(KEYS_MAX + 1).to_string()).is_err());
        assert_eq!(parse_seconds("0.5"), Ok(0.5));
        for bad in ["0", "-1", "nan", "inf", "1e9", "x"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_rate("1e3"), Ok(1000.0));
        assert!(parse_rate("0").is_err() && parse_rate("nan").is_err() && parse_rate("inf").is_err());
        assert_eq!(parse_value_bytes("0"), Ok(0));
        assert!(parse_value_bytes(&(VALUE_BYTES_MAX + 1).to_string()).is_err());
    }

    #[test]
    fn operations_in_flight_at_the_end_have_their_time() {
        let cluster = ClusterOptions { meta: vec![], tls: None, timeout_ms: 700, client_threads: 1 };
        let phases = cluster.phases(Duration::from_secs(2), 0.5);
        assert_eq!((phases.warmup, phases.measured), (Duration::from_secs(2), Duration::from_millis(500)));
        assert!(phases.drain > cluster.timeout());
    }

    #[test]
    fn tables_are_named_by_durability() {
        assert_eq!(table_of(Durability::Synced), "perf_synced");
        assert_eq!(table_of(Durability::Written), "perf_written");
    }

    #[test]
    fn named_servers_must_be_there() {
        let absent = ServerOptions { server_pids: vec![], onebox: Some(PathBuf::from("/no/such/onebox")) };
        assert!(absent.find().is_err());
        let ended = ServerOptions { server_pids: vec![u32::MAX], onebox: None };
        assert!(ended.find().is_err());
        let this = ServerOptions { server_pids: vec![std::process::id()], onebox: None };
        assert_eq!(this.require().unwrap().len(), 1);
    }
}
