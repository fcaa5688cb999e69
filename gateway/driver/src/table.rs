//! A table: sends a request to the partition it belongs to, by the rule in `judge`.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use pegasus_gateway::Rpc;
use pegasus_gateway::answer::Answer;
use pegasus_gateway::frame::RequestHeader;
use pegasus_gateway::thrift::{ThriftError, Value};
use tokio::time::{Instant, timeout_at};

use crate::cluster::Cluster;
use crate::connection::Request;
use crate::error::Error;
use crate::judge::{CallError, Effect, Pauses, Verdict, judge_failure, judge_name};
use crate::route::Route;

/// How long one attempt at reading a single row may take. Reads of many rows may be slow, and a write has only one
/// attempt that may have left, so both have all the time.
const ROW_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an operation waits for a new route before it tries the old one again.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);
/// Least time between two questions where the partitions are.
const REFRESH_INTERVAL: Duration = Duration::from_millis(50);

/// A table. Clones share its connections; operations of all of them may be under way at a time.
#[derive(Clone)]
pub struct Table {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Cluster,
    name: String,
    route: RwLock<Arc<Route>>,
    /// When the route was last asked for. Held by the one who asks.
    refreshed: tokio::sync::Mutex<Instant>,
}

/// Where a request belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// To the partition of a key with this hash.
    Key(u64),
    /// To the partition of this index, as long as the table is the one that it was counted in.
    Partition { index: u32, app_id: i32, partition_count: u32 },
}

impl Place {
    /// Index of the partition and hash for the header. An error if the table is no longer the same.
    fn within(self, route: &Route) -> Result<(u32, u64), Error> {
        match self {
            Place::Key(hash) => Ok(((hash % u64::from(route.partition_count())) as u32, hash)),
            Place::Partition { app_id, .. } if app_id != route.app_id => {
                Err(Error::NoSuchTable("the table was dropped; another one has its name".to_owned()))
            }
            Place::Partition { partition_count, .. } if partition_count != route.partition_count() => {
                let message = format!("the table was split from {partition_count} partitions; begin again");
                Err(Error::Refused { name: "split", message })
            }
            Place::Partition { index, .. } => Ok((index, 0)),
        }
    }
}

impl Table {
    pub(crate) async fn open(cluster: Cluster, name: &str) -> Result<Table, Error> {
        let configuration = cluster.meta.configuration(name, cluster.deadline()).await?;
        let route = Arc::new(Route::new(&configuration, None, cluster.options.connections()));
        let inner = Inner {
            cluster,
            name: name.to_owned(),
            route: RwLock::new(route),
            refreshed: tokio::sync::Mutex::new(Instant::now()),
        };
        Ok(Table { inner: Arc::new(inner) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its number in its cluster.
    pub fn id(&self) -> i32 {
        self.route().app_id
    }

    /// Number of its partitions.
    pub fn partition_count(&self) -> u32 {
        self.route().partition_count()
    }

    /// Waits until every partition has a primary. Errors: [`Error::Timeout`] with the partitions that have none.
    pub async fn wait_until_serving(&self, patience: Duration) -> Result<(), Error> {
        let mut pauses = Pauses::until(Instant::now() + patience);
        loop {
            let route = self.route();
            let without = (0..route.partition_count()).filter(|&index| route.primary(index).is_none()).count();
            if without == 0 {
                return Ok(());
            }
            pauses.pause(format!("{without} partitions have no primary")).await?;
            self.refresh(&route).await?;
        }
    }

    pub(crate) fn route(&self) -> Arc<Route> {
        self.inner.route.read().expect("no holder of the route panics").clone()
    }

    /// Sends a request until it is answered with `ERR_OK`, or must not be sent again. The frame is the whole answer.
    pub(crate) async fn send<'a, T: Value<'a>>(
        &self,
        place: Place,
        request: &Request<T>,
        effect: Effect,
    ) -> Result<Bytes, Error> {
        let deadline = self.inner.cluster.deadline();
        let mut pauses = Pauses::until(deadline);
        loop {
            let route = self.route();
            let (refresh, reason) = match attempt(&route, place, request, effect, deadline).await {
                Ok(frame) => return Ok(frame),
                Err(Verdict::Fail(error)) => return Err(error),
                Err(Verdict::Again { refresh, reason }) => (refresh, reason),
            };
            pauses.pause(reason).await?;
            if refresh {
                self.refresh(&route).await?;
            }
        }
    }

    /// Sends a request that is not answered, if that can be done at once.
    pub(crate) fn post<'a, T: Value<'a>>(&self, place: Place, request: &Request<T>) {
        let route = self.route();
        let Ok((index, partition_hash)) = place.within(&route) else { return };
        if let Some(node) = route.primary(index) {
            let header = RequestHeader { partition_hash, ..header(&route, index) };
            node.post(&header, request);
        }
    }

    /// Asks where the partitions are, unless somebody has done so since `seen`. If nobody answers soon, the old route
    /// stays. Errors: [`Error::NoSuchTable`], and refusals.
    async fn refresh(&self, seen: &Arc<Route>) -> Result<(), Error> {
        let deadline = Instant::now() + REFRESH_TIMEOUT.min(self.inner.cluster.options.timeout);
        let Ok(mut refreshed) = timeout_at(deadline, self.inner.refreshed.lock()).await else { return Ok(()) };
        if !Arc::ptr_eq(seen, &self.route()) {
            return Ok(());
        }
        tokio::time::sleep_until(*refreshed + REFRESH_INTERVAL).await;
        let answer = self.inner.cluster.meta.configuration(&self.inner.name, deadline).await;
        *refreshed = Instant::now();
        let configuration = match answer {
            Ok(configuration) => configuration,
            Err(Error::Timeout(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let route = Route::new(&configuration, Some(seen), self.inner.cluster.options.connections());
        *self.inner.route.write().expect("no holder of the route panics") = Arc::new(route);
        Ok(())
    }
}

fn header(route: &Route, index: u32) -> RequestHeader {
    RequestHeader { app_id: route.app_id, partition_index: index.cast_signed(), ..RequestHeader::default() }
}

async fn attempt<'a, T: Value<'a>>(
    route: &Route,
    place: Place,
    request: &Request<T>,
    effect: Effect,
    deadline: Instant,
) -> Result<Bytes, Verdict> {
    let (index, partition_hash) = place.within(route).map_err(Verdict::Fail)?;
    let Some(node) = route.primary(index) else {
        return Err(Verdict::Again { refresh: true, reason: format!("partition {index} has no primary") });
    };
    let now = Instant::now();
    let of_one_row = matches!(request.rpc, Rpc::Get | Rpc::Ttl);
    let deadline = if of_one_row { deadline.min(now + ROW_ATTEMPT_TIMEOUT) } else { deadline };
    let timeout_ms = i32::try_from(deadline.saturating_duration_since(now).as_millis()).unwrap_or(i32::MAX);
    let header = RequestHeader { timeout_ms, partition_hash, ..header(route, index) };
    let failed = |error: &CallError| judge_failure(error, effect, &node.address().to_string());
    let frame = node.call(&header, request, deadline).await.map_err(|error| failed(&error))?;
    match Answer::parse(&frame) {
        Ok(answer) if answer.is_ok() => Ok(frame),
        Ok(answer) => Err(judge_name(answer.error, effect)),
        Err(error) => Err(Verdict::Fail(unreadable(error, effect))),
    }
}

/// Reads the result of an answer with `ERR_OK`.
pub(crate) fn result_of<'a, R: Value<'a>>(frame: &'a [u8], effect: Effect) -> Result<R, Error> {
    Answer::parse(frame).and_then(|answer| answer.result()).map_err(|error| unreadable(error, effect))
}

fn unreadable(error: ThriftError, effect: Effect) -> Error {
    match effect {
        Effect::Read => Error::Protocol(error.to_string()),
        Effect::Write => Error::Unknown(format!("the server's answer cannot be understood: {error}")),
    }
}
