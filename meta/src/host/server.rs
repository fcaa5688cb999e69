//! Puts a meta server together, and takes it apart in order.
//!
//! ```text
//! start:  certificates -> data directory and Raft -> administration port -> QUIC port -> ready
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
        let (endpoint, listener, admin_address) = match opened {
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
        tasks.spawn(admin::serve(service.clone(), listener));
        tasks.spawn(service.planner.clone().run(service.group.clone(), service.stopping.clone()));
        tasks.spawn(purger::run(service.group.clone(), service.clock.clone(), service.stopping.clone()));
        tasks.spawn(service::serve(service.clone(), endpoint.clone()));
        Ok(Server { service, endpoint, admin_address, stop, tasks })
    }

    /// Where nodes and clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_address()
    }

    /// Where health, metrics and status are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
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

async fn open_ports(
    config: &Config,
    identity: Identity,
    group: &Group,
) -> Result<(Endpoint, TcpListener, SocketAddr), ServerError> {
    let unusable = |source| ServerError::Admin { address: config.admin_listen, source };
    let listener = TcpListener::bind(config.admin_listen).await.map_err(unusable)?;
    let admin_address = listener.local_addr().map_err(unusable)?;
    let options = EndpointOptions { cluster: group.read(|state| state.cluster()), accepts: &[Alpn::Meta] };
    let endpoint = Endpoint::bind(Runtime::tokio(), config.listen, identity, options)?;
    Ok((endpoint, listener, admin_address))
}

/// How long requests in flight may take when the server stops.
const DRAIN: Duration = Duration::from_secs(5);
