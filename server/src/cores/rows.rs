//! Reading several rows: of one hash key here, of a partition in `scans`.

use std::time::{Duration, Instant};

use pegasus_engine::table::{ReadMode, hash_key_range};
use pegasus_replication::Moment;
use pegasus_wire::limits::READ_ROWS_MAX;
use pegasus_wire::messages::data::{Filter, MultiGet, Row, Rows, SortKeys};
use pegasus_wire::{PartitionId, Status, key};

use super::checks::{check_filter, check_hash_key, check_range, check_row_key, check_sort_key};
use super::outcome::{Outcome, Refusal};
use super::plan::{
    Found, INLINE_ROWS_MAX, Inline, OwnedFilter, OwnedSortKeys, PoolRead, Range, ReadPlan, RowSource, Terms, Wanted,
};
use super::request::Request;
use super::scans::Keeping;
use super::{Core, Partition};

impl Core {
    /// Answers a read of rows of one hash key.
    pub(crate) fn multi_get(&self, request: Request, get: &MultiGet<'_>, now: Moment) {
        if get.sort_keys.len() > READ_ROWS_MAX {
            return request.refuse(too_many_keys(get.sort_keys.len()));
        }
        let plan = self.with_readable(get.partition, now, |partition, now_seconds| {
            check_hash_key(partition, get.hash_key)?;
            let (wanted, inline) =
                if get.sort_keys.is_empty() { wanted_range(partition, get)? } else { wanted_keys(partition, get)? };
            let terms = Terms {
                rows_max: bounded(get.rows_max, READ_ROWS_MAX),
                bytes_max: bounded(get.bytes_max, request.read_bytes_max()),
                until: deadline(partition),
                no_value: get.no_value,
                count_only: get.count_only,
                now_seconds,
                key_prefix: 2 + get.hash_key.len(),
                turned: get.reverse && get.sort_keys.is_empty(),
            };
            Ok(ReadPlan { copy: partition.copy(), wanted, terms, inline, keeping: Keeping::Nothing })
        });
        match plan {
            Ok(plan) => self.read_rows(request, plan),
            Err(refusal) => request.refuse(refusal),
        }
    }

    /// Answers a read of rows of one partition, by their keys, in the order of these; rows come with their stored keys.
    pub(crate) fn read_rows_by_key(
        &self,
        request: Request,
        partition: PartitionId,
        keys: &[(&[u8], &[u8])],
        now: Moment,
    ) {
        if keys.len() > READ_ROWS_MAX {
            return request.refuse(too_many_keys(keys.len()));
        }
        let plan = self.with_readable(partition, now, |partition, now_seconds| {
            for (hash_key, sort_key) in keys {
                check_row_key(partition, hash_key, sort_key)?;
            }
            let stored = keys.iter().map(|(hash_key, sort_key)| key::encode(hash_key, sort_key)).collect();
            let (wanted, inline) = wanted_stored(partition, stored);
            let terms = Terms {
                rows_max: READ_ROWS_MAX,
                bytes_max: request.read_bytes_max(),
                until: deadline(partition),
                no_value: false,
                count_only: false,
                now_seconds,
                key_prefix: 0,
                turned: false,
            };
            Ok(ReadPlan { copy: partition.copy(), wanted, terms, inline, keeping: Keeping::Nothing })
        });
        match plan {
            Ok(plan) => self.read_rows(request, plan),
            Err(refusal) => request.refuse(refusal),
        }
    }

    /// Runs a plan, inline or in the pool, and answers.
    pub(crate) fn read_rows(&self, request: Request, plan: ReadPlan) {
        if plan.inline != Inline::Never {
            match plan.run(ReadMode::CacheOnly) {
                Ok(Some(found)) if plan.accepts(&found) => {
                    self.count(|counters| counters.scans_inline += 1);
                    let ReadPlan { copy, wanted, terms, keeping, .. } = plan;
                    let context = self.slice_read(copy, keeping, wanted.snapshot(), found.is_complete());
                    return answer_rows(&request, &found, &terms, context);
                }
                Ok(_) => {}
                Err(error) => return request.refuse(self.read_failed(plan.copy, &error)),
            }
        }
        self.count(|counters| counters.scans_in_pool += 1);
        let (copy, keeping) = (plan.copy, plan.keeping);
        match self.shared.long_pool.run(move || plan.run_in_pool()) {
            Err(_) => request.refuse(Refusal::plain(Status::Busy)),
            Ok(done) => {
                let core = self.clone();
                self.later(async move {
                    match done.await {
                        Ok(Ok(PoolRead { found: Some(found), snapshot, terms })) => {
                            let context = core.slice_read(copy, keeping, snapshot, found.is_complete());
                            answer_rows(&request, &found, &terms, context);
                        }
                        Ok(Ok(PoolRead { found: None, .. })) => {
                            let reason = "a blocking read answered that it would block";
                            request.refuse(Refusal::new(Status::Internal, reason));
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

/// Which rows of its range a `MultiGet` wants. Most hash keys have few rows, so it is always tried inline.
fn wanted_range(partition: &Partition, get: &MultiGet<'_>) -> Result<(Wanted, Inline), Refusal> {
    check_range(&get.range)?;
    check_filter(&get.filter)?;
    let SortKeys { start, stop, start_inclusive, stop_inclusive } = get.range;
    let (start, stop) = hash_key_range(get.hash_key, start, stop, stop_inclusive);
    let range = Range {
        start,
        start_inclusive,
        stop,
        reverse: get.reverse,
        sort_keys: OwnedSortKeys::of(&SortKeys::ALL),
        hash_key_filter: OwnedFilter::of(&Filter::ALL),
        sort_key_filter: OwnedFilter::of(&get.filter),
    };
    Ok((Wanted::Range { source: RowSource::Table(partition.table.clone()), range }, Inline::Satisfied))
}

/// The rows that a `MultiGet` names.
fn wanted_keys(partition: &Partition, get: &MultiGet<'_>) -> Result<(Wanted, Inline), Refusal> {
    let mut stored = Vec::with_capacity(get.sort_keys.len());
    for sort_key in get.sort_keys {
        check_sort_key(sort_key.bytes)?;
        stored.push(key::encode(get.hash_key, sort_key.bytes));
    }
    Ok(wanted_stored(partition, stored))
}

fn wanted_stored(partition: &Partition, stored: Vec<Vec<u8>>) -> (Wanted, Inline) {
    let inline = if stored.len() <= INLINE_ROWS_MAX { Inline::Slice } else { Inline::Never };
    (Wanted::Keys { table: partition.table.clone(), stored }, inline)
}

fn too_many_keys(keys: usize) -> Refusal {
    Refusal::new(Status::TooLarge, format!("{keys} sort keys, the limit is {READ_ROWS_MAX} (read_rows_max)"))
}

/// When a read of many rows of this table has to stop.
pub(crate) fn deadline(partition: &Partition) -> Option<Instant> {
    let iteration_ms = partition.environment.iteration_ms;
    (iteration_ms > 0).then(|| Instant::now() + Duration::from_millis(iteration_ms.into()))
}

/// What was asked, or the limit if that is less or nothing was asked.
pub(crate) fn bounded(asked: u32, limit: usize) -> usize {
    match asked as usize {
        0 => limit,
        asked => asked.min(limit),
    }
}

fn answer_rows(request: &Request, found: &Found, terms: &Terms, context: u64) {
    let (mut rows, count, complete, resume_after): (Vec<Row<'_>>, _, _, _) = match found {
        Found::Range(outcome) => {
            let rows = outcome.rows.iter();
            let rows = rows.map(|row| Row { key: row.key, value: row.value, expiry_seconds: row.expiry_seconds });
            (rows.collect(), outcome.count, outcome.complete, &outcome.resume_after)
        }
        Found::Keys { rows, count, complete, resume_after } => {
            let rows = rows.iter();
            let rows = rows.map(|row| Row { key: &row.key, value: &row.value, expiry_seconds: row.expiry_seconds });
            (rows.collect(), *count, *complete, resume_after)
        }
    };
    let resume_after = resume_after.get(terms.key_prefix..).unwrap_or_default();
    if terms.turned {
        rows.reverse();
    }
    let complete = complete || is_at_the_beginning(terms, resume_after);
    request.answer(&Outcome::Rows(Rows { rows: &rows, count, complete, resume_after, context }));
}

/// True if a read from the end has come to the empty sort key. Nothing comes before it; and as the end of a range it
/// would mean that there is none.
fn is_at_the_beginning(terms: &Terms, resume_after: &[u8]) -> bool {
    terms.turned && resume_after.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_from_the_end_is_over_at_the_empty_sort_key() {
        let terms = |turned| Terms {
            rows_max: 1,
            bytes_max: 1,
            until: None,
            no_value: false,
            count_only: false,
            now_seconds: 0,
            key_prefix: 3,
            turned,
        };
        let ends = [(true, &b""[..]), (true, b"a"), (false, b""), (false, b"a")];
        assert_eq!(ends.map(|(turned, after)| is_at_the_beginning(&terms(turned), after)), [true, false, false, false]);
    }

    #[test]
    fn zero_means_the_limit() {
        assert_eq!(bounded(0, 10), 10);
        assert_eq!(bounded(5, 10), 5);
        assert_eq!(bounded(50, 10), 10);
    }
}
