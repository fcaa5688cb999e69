//! How a host carries out requests: reads from the table, writes through the replica, checks through what the table and
//! the window hold together.

use pegasus_replication::{Event, RequestToken};
use pegasus_wire::{Decree, MutationKind, Status};

use crate::clients::{Wish, answer_of, write_of};
use crate::disk::Row;
use crate::options::HostBug;
use crate::world::{Answer, Local, World};

impl World {
    /// A request reaches its node.
    pub(crate) fn on_request(&mut self, number: u64) {
        let Some(operation) = self.operations.get(&number).copied() else { return };
        let node = operation.node;
        if !self.nodes[node].up {
            return self.answer(number, Answer::Refused(Status::NoSuchPartition));
        }
        let here = self.replica(node, operation.partition).is_some();
        if !here || self.nodes[node].stopping {
            let status = if here { Status::ShuttingDown } else { Status::NoSuchPartition };
            return self.answer(number, Answer::Refused(status));
        }
        let run = self.nodes[node].run;
        if let Some(operation) = self.operations.get_mut(&number) {
            operation.taken_by = Some(run);
        }
        match operation.wish {
            Wish::Read => self.read(number, node, operation.partition, operation.key),
            Wish::Write { expected: None, .. } => self.write(number),
            Wish::Write { expected: Some(expected), .. } => self.check_and_write(number, expected),
        }
    }

    /// The clock is read after the request was received; the table is read a little later, and must still be that of
    /// the primary then.
    fn read(&mut self, number: u64, node: usize, partition: usize, key: usize) {
        let reading = self.admission_reading(node);
        let Some(replica) = self.replica(node, partition) else { return };
        if let Err(status) = replica.admit_read(reading) {
            return self.answer(number, Answer::Refused(status));
        }
        let floor = self.partitions[partition].checker.floor(key);
        let slow = self.random.permille(self.options.slow_apply_permille);
        let delay = if slow { self.time_on(node, self.options.limits.timing.lease_micros / 10) } else { 0 };
        self.schedule_local(node, delay, Local::TableRead { operation: number, floor });
    }

    pub(crate) fn on_table_read(&mut self, node: usize, number: u64, floor: Decree) {
        let Some(operation) = self.operations.get(&number).copied() else { return };
        let Some(copy) = &self.nodes[node].copies[operation.partition] else { return };
        let row = copy.table.rows[operation.key];
        // A replica that follows another one by now may have applied what its new primary has not: that would be seen
        // here, and then not there.
        let reading = self.admission_reading(node);
        let serves = self.replica(node, operation.partition).is_some_and(|replica| replica.admit_read(reading).is_ok());
        if !serves && self.options.planted.host != Some(HostBug::ReadAfterRole) {
            return self.answer(number, Answer::Refused(Status::NotServing));
        }
        self.found(number, node, row, floor);
    }

    /// A read, or a check that failed, is answered.
    fn found(&mut self, number: u64, node: usize, row: Row, floor: Decree) {
        let Some(operation) = self.operations.get(&number).copied() else { return };
        self.statistics.reads += 1;
        let (partition, key) = (operation.partition, operation.key);
        self.trace.note(self.now, || {
            let Row { value, decree } = row;
            format!("n{} p{partition} request {number} finds {value} of {decree} at key {key}", node + 1)
        });
        let result = self.partitions[operation.partition].checker.on_read(operation.key, row, floor);
        self.check_copy(node, operation.partition, result);
        self.answer(number, Answer::Found(row));
    }

    fn write(&mut self, number: u64) {
        let Some(operation) = self.operations.get_mut(&number) else { return };
        operation.floor = self.partitions[operation.partition].checker.floor(operation.key);
        let operation = *operation;
        let Some((write, _)) = write_of(number, &operation) else { return };
        let filler = if self.random.permille(100) { self.random.index(200) } else { 0 };
        // Clocks of hosts differ and jump; stamps must rise all the same.
        let timestamp_micros = 1_000_000 + self.now / 2 + self.random.range(0, 100_000);
        let request = RequestToken(number);
        let event =
            Event::Propose { request, timestamp_micros, kind: MutationKind::Write, payload: write.encode(filler) };
        self.feed(operation.node, operation.partition, event);
    }

    /// The newest version of the row decides, committed or not. If the check fails on what is not committed, the answer
    /// waits until it is.
    fn check_and_write(&mut self, number: u64, expected: u64) {
        let Some(operation) = self.operations.get(&number).copied() else { return };
        let (node, partition) = (operation.node, operation.partition);
        let reading = self.admission_reading(node);
        let Some(replica) = self.replica(node, partition) else { return };
        if let Err(status) = replica.admit(reading) {
            return self.answer(number, Answer::Refused(status));
        }
        let floor = self.partitions[partition].checker.floor(operation.key);
        let Some(copy) = &self.nodes[node].copies[partition] else { return };
        let newest = copy.overlay.iter().rev().find(|(_, key, _)| *key == operation.key);
        let (row, pending) = match newest {
            Some((decree, _, value)) => (Row { value: *value, decree: *decree }, true),
            None => (copy.table.rows[operation.key], false),
        };
        if row.value == expected {
            return self.write(number);
        }
        if !pending || self.options.planted.host == Some(HostBug::FailedCheckAnsweredEarly) {
            return self.found(number, node, row, floor);
        }
        if let Some(operation) = self.operations.get_mut(&number) {
            operation.floor = floor;
            operation.found = Some(row);
        }
        self.feed(node, partition, Event::Await { request: RequestToken(number), through: row.decree });
    }

    /// A replica answers a request.
    pub(crate) fn on_reply(
        &mut self,
        node: usize,
        partition: usize,
        request: RequestToken,
        outcome: Result<Decree, Status>,
    ) {
        let number = request.0;
        let Some(operation) = self.operations.get_mut(&number) else {
            return self.check_copy(node, partition, Err(format!("request {number} is answered, but nobody waits")));
        };
        if operation.taken_by.take().is_none() {
            return self.check_copy(node, partition, Err(format!("request {number} is answered twice")));
        }
        let operation = *operation;
        if let (Some(row), Ok(_)) = (operation.found, outcome) {
            return self.found(number, node, row, operation.floor);
        }
        let Some((write, expected)) = write_of(number, &operation) else { return };
        let checker = &mut self.partitions[partition].checker;
        let (result, answer) = match outcome {
            Ok(decree) => {
                self.statistics.writes += 1;
                self.partitions[partition].healed_writes += u64::from(self.healed);
                let checker = &mut self.partitions[partition].checker;
                (checker.on_write(write, expected, decree, operation.floor), Answer::Done)
            }
            Err(status) => {
                let answer = answer_of(status);
                let refused = matches!(answer, Answer::Refused(_)) && operation.found.is_none();
                (if refused { checker.on_refused(number) } else { Ok(()) }, answer)
            }
        };
        self.check_copy(node, partition, result);
        self.answer(number, answer);
    }
}
