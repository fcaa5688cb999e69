//! A cluster by its meta servers.

use std::net::SocketAddr;
use std::sync::Arc;

use pegasus_gateway::messages::admin::{CreateAppOptions, CreateAppRequest};
use pegasus_gateway::thrift::Map;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::meta::MetaServers;
use crate::options::Options;
use crate::table::Table;

/// A cluster. Clones share its connections to the meta servers.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) meta: Arc<MetaServers>,
    pub(crate) options: Options,
}

/// A table that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Number of partitions; most servers want a power of two.
    pub partition_count: u32,
    /// Copies of each partition.
    pub replica_count: u8,
}

impl Cluster {
    /// Finds the meta servers, each given as `host:port`, and connects to one of them at least.
    ///
    /// Errors: [`Error::Invalid`] for a name that has no address; [`Error::Timeout`] if none can be reached.
    pub async fn connect(meta_servers: &[String], options: Options) -> Result<Cluster, Error> {
        let deadline = Instant::now() + options.timeout;
        let mut addresses = Vec::new();
        for server in meta_servers {
            addresses.extend(resolve(server, deadline).await?);
        }
        if addresses.is_empty() {
            return Err(Error::Invalid("no meta server was named".to_owned()));
        }
        let meta = MetaServers::new(&addresses);
        meta.reach(deadline).await?;
        Ok(Cluster { meta: Arc::new(meta), options })
    }

    /// Opens a table. It has connections of its own, which its clones share.
    ///
    /// Errors: [`Error::NoSuchTable`]; [`Error::Timeout`] if no meta server has a good answer, for example because the
    /// table is being made and is not ready.
    pub async fn table(&self, name: &str) -> Result<Table, Error> {
        Table::open(self.clone(), name).await
    }

    /// Makes a table; one of this name that exists with the same numbers is good too. It may take a while until it
    /// serves: see [`Table::wait_until_serving`].
    ///
    /// Errors: [`Error::Refused`] and [`Error::Timeout`] with the reason of the meta server.
    pub async fn create_table(&self, spec: &TableSpec<'_>) -> Result<(), Error> {
        let partition_count = i32::try_from(spec.partition_count)
            .map_err(|_| Error::Invalid(format!("{} partitions", spec.partition_count)))?;
        let options = CreateAppOptions {
            partition_count,
            replica_count: i32::from(spec.replica_count),
            success_if_exist: true,
            app_type: "pegasus",
            is_stateful: true,
            envs: Map::default(),
            atomic_idempotent: None,
        };
        let request = CreateAppRequest { app_name: spec.name, options };
        self.meta.create(request, self.deadline()).await.map(|_| ())
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.timeout
    }
}

async fn resolve(server: &str, deadline: Instant) -> Result<Vec<SocketAddr>, Error> {
    let wrong = |why: String| Error::Invalid(format!("the meta server {server:?} has no address: {why}"));
    match timeout_at(deadline, tokio::net::lookup_host(server)).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(wrong(error.to_string())),
        Err(_) => Err(Error::Timeout(format!("the address of the meta server {server:?} was not found in time"))),
    }
}
