//! Operations of the model, asked of a cluster through the client.

use bytes::Bytes;
use pegasus_client::{
    Advice, CheckAndSet, CheckOutcome, CompareExchange, Error, KeyFilter, RangeOptions, Row, RowCheck, ScanOptions,
    Scanner, SortKeyRange, Table, Ttl, TtlChange, WriteBatch,
};
use pegasus_wire::limits::HASH_KEY_BYTES_MAX;
use pegasus_wire::messages::data::FilterKind;

use crate::model::operation::{
    Answer, Change, Condition, Filter, Found, Left, Lifetime, LifetimeChange, Operation, Outcome, Range, RangeRead,
};

/// An operation's end, and what is wrong with it beside the answer, if anything.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What the client was told.
    pub outcome: Outcome,
    /// An error that nothing excuses.
    pub problem: Option<String>,
}

impl Ended {
    /// From what the client library gave.
    pub fn of(result: Result<Answer, Error>) -> Ended {
        match result {
            Ok(answer) => Ended { outcome: Outcome::Answered(answer), problem: None },
            Err(Error::InvalidArgument(_)) => Ended { outcome: Outcome::Answered(Answer::Refused), problem: None },
            Err(error) if error.advice() == Advice::Unknown => Ended { outcome: Outcome::Unknown, problem: None },
            Err(error) if error.advice() == Advice::Retry => Ended { outcome: Outcome::Nothing, problem: None },
            Err(error) => {
                let problem = Some(format!("an operation failed with an error of the kind {}: {error}", error.kind()));
                Ended { outcome: Outcome::Nothing, problem }
            }
        }
    }
}

/// Performs an operation on a hash key. With `one_moment` a scan whose rows are not all of one moment tells nothing.
pub async fn perform(table: &Table, hash_key: &[u8], operation: &Operation, one_moment: bool) -> Ended {
    let result = match operation {
        Operation::Scan { read, rows_per_request, snapshot } => {
            let options = scan_options(read, *rows_per_request, *snapshot);
            match scan(table, hash_key, read, options).await {
                Ok((_, moments)) if one_moment && moments > 1 => {
                    return Ended { outcome: Outcome::Nothing, problem: None };
                }
                Ok((answer, _)) => Ok(answer),
                Err(error) => Err(error),
            }
        }
        operation if operation.is_write() => write(table, hash_key, operation).await,
        operation => read(table, hash_key, operation).await,
    };
    Ended::of(result)
}

async fn write(table: &Table, hash_key: &[u8], operation: &Operation) -> Result<Answer, Error> {
    match operation {
        Operation::Set { sort_key, value, lifetime: Lifetime::Default } => {
            table.set(hash_key, sort_key, value).await.map(|()| Answer::Done)
        }
        Operation::Set { sort_key, value, lifetime } => {
            table.set_with_ttl(hash_key, sort_key, value, seconds(*lifetime)).await.map(|()| Answer::Done)
        }
        Operation::Delete { sort_key } => table.del(hash_key, sort_key).await.map(|()| Answer::Done),
        Operation::MultiSet { rows, lifetime } => {
            table.multi_set_with_ttl(hash_key, rows, seconds(*lifetime)).await.map(|()| Answer::Done)
        }
        Operation::MultiDelete { sort_keys } => table.multi_del(hash_key, sort_keys).await.map(|()| Answer::Done),
        Operation::Write { changes } => {
            let ranges = ranges(changes);
            table.write(hash_key, &batch(changes, &ranges)).await.map(|()| Answer::Done)
        }
        Operation::DeleteRange { range } => {
            table.del_range(hash_key, &sort_key_range(range)).await.map(|()| Answer::Done)
        }
        Operation::Increment { sort_key, by, lifetime } => {
            let ttl = match lifetime {
                LifetimeChange::Keep => TtlChange::Keep,
                LifetimeChange::Seconds(seconds) => TtlChange::Set(*seconds),
                LifetimeChange::Clear => TtlChange::Clear,
            };
            table.incr_with(hash_key, sort_key, *by, ttl).await.map(Answer::Number)
        }
        Operation::CheckAndSet { condition, sort_key, value, lifetime } => {
            let Condition { sort_key: check_sort_key, check, operand, return_value } = condition;
            let request = CheckAndSet {
                check_sort_key,
                check: *check,
                operand,
                set_sort_key: sort_key,
                value,
                ttl_seconds: seconds(*lifetime),
                return_value: *return_value,
            };
            table.check_and_set(hash_key, &request).await.map(checked)
        }
        Operation::CheckAndMutate { condition, changes } => {
            let Condition { sort_key, check, operand, return_value } = condition;
            let condition = RowCheck { sort_key, check: *check, operand, return_value: *return_value };
            let ranges = ranges(changes);
            table.check_and_mutate(hash_key, &condition, &batch(changes, &ranges)).await.map(checked)
        }
        Operation::CompareExchange { sort_key, expected, desired, lifetime } => {
            let ttl_seconds = seconds(*lifetime);
            let outcome = table.compare_exchange(hash_key, sort_key, expected.as_deref(), desired, ttl_seconds).await;
            outcome.map(|outcome| match outcome {
                CompareExchange::Exchanged => Answer::Exchanged { done: true, found: None },
                CompareExchange::Different(found) => Answer::Exchanged { done: false, found },
            })
        }
        read => unreachable!("{read:?} is no write"),
    }
}

async fn read(table: &Table, hash_key: &[u8], operation: &Operation) -> Result<Answer, Error> {
    match operation {
        Operation::Get { sort_key } => table.get(hash_key, sort_key).await.map(Answer::Value),
        Operation::Exist { sort_key } => table.exist(hash_key, sort_key).await.map(Answer::Exists),
        Operation::Ttl { sort_key } => table.ttl(hash_key, sort_key).await.map(|ttl| {
            Answer::Left(match ttl {
                None => Left::Missing,
                Some(Ttl::Never) => Left::Forever,
                Some(Ttl::Seconds(seconds)) => Left::Seconds(seconds),
            })
        }),
        Operation::MultiGet { sort_keys, no_value } => {
            let rows = match no_value {
                true => table.multi_exist(hash_key, sort_keys).await?,
                false => table.multi_get(hash_key, sort_keys).await?,
            };
            Ok(rows_answer(rows, true))
        }
        Operation::MultiGetRange { read, rows_max: 0, bytes_max: 0 } if is_for_sort_keys(read) => {
            let keys = table.multi_get_sort_keys(hash_key, &sort_key_range(&read.range)).await?;
            let found = |sort_key| Found { sort_key, value: Bytes::new(), expiry: None };
            Ok(Answer::Rows { rows: keys.into_iter().map(found).collect(), complete: true })
        }
        Operation::MultiGetRange { read, rows_max, bytes_max } => {
            let options = RangeOptions {
                range: sort_key_range(&read.range),
                filter: key_filter(&read.filter),
                reverse: read.reverse,
                no_value: read.no_value,
                rows_max: *rows_max,
                bytes_max: *bytes_max,
            };
            let found = table.multi_get_range(hash_key, &options).await?;
            Ok(rows_answer(found.rows, found.complete))
        }
        Operation::Count => table.count(hash_key).await.map(Answer::Count),
        Operation::BadHashKey { long } => {
            let bad = vec![b'x'; if *long { HASH_KEY_BYTES_MAX + 1 } else { 0 }];
            match table.get(&bad, "").await {
                Err(Error::InvalidArgument(_)) => table.set(&bad, "", "").await.map(|()| Answer::Done),
                outcome => outcome.map(Answer::Value),
            }
        }
        other => unreachable!("{other:?} is no read of one request"),
    }
}

/// Whether multi_get_sort_keys asks the same.
fn is_for_sort_keys(read: &RangeRead) -> bool {
    read.no_value && !read.reverse && read.filter.kind == FilterKind::None
}

async fn scan(table: &Table, hash_key: &[u8], read: &RangeRead, options: ScanOptions) -> Result<(Answer, u64), Error> {
    let mut scanner: Scanner = table.hash_scan(hash_key, &sort_key_range(&read.range), options)?;
    let mut rows = Vec::new();
    while let Some(batch) = scanner.next_batch().await? {
        for row in batch {
            if row.hash_key != hash_key {
                return Err(Error::Protocol("a scan of one hash key found a row of another".into()));
            }
            rows.push(Found { sort_key: row.sort_key, value: row.value, expiry: Some(row.expiry_seconds) });
        }
    }
    Ok((Answer::Rows { rows, complete: true }, scanner.snapshots()))
}

/// The options of a scan that reads like this.
pub fn scan_options(read: &RangeRead, rows_per_request: u32, snapshot: bool) -> ScanOptions {
    ScanOptions {
        no_value: read.no_value,
        rows_per_request,
        reverse: read.reverse,
        hash_key_filter: KeyFilter::None,
        sort_key_filter: key_filter(&read.filter),
        snapshot,
    }
}

/// The range as the client takes it.
pub fn sort_key_range(range: &Range) -> SortKeyRange {
    SortKeyRange {
        start: range.start.to_vec(),
        start_inclusive: range.start_inclusive,
        stop: range.stop.to_vec(),
        stop_inclusive: range.stop_inclusive,
    }
}

fn key_filter(filter: &Filter) -> KeyFilter {
    let pattern = filter.pattern.to_vec();
    match filter.kind {
        FilterKind::None => KeyFilter::None,
        FilterKind::Anywhere => KeyFilter::Anywhere(pattern),
        FilterKind::Prefix => KeyFilter::Prefix(pattern),
        FilterKind::Postfix => KeyFilter::Postfix(pattern),
        FilterKind::Exact => KeyFilter::Exact(pattern),
    }
}

/// The ranges of a batch as the client takes them, one for each change; those of other changes are not used.
fn ranges(changes: &[Change]) -> Vec<SortKeyRange> {
    let range = |change: &Change| match change {
        Change::DeleteRange { range } => sort_key_range(range),
        Change::Put { .. } | Change::Delete { .. } => SortKeyRange::default(),
    };
    changes.iter().map(range).collect()
}

fn batch<'a>(changes: &'a [Change], ranges: &'a [SortKeyRange]) -> WriteBatch<'a> {
    let mut batch = WriteBatch::new();
    for (change, range) in changes.iter().zip(ranges) {
        match change {
            Change::Put { sort_key, value, lifetime: Lifetime::Until(second) } => {
                batch.put_until(sort_key, value, *second)
            }
            Change::Put { sort_key, value, lifetime: Lifetime::Default } => batch.put(sort_key, value),
            Change::Put { sort_key, value, lifetime } => batch.put_with_ttl(sort_key, value, seconds(*lifetime)),
            Change::Delete { sort_key } => batch.delete(sort_key),
            Change::DeleteRange { .. } => batch.delete_range(range),
        };
    }
    batch
}

/// A time to live as the client takes it: 0 for none. Only batches say a second of expiry.
fn seconds(lifetime: Lifetime) -> u32 {
    match lifetime {
        Lifetime::Default | Lifetime::Until(_) => 0,
        Lifetime::Seconds(seconds) => seconds,
    }
}

fn checked(outcome: CheckOutcome) -> Answer {
    let CheckOutcome { written, exists, value } = outcome;
    Answer::Checked { written, exists, value }
}

fn rows_answer(rows: Vec<Row>, complete: bool) -> Answer {
    let found = |row: Row| Found { sort_key: row.sort_key, value: row.value, expiry: Some(row.expiry_seconds) };
    Answer::Rows { rows: rows.into_iter().map(found).collect(), complete }
}
