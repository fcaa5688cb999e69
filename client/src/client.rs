//! A connection to one cluster.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pegasus_rpc::{Endpoint, Identity, Runtime};
use pegasus_wire::TableId;
use pegasus_wire::messages::control::TableReply;

use crate::dispatch::TableCore;
use crate::error::Error;
use crate::meta::MetaService;
use crate::nodes::{self, Alarm, Nodes};
use crate::options::ClientOptions;
use crate::refresh::suspect;
use crate::route::RouteCache;
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
    closed: AtomicBool,
    /// Routes are kept for as long as the client: a table that was opened once can be opened again while every meta
    /// server is down.
    tables: Mutex<Tables>,
}

/// The routes of a client, by the names under which tables were opened.
#[derive(Default)]
struct Tables {
    by_name: HashMap<String, Arc<RouteCache>>,
    /// Of tables whose name is theirs no more. Their handles go on, but nobody opens them by that name.
    renamed: Vec<Weak<RouteCache>>,
}

impl Tables {
    /// The name does not mean the table any more that was opened by it.
    fn set_apart(&mut self, name: &str) {
        self.renamed.retain(|routes| routes.strong_count() > 0);
        self.renamed.extend(self.by_name.remove(name).map(|routes| Arc::downgrade(&routes)));
    }

    fn all(&self) -> Vec<Arc<RouteCache>> {
        self.by_name.values().cloned().chain(self.renamed.iter().filter_map(Weak::upgrade)).collect()
    }
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
        let shared =
            Shared { options, meta, nodes, endpoint, closed: AtomicBool::new(false), tables: Mutex::default() };
        let client = Client { shared: Arc::new(shared) };
        tokio::spawn(nodes::watch(Arc::downgrade(&client.shared)));
        client.shared.meta.check(client.meta_deadline()).await?;
        client.cluster_status().await?;
        Ok(client)
    }

    /// A handle on a table. Its route is learned here; [`Error::NoSuchTable`] if there is none.
    ///
    /// The handle stays with the table if that gets another name. Once the table is gone, the handle gives
    /// [`Error::NoSuchTable`] until there is a table of the name again: the same one, recalled, or a new one. A client
    /// that has opened a name before answers from memory, and asks in the background whether the name still means that
    /// table.
    pub async fn table(&self, name: &str) -> Result<Table, Error> {
        let core = self.table_core(name);
        if core.routes.cached().is_some() {
            suspect(&core.routes, &self.shared, None);
        }
        core.route(self.meta_deadline()).await?;
        Ok(Table::new(core, self.shared.options.operation_timeout))
    }

    /// Closes all connections. Operations still under way end: reads with [`Error::Timeout`], writes that were sent
    /// with [`Error::Unknown`].
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.endpoint.close().await;
    }

    pub(crate) fn meta_deadline(&self) -> Instant {
        deadline_in(self.shared.options.meta_timeout)
    }

    /// What a handle of this table works with.
    pub(crate) fn table_core(&self, name: &str) -> Arc<TableCore> {
        let routes = self.shared.routes(name);
        Arc::new(TableCore { shared: self.shared.clone(), routes })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        // The maps are whole at every point where a panic could poison the lock.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True once nothing can succeed any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// A table has changed by what this client has asked for: routes of it are put right, and its name means this table
    /// from now on.
    pub(crate) fn note_changed(self: &Arc<Shared>, reply: &TableReply) {
        let table = reply.table.table;
        let all = {
            let mut tables = self.lock();
            let of_name = tables.by_name.get(&reply.table.name).and_then(|routes| routes.cached());
            if of_name.is_some_and(|route| route.table.table != table) {
                tables.set_apart(&reply.table.name);
            }
            tables.all()
        };
        let of_table = |routes: &&Arc<RouteCache>| routes.cached().is_some_and(|route| route.table.table == table);
        for routes in all.iter().filter(of_table) {
            if let Err(error) = routes.learn(&self.nodes, reply) {
                tracing::debug!(table = routes.name(), %error, "an answer contradicts itself; the known route stays");
            }
        }
    }

    /// A table is gone by what this client has asked for.
    pub(crate) fn note_gone(&self, table: TableId, name: &str) {
        let all = self.lock().all();
        let of_table = |routes: &&Arc<RouteCache>| routes.cached().is_some_and(|route| route.table.table == table);
        let reason = format!("table {name:?} (number {table}) was dropped");
        all.iter().filter(of_table).for_each(|routes| routes.forget(&reason));
    }

    /// The route of a table, shared by all handles that were opened by this name.
    fn routes(&self, name: &str) -> Arc<RouteCache> {
        let mut tables = self.lock();
        if let Some(routes) = tables.by_name.get(name) {
            if routes.cached().is_none_or(|route| route.table.name == name) {
                return routes.clone();
            }
            tables.set_apart(name);
        }
        // Names that turned out to be no tables.
        tables.by_name.retain(|_, routes| Arc::strong_count(routes) > 1 || routes.cached().is_some());
        let routes = Arc::new(RouteCache::new(name.to_owned()));
        tables.by_name.insert(name.to_owned(), routes.clone());
        routes
    }

    /// A core of a storage node does not answer: the routes that lead there are asked for again.
    pub(crate) fn suspect_address(self: &Arc<Shared>, address: SocketAddr, alarm: Alarm) {
        let concerned = |routes: &Arc<RouteCache>| routes.cached().is_some_and(|route| route.leads_to(address));
        let mut all = self.lock().all();
        all.retain(concerned);
        for routes in all {
            suspect(&routes, self, (alarm == Alarm::Lost).then_some(address));
        }
    }
}

/// The moment `timeout` from now.
pub(crate) fn deadline_in(timeout: Duration) -> Instant {
    Instant::now() + timeout
}
