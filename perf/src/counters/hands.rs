//! Who increments and exchanges: many hands, each with one operation under way, on a few rows.

use std::sync::Arc;

use pegasus_client::{Advice, Check, CheckAndSet, CompareExchange, Error, Table};
use pegasus_history::{Action, Answer, History, Operation, Outcome, State};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::chaos::recorder::Clock;
use crate::chaos::rows::{SORT_KEY, outcome_of_read, outcome_of_write, parse_value, value_bytes};
use crate::counters::sums::{Ended, Increment};
use crate::proof::Bench;

/// What hands recorded.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Increments that may have taken effect, by counter.
    pub increments: Vec<Vec<Increment>>,
    /// Everything that was done to the other rows.
    pub history: History,
    /// Operations that certainly had no effect.
    pub failed: u64,
    /// Operations of unknown outcome.
    pub unknown: u64,
    /// All operations.
    pub operations: u64,
    /// Exchanges that were carried out.
    pub exchanged: u64,
    /// What nothing excuses.
    pub problems: Vec<String>,
}

impl Recorded {
    /// Nothing recorded of so many counters.
    pub fn new(counters: usize) -> Recorded {
        Recorded { increments: vec![Vec::new(); counters], ..Recorded::default() }
    }

    /// Adds what another hand recorded.
    pub fn merge(&mut self, other: Recorded) {
        for (all, more) in self.increments.iter_mut().zip(other.increments) {
            all.extend(more);
        }
        self.history.merge(other.history);
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.operations += other.operations;
        self.exchanged += other.exchanged;
        self.problems.extend(other.problems);
    }

    fn count(&mut self, outcome: Outcome) {
        self.operations += 1;
        match outcome {
            Outcome::Ok(_) => {}
            Outcome::Failed => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }
}

/// One hand.
pub struct Hand {
    number: u32,
    table: Table,
    clock: Arc<Clock>,
    random: SmallRng,
    /// What it saw last in each of the rows that are exchanged.
    seen: Vec<State>,
    recorded: Recorded,
}

/// The hash key of a counter.
pub fn counter_key(counter: usize) -> String {
    format!("counter{counter}")
}

/// The hash key of a row that is exchanged.
pub fn exchange_key(row: usize) -> String {
    format!("exchange{row}")
}

impl Hand {
    /// The hand with this number, above 0, on so many counters and as many rows to exchange.
    pub fn new(number: u32, table: Table, clock: Arc<Clock>, seed: u64, rows: usize) -> Hand {
        let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
        Hand { number, table, clock, random, seen: vec![None; rows], recorded: Recorded::new(rows) }
    }

    /// Works until it has done so much, or is told to end.
    pub async fn work(mut self, bench: Bench, operations: u64) -> Recorded {
        for _ in 0..operations {
            if bench.is_over() {
                break;
            }
            let row = self.random.random_range(0..self.seen.len());
            match self.random.random_range(0..100) {
                0..50 => self.increment(row).await,
                50..70 => self.compare_exchange(row).await,
                70..85 => self.check_and_set(row).await,
                85..90 => self.write(row).await,
                _ => self.read(row).await,
            }
        }
        self.recorded
    }

    /// Reads every row to exchange, and every counter, whose numbers it gives.
    pub async fn look(mut self) -> (Recorded, Vec<Result<i64, String>>) {
        let mut counters = Vec::new();
        for row in 0..self.seen.len() {
            self.read(row).await;
            let found = self.table.get(counter_key(row), SORT_KEY).await;
            counters.push(match found {
                Ok(None) => Ok(0),
                Ok(Some(text)) => {
                    let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                    number.ok_or_else(|| format!("it holds \"{}\"", text.escape_ascii()))
                }
                Err(error) => Err(format!("it cannot be read: {error}")),
            });
        }
        (self.recorded, counters)
    }

    async fn increment(&mut self, counter: usize) {
        let invoked_us = self.clock.now_us();
        let result = self.table.incr(counter_key(counter), SORT_KEY, 1).await;
        let returned_us = self.clock.now_us();
        let (ended, outcome) = match &result {
            Ok(number) => (Some(Ended::Number(*number)), Outcome::Ok(Answer::Done)),
            Err(error) if error.advice() == Advice::Unknown => (Some(Ended::Unknown), Outcome::Unknown),
            Err(error) => {
                self.note(error);
                (None, Outcome::Failed)
            }
        };
        self.recorded.count(outcome);
        let increment = ended.map(|ended| Increment { invoked_us, returned_us, ended });
        self.recorded.increments[counter].extend(increment);
    }

    async fn compare_exchange(&mut self, row: usize) {
        let (from, to) = (self.seen[row], self.clock.new_value());
        let invoked_us = self.clock.now_us();
        let expected = from.map(value_bytes);
        let desired = value_bytes(to);
        let result = self.table.compare_exchange(exchange_key(row), SORT_KEY, expected.as_deref(), desired, 0).await;
        let result = result.map(|outcome| match outcome {
            CompareExchange::Exchanged => None,
            CompareExchange::Different(found) => Some(found),
        });
        self.record_exchange(row, invoked_us, (from, to), result);
    }

    /// The same in other words.
    async fn check_and_set(&mut self, row: usize) {
        let (from, to) = (self.seen[row], self.clock.new_value());
        let invoked_us = self.clock.now_us();
        let operand = from.map(value_bytes).unwrap_or_default();
        let request = CheckAndSet {
            check_sort_key: SORT_KEY,
            check: if from.is_some() { Check::BytesEqual } else { Check::NotExist },
            operand: &operand,
            set_sort_key: SORT_KEY,
            value: &value_bytes(to),
            ttl_seconds: 0,
            return_value: true,
        };
        let result = self.table.check_and_set(exchange_key(row), &request).await;
        let result = result.map(|outcome| if outcome.written { None } else { Some(outcome.value) });
        self.record_exchange(row, invoked_us, (from, to), result);
    }

    /// Records an exchange: `None` if it was carried out, else what was there.
    fn record_exchange(
        &mut self,
        row: usize,
        invoked_us: u64,
        (from, to): (State, u64),
        result: Result<Option<Option<bytes::Bytes>>, Error>,
    ) {
        let outcome = match result {
            Ok(None) => {
                self.recorded.exchanged += 1;
                self.seen[row] = Some(to);
                Outcome::Ok(Answer::Done)
            }
            Ok(Some(found)) => self.found(row, from, found.as_deref()),
            Err(error) => {
                self.note(&error);
                outcome_of_write(&Err(error))
            }
        };
        self.record(row, invoked_us, Action::Exchange(from, Some(to)), outcome);
    }

    /// An exchange was not carried out because of what was there.
    fn found(&mut self, row: usize, from: State, found: Option<&[u8]>) -> Outcome {
        let state = found.map(parse_value);
        if state == Some(None) {
            self.problem(format!("{} held a damaged value", exchange_key(row)));
            return Outcome::Failed;
        }
        let state = state.flatten();
        if state == from {
            self.problem(format!("an exchange of {from:?} was not carried out because {state:?} was there"));
        }
        self.seen[row] = state;
        Outcome::Ok(Answer::Row(state))
    }

    async fn write(&mut self, row: usize) {
        let value = self.clock.new_value();
        let delete = self.random.random_bool(0.3);
        let invoked_us = self.clock.now_us();
        let (action, result) = match delete {
            true => (Action::Delete, self.table.del(exchange_key(row), SORT_KEY).await),
            false => (Action::Write(value), self.table.set(exchange_key(row), SORT_KEY, value_bytes(value)).await),
        };
        if let Err(error) = &result {
            self.note(error);
        }
        self.record(row, invoked_us, action, outcome_of_write(&result));
    }

    async fn read(&mut self, row: usize) {
        let invoked_us = self.clock.now_us();
        let result = self.table.get(exchange_key(row), SORT_KEY).await;
        if let Err(error) = &result {
            self.note(error);
        }
        let outcome = outcome_of_read(&result).unwrap_or_else(|reason| {
            self.problem(format!("{}: {reason}", exchange_key(row)));
            Outcome::Failed
        });
        if let Outcome::Ok(Answer::Row(state)) = outcome {
            self.seen[row] = state;
        }
        self.record(row, invoked_us, Action::Read, outcome);
    }

    fn record(&mut self, row: usize, invoked_us: u64, action: Action, outcome: Outcome) {
        let returned_us = self.clock.now_us();
        self.recorded.count(outcome);
        let operation = Operation { client: self.number, invoked_us, returned_us, action, outcome };
        self.recorded.history.record(row as u64, operation);
    }

    /// Errors that a failover does not explain are problems.
    fn note(&mut self, error: &Error) {
        if !matches!(error.advice(), Advice::Retry | Advice::Unknown) {
            self.problem(format!("an operation failed with an error of the kind {}: {error}", error.kind()));
        }
    }

    fn problem(&mut self, problem: String) {
        if self.recorded.problems.len() < PROBLEMS_MAX {
            self.recorded.problems.push(format!("client {}: {problem}", self.number));
        }
    }
}

/// Problems of one hand that are kept.
const PROBLEMS_MAX: usize = 3;
