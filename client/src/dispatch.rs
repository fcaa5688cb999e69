//! One request to one partition: route, send, judge, and again until it is answered, must not be sent again, or time
//! is up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pegasus_wire::{Frame, FrameHeader, MessageKind, PartitionId};

use crate::client::Shared;
use crate::error::Error;
use crate::retry::{Again, Backoff, Effect, Verdict, judge};
use crate::route::{Route, RouteCache};

/// Hints followed without a pause in one operation: two nodes that name each other must not spin a client.
const HINTS_MAX: u32 = 3;
/// How long an operation waits for a new route before it goes on with the old one: data is served also while every
/// meta server is away.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that keeps asking to try again may have lost its role: the route is asked for after so many attempts.
const ATTEMPTS_PER_REFRESH: u32 = 8;

/// Which partition a request goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// The one that holds the keys with this partition hash.
    Hash(u64),
    /// The one with this index.
    Index(u32),
}

/// What all handles of a table share.
pub(crate) struct TableCore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: RouteCache,
}

impl TableCore {
    pub(crate) fn new(shared: Arc<Shared>, name: String) -> TableCore {
        TableCore { shared, routes: RouteCache::new(name) }
    }

    /// The route, asked for if it is not known yet.
    pub(crate) async fn route(&self, deadline: Instant) -> Result<Arc<Route>, Error> {
        match self.routes.cached() {
            Some(route) => Ok(route),
            None => self.refresh(0, deadline).await,
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
            let verdict = self.attempt(&route, index, kind, effect, deadline, &build).await;
            match verdict {
                Verdict::Done(frame) => return Ok(frame),
                Verdict::Fail(error) => {
                    if matches!(error, Error::NoSuchTable(_)) {
                        self.routes.forget();
                    }
                    return Err(error);
                }
                Verdict::Again(again) => route = self.before_next(route, index, again, &mut attempts).await?,
            }
        }
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
        let partition = route.partition_id(index);
        let Some(channel) = route.channel(index) else {
            let reason = format!("partition {partition} has no primary");
            return Verdict::Again(Again { refresh: true, reason, ..Again::default() });
        };
        // A write gets all the time there is: cutting it short would only make its outcome unknown.
        let attempt_deadline = match effect {
            Effect::Read => deadline.min(Instant::now() + self.shared.options.attempt_timeout),
            Effect::Write => deadline,
        };
        let outcome = channel.call(kind, attempt_deadline, |out, header| build(out, header, partition)).await;
        judge(outcome, effect)
    }

    /// Prepares the next attempt: takes the hint, or asks for the route, and pauses unless there is a new place to try.
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
        if let Some(endpoint) = again.hint.filter(|_| attempts.hints_left > 0) {
            attempts.hints_left -= 1;
            self.routes.follow_hint(&self.shared.nodes, &route, index, endpoint);
            return Ok(self.routes.cached().unwrap_or(route));
        }
        if !again.refresh && !attempts.made.is_multiple_of(ATTEMPTS_PER_REFRESH) {
            attempts.backoff.pause().await?;
            return Ok(self.routes.cached().unwrap_or(route));
        }
        let refresh_deadline = attempts.deadline.min(Instant::now() + REFRESH_TIMEOUT);
        let next = match self.refresh(route.version, refresh_deadline).await {
            Ok(next) => next,
            Err(Error::Timeout(_)) => route.clone(),
            Err(error) => return Err(error),
        };
        let same_place = next.partition_id(index) == partition && next.endpoint(index) == route.endpoint(index);
        if same_place {
            attempts.backoff.pause().await?;
        }
        Ok(next)
    }

    async fn refresh(&self, seen: u64, deadline: Instant) -> Result<Arc<Route>, Error> {
        let result = self.routes.refresh(&self.shared.meta, &self.shared.nodes, seen, deadline).await;
        if matches!(result, Err(Error::NoSuchTable(_))) {
            self.routes.forget();
        }
        result
    }
}

/// The attempts of one operation.
struct Attempts {
    deadline: Instant,
    made: u32,
    hints_left: u32,
    backoff: Backoff,
}

impl Attempts {
    fn new(deadline: Instant) -> Attempts {
        Attempts { deadline, made: 0, hints_left: HINTS_MAX, backoff: Backoff::new(deadline) }
    }
}

fn partition_of(target: Target, route: &Route) -> Result<u32, Error> {
    let count = route.table.partition_count;
    match target {
        Target::Hash(hash) => Ok((hash % u64::from(count)) as u32),
        Target::Index(index) if index < count => Ok(index),
        Target::Index(index) => Err(Error::InvalidArgument(format!(
            "table {:?} has {count} partitions, there is no partition {index}",
            route.table.name
        ))),
    }
}
