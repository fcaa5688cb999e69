//! One request to one partition: route, send, judge, and again until it is answered, must not be sent again, or time
//! is up.
//!
//! ```text
//!        +--------------------- pause, or a new place ----------------------+
//!        v                                                                  |
//!     place known? --- no: the route is asked for ------------------------->+
//!        | yes                                                              |
//!     a write, and the channel is silent? --- probe: not answered --------->+
//!        | no, or the probe was answered                                    |
//!     send and wait ------ the partition moves: a read, or a write that --->+
//!        |                 has not been sent, leaves for the new place      |
//!        v                                                                  |
//!     judge -------------------- again ------------------------------------>+
//!        |
//!        +--> answered, failed or unknown
//! ```
//!
//! Nothing here waits for the meta service while a route is known: the route is asked for in the background
//! (`refresh`), and an operation that pauses or waits is woken when its partition has moved.
//!
//! What is rare is boxed: the future of an operation is moved before it is polled, so every one pays for its size.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use futures_util::poll;
use pegasus_wire::messages::data::{EndScan, Filter, Scan, SortKeys};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId, Status, TableId, partition_hash};

use crate::client::Shared;
use crate::error::Error;
use crate::nodes::NodeChannel;
use crate::refresh::suspect;
use crate::retry::{Again, Backoff, Effect, Verdict, judge};
use crate::route::{Route, RouteCache};

/// Times one operation goes to a new place without a pause: two nodes that name each other must not spin a client.
const LEAPS_MAX: u32 = 5;
/// A server that keeps asking to try again may have lost its role: from this attempt on the route is asked for.
const ATTEMPTS_BEFORE_REFRESH: u32 = 3;

/// Which partition a request goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    position: Position,
    table: Option<TableId>,
}

#[derive(Clone, Copy, Debug)]
enum Position {
    /// The partition that holds the keys with this partition hash.
    Hash(u64),
    /// The partition with this index.
    Index(u32),
}

impl Target {
    /// The partition that holds the rows of this hash key.
    pub(crate) fn hash_key(hash_key: &[u8]) -> Target {
        Target { position: Position::Hash(partition_hash(hash_key, &[])), table: None }
    }

    /// The partition with this index.
    pub(crate) fn index(index: u32) -> Target {
        Target { position: Position::Index(index), table: None }
    }

    /// The same, of this table and of no other one that gets its name. For what takes several requests.
    pub(crate) fn of(self, table: TableId) -> Target {
        Target { table: Some(table), ..self }
    }
}

/// What a handle of a table works with.
pub(crate) struct TableCore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: Arc<RouteCache>,
}

/// A partition and where it was when an attempt began.
#[derive(Clone, Copy)]
struct Place<'a> {
    route: &'a Route,
    index: u32,
    channel: &'a NodeChannel,
}

impl TableCore {
    /// The route, asked for if it is not known yet.
    pub(crate) async fn route(&self, deadline: Instant) -> Result<Arc<Route>, Error> {
        match self.routes.cached() {
            Some(route) => Ok(route),
            None => Box::pin(self.routes.refresh(&self.shared.meta, &self.shared.nodes, 0, deadline)).await,
        }
    }

    /// Sends a request to the partition until it is answered. `build` appends the frame with exactly the header it is
    /// given.
    pub(crate) async fn call(
        &self,
        target: Target,
        kind: MessageKind,
        effect: Effect,
        deadline: Instant,
        build: impl Fn(&mut Vec<u8>, FrameHeader, PartitionId),
    ) -> Result<Frame, Error> {
        let mut route = self.route(deadline).await?;
        let mut attempts = Attempts::new(deadline);
        loop {
            let index = partition_of(target, &route)?;
            let again = match self.attempt(&route, index, kind, effect, deadline, &build).await {
                Verdict::Done(frame) => return Ok(frame),
                Verdict::Again(again) => again,
                Verdict::Fail(Error::NoSuchTable(message)) => {
                    Box::pin(self.confirm_gone(&route, message, &mut attempts)).await?
                }
                Verdict::Fail(error) => {
                    if matches!(error, Error::Unknown(_)) {
                        suspect(&self.routes, &self.shared, None);
                    }
                    return Err(error);
                }
            };
            route = Box::pin(self.before_next(route, index, again, &mut attempts)).await?;
        }
    }

    /// A node says that there is no such table. The meta service knows better: the node may not have heard yet that the
    /// table was recalled. Asked once per operation; a node that goes on to say so has until the deadline.
    async fn confirm_gone(&self, route: &Route, message: String, attempts: &mut Attempts) -> Result<Again, Error> {
        if !std::mem::replace(&mut attempts.table_confirmed, true) {
            let deadline = self.read_deadline(attempts.deadline);
            let asked = self.routes.refresh(&self.shared.meta, &self.shared.nodes, route.version, deadline).await;
            match asked {
                Ok(now) if now.table.table == route.table.table => {}
                // It knows also when the table was dropped, and how to recall it.
                Err(error @ Error::NoSuchTable(_)) => return Err(error),
                _ => return Err(Error::NoSuchTable(message)),
            }
        }
        Ok(Again { refresh: true, reason: message, refusal: Some(Status::NoSuchTable), ..Again::default() })
    }

    async fn attempt(
        &self,
        route: &Route,
        index: u32,
        kind: MessageKind,
        effect: Effect,
        deadline: Instant,
        build: &impl Fn(&mut Vec<u8>, FrameHeader, PartitionId),
    ) -> Verdict {
        let Some(channel) = route.channel(index) else {
            let reason = format!("partition {} has no primary", route.partition_id(index));
            return Verdict::Again(Again { refresh: true, reason, ..Again::default() });
        };
        let place = Place { route, index, channel };
        if effect == Effect::Write
            && channel.is_silent()
            && let Some(verdict) = Box::pin(self.probe(place, self.read_deadline(deadline))).await
        {
            return verdict;
        }
        let attempt_deadline = match effect {
            Effect::Read => self.read_deadline(deadline),
            // A write gets all the time there is: cutting it short would only make its outcome unknown.
            Effect::Write => deadline,
        };
        self.exchange(place, kind, effect, attempt_deadline, build).await
    }

    fn read_deadline(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.shared.options.attempt_timeout)
    }

    /// Asks a silent node for something harmless before a write is sent there: whose write goes to a node that is gone
    /// will never know what became of it. `None` if the node answers and may take the write.
    async fn probe(&self, place: Place<'_>, deadline: Instant) -> Option<Verdict> {
        match self.exchange(place, MessageKind::SCAN, Effect::Read, deadline, &append_probe).await {
            Verdict::Done(_) => None,
            // The write will be told the same, or be taken.
            Verdict::Again(again) if !again.refresh && !again.moved => None,
            verdict => Some(verdict),
        }
    }

    /// Sends the request once and waits for its answer; leaves for another place if the partition has moved there and
    /// the request may be sent again.
    async fn exchange(
        &self,
        place: Place<'_>,
        kind: MessageKind,
        effect: Effect,
        deadline: Instant,
        build: &impl Fn(&mut Vec<u8>, FrameHeader, PartitionId),
    ) -> Verdict {
        let Place { route, index, channel } = place;
        let partition = route.partition_id(index);
        let sent = AtomicBool::new(false);
        let mut call = pin!(channel.call(kind, deadline, |out, header| {
            sent.store(true, Ordering::Relaxed);
            build(out, header, partition);
        }));
        if let Poll::Ready(outcome) = poll!(call.as_mut()) {
            return judge(outcome, effect);
        }
        loop {
            if effect == Effect::Write && sent.load(Ordering::Relaxed) {
                return judge(call.await, effect);
            }
            let departure = channel.departure();
            if self.moved_from(route, index).is_some() {
                let reason = "the partition has moved elsewhere".to_owned();
                return Verdict::Again(Again { moved: true, reason, only_late: true, ..Again::default() });
            }
            tokio::select! {
                biased;
                outcome = call.as_mut() => return judge(outcome, effect),
                () = departure => {}
            }
        }
    }

    /// The same target, bound to the table that the name means now.
    pub(crate) async fn bind(&self, target: Target, deadline: Instant) -> Result<Target, Error> {
        Ok(target.of(self.route(deadline).await?.table.table))
    }

    /// Tells the server that a scan's context is not needed any more, if it can be told at once. A context that it does
    /// not hear of ends by itself.
    pub(crate) fn end_scan(&self, target: Target, context: u64) {
        let Some(route) = self.routes.cached() else { return };
        let Ok(index) = partition_of(target, &route) else { return };
        let Some(channel) = route.channel(index) else { return };
        let message = EndScan { partition: route.partition_id(index), context };
        channel.notify(MessageKind::END_SCAN, |out, header| FrameBuilder::append(out, header, &message, &[]));
    }

    /// Prepares the next attempt: takes the hint, or has the route asked for, and pauses unless there is a new place to
    /// try.
    async fn before_next(
        &self,
        route: Arc<Route>,
        index: u32,
        again: Again,
        attempts: &mut Attempts,
    ) -> Result<Arc<Route>, Error> {
        attempts.made += 1;
        let partition = route.partition_id(index);
        let place = route.endpoint(index).map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
        attempts.backoff.note(&format!("partition {partition}{place}"), &again);
        tracing::debug!(%partition, reason = %again.reason, attempt = attempts.made, "trying again");
        if attempts.backoff.is_over() {
            return Err(attempts.backoff.timeout());
        }
        if let Some(endpoint) = again.hint.filter(|_| attempts.leaps_left > 0) {
            attempts.leaps_left -= 1;
            self.routes.follow_hint(&self.shared.nodes, &route, index, endpoint);
            return self.route(attempts.deadline).await;
        }
        if again.refresh || (attempts.made >= ATTEMPTS_BEFORE_REFRESH && !again.moved) {
            suspect(&self.routes, &self.shared, None);
        }
        self.pause(&route, index, attempts).await
    }

    /// Waits until the next attempt is due, or the partition is found to be elsewhere.
    async fn pause(&self, route: &Route, index: u32, attempts: &mut Attempts) -> Result<Arc<Route>, Error> {
        let until = attempts.backoff.next_attempt()?;
        loop {
            let change = self.routes.change();
            if attempts.leaps_left > 0
                && let Some(moved) = self.moved_from(route, index)
            {
                attempts.leaps_left -= 1;
                return Ok(moved);
            }
            if tokio::time::timeout_at(until.into(), change).await.is_err() {
                return self.route(attempts.deadline).await;
            }
        }
    }

    /// The route now, if it leads elsewhere than `route` did.
    fn moved_from(&self, route: &Route, index: u32) -> Option<Arc<Route>> {
        if self.routes.version() == route.version {
            return None;
        }
        self.routes.cached().filter(|current| current.differs_from(route, index))
    }
}

/// The first row of the partition, if it has one: what any node that serves the partition answers at once.
pub(crate) fn append_probe(out: &mut Vec<u8>, header: FrameHeader, partition: PartitionId) {
    let scan = Scan {
        partition,
        context: 0,
        keep_context: false,
        start: b"",
        start_inclusive: true,
        stop: b"",
        reverse: false,
        sort_keys: SortKeys::ALL,
        hash_key_filter: Filter::ALL,
        sort_key_filter: Filter::ALL,
        no_value: true,
        count_only: false,
        rows_max: 1,
    };
    FrameBuilder::append(out, header, &scan, &[]);
}

/// The attempts of one operation.
struct Attempts {
    deadline: Instant,
    made: u32,
    leaps_left: u32,
    /// The meta service has said that the table is there.
    table_confirmed: bool,
    backoff: Backoff,
}

impl Attempts {
    fn new(deadline: Instant) -> Attempts {
        let backoff = Backoff::new(deadline);
        Attempts { deadline, made: 0, leaps_left: LEAPS_MAX, table_confirmed: false, backoff }
    }
}

fn partition_of(target: Target, route: &Route) -> Result<u32, Error> {
    let name = &route.table.name;
    if target.table.is_some_and(|table| table != route.table.table) {
        return Err(Error::NoSuchTable(format!("the table that was {name:?} when the read began is gone")));
    }
    let count = route.table.partition_count;
    match target.position {
        Position::Hash(hash) => Ok((hash % u64::from(count)) as u32),
        Position::Index(index) if index < count => Ok(index),
        Position::Index(index) => {
            Err(Error::InvalidArgument(format!("table {name:?} has {count} partitions, there is no partition {index}")))
        }
    }
}
