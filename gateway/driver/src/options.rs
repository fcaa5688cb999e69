//! How a cluster is used.

use std::time::Duration;

/// Most connections to one address.
const CONNECTIONS_MAX: usize = 1024;

/// Times and numbers of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long an operation on rows, and a question to the meta servers, may take with all its attempts. Default 5 s.
    pub timeout: Duration,
    /// Connections to each address, used in turn. 1 to 1024, default 1; what is outside counts as the nearest.
    pub connections_per_node: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { timeout: Duration::from_secs(5), connections_per_node: 1 }
    }
}

impl Options {
    pub(crate) fn connections(&self) -> usize {
        self.connections_per_node.clamp(1, CONNECTIONS_MAX)
    }
}
