//! The port: accepts connections, as many as may be.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use glommio::net::TcpListener;
use glommio::timer::sleep;

use super::super::slow::Lines;
use super::super::{Core, clock};
use super::connection;
use crate::node::NodeError;

/// Pause after an attempt to accept that failed, for example because no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the core's port for TCP. The same number over UDP was taken before, so no other node has it.
pub(crate) fn bind(core: u16, address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).map_err(|error| {
        NodeError(format!(
            "core {core} cannot listen on TCP {address}: {error}. Clients of Pegasus are served there; another \
             server may have the port, or turn this off (compatibility.enabled = false)"
        ))
    })
}

impl Core {
    /// Accepts clients of Pegasus until its task is cancelled.
    pub(crate) async fn accept_compatible(self, listener: TcpListener) {
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
            self.count(|counters| counters.compatible_connections += 1);
            let (core, connections, server) = (self.clone(), connections.clone(), server.clone());
            glommio::spawn_local(async move {
                connection::serve(core, stream, server).await;
                connections.set(connections.get() - 1);
            })
            .detach();
        }
    }
}
