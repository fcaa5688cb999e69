//! Operations on the rows of a workload, one at a time.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::failure::Failure;
use crate::workload::keys::hash_key;
use crate::workload::mix::Operation;
use crate::workload::record::Outcome;
use crate::workload::rows::Rows;

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
pub async fn perform<T: Rows>(table: &T, operation: Operation, row: u64, value: &Bytes) -> Outcome {
    match attempt(table, operation, row, value).await {
        Ok(name) => Outcome::done(name),
        Err(error) => Outcome::failed(operation.name(), T::error_kind(&error)),
    }
}

async fn attempt<T: Rows>(table: &T, operation: Operation, row: u64, value: &Bytes) -> Result<&'static str, T::Error> {
    let (key, name) = (&hash_key(row)[..], operation.name());
    let named = |found, missing| if found { name } else { missing };
    match operation {
        Operation::Get => Ok(named(table.get(key, SORT_KEY).await?.is_some(), "get (no row)")),
        Operation::Exist => Ok(named(table.exist(key, SORT_KEY).await?, "exist (no row)")),
        Operation::Set => table.set(key, SORT_KEY, value).await.map(|()| name),
        Operation::Delete => table.del(key, SORT_KEY).await.map(|()| name),
        Operation::Increment => table.incr(key, COUNTER).await.map(|()| name),
        Operation::CheckAndSet => Ok(named(table.set_if_exists(key, SORT_KEY, value).await?, "cas (no row)")),
        Operation::DeleteRange => table.del_range(key, b"gone", b"gonf").await.map(|()| name),
        Operation::MultiGet => {
            let first = row / WIDE_KEYS % (SCAN_ROWS / MULTI_GET_ROWS) * MULTI_GET_ROWS;
            let (key, start) = (wide_hash_key(row), wide_sort_key(first));
            let found = table.multi_get(key.as_bytes(), start.as_bytes(), MULTI_GET_ROWS as u32).await?;
            Ok(named(found == MULTI_GET_ROWS, "multi_get (rows missing)"))
        }
        Operation::Scan => {
            let found = table.scan(wide_hash_key(row).as_bytes(), SCAN_ROWS as u32).await?;
            Ok(named(found == SCAN_ROWS, "scan (rows missing)"))
        }
    }
}

/// Writes the rows of the wide hash keys that are missing.
pub async fn load_wide<T: Rows>(table: &T) -> Result<(), Failure> {
    let load = |number: u64| async move {
        let key = wide_hash_key(number);
        let key = key.as_bytes();
        if table.count(key).await.map_err(Failure::at("count the rows of a wide hash key"))? == SCAN_ROWS {
            return Ok(());
        }
        let value = [b'w'; WIDE_VALUE_BYTES];
        let rows: Vec<(String, &[u8])> = (0..SCAN_ROWS).map(|row| (wide_sort_key(row), &value[..])).collect();
        table.multi_set(key, &rows).await.map_err(Failure::at("write the rows of a wide hash key"))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_stand_for_all_wide_hash_keys() {
        let keys: BTreeSet<String> = (0..1000).map(wide_hash_key).collect();
        assert_eq!(keys.len() as u64, WIDE_KEYS);
        assert!((0..SCAN_ROWS).map(wide_sort_key).is_sorted());
    }
}
