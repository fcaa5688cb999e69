//! What an operator can set, in a TOML file and on the command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::core::Limits;
use crate::core::limits::{HOLD_SECONDS_MAX, LEARNERS_PER_NODE_MAX};

/// The configuration of a meta server. Every value needs a restart to change. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where nodes, clients and operators reach this server: UDP, QUIC. Also what other servers are told, so it
    /// should be an address of this machine rather than 0.0.0.0.
    pub listen: SocketAddr,
    /// Where health, metrics and status are served: TCP, HTTP.
    pub admin_listen: SocketAddr,
    /// Holds the database; made if it is not there.
    pub data_directory: PathBuf,
    /// error, warn, info, debug or trace.
    pub log_level: String,
    /// How long the rows of a dropped table are held, in which it can be recalled, unless the drop says otherwise.
    pub dropped_table_hold_seconds: u64,
    /// Who this server is.
    pub tls: TlsConfig,
    /// How partitions are healed.
    pub guardian: GuardianConfig,
    /// Whether Pegasus's own clients are served.
    pub compatibility: CompatibilityConfig,
}

/// The port for Pegasus's own clients: TCP, at the address and number of `listen`. Their protocol knows neither
/// encryption nor certificates, so whoever reaches the port is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompatibilityConfig {
    /// Whether there is such a port.
    pub enabled: bool,
    /// Whether it also makes, drops, recalls, renames, lists and sets up tables, and tells of the cluster.
    pub administration: bool,
    /// Connections at once; more are closed as soon as they come.
    pub connections_max: u32,
}

impl Default for CompatibilityConfig {
    fn default() -> CompatibilityConfig {
        CompatibilityConfig { enabled: false, administration: false, connections_max: DEFAULT_CONNECTIONS_MAX }
    }
}

/// How partitions with too few members get new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardianConfig {
    /// How long a former member may be away before another node is taught in its place. A partition that cannot take
    /// writes without another member does not wait.
    pub return_time_ms: u64,
    /// Learners that one node is asked to be, and that one node is asked to teach, at a time.
    pub learners_per_node: u32,
}

impl Default for GuardianConfig {
    fn default() -> GuardianConfig {
        let Limits { return_time_ms, learners_per_node, .. } = Limits::default();
        GuardianConfig { return_time_ms, learners_per_node }
    }
}

impl GuardianConfig {
    /// What the guardian keeps to.
    pub fn limits(&self) -> Limits {
        let GuardianConfig { return_time_ms, learners_per_node } = *self;
        Limits { return_time_ms, learners_per_node, ..Limits::default() }
    }
}

/// Certificate, key and CA, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The certificate; it must name the role meta.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The CA that all peers' certificates must come from.
    pub ca: PathBuf,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: DEFAULT_LISTEN,
            admin_listen: DEFAULT_ADMIN_LISTEN,
            data_directory: PathBuf::from("./data"),
            log_level: "info".to_owned(),
            dropped_table_hold_seconds: DEFAULT_HOLD_SECONDS,
            tls: TlsConfig::default(),
            guardian: GuardianConfig::default(),
            compatibility: CompatibilityConfig::default(),
        }
    }
}

impl Default for TlsConfig {
    fn default() -> TlsConfig {
        TlsConfig { certificate: "./tls/meta.crt".into(), key: "./tls/meta.key".into(), ca: "./tls/ca.crt".into() }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key or a value that does not belong.
    #[error("the configuration file {path} is wrong: {detail}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        detail: String,
    },
    /// A value breaks a rule.
    #[error("configuration: {key} {rule}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        rule: String,
    },
}

impl Config {
    /// Reads a file; what it leaves out has its default.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|error| ConfigError::Malformed { path: path.to_owned(), detail: error.to_string() })
    }

    /// Checks what the types do not say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key, rule: &str| Err(ConfigError::Invalid { key, rule: rule.to_owned() });
        if !LOG_LEVELS.contains(&self.log_level.as_str()) {
            let rule = format!("is one of {}, got {:?}", LOG_LEVELS.join(", "), self.log_level);
            return Err(ConfigError::Invalid { key: "log_level", rule });
        }
        let paths = [
            ("data_directory", &self.data_directory),
            ("tls.certificate", &self.tls.certificate),
            ("tls.key", &self.tls.key),
            ("tls.ca", &self.tls.ca),
        ];
        for (key, path) in paths {
            if path.as_os_str().is_empty() {
                return invalid(key, "must not be empty");
            }
        }
        if self.listen.ip().is_multicast() {
            return invalid("listen", "must not be a multicast address");
        }
        if self.dropped_table_hold_seconds > HOLD_SECONDS_MAX {
            let rule = format!("is at most {HOLD_SECONDS_MAX}, got {}", self.dropped_table_hold_seconds);
            return Err(ConfigError::Invalid { key: "dropped_table_hold_seconds", rule });
        }
        if self.guardian.return_time_ms > RETURN_TIME_MS_MAX {
            let rule = format!("is at most {RETURN_TIME_MS_MAX}, got {}", self.guardian.return_time_ms);
            return Err(ConfigError::Invalid { key: "guardian.return_time_ms", rule });
        }
        if !(1..=LEARNERS_PER_NODE_MAX).contains(&self.guardian.learners_per_node) {
            let rule = format!("is 1 to {LEARNERS_PER_NODE_MAX}, got {}", self.guardian.learners_per_node);
            return Err(ConfigError::Invalid { key: "guardian.learners_per_node", rule });
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.compatibility.connections_max) {
            let rule = format!("is 1 to {CONNECTIONS_MAX}, got {}", self.compatibility.connections_max);
            return Err(ConfigError::Invalid { key: "compatibility.connections_max", rule });
        }
        Ok(())
    }

    /// The configuration as a file that [`Config::load`] reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration has only values that TOML knows")
    }
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 34601);
const DEFAULT_ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 34691);
/// A week, as in Pegasus.
const DEFAULT_HOLD_SECONDS: u64 = 7 * 24 * 3600;
/// A week: beyond it nobody means to come back.
const RETURN_TIME_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// More than the applications of a large cluster hold.
const DEFAULT_CONNECTIONS_MAX: u32 = 20_000;
/// Each takes a file descriptor and a few kilobytes.
const CONNECTIONS_MAX: u32 = 1_000_000;
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let config = Config { log_level: "debug".to_owned(), ..Config::default() };
        assert_eq!(parse(&config.to_toml()).unwrap(), config);
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::default().dropped_table_hold_seconds, 604_800);
        Config::default().validate().unwrap();
    }

    #[test]
    fn pegasus_clients_are_not_served_unless_asked_for() {
        let CompatibilityConfig { enabled, administration, connections_max } = Config::default().compatibility;
        assert_eq!((enabled, administration, connections_max), (false, false, 20_000));
        let asked = parse("[compatibility]\nenabled = true\n").unwrap().compatibility;
        assert_eq!(asked, CompatibilityConfig { enabled: true, administration, connections_max });
        let config = Config { compatibility: asked, ..Config::default() };
        assert_eq!(parse(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        for (text, expected) in [
            ("listne = \"127.0.0.1:1\"", "listne"),
            ("[tls]\ncert = \"x\"", "cert"),
            ("[guardian]\nlearners = 1", "learners"),
            ("[guardian]\nreturn_time_ms = -1", "return_time_ms"),
            ("[compatibility]\nenable = true", "enable"),
            ("[compatibility]\nenabled = 1", "enabled"),
            ("listen = \"localhost\"", "listen"),
            ("listen", "config.toml"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn rules_are_checked() {
        let level = Config { log_level: "loud".to_owned(), ..Config::default() };
        assert!(level.validate().unwrap_err().to_string().contains("log_level is one of error, warn"));
        let directory = Config { data_directory: PathBuf::new(), ..Config::default() };
        assert!(directory.validate().unwrap_err().to_string().contains("data_directory must not be empty"));
        for (guardian, expected) in [
            (
                GuardianConfig { learners_per_node: 0, ..GuardianConfig::default() },
                "guardian.learners_per_node is 1 to 64",
            ),
            (GuardianConfig { learners_per_node: 65, ..GuardianConfig::default() }, "is 1 to 64, got 65"),
            (GuardianConfig { return_time_ms: 604_800_001, ..GuardianConfig::default() }, "return_time_ms is at most"),
        ] {
            let error = Config { guardian, ..Config::default() }.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let soon = GuardianConfig { return_time_ms: 0, learners_per_node: 64 };
        Config { guardian: soon, ..Config::default() }.validate().unwrap();
        let hold = Config { dropped_table_hold_seconds: 315_360_001, ..Config::default() };
        let error = hold.validate().unwrap_err().to_string();
        assert!(error.contains("dropped_table_hold_seconds is at most 315360000, got 315360001"), "{error}");
        Config { dropped_table_hold_seconds: 0, ..Config::default() }.validate().unwrap();
        for connections_max in [0, 1_000_001] {
            let compatibility = CompatibilityConfig { connections_max, ..CompatibilityConfig::default() };
            let error = Config { compatibility, ..Config::default() }.validate().unwrap_err().to_string();
            assert!(error.contains("compatibility.connections_max is 1 to 1000000, got"), "{error}");
        }
        let listen = Config { listen: "224.0.0.1:1".parse().unwrap(), ..Config::default() };
        assert!(listen.validate().unwrap_err().to_string().contains("listen must not be"));
    }
}
