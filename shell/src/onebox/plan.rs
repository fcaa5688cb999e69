//! What a onebox consists of: processes, ports, directories, configuration files. Pure but for reading and writing
//! `onebox.toml`.
//!
//! ```text
//! <directory>/onebox.toml      what was started; marks the directory as a onebox
//!             tls/             ca.crt ca.key, and certificate and key of each role
//!             meta1/           config.toml  pid  log/  data/
//!             replica1/ ...    the same
//! ```

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use pegasus_wire::limits::MEMBERS_MAX;
use serde::{Deserialize, Serialize};

use crate::transfer::checkpoint::with_suffix;

/// QUIC port of the meta server.
const META_PORT: u16 = 34601;
/// HTTP port of the meta server.
const META_ADMIN_PORT: u16 = 34691;
/// QUIC port of core 0 of the first node; node `i` begins `i` x cores above.
const NODE_PORT: u16 = 34801;
/// HTTP port of the first node; node `i` is `i` above.
const NODE_ADMIN_PORT: u16 = 34901;
/// Storage nodes at most.
const NODES_MAX: u16 = 16;
/// Cores of all nodes together at most: the ports between `NODE_PORT` and `NODE_ADMIN_PORT`.
const CORES_TOTAL_MAX: u16 = NODE_ADMIN_PORT - NODE_PORT;
/// Highest port offset that keeps all ports below the end.
const PORT_OFFSET_MAX: u16 = u16::MAX - NODE_ADMIN_PORT - NODES_MAX;
/// Log budget of one core of a onebox: small, as it shares a disk with whatever else the machine does.
const LOG_BUDGET_BYTES: u64 = 256 * 1024 * 1024;
/// Length of one log segment.
const LOG_SEGMENT_BYTES: u64 = 32 * 1024 * 1024;

/// The file that marks a directory as a onebox.
pub const STATE_FILE: &str = "onebox.toml";

/// The shape of a onebox, kept in `onebox.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Storage nodes.
    pub nodes: u16,
    /// Executors of each node.
    pub cores: u16,
    /// Added to every port, so that several oneboxes can run on one machine.
    pub port_offset: u16,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { nodes: 3, cores: 1, port_offset: 0 }
    }
}

impl Shape {
    /// Checks the bounds.
    pub fn validate(&self) -> Result<(), String> {
        if self.nodes == 0 || self.nodes > NODES_MAX {
            return Err(format!("--nodes must be 1 to {NODES_MAX}; it is {}", self.nodes));
        }
        if self.cores == 0 || u32::from(self.cores) * u32::from(self.nodes) > u32::from(CORES_TOTAL_MAX) {
            return Err(format!(
                "--cores must be at least 1, and all nodes together have at most {CORES_TOTAL_MAX}; {} nodes of {} \
                 cores are asked for",
                self.nodes, self.cores
            ));
        }
        if self.port_offset > PORT_OFFSET_MAX {
            return Err(format!("--port-offset must be at most {PORT_OFFSET_MAX}; it is {}", self.port_offset));
        }
        Ok(())
    }

    /// Members a table's partitions get: three, or as many as there are nodes.
    pub fn replica_count(&self) -> u8 {
        self.nodes.min(3).min(MEMBERS_MAX as u16) as u8
    }
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A meta server.
    Meta,
    /// A storage node.
    Replica,
}

impl Kind {
    /// The program that is run, and the role of its certificate's file names.
    pub fn program(self) -> &'static str {
        match self {
            Kind::Meta => "pegasus-meta",
            Kind::Replica => "pegasus-replica",
        }
    }

    fn role(self) -> &'static str {
        match self {
            Kind::Meta => "meta",
            Kind::Replica => "replica",
        }
    }
}

/// One process of a onebox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `meta1`, `replica1`, ...
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// QUIC address (of core 0).
    pub listen: SocketAddr,
    /// Port numbers it uses from `listen` on: UDP for QUIC, TCP for Pegasus's own clients.
    pub udp_ports: u16,
    /// HTTP address.
    pub admin: SocketAddr,
    /// Its own directory.
    pub directory: PathBuf,
}

impl Member {
    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// Where its process id is kept.
    pub fn pid_path(&self) -> PathBuf {
        self.directory.join("pid")
    }

    /// Where its log goes (standard error).
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log").join(format!("{}.log", self.name))
    }

    /// Where its `ready` line goes (standard output).
    pub fn ready_path(&self) -> PathBuf {
        self.directory.join("log").join("ready")
    }

    /// Its addresses, for people.
    pub fn addresses(&self) -> String {
        let last = self.listen.port() + self.udp_ports - 1;
        let range = if self.udp_ports > 1 { format!("-{last}") } else { String::new() };
        format!("quic {}{range}, admin http {}", self.listen, self.admin)
    }
}

/// A onebox: its place and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Absolute path of its directory.
    pub directory: PathBuf,
    /// Its shape.
    pub shape: Shape,
}

impl Plan {
    /// Reads what an earlier start left; `None` if the directory is no onebox (yet).
    pub fn load(directory: &Path) -> Result<Option<Plan>, String> {
        let directory = std::path::absolute(directory).map_err(|error| error.to_string())?;
        let path = directory.join(STATE_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let shape: Shape = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        shape.validate().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Some(Plan { directory, shape }))
    }

    /// Writes `onebox.toml`.
    pub fn store(&self) -> Result<(), String> {
        let text = toml::to_string(&self.shape).map_err(|error| error.to_string())?;
        write_file(&self.directory.join(STATE_FILE), &text)
    }

    /// All processes, the meta server first.
    pub fn members(&self) -> Vec<Member> {
        let offset = self.shape.port_offset;
        let address = |port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port + offset);
        let meta = Member {
            name: "meta1".into(),
            kind: Kind::Meta,
            listen: address(META_PORT),
            udp_ports: 1,
            admin: address(META_ADMIN_PORT),
            directory: self.directory.join("meta1"),
        };
        let replica = |index: u16| Member {
            name: format!("replica{}", index + 1),
            kind: Kind::Replica,
            listen: address(NODE_PORT + index * self.shape.cores),
            udp_ports: self.shape.cores,
            admin: address(NODE_ADMIN_PORT + index),
            directory: self.directory.join(format!("replica{}", index + 1)),
        };
        std::iter::once(meta).chain((0..self.shape.nodes).map(replica)).collect()
    }

    /// Where the certificates are.
    pub fn tls_directory(&self) -> PathBuf {
        self.directory.join("tls")
    }

    /// Addresses of the meta servers.
    pub fn meta_servers(&self) -> Vec<SocketAddr> {
        self.members().iter().filter(|member| member.kind == Kind::Meta).map(|member| member.listen).collect()
    }

    /// The configuration file of a process.
    pub fn config_text(&self, member: &Member) -> Result<String, String> {
        let tls = TlsConfig {
            certificate: self.tls_directory().join(format!("{}.crt", member.kind.role())),
            key: self.tls_directory().join(format!("{}.key", member.kind.role())),
            ca: self.tls_directory().join("ca.crt"),
        };
        let data_directory = member.directory.join("data");
        let common = (member.listen, member.admin, "info");
        let text = match member.kind {
            Kind::Meta => toml::to_string(&MetaConfig {
                listen: common.0,
                admin_listen: common.1,
                data_directory,
                log_level: common.2,
                tls,
                compatibility: MetaCompatibility { enabled: true, administration: true },
            }),
            Kind::Replica => toml::to_string(&ReplicaConfig {
                name: &member.name,
                listen: common.0,
                admin_listen: common.1,
                cores: self.shape.cores,
                data_directory,
                meta_servers: self.meta_servers(),
                // Each node would bind to the same CPUs as its neighbours.
                pin_cpus: "none",
                log_level: common.2,
                tls,
                log: LogConfig { segment_bytes: LOG_SEGMENT_BYTES, budget_bytes: LOG_BUDGET_BYTES },
                compatibility: Compatibility { enabled: true },
            }),
        };
        text.map_err(|error| format!("a path cannot be written as TOML: {error}"))
    }
}

/// Replaces a file atomically.
pub fn write_file(path: &Path, text: &str) -> Result<(), String> {
    let beside = with_suffix(path, ".new");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[derive(Serialize)]
struct TlsConfig {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

#[derive(Serialize)]
struct LogConfig {
    segment_bytes: u64,
    budget_bytes: u64,
}

/// Everything is on loopback, so Pegasus's own clients are served, and may make tables.
#[derive(Serialize)]
struct MetaCompatibility {
    enabled: bool,
    administration: bool,
}

#[derive(Serialize)]
struct Compatibility {
    enabled: bool,
}

#[derive(Serialize)]
struct MetaConfig {
    listen: SocketAddr,
    admin_listen: SocketAddr,
    data_directory: PathBuf,
    log_level: &'static str,
    tls: TlsConfig,
    compatibility: MetaCompatibility,
}

#[derive(Serialize)]
struct ReplicaConfig<'a> {
    name: &'a str,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    cores: u16,
    data_directory: PathBuf,
    meta_servers: Vec<SocketAddr>,
    pin_cpus: &'static str,
    log_level: &'static str,
    tls: TlsConfig,
    log: LogConfig,
    compatibility: Compatibility,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shape: Shape) -> Plan {
        Plan { directory: "/srv/onebox".into(), shape }
    }

    #[test]
    fn ports_are_those_pegasus_users_know() {
        let members = plan(Shape { nodes: 3, cores: 2, port_offset: 0 }).members();
        let ports: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.listen.port(), m.admin.port())).collect();
        assert_eq!(
            ports,
            [
                ("meta1", 34601, 34691),
                ("replica1", 34801, 34901),
                ("replica2", 34803, 34902),
                ("replica3", 34805, 34903)
            ]
        );
        assert_eq!(members[1].addresses(), "quic 127.0.0.1:34801-34802, admin http 127.0.0.1:34901");
        let shifted = plan(Shape { port_offset: 1000, ..Shape::default() });
        assert_eq!(shifted.meta_servers()[0].to_string(), "127.0.0.1:35601");
    }

    #[test]
    fn ports_never_overlap() {
        for shape in [
            Shape { nodes: 10, cores: 10, port_offset: 0 },
            Shape { nodes: 1, cores: 100, port_offset: PORT_OFFSET_MAX },
        ] {
            shape.validate().expect("within the bounds");
            let members = plan(shape).members();
            let mut ports: Vec<u16> = members
                .iter()
                .flat_map(|m| (m.listen.port()..m.listen.port() + m.udp_ports).chain([m.admin.port()]))
                .collect();
            let count = ports.len();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), count);
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        for (shape, word) in [
            (Shape { nodes: 0, ..Shape::default() }, "--nodes"),
            (Shape { nodes: 17, ..Shape::default() }, "--nodes"),
            (Shape { cores: 0, ..Shape::default() }, "--cores"),
            (Shape { nodes: 3, cores: 34, port_offset: 0 }, "--cores"),
            (Shape { port_offset: 65000, ..Shape::default() }, "--port-offset"),
        ] {
            assert!(shape.validate().unwrap_err().contains(word), "{shape:?}");
        }
    }

    #[test]
    fn configuration_files_have_the_keys_the_servers_know() {
        let plan = plan(Shape { nodes: 3, cores: 2, port_offset: 0 });
        let members = plan.members();
        let read = |member: &Member| plan.config_text(member).expect("text").parse::<toml::Table>().expect("TOML");
        let keys = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
        let meta = read(&members[0]);
        assert_eq!(keys(&meta), ["admin_listen", "compatibility", "data_directory", "listen", "log_level", "tls"]);
        assert_eq!(keys(meta["compatibility"].as_table().expect("a table")), ["administration", "enabled"]);
        assert_eq!(meta["listen"].as_str(), Some("127.0.0.1:34601"));
        let replica = read(&members[2]);
        assert_eq!(
            keys(&replica),
            [
                "admin_listen",
                "compatibility",
                "cores",
                "data_directory",
                "listen",
                "log",
                "log_level",
                "meta_servers",
                "name",
                "pin_cpus",
                "tls"
            ]
        );
        assert_eq!(replica["cores"].as_integer(), Some(2));
        assert_eq!(replica["listen"].as_str(), Some("127.0.0.1:34803"));
        assert_eq!(replica["data_directory"].as_str(), Some("/srv/onebox/replica2/data"));
        assert_eq!(replica["meta_servers"].as_array().map(Vec::len), Some(1));
        assert_eq!(replica["tls"]["certificate"].as_str(), Some("/srv/onebox/tls/replica.crt"));
        assert_eq!(replica["compatibility"]["enabled"].as_bool(), Some(true));
        assert_eq!(replica["log"]["budget_bytes"].as_integer(), Some(256 << 20));
    }

    #[test]
    fn the_shape_comes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(Plan::load(directory.path()), Ok(None));
        let plan = Plan { directory: directory.path().to_owned(), shape: Shape { nodes: 5, cores: 2, port_offset: 7 } };
        plan.store().expect("stored");
        assert_eq!(Plan::load(directory.path()), Ok(Some(plan)));
        fs::write(directory.path().join(STATE_FILE), "nodes = 1\nspeed = 9\n").expect("written");
        assert!(Plan::load(directory.path()).unwrap_err().contains("speed"));
    }
}
