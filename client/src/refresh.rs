//! When a route is asked for again, and by whom: in the background, by one task per table, at a bounded pace.
//!
//! Whoever sees a sign that a route is out of date calls [`suspect`] and goes on. The pace follows the trouble: the
//! first question is asked at once, and the longer the answers bring nothing new, the rarer they become, so that the
//! wait for a question adds about an eighth to an outage. A question that fails changes nothing: the route that is
//! known goes on to be used, also with every meta server down.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::client::Shared;
use crate::retry::jittered;
use crate::route::RouteCache;

/// How long one question in the background may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);
/// Shortest time between two questions.
const GAP_MIN: Duration = Duration::from_millis(100);
/// Longest time between two questions.
const GAP_MAX: Duration = Duration::from_secs(1);
/// The gap, as a part of the time that questions have brought nothing new.
const GAP_DIVISOR: u32 = 8;
/// A question after so much quiet belongs to another trouble.
const QUIET: Duration = Duration::from_secs(10);
/// After a lost connection the route is asked for so long, or until it leads elsewhere. Longer than a failover takes.
const CHASE_FOR: Duration = Duration::from_secs(8);

/// The questions of one table.
#[derive(Debug, Default)]
pub(crate) struct Refresher {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A task is asking, or waits for its turn.
    running: bool,
    pace: Pace,
    /// An address that was lost, and until when it is asked whether its partitions have moved.
    chase: Option<(SocketAddr, Instant)>,
}

/// The route may be out of date: has it asked for, soon. `lost` is the address of a connection that broke; it is asked
/// about until its partitions are elsewhere, or have had time enough to be.
pub(crate) fn suspect(routes: &Arc<RouteCache>, shared: &Arc<Shared>, lost: Option<SocketAddr>) {
    if shared.is_closed() {
        return;
    }
    let mut state = routes.refresher.lock();
    if let Some(address) = lost {
        state.chase = Some((address, Instant::now() + CHASE_FOR));
    }
    if !std::mem::replace(&mut state.running, true) {
        tokio::spawn(run(routes.clone(), shared.clone()));
    }
}

async fn run(routes: Arc<RouteCache>, shared: Arc<Shared>) {
    let running = Running(&routes.refresher);
    loop {
        if let Some(turn) = routes.refresher.turn() {
            tokio::time::sleep_until(turn.into()).await;
        }
        let version = routes.version();
        let answer = routes.refresh(&shared.meta, &shared.nodes, version, Instant::now() + QUESTION_TIMEOUT).await;
        if let Err(error) = answer {
            tracing::debug!(table = routes.name(), %error, "the route could not be asked for; the known one stays");
        }
        routes.refresher.asked(Instant::now(), routes.version() != version);
        if shared.is_closed() || !routes.refresher.chases(&routes) {
            break;
        }
    }
    drop(running);
}

/// Lets the next sign start a task, however this one ends.
struct Running<'a>(&'a Refresher);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running = false;
    }
}

impl Refresher {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at every point where a panic could poison the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> Option<Instant> {
        self.lock().pace.not_before
    }

    fn asked(&self, now: Instant, news: bool) {
        self.lock().pace.asked(now, news);
    }

    /// Whether the task goes on although nobody asks it to.
    fn chases(&self, routes: &RouteCache) -> bool {
        let mut state = self.lock();
        let Some((address, until)) = state.chase else { return false };
        let goes_on = Instant::now() < until && routes.cached().is_some_and(|route| route.leads_to(address));
        if !goes_on {
            state.chase = None;
        }
        goes_on
    }
}

/// When the next question may be asked.
#[derive(Debug, Default)]
struct Pace {
    not_before: Option<Instant>,
    /// Since when answers have brought nothing new.
    fruitless_since: Option<Instant>,
}

impl Pace {
    /// A question has ended, with an answer that changed the route or without.
    fn asked(&mut self, now: Instant, news: bool) {
        let after_quiet =
            self.not_before.is_some_and(|at| now.saturating_duration_since(at) > QUIET + QUESTION_TIMEOUT);
        if news || after_quiet {
            self.fruitless_since = None;
        }
        let since = *self.fruitless_since.get_or_insert(now);
        let gap = (now.saturating_duration_since(since) / GAP_DIVISOR).clamp(GAP_MIN, GAP_MAX);
        self.not_before = Some(now + jittered(gap));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap_after(pace: &mut Pace, now: Instant, news: bool) -> Duration {
        pace.asked(now, news);
        pace.not_before.expect("it was asked") - now
    }

    #[test]
    fn questions_become_rarer_while_they_bring_nothing() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let mut gap_at = |milliseconds: u64, news: bool| {
            let full = gap_after(&mut pace, begun + Duration::from_millis(milliseconds), news);
            full.as_millis()
        };
        assert!((50..=100).contains(&gap_at(0, false)));
        assert!((50..=100).contains(&gap_at(500, false)));
        assert!((200..=400).contains(&gap_at(3200, false)));
        assert!((500..=1000).contains(&gap_at(9000, false)));
        assert!((500..=1000).contains(&gap_at(20_000, false)), "and stay within bounds");
        assert!((50..=100).contains(&gap_at(21_000, true)), "news begin a new time");
        assert!((500..=1000).contains(&gap_at(30_000, false)));
        assert!((50..=100).contains(&gap_at(60_000, false)), "and so does quiet");
    }

    #[test]
    fn an_outage_of_a_failover_costs_few_questions() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let mut now = begun;
        let mut questions = 0;
        while now < begun + Duration::from_secs(4) {
            now += gap_after(&mut pace, now, false);
            questions += 1;
        }
        assert!((15..=60).contains(&questions), "{questions}");
    }
}
