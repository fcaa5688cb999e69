//! Operations on the rows of a workload, one at a time.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use pegasus_client::{Check, CheckAndSet, Error, RangeOptions, ScanOptions, SortKeyRange, Table};

use crate::failure::Failure;
use crate::workload::keys::hash_key;
use crate::workload::mix::Operation;
use crate::workload::record::Outcome;

/// The sort key of every row.
pub const SORT_KEY: &[u8] = b"value";
/// The sort key of the number that each hash key may have.
const COUNTER: &[u8] = b"counter";
/// Rows of one multi_get.
pub const MULTI_GET_ROWS: u64 = 100;
/// Rows of one scan, which are all rows of a wide hash key.
pub const SCAN_ROWS: u64 = 1000;
/// Hash keys with so many rows.
const WIDE_KEYS: u64 = 32;
/// Length of the values there.
pub const WIDE_VALUE_BYTES: usize = 100;

/// Performs one operation. A read that does not find what it is meant to counts as an operation of its own, so that
/// hits and misses do not mix.
pub async fn perform(table: &Table, operation: Operation, row: u64, value: &Bytes) -> Outcome {
    match attempt(table, operation, row, value).await {
        Ok(name) => Outcome::done(name),
        Err(error) => Outcome::failed(operation.name(), error_kind(&error)),
    }
}

async fn attempt(table: &Table, operation: Operation, row: u64, value: &Bytes) -> Result<&'static str, Error> {
    let (key, name) = (hash_key(row), operation.name());
    let named = |found, missing| if found { name } else { missing };
    match operation {
        Operation::Get => Ok(named(table.get(key, SORT_KEY).await?.is_some(), "get (no row)")),
        Operation::Exist => Ok(named(table.exist(key, SORT_KEY).await?, "exist (no row)")),
        Operation::Set => table.set(key, SORT_KEY, value).await.map(|()| name),
        Operation::Delete => table.del(key, SORT_KEY).await.map(|()| name),
        Operation::Increment => table.incr(key, COUNTER, 1).await.map(|_| name),
        Operation::CheckAndSet => {
            let request = CheckAndSet {
                check_sort_key: SORT_KEY,
                check: Check::Exist,
                operand: b"",
                set_sort_key: SORT_KEY,
                value,
                ttl_seconds: 0,
                return_value: false,
            };
            Ok(named(table.check_and_set(key, &request).await?.written, "cas (no row)"))
        }
        Operation::DeleteRange => {
            let range = SortKeyRange { start: b"gone".into(), stop: b"gonf".into(), ..SortKeyRange::default() };
            table.del_range(key, &range).await.map(|()| name)
        }
        Operation::MultiGet => {
            let first = row / WIDE_KEYS % (SCAN_ROWS / MULTI_GET_ROWS) * MULTI_GET_ROWS;
            let range = SortKeyRange { start: wide_sort_key(first).into(), ..SortKeyRange::default() };
            let options = RangeOptions { range, rows_max: MULTI_GET_ROWS as usize, ..RangeOptions::default() };
            let found = table.multi_get_range(wide_hash_key(row), &options).await?;
            Ok(named(found.rows.len() as u64 == MULTI_GET_ROWS, "multi_get (rows missing)"))
        }
        Operation::Scan => {
            let options = ScanOptions { rows_per_request: SCAN_ROWS as u32, ..ScanOptions::default() };
            let mut scanner = table.hash_scan(wide_hash_key(row), &SortKeyRange::default(), options)?;
            let mut rows = 0;
            while let Some(batch) = scanner.next_batch().await? {
                rows += batch.len() as u64;
            }
            Ok(named(rows == SCAN_ROWS, "scan (rows missing)"))
        }
    }
}

/// Writes the rows of the wide hash keys that are missing.
pub async fn load_wide(table: &Table) -> Result<(), Failure> {
    let load = |number: u64| async move {
        let key = wide_hash_key(number);
        if table.count(&key).await.map_err(Failure::at("count the rows of a wide hash key"))? == SCAN_ROWS {
            return Ok(());
        }
        let value = [b'w'; WIDE_VALUE_BYTES];
        let rows: Vec<(String, &[u8])> = (0..SCAN_ROWS).map(|row| (wide_sort_key(row), &value[..])).collect();
        table.multi_set(&key, &rows).await.map_err(Failure::at("write the rows of a wide hash key"))
    };
    stream::iter(0..WIDE_KEYS).map(load).buffer_unordered(8).try_collect().await
}

/// The wide hash key that a row stands for.
fn wide_hash_key(row: u64) -> String {
    format!("wide-{:03}", row % WIDE_KEYS)
}

fn wide_sort_key(row: u64) -> String {
    format!("{row:04}")
}

/// One word or sentence for the kind of an error; a refusal is told by its status.
fn error_kind(error: &Error) -> &'static str {
    match error {
        Error::Refused { status, .. } => status.sentence(),
        _ => error.kind(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pegasus_wire::Status;

    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let refused = |status: Status| Error::Refused { status, message: String::new() };
        assert_ne!(error_kind(&refused(Status::Damaged)), error_kind(&refused(Status::StorageFailed)));
        assert_eq!(error_kind(&Error::Unknown(String::new())), "unknown");
        assert_eq!(error_kind(&Error::Timeout(String::new())), "timeout");
    }

    #[test]
    fn rows_stand_for_all_wide_hash_keys() {
        let keys: BTreeSet<String> = (0..1000).map(wide_hash_key).collect();
        assert_eq!(keys.len() as u64, WIDE_KEYS);
        assert!((0..SCAN_ROWS).map(wide_sort_key).is_sorted());
    }
}
