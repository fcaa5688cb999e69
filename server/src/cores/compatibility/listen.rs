//! The port: accepts connections, as many as may be.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::GlommioError;
use glommio::net::TcpListener;
use glommio::timer::sleep;

use super::super::slow::Lines;
use super::super::{Core, clock};
use super::connection;
use crate::node::NodeError;

/// How long a port in use is asked for before the node starts without it.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const PORT_RETRY: Duration = Duration::from_millis(50);
/// Pause after an attempt to accept that failed, for example because no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the core's port for TCP; `None` while it is in use. The same number over UDP was taken before, so no other node
/// has it. But on loopback a client that dials a node which is down may have met itself, and such a connection holds the
/// port until the client gives it up: a node that comes back must not fail for that.
fn take(core: u16, address: SocketAddr) -> Result<Option<TcpListener>, NodeError> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(GlommioError::IoError(error)) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(NodeError(format!(
            "core {core} cannot listen on TCP {address}, where clients of Pegasus are served: {error}; mend that, or \
             turn it off (compatibility.enabled = false)"
        ))),
    }
}

/// A port for TCP.
pub(crate) enum Port {
    /// It is open.
    Open(TcpListener),
    /// Another process has it.
    InUse(SocketAddr),
}

/// Takes the core's port for TCP, waiting a little if it is in use.
pub(crate) async fn bind(core: u16, address: SocketAddr) -> Result<Port, NodeError> {
    let give_up = Instant::now() + PORT_PATIENCE;
    loop {
        match take(core, address)? {
            Some(listener) => return Ok(Port::Open(listener)),
            None if Instant::now() >= give_up => return Ok(Port::InUse(address)),
            None => sleep(PORT_RETRY).await,
        }
    }
}

impl Core {
    /// Opens the port, as soon as it is free.
    async fn open_port(&self, address: SocketAddr) -> TcpListener {
        tracing::error!(
            %address,
            "clients of Pegasus cannot be served: another process has the TCP port. It is taken as soon as it is free; \
             `ss -tanp` shows who has it"
        );
        loop {
            match take(self.id, address) {
                Ok(Some(listener)) => {
                    tracing::info!(%address, "clients of Pegasus are served now");
                    return listener;
                }
                // It was free for a moment, or cannot be had for another reason by now; both may end.
                Ok(None) | Err(_) => sleep(PORT_RETRY).await,
            }
        }
    }

    /// Accepts clients of Pegasus until its task is cancelled.
    pub(crate) async fn accept_compatible(self, port: Port) {
        let listener = match port {
            Port::Open(listener) => listener,
            Port::InUse(address) => self.open_port(address).await,
        };
        let connections = Rc::new(Cell::new(0usize));
        let most = self.shared.config.compatibility.connections_per_core_max;
        let server: Rc<str> = listener.local_addr().map(|address| address.to_string()).unwrap_or_default().into();
        let mut lines = Lines::default();
        loop {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    if let Some(left_out) = lines.admit(clock::now()) {
                        tracing::warn!(%error, left_out, "a client of Pegasus could not be accepted");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if connections.get() >= most {
                if let Some(left_out) = lines.admit(clock::now()) {
                    tracing::warn!(left_out, "too many connections (compatibility.connections_per_core_max)");
                }
                continue;
            }
            connections.set(connections.get() + 1);
            self.count(|counters| counters.compatibility_connections += 1);
            let (core, connections, server) = (self.clone(), connections.clone(), server.clone());
            glommio::spawn_local(async move {
                connection::serve(core, stream, server).await;
                connections.set(connections.get() - 1);
            })
            .detach();
        }
    }
}
