//! Reads: one row, rows of a hash key, scans of a partition.
//!
//! Every read first tries the block cache inline; what would block goes to a pool and is counted. Plain reads see
//! applied state only, never the window.

use std::sync::Arc;

use pegasus_engine::table::{Lookup, ReadMode, Scan, ScanOutcome, ScanRequest, Table, TableError, hash_key_range};
use pegasus_replication::{Event, Moment};
use pegasus_wire::hash::partition_index;
use pegasus_wire::key;
use pegasus_wire::limits::{READ_BYTES_TARGET, READ_ROWS_MAX, SCAN_ITERATIONS_MAX};
use pegasus_wire::messages::data::{ArchivedGet, ArchivedMultiGet, ArchivedScan, ArchivedSortKey, GetReply, Row, Rows};
use pegasus_wire::{Frame, PartitionId, Status};

use super::partition::CopyId;
use super::session::{Refusal, Request};
use super::{Core, Partition};

/// Scans of at most this many rows are tried inline; longer ones go to the pool at once.
const INLINE_ROWS_MAX: usize = 128;

impl Core {
    /// Answers a `Get`.
    pub(crate) fn get(&self, request: Request, frame: &Frame, now: Moment) {
        let get = match frame.body::<ArchivedGet<'_>>() {
            Ok(get) => get,
            Err(error) => return request.refuse(Refusal::new(Status::Malformed, error.to_string())),
        };
        let (hash_key, sort_key, no_value) = (&*get.hash_key, &*get.sort_key, get.no_value);
        let id = PartitionId::from(&get.partition);
        let mut stored = self.scratch.take();
        let mut failure = None;
        let outcome = self.with_readable(id, now, |partition, now_seconds| {
            check_keys(partition, hash_key, sort_key)?;
            key::encode_into(&mut stored, hash_key, sort_key);
            match partition.table.read_row(&stored, now_seconds, ReadMode::CacheOnly) {
                Ok(Lookup::WouldBlock) => Ok(Some((partition.copy(), partition.table.clone(), now_seconds))),
                Ok(found) => {
                    answer_lookup(&request, found, now_seconds, no_value);
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
                self.get_in_pool(request, copy, table, stored.clone(), now_seconds, no_value);
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
            Err(_) => request.answer_status(Status::Busy),
            Ok(done) => {
                let core = self.clone();
                self.later(async move {
                    match done.await {
                        Ok(Ok(found)) => answer_lookup(&request, found, now_seconds, no_value),
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
    fn read_failed(&self, copy: CopyId, error: &TableError) -> Refusal {
        tracing::error!(partition = %copy.partition, %error, "a read failed");
        let status = if error.is_damage() { Status::Damaged } else { Status::StorageFailed };
        if error.is_damage() {
            self.post_to(copy, Event::Failed { status, reason: error.to_string() });
        }
        Refusal::new(status, error.to_string())
    }

    /// Answers a `MultiGet`.
    pub(crate) fn multi_get(&self, request: Request, frame: Frame, now: Moment) {
        let plan = match self.plan_multi_get(&frame, now) {
            Ok(plan) => plan,
            Err(refusal) => return request.refuse(refusal),
        };
        let inline = plan.request.size() <= INLINE_ROWS_MAX;
        self.read_rows(request, plan, inline);
    }

    /// Answers a `Scan`.
    pub(crate) fn scan(&self, request: Request, frame: Frame, now: Moment) {
        let plan = match self.plan_scan(&frame, now) {
            Ok(plan) => plan,
            Err(refusal) => return request.refuse(refusal),
        };
        let inline = plan.request.size() <= INLINE_ROWS_MAX;
        self.read_rows(request, plan, inline);
    }

    fn plan_multi_get(&self, frame: &Frame, now: Moment) -> Result<ReadPlan, Refusal> {
        let get =
            frame.body::<ArchivedMultiGet<'_>>().map_err(|error| Refusal::new(Status::Malformed, error.to_string()))?;
        if get.sort_keys.len() > READ_ROWS_MAX {
            return Err(Refusal::new(
                Status::TooLarge,
                format!("{} sort keys, the limit is {READ_ROWS_MAX} (read_rows_max)", get.sort_keys.len()),
            ));
        }
        let hash_key = &*get.hash_key;
        self.with_readable(PartitionId::from(&get.partition), now, |partition, now_seconds| {
            check_keys(partition, hash_key, b"")?;
            for sort_key in get.sort_keys.iter() {
                key::check_sort_key(&sort_key.bytes).map_err(invalid_key)?;
            }
            let bytes_max = bounded(get.bytes_max.to_native(), READ_BYTES_TARGET);
            let request = if get.sort_keys.is_empty() {
                let (start, stop) = hash_key_range(hash_key, &get.start, &get.stop, get.stop_inclusive);
                RowsRequest::Range {
                    start,
                    start_inclusive: get.start_inclusive,
                    stop,
                    rows_max: bounded(get.rows_max.to_native(), READ_ROWS_MAX),
                    bytes_max,
                    count_only: false,
                }
            } else {
                let stored = |sort_key: &ArchivedSortKey<'_>| key::encode(hash_key, &sort_key.bytes);
                RowsRequest::Keys { stored: get.sort_keys.iter().map(stored).collect(), bytes_max }
            };
            Ok(ReadPlan {
                copy: partition.copy(),
                table: partition.table.clone(),
                request,
                no_value: get.no_value,
                now_seconds,
                key_prefix: 2 + hash_key.len(),
            })
        })
    }

    fn plan_scan(&self, frame: &Frame, now: Moment) -> Result<ReadPlan, Refusal> {
        let scan =
            frame.body::<ArchivedScan<'_>>().map_err(|error| Refusal::new(Status::Malformed, error.to_string()))?;
        self.with_readable(PartitionId::from(&scan.partition), now, |partition, now_seconds| {
            let request = RowsRequest::Range {
                start: scan.start.to_vec(),
                start_inclusive: scan.start_inclusive,
                stop: scan.stop.to_vec(),
                rows_max: bounded(scan.rows_max.to_native(), READ_ROWS_MAX),
                bytes_max: READ_BYTES_TARGET,
                count_only: scan.count_only,
            };
            let table = partition.table.clone();
            let no_value = scan.no_value;
            Ok(ReadPlan { copy: partition.copy(), table, request, no_value, now_seconds, key_prefix: 0 })
        })
    }

    fn read_rows(&self, request: Request, plan: ReadPlan, inline: bool) {
        if inline {
            match plan.run(ReadMode::CacheOnly) {
                Ok(Some(outcome)) => {
                    self.count(|counters| counters.scans_inline += 1);
                    return answer_rows(&request, outcome, plan.key_prefix);
                }
                Ok(None) => {}
                Err(error) => return request.refuse(self.read_failed(plan.copy, &error)),
            }
        }
        self.count(|counters| counters.scans_in_pool += 1);
        let plan = Arc::new(plan);
        let (copy, key_prefix) = (plan.copy, plan.key_prefix);
        match self.shared.long_pool.run(move || plan.run(ReadMode::Blocking)) {
            Err(_) => request.answer_status(Status::Busy),
            Ok(done) => {
                let core = self.clone();
                self.later(async move {
                    match done.await {
                        Ok(Ok(outcome)) => {
                            let outcome = outcome.expect("a blocking read never answers that it would block");
                            answer_rows(&request, outcome, key_prefix);
                        }
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
}

/// A checked read of several rows, ready to run on any thread.
struct ReadPlan {
    copy: CopyId,
    table: Table,
    request: RowsRequest,
    no_value: bool,
    now_seconds: u32,
    /// Bytes of the stored key that the answer leaves out (the hash key).
    key_prefix: usize,
}

enum RowsRequest {
    /// Rows between two stored keys.
    Range { start: Vec<u8>, start_inclusive: bool, stop: Vec<u8>, rows_max: usize, bytes_max: usize, count_only: bool },
    /// Exactly these stored keys.
    Keys { stored: Vec<Vec<u8>>, bytes_max: usize },
}

/// What a [`ReadPlan`] found.
enum Found {
    Range(ScanOutcome),
    Keys { rows: Vec<KeyedRow>, complete: bool, resume_after: Vec<u8> },
}

/// A row found by its stored key.
struct KeyedRow {
    key: Vec<u8>,
    value: Vec<u8>,
    expiry_seconds: u32,
}

impl RowsRequest {
    fn size(&self) -> usize {
        match self {
            RowsRequest::Range { count_only: true, .. } => SCAN_ITERATIONS_MAX,
            RowsRequest::Range { rows_max, .. } => *rows_max,
            RowsRequest::Keys { stored, .. } => stored.len(),
        }
    }
}

impl ReadPlan {
    /// Reads; `None` if the cache alone cannot answer.
    fn run(&self, mode: ReadMode) -> Result<Option<Found>, TableError> {
        match &self.request {
            RowsRequest::Range { start, start_inclusive, stop, rows_max, bytes_max, count_only } => {
                let request = ScanRequest {
                    start,
                    stop,
                    start_inclusive: *start_inclusive,
                    rows_max: *rows_max,
                    bytes_max: *bytes_max,
                    // Inline slices stay short also where rows have expired.
                    iterations_max: if mode == ReadMode::CacheOnly { 2 * INLINE_ROWS_MAX } else { SCAN_ITERATIONS_MAX },
                    no_value: self.no_value,
                    count_only: *count_only,
                    now_seconds: self.now_seconds,
                };
                match self.table.scan(&request, mode)? {
                    Scan::Done(outcome) => Ok(Some(Found::Range(outcome))),
                    Scan::WouldBlock => Ok(None),
                }
            }
            RowsRequest::Keys { stored, bytes_max } => self.read_keys(stored, *bytes_max, mode),
        }
    }

    fn read_keys(&self, stored: &[Vec<u8>], bytes_max: usize, mode: ReadMode) -> Result<Option<Found>, TableError> {
        let mut rows = Vec::with_capacity(stored.len());
        let mut bytes = 0;
        for (position, key) in stored.iter().enumerate() {
            if bytes >= bytes_max {
                return Ok(Some(Found::Keys { rows, complete: false, resume_after: stored[position - 1].clone() }));
            }
            match self.table.read_row(key, self.now_seconds, mode)? {
                Lookup::WouldBlock => return Ok(None),
                Lookup::Missing => {}
                Lookup::Found { value, expiry_seconds } => {
                    let value = if self.no_value { Vec::new() } else { value.into_vec() };
                    bytes += key.len() + value.len();
                    rows.push(KeyedRow { key: key.clone(), value, expiry_seconds });
                }
            }
        }
        Ok(Some(Found::Keys { rows, complete: true, resume_after: Vec::new() }))
    }
}

fn answer_lookup(request: &Request, found: Lookup<'_>, now_seconds: u32, no_value: bool) {
    match found {
        Lookup::Missing => request.answer_status(Status::NotFound),
        Lookup::Found { value, expiry_seconds } => {
            let ttl_seconds = if expiry_seconds == 0 { -1 } else { i64::from(expiry_seconds) - i64::from(now_seconds) };
            let value = if no_value { &[][..] } else { &value };
            request.answer(Status::Ok, &GetReply { ttl_seconds }, value);
        }
        Lookup::WouldBlock => {
            request.refuse(Refusal::new(Status::Internal, "a blocking read answered that it would block"));
        }
    }
}

fn answer_rows(request: &Request, found: Found, key_prefix: usize) {
    match found {
        Found::Range(outcome) => {
            let rows: Vec<Row<'_>> = outcome
                .rows
                .iter()
                .map(|row| Row { key: &row.key[key_prefix..], value: row.value, expiry_seconds: row.expiry_seconds })
                .collect();
            send_rows(request, &rows, outcome.count, outcome.complete, &outcome.resume_after, key_prefix);
        }
        Found::Keys { rows: found, complete, resume_after } => {
            let rows: Vec<Row<'_>> = found
                .iter()
                .map(|row| Row { key: &row.key[key_prefix..], value: &row.value, expiry_seconds: row.expiry_seconds })
                .collect();
            send_rows(request, &rows, rows.len() as u64, complete, &resume_after, key_prefix);
        }
    }
}

fn send_rows(request: &Request, rows: &[Row<'_>], count: u64, complete: bool, resume_after: &[u8], key_prefix: usize) {
    let resume_after = resume_after.get(key_prefix..).unwrap_or_default();
    request.answer(Status::Ok, &Rows { rows, count, complete, resume_after }, &[]);
}

fn check_keys(partition: &Partition, hash_key: &[u8], sort_key: &[u8]) -> Result<(), Refusal> {
    key::check_hash_key(hash_key).map_err(invalid_key)?;
    key::check_sort_key(sort_key).map_err(invalid_key)?;
    if partition_index(hash_key, sort_key, partition.properties.partition_count) != partition.id.index {
        return Err(Refusal::new(
            Status::InvalidArgument,
            format!("the hash key does not belong to partition {}", partition.id),
        ));
    }
    Ok(())
}

/// A key outside the data model's limits.
pub(crate) fn invalid_key(error: key::KeyError) -> Refusal {
    let status = match error {
        key::KeyError::HashKeyTooLong(_) | key::KeyError::SortKeyTooLong(_) => Status::TooLarge,
        key::KeyError::EmptyHashKey | key::KeyError::Truncated(_) => Status::InvalidArgument,
    };
    Refusal::new(status, error.to_string())
}

fn bounded(asked: u32, limit: usize) -> usize {
    match asked as usize {
        0 => limit,
        asked => asked.min(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_the_limit() {
        assert_eq!(bounded(0, 10), 10);
        assert_eq!(bounded(5, 10), 5);
        assert_eq!(bounded(50, 10), 10);
    }
}
