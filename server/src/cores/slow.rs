//! Requests that took long, from receipt to answer: counted, and some of them logged.
//!
//! Most requests never see a clock for this. One that is answered within the run that received it took no longer than
//! that run, whose length is measured anyway (`run_length_max`). The others read the clock when they end; what may be
//! slow by some table's setting is kept for the next tick, which knows the settings. Time in which a throttle held a
//! request does not count: that was asked for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pegasus_replication::Moment;

use super::visit::{Access, Visit};
use super::{Core, State, clock};
use crate::config::SLOW_QUERY_MS_MIN;

/// Slow requests that are looked at with one tick; what is more than that is not counted.
const KEPT_MAX: usize = 4096;
/// Lines that one core writes in a second.
const LINES_MAX: u32 = 10;

/// A request that took at least as long as the smallest threshold there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slow {
    visit: Visit,
    micros: u64,
}

/// What the requests of a core leave behind.
#[derive(Default)]
pub(crate) struct SlowRequests {
    kept: RefCell<Vec<Slow>>,
    /// Number of the core's present run.
    run: Cell<u64>,
}

impl SlowRequests {
    /// The core yields: what was received before is not answered at once.
    pub(crate) fn end_run(&self) {
        self.run.set(self.run.get() + 1);
    }

    fn note(&self, visit: Visit, micros: u64) {
        let mut kept = self.kept.borrow_mut();
        if micros >= u64::from(SLOW_QUERY_MS_MIN) * 1000 && kept.len() < KEPT_MAX {
            kept.push(Slow { visit, micros });
        }
    }
}

/// Follows one request from its receipt until it is dropped, after its answer.
pub(crate) struct Trace {
    visit: Visit,
    received: Moment,
    run: u64,
    requests: Rc<SlowRequests>,
}

impl Trace {
    /// Of a request that was received at `now`.
    pub(crate) fn new(visit: Visit, now: Moment, requests: &Rc<SlowRequests>) -> Trace {
        Trace { visit, received: now, run: requests.run.get(), requests: requests.clone() }
    }

    /// The request was held until `now`, because its table is throttled.
    pub(crate) fn begin_again(&mut self, now: Moment) {
        self.received = now;
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if self.run != self.requests.run.get() {
            self.requests.note(self.visit, clock::now().since(self.received));
        }
    }
}

/// Bounds the lines that a core writes about slow requests, or about another thing that clients may do often.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    since: Moment,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// Gives the number of lines left out before this one, if it may be written.
    pub(crate) fn admit(&mut self, now: Moment) -> Option<u64> {
        if now.since(self.since) >= 1_000_000 {
            (self.since, self.written) = (now, 0);
        }
        if self.written == LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Core {
    /// Looks at what was slow since the last tick: counts it, and logs as much as may be.
    pub(crate) fn look_at_slow(&self, state: &mut State, now: Moment) {
        let kept = std::mem::take(&mut *self.slow.kept.borrow_mut());
        for Slow { visit, micros } in kept {
            let partition = state.partitions.get(&visit.partition);
            let threshold_ms = match partition.map(|partition| partition.environment.slow_query_ms) {
                None | Some(0) => self.shared.config.slow_query_ms,
                Some(of_table) => of_table,
            };
            if micros < u64::from(threshold_ms) * 1000 {
                continue;
            }
            match visit.access {
                Access::Read => state.counters.slow_reads += 1,
                Access::Write => state.counters.slow_writes += 1,
            }
            if let Some(left_out) = state.slow_lines.admit(now) {
                let table = partition.map_or("", |partition| &partition.properties.name);
                let (id, key_bytes) = (visit.partition, visit.hash_key_bytes);
                let ms = micros as f64 / 1000.0;
                let operation = visit.kind;
                tracing::warn!(table, partition = %id, %operation, key_bytes, ms, left_out, "slow request");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pegasus_wire::environment::Environment;
    use pegasus_wire::{MessageKind, PartitionId};

    use super::*;

    fn visit() -> Visit {
        let partition = PartitionId::new(1, 2);
        Visit { partition, access: Access::Read, kind: MessageKind::GET, hash_key_bytes: 3, bytes: 4 }
    }

    #[test]
    fn what_is_answered_in_its_run_is_not_looked_at() {
        let requests = Rc::new(SlowRequests::default());
        let long_ago = Moment(0);
        drop(Trace::new(visit(), long_ago, &requests));
        assert!(requests.kept.borrow().is_empty());
        let trace = Trace::new(visit(), long_ago, &requests);
        requests.end_run();
        drop(trace);
        let kept = requests.kept.take();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].visit, visit());
        let mut trace = Trace::new(visit(), long_ago, &requests);
        requests.end_run();
        trace.begin_again(clock::now());
        drop(trace);
        assert!(requests.kept.borrow().is_empty(), "it was held, not slow");
    }

    #[test]
    fn only_what_may_be_slow_is_kept_and_not_without_bound() {
        let requests = SlowRequests::default();
        requests.note(visit(), 19_999);
        assert!(requests.kept.borrow().is_empty());
        for _ in 0..2 * KEPT_MAX {
            requests.note(visit(), 20_000);
        }
        assert_eq!(requests.kept.borrow().len(), KEPT_MAX);
    }

    #[test]
    fn no_table_can_ask_for_less_than_is_kept() {
        let mut environment = Environment::default();
        assert!(environment.set("replica.slow_query_threshold", &(SLOW_QUERY_MS_MIN - 1).to_string()).is_err());
        assert!(environment.set("replica.slow_query_threshold", &SLOW_QUERY_MS_MIN.to_string()).is_ok());
    }

    #[test]
    fn lines_are_bounded_and_those_left_out_are_told() {
        let mut lines = Lines::default();
        let admitted: Vec<_> = (0..25).map(|_| lines.admit(Moment(5_000_000))).collect();
        assert_eq!(admitted.iter().flatten().count(), LINES_MAX as usize);
        assert_eq!(lines.admit(Moment(5_999_999)), None);
        assert_eq!(lines.admit(Moment(6_000_000)), Some(16));
        assert_eq!(lines.admit(Moment(6_000_001)), Some(0));
    }
}
