//! The port: accepts connections, as many as may be.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::net::TcpListener;
use glommio::timer::sleep;
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::super::slow::Lines;
use super::super::{Core, clock};
use super::connection;
use crate::config::Config;
use crate::node::NodeError;

/// How long a port in use is asked for before the node starts without it.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const PORT_RETRY: Duration = Duration::from_millis(50);
/// Connections accepted before other tasks of the core get their turn.
const ACCEPT_BATCH: u64 = 16;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// How long a peer may be silent before the kernel asks whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(120);
/// Pause after an attempt to accept that failed, for example because no descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the core's port for TCP; `None` while it is in use. The same number over UDP was taken before, so no other
/// node has it. But on loopback a client that dials a node which is down may have met itself, and such a connection
/// holds the port until the client gives it up: a node that comes back must not fail for that.
fn take(core: u16, address: SocketAddr) -> Result<Option<TcpListener>, NodeError> {
    match listen(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(NodeError(format!(
            "core {core} cannot listen on TCP {address}, where clients of Pegasus are served: {error}; mend that, or \
             turn it off (compatibility.enabled = false)"
        ))),
    }
}

/// A socket that listens, whose connections find out by themselves when their peer's machine is gone.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // The ring waits for connections only at a socket that blocks.
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Connections that are accepted have it from here.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // SAFETY: `into_raw_fd` gave up ownership of an open socket that listens, so the new owner is the only one.
    Ok(unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) })
}

/// How many connections a core may have: what is configured, or its share of the files that the node may open.
fn connections_max(config: &Config) -> usize {
    let configured = config.compatibility.connections_per_core_max;
    let Some(files) = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok()) else {
        return configured;
    };
    // A quarter is left to logs, tables and others' connections.
    let share = files / 4 * 3 / usize::from(config.cores);
    if share < configured {
        tracing::warn!(
            files,
            connections = share,
            "the limit of open files (ulimit -Hn) allows for fewer connections than \
             compatibility.connections_per_core_max"
        );
    }
    configured.min(share)
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
        let most = connections_max(&self.shared.config);
        let server: Rc<str> = listener.local_addr().map(|address| address.to_string()).unwrap_or_default().into();
        let mut lines = Lines::default();
        for accepted in 1u64.. {
            if accepted.is_multiple_of(ACCEPT_BATCH) {
                // A full backlog is accepted from without a pause.
                glommio::executor().yield_task_queue_now().await;
            }
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
