//! Puts a meta server together, and takes it apart in order.
//!
//! ```text
//! start:  certificates -> data directory and Raft -> administration port -> QUIC port, compatibility port -> ready
//! stop:   refuse new requests, answer pending watches -> requests in flight end -> ports close -> Raft stops
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pegasus_rpc::{Alpn, Endpoint, EndpointOptions, Identity, IdentityError, Role, RpcError, Runtime};
use pegasus_wire::ClusterId;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admin;
use super::clock::Clock;
use super::compatibility;
use super::config::{Config, ConfigError};
use super::group::{Group, StartError};
use super::handlers::Service;
use super::liveness::Liveness;
use super::metrics::Metrics;
use super::planner::Planner;
use super::purger;
use super::service;

/// A meta server that serves.
pub struct Server {
    service: Service,
    endpoint: Endpoint,
    admin_address: SocketAddr,
    compatibility_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Why a server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificate, key or CA.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The certificate is somebody else's.
    #[error("{certificate} names the role {found}; a meta server needs a certificate of the role meta")]
    WrongRole {
        /// The file.
        certificate: String,
        /// The role it names.
        found: Role,
    },
    /// The data directory or Raft.
    #[error(transparent)]
    Group(#[from] StartError),
    /// The QUIC port.
    #[error("the QUIC port: {0}")]
    Rpc(#[from] RpcError),
    /// The administration port.
    #[error("the administration port {address}: {source}")]
    Admin {
        /// The address configured.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The port for Pegasus's own clients.
    #[error("the compatibility port, TCP {address}: {source}")]
    Compatibility {
        /// The address of the QUIC port.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Raft stopped; nothing can be changed durably any more.
    #[error("the meta service failed and stops: {0}")]
    Failed(String),
}

impl Server {
    /// Starts everything; when it returns the server answers.
    pub async fn start(config: &Config) -> Result<Server, ServerError> {
        Server::start_at(config, Clock::System).await
    }

    /// The same with another time of day than the machine's.
    pub async fn start_at(config: &Config, clock: Clock) -> Result<Server, ServerError> {
        config.validate()?;
        let identity = Identity::load(&config.tls.certificate, &config.tls.key, &config.tls.ca)?;
        if identity.role() != Role::Meta {
            let certificate = config.tls.certificate.display().to_string();
            return Err(ServerError::WrongRole { certificate, found: identity.role() });
        }
        let name = ClusterId(rand::random());
        let group = Group::start(&config.data_directory, config.listen, name).await?;
        let opened = open_ports(config, identity, &group).await;
        let Ports { endpoint, admin, admin_address, compatibility } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                group.shutdown().await;
                return Err(error);
            }
        };
        let (stop, stopping) = watch::channel(false);
        let liveness = Liveness::new(Instant::now());
        let planner = Planner::new(config.guardian.limits(), liveness.clone());
        let service = Service {
            group,
            liveness,
            planner,
            clock,
            hold_seconds: config.dropped_table_hold_seconds,
            metrics: Arc::new(Metrics::default()),
            address: endpoint.local_address(),
            stopping,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(admin::serve(service.clone(), admin));
        tasks.spawn(service.planner.clone().run(service.group.clone(), service.stopping.clone()));
        tasks.spawn(purger::run(service.group.clone(), service.clock.clone(), service.stopping.clone()));
        tasks.spawn(service::serve(service.clone(), endpoint.clone()));
        let mut compatibility_address = None;
        if let Some(listener) = compatibility {
            compatibility_address = Some(endpoint.local_address());
            tasks.spawn(compatibility::serve(service.clone(), config.compatibility, listener));
        }
        Ok(Server { service, endpoint, admin_address, compatibility_address, stop, tasks })
    }

    /// Where nodes and clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_address()
    }

    /// Where health, metrics and status are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where Pegasus's own clients are served, if they are.
    pub fn compatibility_address(&self) -> Option<SocketAddr> {
        self.compatibility_address
    }

    /// The service, for those in the same process.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Serves until `stop` resolves or Raft fails, then stops in order.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        let result = tokio::select! {
            () = stop => Ok(()),
            reason = self.service.group.failed() => Err(ServerError::Failed(reason)),
            // They end only when told to.
            ended = self.tasks.join_next() => Err(ServerError::Failed(format!("a serving task ended: {ended:?}"))),
        };
        self.shutdown().await;
        result
    }

    /// Stops in order, within a bound.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("some requests did not end within {DRAIN:?}; they are cut off");
            self.tasks.abort_all();
        }
        self.endpoint.close().await;
        self.service.group.shutdown().await;
    }
}

/// What a server listens on.
struct Ports {
    endpoint: Endpoint,
    admin: TcpListener,
    admin_address: SocketAddr,
    /// The TCP port with the number of the endpoint's.
    compatibility: Option<TcpListener>,
}

async fn open_ports(config: &Config, identity: Identity, group: &Group) -> Result<Ports, ServerError> {
    let unusable = |source| ServerError::Admin { address: config.admin_listen, source };
    let admin = TcpListener::bind(config.admin_listen).await.map_err(unusable)?;
    let admin_address = admin.local_addr().map_err(unusable)?;
    let options = EndpointOptions { cluster: group.read(|state| state.cluster()), accepts: &[Alpn::Meta] };
    let bind = || Endpoint::bind(Runtime::tokio(), config.listen, identity.clone(), options);
    if !config.compatibility.enabled {
        return Ok(Ports { endpoint: bind()?, admin, admin_address, compatibility: None });
    }
    compatibility::raise_file_limit(config.compatibility.connections_max);
    // A number that the system chose for UDP may be taken for TCP. Then another one is asked for.
    let mut choices = if config.listen.port() == 0 { PORT_CHOICES } else { 1 };
    loop {
        let endpoint = bind()?;
        let address = endpoint.local_address();
        choices -= 1;
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(Ports { endpoint, admin, admin_address, compatibility: Some(listener) }),
            Err(source) if choices == 0 => return Err(ServerError::Compatibility { address, source }),
            Err(_) => endpoint.close().await,
        }
    }
}

/// How long requests in flight may take when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Port numbers tried at most, if the system chooses them.
const PORT_CHOICES: u32 = 16;
