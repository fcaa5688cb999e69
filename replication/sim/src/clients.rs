//! Clients: each asks for one thing at a time, of whom it takes for the primary, and notes what it was told.

use pegasus_history::{Action, Answer as Told, Operation as Recorded, Outcome};
use pegasus_wire::{Advice, Decree, Status};

use crate::disk::{KEYS_MAX, Row, Write};
use crate::world::{Answer, Happening, World};

/// What a client believes.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Where it takes each partition's primary to be.
    routes: Vec<usize>,
    /// What it waits for.
    waits_for: Option<u64>,
}

impl Client {
    pub(crate) fn new(partitions: usize) -> Client {
        Client { routes: vec![0; partitions], waits_for: None }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Read,
    /// Value 0 removes the row. With an expected value it is done only if the row holds that.
    Write {
        value: u64,
        expected: Option<u64>,
    },
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) node: usize,
    pub(crate) partition: usize,
    pub(crate) key: usize,
    pub(crate) wish: Wish,
    invoked: u64,
    /// True while its client listens.
    listening: bool,
    /// The run of the node that took it; nothing before it arrived.
    pub(crate) taken_by: Option<u64>,
    /// What must not be undercut by what it returns; known once it was admitted.
    pub(crate) floor: Decree,
    /// What a check found that failed on what is not committed yet.
    pub(crate) found: Option<Row>,
}

impl World {
    /// A client asks for something, unless it still waits.
    pub(crate) fn on_client(&mut self, client: usize) {
        if !self.busy || self.clients[client].waits_for.is_some() {
            return;
        }
        let partition = self.random.index(self.options.partitions);
        let stale = self.random.permille(self.options.stale_routes_permille);
        let node = if stale { self.random.index(self.nodes.len()) } else { self.clients[client].routes[partition] };
        let key = self.random.index(self.options.keys.min(KEYS_MAX));
        self.last_operation += 1;
        let number = self.last_operation;
        let wish = self.wish(number);
        let operation = Operation {
            client,
            node,
            partition,
            key,
            wish,
            invoked: self.now,
            listening: true,
            taken_by: None,
            floor: Decree(0),
            found: None,
        };
        self.operations.insert(number, operation);
        self.clients[client].waits_for = Some(number);
        if !self.is_call_lost() {
            let delay = self.latency(node);
            self.schedule(delay, Happening::Request { operation: number });
        }
        let patience = self.options.patience_micros();
        self.schedule(patience, Happening::Impatience { operation: number });
    }

    fn wish(&mut self, number: u64) -> Wish {
        if self.random.permille(self.options.reads_permille) {
            return Wish::Read;
        }
        let value = if self.random.permille(100) { 0 } else { number };
        // A guess near the truth: some checks pass and some fail.
        let near = number.saturating_sub(self.random.range(0, 2 * self.options.clients as u64));
        let expected = if self.random.permille(300) { 0 } else { near };
        let checks = self.random.permille(self.options.checks_permille);
        Wish::Write { value, expected: checks.then_some(expected) }
    }

    /// A client hears what came of its request.
    pub(crate) fn on_answer(&mut self, number: u64, answer: Answer) {
        let Some(operation) = self.operations.remove(&number) else { return };
        if !operation.listening {
            return;
        }
        match answer {
            Answer::Done | Answer::Found(_) => {}
            Answer::Unknown => self.statistics.unknown += 1,
            Answer::Refused(status) => {
                self.statistics.refused += 1;
                if status.advice() == Advice::RefreshRoute || self.random.permille(200) {
                    self.refresh_route(operation.client, operation.partition);
                }
            }
        }
        self.end(number, &operation, answer);
    }

    /// A client has waited long enough. Its request may still be carried out.
    pub(crate) fn on_impatience(&mut self, number: u64) {
        let Some(operation) = self.operations.get_mut(&number) else { return };
        if !std::mem::replace(&mut operation.listening, false) {
            return;
        }
        let operation = *operation;
        self.statistics.unknown += u64::from(operation.wish != Wish::Read);
        self.refresh_route(operation.client, operation.partition);
        self.end(number, &operation, Answer::Unknown);
    }

    fn refresh_route(&mut self, client: usize, partition: usize) {
        if self.meta.up
            && let Some(primary) = self.meta.configuration(partition).primary
            && let Some(&node) = self.names.get(&primary)
        {
            self.clients[client].routes[partition] = node;
        }
    }

    /// The client records what it was told and thinks of the next thing.
    fn end(&mut self, number: u64, operation: &Operation, answer: Answer) {
        let client = operation.client;
        if self.clients[client].waits_for == Some(number) {
            self.clients[client].waits_for = None;
            // Who was refused does not come back at once.
            let refused = if matches!(answer, Answer::Refused(_)) { 2 * self.options.tick_micros } else { 10 };
            let pause = self.random.range(10, self.options.think_micros_max.max(refused));
            self.schedule(pause, Happening::ClientActs { client });
        }
        if let Some(recorded) = record(operation, answer, self.now) {
            self.history.record((operation.partition * KEYS_MAX + operation.key) as u64, recorded);
        }
    }

    /// What is left at the end of a run was never answered.
    pub(crate) fn close_history(&mut self) {
        for operation in std::mem::take(&mut self.operations).into_values().filter(|operation| operation.listening) {
            if let Some(recorded) = record(&operation, Answer::Unknown, self.now) {
                self.history.record((operation.partition * KEYS_MAX + operation.key) as u64, recorded);
            }
        }
    }

    /// Sends an answer to the client. It may be lost; then the client runs out of patience.
    pub(crate) fn answer(&mut self, number: u64, answer: Answer) {
        let Some(operation) = self.operations.get(&number) else { return };
        let node = operation.node;
        if self.is_call_lost() {
            return;
        }
        let delay = self.latency(node);
        self.schedule(delay, Happening::Answer { operation: number, answer });
    }

    /// Requests that a dead node had taken are never answered.
    pub(crate) fn drop_requests_of(&mut self, node: usize) {
        let run = self.nodes[node].run;
        let gone = |operation: &Operation| operation.node == node && operation.taken_by == Some(run);
        let numbers: Vec<u64> =
            self.operations.iter().filter(|(_, one)| gone(one)).map(|(number, _)| *number).collect();
        for number in numbers {
            let delay = self.latency(node);
            self.schedule(delay, Happening::Answer { operation: number, answer: Answer::Unknown });
        }
    }
}

/// The operation as a history knows it; nothing for what says nothing.
fn record(operation: &Operation, answer: Answer, now: u64) -> Option<Recorded> {
    let written = |value: u64| if value == 0 { Action::Delete } else { Action::Write(value) };
    let (action, outcome) = match (operation.wish, answer) {
        (_, Answer::Found(row)) => (Action::Read, Outcome::Ok(Told::Row((row.value > 0).then_some(row.value)))),
        (Wish::Read, _) | (_, Answer::Refused(_)) => return None,
        (Wish::Write { value, .. }, Answer::Done) => (written(value), Outcome::Ok(Told::Done)),
        (Wish::Write { value, .. }, Answer::Unknown) => (written(value), Outcome::Unknown),
    };
    let (client, invoked_us) = (operation.client as u32, operation.invoked);
    Some(Recorded { client, invoked_us, returned_us: now, action, outcome })
}

/// The write of an operation.
pub(crate) fn write_of(number: u64, operation: &Operation) -> Option<(Write, Option<u64>)> {
    match operation.wish {
        Wish::Read => None,
        Wish::Write { value, expected } => Some((Write { key: operation.key, operation: number, value }, expected)),
    }
}

/// What a client is told of a status.
pub(crate) fn answer_of(status: Status) -> Answer {
    if status.advice() == Advice::Unknown { Answer::Unknown } else { Answer::Refused(status) }
}
