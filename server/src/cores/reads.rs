//! Reading one row.
//!
//! Every read first tries the block cache inline; what would block goes to a pool and is counted. Plain reads see
//! applied state only, never the window.

use pegasus_engine::table::{Lookup, ReadMode, Table, TableError};
use pegasus_replication::{Event, Moment};
use pegasus_wire::messages::data::Get;
use pegasus_wire::{Status, key};

use super::Core;
use super::checks::check_row_key;
use super::outcome::{Outcome, Refusal};
use super::partition::CopyId;
use super::request::Request;

impl Core {
    /// Answers a read of one row.
    pub(crate) fn get(&self, request: Request, get: &Get<'_>, now: Moment) {
        let mut stored = self.scratch.take();
        let mut failure = None;
        let outcome = self.with_readable(get.partition, now, |partition, now_seconds| {
            check_row_key(partition, get.hash_key, get.sort_key)?;
            key::encode_into(&mut stored, get.hash_key, get.sort_key);
            match partition.table.read_row(&stored, now_seconds, ReadMode::CacheOnly) {
                Ok(Lookup::WouldBlock) => Ok(Some((partition.copy(), partition.table.clone(), now_seconds))),
                Ok(found) => {
                    answer_lookup(&request, &found, now_seconds, get.no_value);
                    Ok(None)
                }
                Err(error) => {
                    failure = Some((partition.copy(), error));
                    Ok(None)
                }
            }
        });
        if let Some((copy, error)) = failure {
            self.scratch.replace(stored);
            return request.refuse(self.read_failed(copy, &error));
        }
        match outcome {
            Ok(None) => self.count(|counters| counters.reads_inline += 1),
            Ok(Some((copy, table, now_seconds))) => {
                self.get_in_pool(request, copy, table, stored.clone(), now_seconds, get.no_value);
            }
            Err(refusal) => request.refuse(refusal),
        }
        self.scratch.replace(stored);
    }

    fn get_in_pool(
        &self,
        request: Request,
        copy: CopyId,
        table: Table,
        stored: Vec<u8>,
        now_seconds: u32,
        no_value: bool,
    ) {
        self.count(|counters| counters.reads_in_pool += 1);
        let job = move || table.read_row(&stored, now_seconds, ReadMode::Blocking).map(Lookup::into_owned);
        match self.shared.point_pool.run(job) {
            Err(_) => request.refuse(Refusal::plain(Status::Busy)),
            Ok(done) => {
                let core = self.clone();
                self.later(async move {
                    match done.await {
                        Ok(Ok(found)) => answer_lookup(&request, &found, now_seconds, no_value),
                        Ok(Err(error)) => {
                            request.refuse(core.read_failed(copy, &error));
                            core.settle();
                        }
                        Err(error) => request.refuse(Refusal::new(Status::Internal, error.to_string())),
                    }
                });
            }
        }
    }

    /// A read that failed. If the files are not what was written, the copy is taken out of service, durably, with
    /// the next settle.
    pub(crate) fn read_failed(&self, copy: CopyId, error: &TableError) -> Refusal {
        tracing::error!(partition = %copy.partition, %error, "a read failed");
        let status = if error.is_damage() { Status::Damaged } else { Status::StorageFailed };
        if error.is_damage() {
            self.post_to(copy, Event::Failed { status, reason: error.to_string() });
        }
        Refusal::new(status, error.to_string())
    }
}

fn answer_lookup(request: &Request, found: &Lookup<'_>, now_seconds: u32, no_value: bool) {
    match Outcome::of_lookup(found, now_seconds, no_value) {
        Ok(outcome) => request.answer(&outcome),
        Err(refusal) => request.refuse(refusal),
    }
}
