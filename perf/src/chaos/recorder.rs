//! Performs operations and records them: one clock for everybody, one number for every value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pegasus_client::Table;
use pegasus_history::{Action, History, Operation, Outcome};

use crate::chaos::rows::{SORT_KEY, hash_key, outcome_of_read, outcome_of_write, value_bytes};

/// What all recorders of a run share.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    next_value: AtomicU64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Arc<Clock> {
        Arc::new(Clock { start: Instant::now(), next_value: AtomicU64::new(1) })
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A value nobody has written.
    pub fn new_value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }
}

/// What one client did.
#[derive(Debug, Default)]
pub struct Recorded {
    /// By key.
    pub history: History,
    /// Values that were read and never written by anybody.
    pub damaged: Vec<String>,
    /// How operations ended.
    pub counts: Counts,
}

/// How operations ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// All.
    pub operations: u64,
    /// Answered.
    pub ok: u64,
    /// Without any effect.
    pub failed: u64,
    /// Writes of which nobody knows.
    pub unknown: u64,
}

impl Recorded {
    /// Adds everything another client did.
    pub fn merge(&mut self, other: Recorded) {
        self.history.merge(other.history);
        self.damaged.extend(other.damaged);
        self.counts.operations += other.counts.operations;
        self.counts.ok += other.counts.ok;
        self.counts.failed += other.counts.failed;
        self.counts.unknown += other.counts.unknown;
    }

    /// Adds an operation on a row.
    pub fn add(&mut self, key: u64, performed: Performed) {
        let Performed { operation, damage } = performed;
        self.damaged.extend(damage);
        self.counts.operations += 1;
        match operation.outcome {
            Outcome::Ok(_) => self.counts.ok += 1,
            Outcome::Failed => self.counts.failed += 1,
            Outcome::Unknown => self.counts.unknown += 1,
        }
        self.history.record(key, operation);
    }
}

/// What a client is to do to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Write a value that nobody has written before.
    Set,
    /// Delete it.
    Delete,
    /// Read it.
    Read,
}

/// An operation that has ended.
#[derive(Debug)]
pub struct Performed {
    /// The operation.
    pub operation: Operation,
    /// Set if it read what nobody ever wrote.
    pub damage: Option<String>,
}

/// Performs one operation of the client with this number and says how it ended.
pub async fn perform(table: &Table, clock: &Clock, client: u32, key: u64, ask: Ask) -> Performed {
    let invoked_us = clock.now_us();
    let mut damage = None;
    let (action, outcome) = match ask {
        Ask::Set => {
            let value = clock.new_value();
            let result = table.set(hash_key(key), SORT_KEY, value_bytes(value)).await;
            (Action::Write(value), outcome_of_write(&result))
        }
        Ask::Delete => (Action::Delete, outcome_of_write(&table.del(hash_key(key), SORT_KEY).await)),
        Ask::Read => {
            let outcome = outcome_of_read(&table.get(hash_key(key), SORT_KEY).await);
            let outcome = outcome.unwrap_or_else(|reason| {
                damage = Some(format!("client {client}: {}: {reason}", hash_key(key)));
                Outcome::Failed
            });
            (Action::Read, outcome)
        }
    };
    let operation = Operation { client, invoked_us, returned_us: clock.now_us(), action, outcome };
    Performed { operation, damage }
}
