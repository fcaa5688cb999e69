//! A connection to one cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pegasus_rpc::{Endpoint, Identity, Runtime};

use crate::dispatch::TableCore;
use crate::error::Error;
use crate::meta::MetaService;
use crate::nodes::Nodes;
use crate::options::ClientOptions;
use crate::table::Table;

/// A client of one cluster. Cloning it is cheap and shares everything: one socket, one channel per core of each
/// storage node, one route per table.
///
/// Connections are made when they are first needed and come back by themselves. Every method ends within its deadline.
///
/// ```no_run
/// # async fn example() -> Result<(), pegasus_client::Error> {
/// use pegasus_client::{Client, ClientOptions};
///
/// let meta = "127.0.0.1:34601".parse().expect("an address");
/// let client = Client::connect(ClientOptions::new(vec![meta], "./onebox/tls")).await?;
/// let table = client.table("temp").await?;
/// table.set("user:1", "name", "Ada").await?;
/// assert_eq!(table.get("user:1", "name").await?.as_deref(), Some(&b"Ada"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

/// What a client's handles share.
pub(crate) struct Shared {
    pub(crate) options: ClientOptions,
    pub(crate) meta: MetaService,
    pub(crate) nodes: Nodes,
    endpoint: Endpoint,
    /// Weak, because a table's core holds this; a table without handles is asked for anew.
    tables: Mutex<HashMap<String, Weak<TableCore>>>,
}

impl Client {
    /// Connects to a cluster: loads the identity, opens a local socket and asks the meta service for the cluster, so
    /// that a wrong address or certificate is found here and not at the first operation.
    ///
    /// Must be called inside a tokio runtime. Errors: [`Error::Setup`] for options, files and the socket,
    /// [`Error::Timeout`] when no meta server answers within [`ClientOptions::meta_timeout`].
    pub async fn connect(options: ClientOptions) -> Result<Client, Error> {
        options.validate()?;
        let identity = Identity::load(&options.certificate, &options.key, &options.ca)
            .map_err(|error| Error::Setup(format!("cannot load the client's identity: {error}")))?;
        let endpoint = Endpoint::client(Runtime::tokio(), identity)
            .map_err(|error| Error::Setup(format!("cannot open a local UDP socket: {error}")))?;
        let meta = MetaService::new(endpoint.clone(), &options.meta_servers, options.attempt_timeout);
        let nodes = Nodes::new(endpoint.clone());
        let shared = Shared { options, meta, nodes, endpoint, tables: Mutex::new(HashMap::new()) };
        let client = Client { shared: Arc::new(shared) };
        client.shared.meta.check(client.meta_deadline()).await?;
        client.cluster_status().await?;
        Ok(client)
    }

    /// A handle on a table. Its route is learned here; [`Error::NoSuchTable`] if there is none.
    pub async fn table(&self, name: &str) -> Result<Table, Error> {
        let core = self.table_core(name);
        core.route(self.meta_deadline()).await?;
        Ok(Table::new(core, self.shared.options.operation_timeout))
    }

    /// Closes all connections. Operations still under way end: reads with [`Error::Timeout`], writes that were sent
    /// with [`Error::Unknown`].
    pub async fn close(&self) {
        self.shared.endpoint.close().await;
    }

    pub(crate) fn meta_deadline(&self) -> Instant {
        deadline_in(self.shared.options.meta_timeout)
    }

    /// What the handles of this table share; made if there is no handle yet.
    pub(crate) fn table_core(&self, name: &str) -> Arc<TableCore> {
        // The map is whole at every point where a panic could poison the lock.
        let mut tables = self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = tables.get(name).and_then(Weak::upgrade) {
            return core;
        }
        tables.retain(|_, core| core.strong_count() > 0);
        let core = Arc::new(TableCore::new(self.shared.clone(), name.to_owned()));
        tables.insert(name.to_owned(), Arc::downgrade(&core));
        core
    }
}

/// The moment `timeout` from now.
pub(crate) fn deadline_in(timeout: Duration) -> Instant {
    Instant::now() + timeout
}
