//! Where the partitions of a table are: a cache that is asked for again when a server or a connection says that it is
//! out of date, by one caller for all.
//!
//! Invariants:
//! - a route has exactly `partition_count` partitions, and at least one
//! - a partition's entry is never replaced by one of a lower ballot: a meta server that lags cannot turn clients back
//! - a question that fails leaves the route as it is; only the answer that there is no such table removes it
//! - a route that is known belongs to one table, whatever its name is by now: another table that gets the name takes
//!   its place only once the table is gone
//! - versions rise with every change, also when the route is forgotten, so a caller can tell whether it has changed
//!   since it looked

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use pegasus_wire::messages::control::{ListTables, QueryTable, TableList, TableReply, TableState};
use pegasus_wire::{Ballot, FrameBuilder, MessageKind, NodeId, NodeInfo, PartitionId, TableId, TableProperties};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::error::Error;
use crate::meta::MetaService;
use crate::nodes::{NodeChannel, Nodes};
use crate::refresh::Refresher;
use crate::retry::Effect;

/// Where one partition is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The configuration this comes from.
    pub(crate) ballot: Ballot,
    /// The core that owns the partition on its primary; `None` while there is no primary.
    pub(crate) endpoint: Option<SocketAddr>,
}

/// A table's route at one moment.
pub(crate) struct Route {
    /// Rises with every change of the cache.
    pub(crate) version: u64,
    /// The table.
    pub(crate) table: TableProperties,
    places: Vec<Place>,
    channels: Vec<Option<Arc<NodeChannel>>>,
}

impl Route {
    fn new(version: u64, table: TableProperties, places: Vec<Place>, nodes: &Nodes) -> Route {
        let channels = places.iter().map(|place| place.endpoint.map(|address| nodes.channel(address))).collect();
        Route { version, table, places, channels }
    }

    pub(crate) fn partition_id(&self, index: u32) -> PartitionId {
        PartitionId { table: self.table.table, index }
    }

    /// Where the partition is served. `index` is below the partition count.
    pub(crate) fn endpoint(&self, index: u32) -> Option<SocketAddr> {
        self.places[index as usize].endpoint
    }

    /// The channel to where the partition is served.
    pub(crate) fn channel(&self, index: u32) -> Option<&Arc<NodeChannel>> {
        self.channels[index as usize].as_ref()
    }

    /// Whether any partition is served at this address.
    pub(crate) fn leads_to(&self, address: SocketAddr) -> bool {
        self.places.iter().any(|place| place.endpoint == Some(address))
    }

    /// Tells the calls that wait at places where `next` does not lead any more.
    fn note_departures(&self, next: &Route) {
        for (index, channel) in (0..).zip(&self.channels) {
            if let Some(channel) = channel.as_ref().filter(|_| next.differs_from(self, index)) {
                channel.note_departure();
            }
        }
    }

    /// Whether this route knows a place for the partition that is not the one `other` led to.
    pub(crate) fn differs_from(&self, other: &Route, index: u32) -> bool {
        if self.table.table != other.table.table || self.places.len() != other.places.len() {
            return true;
        }
        let endpoint = self.endpoint(index);
        endpoint.is_some() && endpoint != other.endpoint(index)
    }
}

/// The route of one table, shared by all its handles.
pub(crate) struct RouteCache {
    name: String,
    current: RwLock<Option<Arc<Route>>>,
    /// What was said of the table when it was last found to be gone.
    gone: Mutex<String>,
    /// Raised with every change of `current`, while that is locked.
    version: AtomicU64,
    changes: Notify,
    /// Held by whoever is asking.
    asking: tokio::sync::Mutex<()>,
    pub(crate) refresher: Refresher,
}

impl RouteCache {
    pub(crate) fn new(name: String) -> RouteCache {
        RouteCache {
            name,
            current: RwLock::new(None),
            gone: Mutex::default(),
            version: AtomicU64::new(0),
            changes: Notify::new(),
            asking: tokio::sync::Mutex::new(()),
            refresher: Refresher::default(),
        }
    }

    /// The name by which the table was opened. It may have another one by now.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The route, if it was ever learned.
    pub(crate) fn cached(&self) -> Option<Arc<Route>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of the last change; 0 before the first.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Resolves with the first change after this call, whenever it is polled.
    pub(crate) fn change(&self) -> Notified<'_> {
        self.changes.notified()
    }

    /// A route newer than version `seen` (0: any). Many callers at once cause one question.
    pub(crate) async fn refresh(
        &self,
        meta: &MetaService,
        nodes: &Nodes,
        seen: u64,
        deadline: Instant,
    ) -> Result<Arc<Route>, Error> {
        let gate = tokio::time::timeout_at(deadline.into(), self.asking.lock());
        let Ok(_gate) = gate.await else {
            return Err(Error::Timeout(format!("the route of table {:?} is being asked for", self.name)));
        };
        let known = self.cached();
        if seen > 0 && self.version() > seen {
            return known.ok_or_else(|| Error::NoSuchTable(self.lock_gone().clone()));
        }
        if let Some(route) = known.as_ref().filter(|route| route.version > seen) {
            return Ok(route.clone());
        }
        match self.ask(meta, known.as_deref(), deadline).await {
            Ok(reply) => self.learn(nodes, &reply),
            Err(error) => {
                if let Error::NoSuchTable(reason) = &error {
                    self.forget(reason);
                }
                Err(error)
            }
        }
    }

    fn lock_gone(&self) -> MutexGuard<'_, String> {
        // A text is whole at every point where a panic could poison the lock.
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the table that is known, or for the one of the name if that is gone.
    async fn ask(&self, meta: &MetaService, known: Option<&Route>, deadline: Instant) -> Result<TableReply, Error> {
        let Some(known) = known.map(|route| &route.table) else { return query(meta, &self.name, deadline).await };
        let answer = query(meta, &known.name, deadline).await;
        match &answer {
            Ok(reply) if reply.table.table == known.table => return answer,
            // Its name means another table by now, or none: was it renamed?
            Ok(_) | Err(Error::NoSuchTable(_)) => {}
            Err(_) => return answer,
        }
        match name_now(meta, known.table, deadline).await? {
            Some(name) => query(meta, &name, deadline).await,
            None if known.name == self.name => answer,
            None => query(meta, &self.name, deadline).await,
        }
    }

    /// Takes what the meta service says of the table.
    pub(crate) fn learn(&self, nodes: &Nodes, reply: &TableReply) -> Result<Arc<Route>, Error> {
        self.install(nodes, |old| {
            let known = old.filter(|old| old.table.table == reply.table.table);
            let places = merge(known.map_or(&[], |old| &old.places), reply)?;
            Ok((reply.table.clone(), places))
        })
    }

    /// Takes a server's word for where a partition is. `seen` is the route that led to that server; if the cache has
    /// moved on since, the hint is ignored.
    pub(crate) fn follow_hint(&self, nodes: &Nodes, seen: &Route, index: u32, endpoint: SocketAddr) {
        if self.version() != seen.version || seen.endpoint(index) == Some(endpoint) {
            return;
        }
        let mut places = seen.places.clone();
        places[index as usize].endpoint = Some(endpoint);
        // Cannot fail: the closure does not.
        let _installed = self.install(nodes, |_| Ok((seen.table.clone(), places)));
    }

    /// Forgets the route: the table is gone.
    pub(crate) fn forget(&self, reason: &str) {
        reason.clone_into(&mut self.lock_gone());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.take().is_some() {
            self.note_change();
        }
    }

    /// Replaces the route, unless the next one is the same.
    fn install(
        &self,
        nodes: &Nodes,
        next: impl FnOnce(Option<&Route>) -> Result<(TableProperties, Vec<Place>), Error>,
    ) -> Result<Arc<Route>, Error> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let (table, places) = next(current.as_deref())?;
        if let Some(route) = current.as_ref().filter(|route| route.table == table && route.places == places) {
            return Ok(route.clone());
        }
        let route = Arc::new(Route::new(self.note_change(), table, places, nodes));
        let old = current.replace(route.clone());
        drop(current);
        if let Some(old) = old {
            old.note_departures(&route);
        }
        Ok(route)
    }

    /// The version of the route that is being installed under the lock.
    fn note_change(&self) -> u64 {
        let version = self.version.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes.notify_waiters();
        version
    }
}

async fn query(meta: &MetaService, name: &str, deadline: Instant) -> Result<TableReply, Error> {
    let question = QueryTable { name: name.to_owned() };
    let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
    let frame = meta.call(MessageKind::QUERY_TABLE, Effect::Read, deadline, build).await?;
    frame.decode().map_err(Error::protocol)
}

/// The name that a table has, if it serves.
async fn name_now(meta: &MetaService, table: TableId, deadline: Instant) -> Result<Option<String>, Error> {
    let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &ListTables, &[]);
    let frame = meta.call(MessageKind::LIST_TABLES, Effect::Read, deadline, build).await?;
    let tables = frame.decode::<TableList>().map_err(Error::protocol)?.tables;
    let serves = tables.into_iter().filter(|description| description.state == TableState::Available);
    Ok(serves.map(|description| description.properties).find(|known| known.table == table).map(|known| known.name))
}

/// The places a meta server names, except where a higher ballot is known already.
fn merge(known: &[Place], reply: &TableReply) -> Result<Vec<Place>, Error> {
    let count = reply.table.partition_count as usize;
    if count == 0 || count != reply.partitions.len() {
        return Err(Error::Protocol(format!(
            "table {:?} has {count} partitions, its route names {}",
            reply.table.name,
            reply.partitions.len()
        )));
    }
    let nodes: HashMap<NodeId, &NodeInfo> = reply.nodes.iter().map(|node| (node.node, node)).collect();
    let place = |index: usize| {
        let configuration = &reply.partitions[index];
        let partition = PartitionId { table: reply.table.table, index: index as u32 };
        let primary = configuration.primary.and_then(|primary| nodes.get(&primary));
        let told = Place { ballot: configuration.ballot, endpoint: primary.map(|node| node.endpoint(partition)) };
        match known.get(index) {
            Some(known) if known.ballot > told.ballot => *known,
            _ => told,
        }
    };
    Ok((0..count).map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_rpc::{Authority, Endpoint, Identity, Role, Runtime};
    use pegasus_wire::{Configuration, Durability, TableId};

    fn reply(ballot: u64, primary: u64) -> TableReply {
        let node = |node: u64| NodeInfo {
            node: NodeId(node),
            address: format!("127.0.0.1:{}", 1000 * node).parse().expect("an address"),
            admin_address: "127.0.0.1:1".parse().expect("an address"),
            cores: 2,
            alive: true,
        };
        TableReply {
            table: TableProperties {
                table: TableId(2),
                name: "temp".into(),
                partition_count: 2,
                replica_count: 3,
                durability: Durability::Synced,
            },
            environment: vec![],
            partitions: vec![
                Configuration { ballot: Ballot(ballot), primary: Some(NodeId(primary)), secondaries: vec![] },
                Configuration::default(),
            ],
            nodes: vec![node(1), node(2)],
        }
    }

    #[test]
    fn places_name_the_core_of_the_primary() {
        let places = merge(&[], &reply(3, 1)).expect("a sound reply");
        assert_eq!(places[0].endpoint, Some("127.0.0.1:1000".parse().expect("an address")));
        assert_eq!(places[1].endpoint, None);
    }

    #[test]
    fn a_lower_ballot_does_not_turn_a_client_back() {
        let newer = merge(&[], &reply(5, 2)).expect("a sound reply");
        assert_eq!(merge(&newer, &reply(4, 1)).expect("a sound reply")[0], newer[0]);
        let same_ballot = merge(&newer, &reply(5, 1)).expect("a sound reply");
        assert_eq!(same_ballot[0].endpoint, Some("127.0.0.1:1000".parse().expect("an address")));
    }

    #[test]
    fn a_reply_that_contradicts_itself_is_refused() {
        let mut short = reply(1, 1);
        short.partitions.pop();
        assert!(matches!(merge(&[], &short), Err(Error::Protocol(_))));
        let mut none = reply(1, 1);
        none.table.partition_count = 0;
        none.partitions.clear();
        assert!(matches!(merge(&[], &none), Err(Error::Protocol(_))));
    }

    #[tokio::test]
    async fn a_route_differs_where_it_leads_elsewhere() {
        let endpoint = Endpoint::client(Runtime::tokio(), identity()).expect("an endpoint");
        let nodes = Nodes::new(endpoint);
        let route =
            |reply: &TableReply| Route::new(1, reply.table.clone(), merge(&[], reply).expect("a sound reply"), &nodes);
        let known = route(&reply(3, 1));
        assert!(!route(&reply(4, 1)).differs_from(&known, 0), "another ballot, the same place");
        assert!(route(&reply(4, 2)).differs_from(&known, 0));
        assert!(!route(&reply(4, 9)).differs_from(&known, 0), "nowhere is no place to go");
        let mut other = reply(1, 1);
        other.table.table = TableId(3);
        assert!(route(&other).differs_from(&known, 0));
        let mut smaller = reply(3, 1);
        smaller.table.partition_count = 1;
        smaller.partitions.pop();
        assert!(route(&smaller).differs_from(&known, 1) && known.differs_from(&route(&smaller), 0));
        assert!(known.leads_to("127.0.0.1:1000".parse().expect("an address")));
        assert!(!known.leads_to("127.0.0.1:2000".parse().expect("an address")));
    }

    fn identity() -> Identity {
        let authority = Authority::generate().expect("an authority");
        let issued = authority.issue(Role::Client).expect("a certificate");
        Identity::from_pem(&issued.certificate, &issued.key, authority.certificate()).expect("an identity")
    }

    #[test]
    fn a_primary_that_is_not_listed_leaves_the_place_open() {
        assert_eq!(merge(&[], &reply(3, 9)).expect("a sound reply")[0].endpoint, None);
    }
}
