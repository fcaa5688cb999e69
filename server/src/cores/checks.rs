//! What can be wrong with a request whatever the moment: keys, sizes, numbers of rows. Nothing here looks at more than
//! the request and the settings of its table; every refusal names the limit.

use pegasus_wire::environment::TableLimits;
use pegasus_wire::hash::partition_index;
use pegasus_wire::limits::{FILTER_BYTES_MAX, SORT_KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX, WRITE_ROWS_MAX};
use pegasus_wire::messages::data::{Filter, RowOperation, SortKeys};
use pegasus_wire::{Status, key};

use super::Partition;
use super::outcome::Refusal;

/// Checks that a hash key is one, and belongs to the partition.
pub(crate) fn check_hash_key(partition: &Partition, hash_key: &[u8]) -> Result<(), Refusal> {
    key::check_hash_key(hash_key).map_err(invalid_key)?;
    belongs(partition, hash_key, b"")
}

/// Checks that the key of one row is one, and belongs to the partition. Only here may the hash key be empty: then the
/// sort key decides where the row is, as in Pegasus.
pub(crate) fn check_row_key(partition: &Partition, hash_key: &[u8], sort_key: &[u8]) -> Result<(), Refusal> {
    check_sort_key(sort_key)?;
    if !hash_key.is_empty() {
        return check_hash_key(partition, hash_key);
    }
    belongs(partition, hash_key, sort_key)
}

/// Checks the hash key of a write. It may only be empty if the write has one row, as that row says where it belongs.
pub(crate) fn check_write_key<'a>(
    partition: &Partition,
    hash_key: &[u8],
    mut operations: impl ExactSizeIterator<Item = RowOperation<'a>>,
) -> Result<(), Refusal> {
    if hash_key.is_empty() && operations.len() == 1 {
        match operations.next() {
            Some(RowOperation::Put { sort_key, .. } | RowOperation::Delete { sort_key }) => {
                return check_row_key(partition, hash_key, sort_key);
            }
            Some(RowOperation::DeleteRange { .. }) | None => {}
        }
    }
    check_hash_key(partition, hash_key)
}

fn belongs(partition: &Partition, hash_key: &[u8], sort_key: &[u8]) -> Result<(), Refusal> {
    if partition_index(hash_key, sort_key, partition.properties.partition_count) == partition.id.index {
        return Ok(());
    }
    let id = partition.id;
    Err(Refusal::new(Status::InvalidArgument, format!("the hash key does not belong to partition {id}")))
}

/// Checks that a sort key is within the data model.
pub(crate) fn check_sort_key(sort_key: &[u8]) -> Result<(), Refusal> {
    key::check_sort_key(sort_key).map_err(invalid_key)
}

/// Checks the ends of a range of sort keys.
pub(crate) fn check_range(range: &SortKeys<'_>) -> Result<(), Refusal> {
    check_sort_key(range.start)?;
    check_sort_key(range.stop)
}

/// Checks the pattern of a filter.
pub(crate) fn check_filter(filter: &Filter<'_>) -> Result<(), Refusal> {
    within("a pattern", filter.pattern.len(), FILTER_BYTES_MAX, FILTER_BYTES_MAX, "filter_bytes")
}

/// Checks the size of an encoded write.
pub(crate) fn check_write_bytes(limits: &TableLimits, bytes: usize) -> Result<(), Refusal> {
    within("a write", bytes, limits.write_bytes, WRITE_BYTES_MAX, "write_bytes")
}

/// Checks the size of what a value is compared with.
pub(crate) fn check_operand(operand: &[u8]) -> Result<(), Refusal> {
    within("an operand", operand.len(), VALUE_BYTES_MAX, VALUE_BYTES_MAX, "value_bytes")
}

/// Checks what a write does with its rows. A table's own limit of sort keys holds for what is put; what was put before
/// may be deleted.
pub(crate) fn check_operations<'a>(
    limits: &TableLimits,
    operations: impl ExactSizeIterator<Item = RowOperation<'a>>,
) -> Result<(), Refusal> {
    let rows = operations.len();
    if rows == 0 {
        return Err(Refusal::new(Status::InvalidArgument, "a write needs at least one row"));
    }
    if rows > limits.write_rows {
        let limit = limit_text(limits.write_rows, WRITE_ROWS_MAX, "write_rows");
        return Err(Refusal::new(Status::TooLarge, format!("a write of {rows} rows, {limit}")));
    }
    for operation in operations {
        match operation {
            RowOperation::Put { sort_key, value, .. } => {
                check_sort_key(sort_key)?;
                within("a sort key", sort_key.len(), limits.sort_key_bytes, SORT_KEY_BYTES_MAX, "sort_key_bytes")?;
                within("a value", value.len(), limits.value_bytes, VALUE_BYTES_MAX, "value_bytes")?;
            }
            RowOperation::Delete { sort_key } => check_sort_key(sort_key)?,
            RowOperation::DeleteRange { range } => check_range(&range)?,
        }
    }
    Ok(())
}

/// A key outside the data model's limits.
fn invalid_key(error: key::KeyError) -> Refusal {
    let status = match error {
        key::KeyError::HashKeyTooLong(_) | key::KeyError::SortKeyTooLong(_) => Status::TooLarge,
        key::KeyError::EmptyHashKey | key::KeyError::Truncated(_) => Status::InvalidArgument,
    };
    Refusal::new(status, error.to_string())
}

fn within(what: &str, bytes: usize, limit: usize, of_cluster: usize, name: &str) -> Result<(), Refusal> {
    if bytes <= limit {
        return Ok(());
    }
    let limit = limit_text(limit, of_cluster, name);
    Err(Refusal::new(Status::TooLarge, format!("{what} of {bytes} bytes, {limit}")))
}

/// Names a limit as the cluster's, or as the setting of the table that lowers it.
fn limit_text(limit: usize, of_cluster: usize, name: &str) -> String {
    if limit == of_cluster {
        format!("the limit is {limit} ({name}_max)")
    } else {
        format!("the table's limit is {limit} (limits.{name})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put<'a>(sort_key: &'a [u8], value: &'a [u8]) -> RowOperation<'a> {
        RowOperation::Put { sort_key, value, expiry_seconds: 0 }
    }

    fn refused(limits: &TableLimits, operations: &[RowOperation<'_>]) -> Option<(Status, String)> {
        let refusal = check_operations(limits, operations.iter().copied()).err()?;
        Some((refusal.status, refusal.message))
    }

    #[test]
    fn a_tables_limits_are_named_as_its_settings() {
        let limits = TableLimits { sort_key_bytes: 3, value_bytes: 4, write_bytes: 1024, write_rows: 2 };
        let fits = [put(b"abc", b"1234"), RowOperation::Delete { sort_key: b"longer than what may be put" }];
        assert_eq!(refused(&limits, &fits), None);
        let cases = [
            (vec![put(b"abcd", b"")], "a sort key of 4 bytes, the table's limit is 3 (limits.sort_key_bytes)"),
            (vec![put(b"", b"12345")], "a value of 5 bytes, the table's limit is 4 (limits.value_bytes)"),
            (vec![put(b"", b""); 3], "a write of 3 rows, the table's limit is 2 (limits.write_rows)"),
        ];
        for (operations, message) in cases {
            assert_eq!(refused(&limits, &operations), Some((Status::TooLarge, message.to_owned())));
        }
        let too_long = check_write_bytes(&limits, 1025).unwrap_err().message;
        assert_eq!(too_long, "a write of 1025 bytes, the table's limit is 1024 (limits.write_bytes)");
        let too_long = check_write_bytes(&TableLimits::default(), WRITE_BYTES_MAX + 1).unwrap_err().message;
        assert!(too_long.ends_with("(write_bytes_max)"), "{too_long}");
    }

    #[test]
    fn every_operation_is_checked() {
        let limits = TableLimits::default();
        let long = vec![0; SORT_KEY_BYTES_MAX + 1];
        let range = |start, stop| RowOperation::DeleteRange {
            range: SortKeys { start, stop, start_inclusive: true, stop_inclusive: false },
        };
        let wrong = [put(&long, b""), RowOperation::Delete { sort_key: &long }, range(&long, b""), range(b"", &long)];
        for operation in wrong {
            let (status, message) = refused(&limits, &[put(b"", b""), operation]).unwrap();
            assert!(status == Status::TooLarge && message.contains("sort_key_bytes_max"), "{message}");
        }
        assert_eq!(refused(&limits, &[range(&long[1..], &long[1..])]), None);
        assert_eq!(refused(&limits, &[]).map(|(status, _)| status), Some(Status::InvalidArgument));
    }
}
