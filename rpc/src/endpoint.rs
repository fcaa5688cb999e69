//! A UDP port that makes and takes connections.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use pegasus_wire::ClusterId;
use pegasus_wire::limits::{CONNECTIONS_PER_CORE_MAX, HANDSHAKES_PER_CORE_MAX};
use pegasus_wire::messages::Hello;
use socket2::{Domain, Protocol, Socket, Type};

use crate::close::CloseCode;
use crate::connection::Connection;
use crate::error::RpcError;
use crate::identity::{Identity, Role};
use crate::runtime::Runtime;
use crate::waiters::{Waiters, wake_all};
use crate::{handshake, tls, transport};

/// What a connection is for. Agreed on in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// Data calls to a storage node.
    Data,
    /// Replication between storage nodes.
    Peer,
    /// Calls to the meta service.
    Meta,
}

impl Alpn {
    /// All of them.
    pub const ALL: [Alpn; 3] = [Alpn::Data, Alpn::Peer, Alpn::Meta];

    /// The name in the TLS handshake.
    pub fn name(self) -> &'static str {
        match self {
            Alpn::Data => "pegasus-data",
            Alpn::Peer => "pegasus-peer",
            Alpn::Meta => "pegasus-meta",
        }
    }

    pub(crate) fn wire_name(self) -> &'static [u8] {
        self.name().as_bytes()
    }

    pub(crate) fn from_wire_name(name: &[u8]) -> Option<Alpn> {
        Alpn::ALL.into_iter().find(|alpn| alpn.wire_name() == name)
    }

    /// Whether a peer of this role may connect: replication is between storage nodes, the rest is for anyone with
    /// a certificate of the CA.
    pub fn admits(self, role: Role) -> bool {
        match self {
            Alpn::Peer => role == Role::Replica,
            Alpn::Data | Alpn::Meta => true,
        }
    }
}

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointOptions {
    /// The cluster of this process, if it knows. Peers that know another one are refused.
    pub cluster: Option<ClusterId>,
    /// What peers may connect for; empty for an endpoint that only connects.
    pub accepts: &'static [Alpn],
}

/// A handle to an endpoint; cheap to clone.
///
/// When the last one is dropped no new connections are taken; those that exist live on, and the port is free when the
/// last of them has ended. [`Endpoint::close`] ends them all.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    quinn: quinn::Endpoint,
    runtime: Runtime,
    address: SocketAddr,
    /// In the order of `Alpn::ALL`.
    clients: [quinn::ClientConfig; 3],
    shared: Arc<Shared>,
}

/// What the tasks of the endpoint share with its handles.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cluster: Option<ClusterId>,
    /// Complete connections that nobody has taken yet.
    accepted: VecDeque<Connection>,
    /// Handshakes that are going on. Together with `accepted` at most `HANDSHAKES_PER_CORE_MAX`.
    handshakes: usize,
    acceptors: Waiters,
    /// The task that takes connection attempts.
    task: Option<Waker>,
    closed: bool,
}

/// How long an attempt to connect may take, Hello included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer may take from its first packet to its Hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long closing waits for the peers to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

impl Endpoint {
    /// Binds a UDP port and starts accepting what `options` says.
    pub fn bind(
        runtime: Runtime,
        address: SocketAddr,
        identity: Identity,
        options: EndpointOptions,
    ) -> Result<Endpoint, RpcError> {
        let socket = bind(address).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => RpcError::AddressInUse { address },
            _ => RpcError::CannotBind { address, detail: error.to_string() },
        })?;
        let setup = |detail: String| RpcError::Setup { detail };
        let address = socket.local_addr().map_err(|error| setup(error.to_string()))?;
        let transport = transport::transport();
        let server = if options.accepts.is_empty() {
            None
        } else {
            let crypto = tls::server_config(&identity, options.accepts).map_err(setup)?;
            let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
            server.transport_config(Arc::clone(&transport)).max_incoming(HANDSHAKES_PER_CORE_MAX);
            Some(server)
        };
        let client = |alpn| -> Result<quinn::ClientConfig, RpcError> {
            let mut config = quinn::ClientConfig::new(Arc::new(tls::client_config(&identity, alpn).map_err(setup)?));
            config.transport_config(Arc::clone(&transport));
            Ok(config)
        };
        let clients = [client(Alpn::ALL[0])?, client(Alpn::ALL[1])?, client(Alpn::ALL[2])?];
        let accepting = server.is_some();
        let config = transport::endpoint(&identity, address);
        let quinn =
            quinn::Endpoint::new(config, server, socket, runtime.quinn()).map_err(|error| setup(error.to_string()))?;
        let shared = Arc::new(Shared::new(options.cluster));
        if accepting {
            runtime.spawn(accept_all(quinn.clone(), runtime.clone(), Arc::clone(&shared)));
        }
        Ok(Endpoint { inner: Arc::new(Inner { quinn, runtime, address, clients, shared }) })
    }

    /// An endpoint that only connects, on a port of the system's choice.
    pub fn client(runtime: Runtime, identity: Identity) -> Result<Endpoint, RpcError> {
        let dual = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        Endpoint::bind(runtime.clone(), dual, identity.clone(), EndpointOptions::default()).or_else(|error| {
            tracing::debug!(%error, "no IPv6 here, only IPv4 peers can be reached");
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            Endpoint::bind(runtime, address, identity, EndpointOptions::default())
        })
    }

    /// Connects, checks that the peer has the role, and exchanges Hello; at most [`CONNECT_TIMEOUT`].
    pub async fn connect(&self, address: SocketAddr, role_of_peer: Role, alpn: Alpn) -> Result<Connection, RpcError> {
        let start = self.inner.runtime.now();
        let hello = Hello::ours(self.cluster());
        let attempt = self.attempt(address, role_of_peer, alpn, hello);
        match self.inner.runtime.timeout_at(start + CONNECT_TIMEOUT, attempt).await {
            Some(result) => result,
            None => Err(RpcError::ConnectTimeout { address, waited_ms: CONNECT_TIMEOUT.as_millis() as u64 }),
        }
    }

    async fn attempt(&self, address: SocketAddr, role: Role, alpn: Alpn, hello: Hello) -> Result<Connection, RpcError> {
        let config = self.inner.clients[alpn as usize].clone();
        let connecting = self.inner.quinn.connect_with(config, address, role.dns_name()).map_err(|error| {
            let detail = format!("cannot connect to {address}: {error}");
            match error {
                quinn::ConnectError::EndpointStopping => RpcError::Closed,
                _ => RpcError::Setup { detail },
            }
        })?;
        let quinn = connecting.await.map_err(|error| RpcError::from_attempt(address, error))?;
        handshake::connecting(quinn, role, alpn, hello).await
    }

    /// The next connection whose handshake and Hello are complete and whose role fits; `None` once the endpoint is
    /// closed. Handshakes go on side by side and do not wait for this call, up to a bound.
    pub async fn accept(&self) -> Option<Connection> {
        poll_fn(|context| {
            let mut state = self.inner.shared.lock();
            while let Some(connection) = state.accepted.pop_front() {
                if !connection.is_closed() {
                    return Poll::Ready(Some(connection));
                }
            }
            if state.closed {
                return Poll::Ready(None);
            }
            state.acceptors.register(context.waker());
            Poll::Pending
        })
        .await
    }

    /// From now on this process belongs to the cluster. Connections that exist are not checked again.
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.inner.shared.lock().cluster = Some(cluster);
    }

    /// The cluster this process belongs to, if it knows.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.inner.shared.lock().cluster
    }

    /// The bound address, with the port the system chose if none was given.
    pub fn local_address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The runtime the endpoint lives on.
    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// Closes all connections and the port, and waits a moment for the peers to hear of it.
    pub async fn close(&self) {
        self.inner.quinn.close(CloseCode::ShuttingDown.varint(), b"the endpoint closes");
        self.inner.shared.close();
        let deadline = self.inner.runtime.now() + CLOSE_TIMEOUT;
        self.inner.runtime.timeout_at(deadline, self.inner.quinn.wait_idle()).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quinn.set_server_config(None);
        self.shared.close();
    }
}

impl Shared {
    fn new(cluster: Option<ClusterId>) -> Shared {
        let state = State {
            cluster,
            accepted: VecDeque::new(),
            handshakes: 0,
            acceptors: Waiters::default(),
            task: None,
            closed: false,
        };
        Shared { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Admits one more handshake, if there is room.
    fn begin_handshake(&self) -> bool {
        let mut state = self.lock();
        let room = !state.closed && state.handshakes + state.accepted.len() < HANDSHAKES_PER_CORE_MAX;
        state.handshakes += usize::from(room);
        room
    }

    fn end_handshake(&self, connection: Option<Connection>) {
        let mut state = self.lock();
        state.handshakes -= 1;
        let Some(connection) = connection else { return };
        if state.closed {
            return;
        }
        state.accepted.push_back(connection);
        let acceptors = state.acceptors.take();
        drop(state);
        wake_all(acceptors);
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let unwanted = std::mem::take(&mut state.accepted);
        let mut wake = state.acceptors.take();
        wake.extend(state.task.take());
        drop(state);
        drop(unwanted);
        wake_all(wake);
    }

    /// Waits until nobody wants connections any more.
    async fn closed(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.closed {
                return Poll::Ready(());
            }
            state.task = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Takes connection attempts until the endpoint is closed.
async fn accept_all(quinn: quinn::Endpoint, runtime: Runtime, shared: Arc<Shared>) {
    while let Some(incoming) = next_attempt(&quinn, &shared).await {
        let peer = incoming.remote_address();
        if quinn.open_connections() >= CONNECTIONS_PER_CORE_MAX || !shared.begin_handshake() {
            tracing::warn!(%peer, "too many connections (connections_per_core_max), refusing one");
            incoming.refuse();
            continue;
        }
        let deadline = runtime.now() + HANDSHAKE_TIMEOUT;
        runtime.spawn(take_one(incoming, runtime.clone(), deadline, Arc::clone(&shared)));
    }
    // The port can also be lost under us; then nobody must wait for connections any more.
    shared.close();
}

/// `None` once nobody wants connections any more.
async fn next_attempt(quinn: &quinn::Endpoint, shared: &Shared) -> Option<quinn::Incoming> {
    let attempt = std::pin::pin!(quinn.accept());
    let closed = std::pin::pin!(shared.closed());
    match select(attempt, closed).await {
        Either::Left((attempt, _)) => attempt,
        Either::Right(_) => None,
    }
}

/// One handshake, bounded in time. What fails is logged with its reason and dropped.
async fn take_one(incoming: quinn::Incoming, runtime: Runtime, deadline: Instant, shared: Arc<Shared>) {
    let peer = incoming.remote_address();
    let connection = match handshake_within(incoming, &runtime, deadline, &shared).await {
        Ok(connection) => Some(connection),
        Err(error) => {
            tracing::warn!(%peer, %error, "a connection was not accepted");
            None
        }
    };
    shared.end_handshake(connection);
}

async fn handshake_within(
    incoming: quinn::Incoming,
    runtime: &Runtime,
    deadline: Instant,
    shared: &Shared,
) -> Result<Connection, RpcError> {
    let late = |what: &str| RpcError::Lost { reason: format!("no {what} in time") };
    let quinn = runtime.timeout_at(deadline, async { incoming.await }).await.ok_or_else(|| late("TLS handshake"))?;
    let quinn = quinn.map_err(RpcError::from_connection)?;
    let hello = handshake::accepting(quinn.clone(), || shared.lock().cluster);
    runtime.timeout_at(deadline, hello).await.unwrap_or_else(|| {
        quinn.close(CloseCode::Timeout.varint(), b"no Hello in time");
        Err(late("Hello"))
    })
}

/// A bound socket with large buffers. An IPv6 wildcard also takes IPv4.
fn bind(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // The system grants what it allows; less costs retransmissions under load, nothing else.
    let granted = socket
        .set_recv_buffer_size(transport::SOCKET_BUFFER_BYTES)
        .and_then(|()| socket.set_send_buffer_size(transport::SOCKET_BUFFER_BYTES));
    if let Err(error) = granted {
        tracing::debug!(%error, "socket buffers stay at the system's default");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use super::*;
    use crate::identity::Authority;

    /// A release of another time: its range of versions has nothing in common with ours.
    #[tokio::test]
    async fn no_common_version() {
        let authority = Authority::generate().unwrap();
        let identity = |role| {
            let issued = authority.issue(role).unwrap();
            Identity::from_pem(&issued.certificate, &issued.key, authority.certificate()).unwrap()
        };
        let runtime = Runtime::tokio();
        let options = EndpointOptions { cluster: None, accepts: &[Alpn::Data] };
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Endpoint::bind(runtime.clone(), loopback, identity(Role::Replica), options).unwrap();
        let client = Endpoint::client(runtime.clone(), identity(Role::Client)).unwrap();
        let connect = |versions: (u16, u16)| {
            let hello = Hello { version_min: versions.0, version_max: versions.1, cluster: None };
            client.attempt(server.local_address(), Role::Replica, Alpn::Data, hello)
        };
        let error = connect((700, 900)).await.unwrap_err();
        assert!(matches!(error, RpcError::NoCommonVersion { .. }), "{error}");
        assert!(error.to_string().contains("700 to 900"), "{error}");
        assert_eq!(connect((1, 900)).await.unwrap().version(), pegasus_wire::messages::VERSION_MAX);
    }

    #[test]
    fn roles_fit_what_they_connect_for() {
        for role in Role::ALL {
            assert!(Alpn::Data.admits(role) && Alpn::Meta.admits(role));
            assert_eq!(Alpn::Peer.admits(role), role == Role::Replica);
        }
        for alpn in Alpn::ALL {
            assert_eq!(Alpn::from_wire_name(alpn.wire_name()), Some(alpn));
        }
        assert_eq!(Alpn::from_wire_name(b"h3"), None);
    }

    #[test]
    fn handshakes_are_bounded() {
        let shared = Shared::new(None);
        assert!((0..HANDSHAKES_PER_CORE_MAX).all(|_| shared.begin_handshake()));
        assert!(!shared.begin_handshake());
        shared.end_handshake(None);
        assert!(shared.begin_handshake());
        shared.close();
        shared.end_handshake(None);
        assert!(!shared.begin_handshake());
    }
}
