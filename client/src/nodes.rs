//! One reconnecting channel per core of a storage node, shared by all tables of a client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use pegasus_rpc::{Alpn, Endpoint, Reconnecting, Role};

/// The channels of a client. They connect when they are first used.
pub(crate) struct Nodes {
    endpoint: Endpoint,
    channels: Mutex<HashMap<SocketAddr, Reconnecting>>,
}

impl Nodes {
    pub(crate) fn new(endpoint: Endpoint) -> Nodes {
        Nodes { endpoint, channels: Mutex::new(HashMap::new()) }
    }

    /// The channel to the core that listens at `address`.
    pub(crate) fn channel(&self, address: SocketAddr) -> Reconnecting {
        // The map is whole at every point where a panic could poison the lock.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels
            .entry(address)
            .or_insert_with(|| Reconnecting::new(self.endpoint.clone(), address, Role::Replica, Alpn::Data))
            .clone()
    }
}
