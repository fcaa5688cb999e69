//! Writes of one hash key, checked against the limits before anything is sent.

use std::time::{SystemTime, UNIX_EPOCH};

use pegasus_wire::expiry::{expiry_seconds, seconds_since_epoch};
use pegasus_wire::key::{check_hash_key, check_sort_key};
use pegasus_wire::limits::{VALUE_BYTES_MAX, WRITE_BYTES_MAX, WRITE_ROWS_MAX};
use pegasus_wire::messages::data::{ArchivedRowOperation, ArchivedWrite, RowOperation};

use crate::error::Error;
use crate::keys::SortKeyRange;

/// Puts and deletes of rows that share a hash key. Written as one: all or nothing, in this order.
///
/// ```
/// use pegasus_client::{SortKeyRange, WriteBatch};
///
/// let drafts = SortKeyRange { start: "draft:".into(), stop: "draft;".into(), ..SortKeyRange::default() };
/// let mut batch = WriteBatch::new();
/// batch.put("name", "Ada").put_with_ttl("session", "7f", 3600).delete("nickname").delete_range(&drafts);
/// assert_eq!(batch.len(), 4);
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch<'a> {
    operations: Vec<RowOperation<'a>>,
}

impl<'a> WriteBatch<'a> {
    /// No operations yet.
    pub fn new() -> WriteBatch<'a> {
        WriteBatch::default()
    }

    /// Inserts or overwrites a row that lives until it is deleted.
    pub fn put(
        &mut self,
        sort_key: &'a (impl AsRef<[u8]> + ?Sized),
        value: &'a (impl AsRef<[u8]> + ?Sized),
    ) -> &mut Self {
        self.put_until(sort_key, value, 0)
    }

    /// Inserts or overwrites a row that lives for `ttl_seconds` from now; 0 means until it is deleted.
    pub fn put_with_ttl(
        &mut self,
        sort_key: &'a (impl AsRef<[u8]> + ?Sized),
        value: &'a (impl AsRef<[u8]> + ?Sized),
        ttl_seconds: u32,
    ) -> &mut Self {
        self.put_until(sort_key, value, expiry_from_now(ttl_seconds))
    }

    /// Inserts or overwrites a row that expires at a given second, counted from 2016-01-01 00:00:00 UTC; 0 means never.
    pub fn put_until(
        &mut self,
        sort_key: &'a (impl AsRef<[u8]> + ?Sized),
        value: &'a (impl AsRef<[u8]> + ?Sized),
        expiry_seconds: u32,
    ) -> &mut Self {
        self.operations.push(RowOperation::Put { sort_key: sort_key.as_ref(), value: value.as_ref(), expiry_seconds });
        self
    }

    /// Deletes a row; one that is not there is no error.
    pub fn delete(&mut self, sort_key: &'a (impl AsRef<[u8]> + ?Sized)) -> &mut Self {
        self.operations.push(RowOperation::Delete { sort_key: sort_key.as_ref() });
        self
    }

    /// Deletes all rows in a range of sort keys, those put earlier in this batch included; what is put later stays. It
    /// counts as one operation, however many rows there are.
    pub fn delete_range(&mut self, range: &'a SortKeyRange) -> &mut Self {
        self.operations.push(RowOperation::DeleteRange { range: range.as_wire() });
        self
    }

    /// How many operations it holds.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// True if it holds none. Such a batch is refused.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub(crate) fn operations(&self) -> &[RowOperation<'a>] {
        &self.operations
    }
}

/// Bytes that one operation on a row of the given sizes adds to a write. A write of one hash key holds at most
/// `WRITE_BYTES_MAX` bytes: [`write_overhead_bytes`] plus this for each row.
pub fn row_bytes(sort_key_bytes: usize, value_bytes: usize) -> usize {
    size_of::<ArchivedRowOperation<'static>>() + sort_key_bytes + value_bytes
}

/// Bytes of a write apart from its rows.
pub fn write_overhead_bytes(hash_key_bytes: usize) -> usize {
    size_of::<ArchivedWrite<'static>>() + hash_key_bytes
}

/// The second at which a row written now expires; 0 for never.
pub fn expiry_from_now(ttl_seconds: u32) -> u32 {
    expiry_seconds(now_seconds(), ttl_seconds)
}

/// This machine's clock in seconds since 2016-01-01 00:00:00 UTC.
pub fn now_seconds() -> u32 {
    let since_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    seconds_since_epoch(u64::try_from(since_unix.as_micros()).unwrap_or(u64::MAX))
}

/// Checks a write against every limit of the data model.
pub(crate) fn check_write(hash_key: &[u8], operations: &[RowOperation<'_>]) -> Result<(), Error> {
    check_hash_key(hash_key).map_err(Error::invalid)?;
    if operations.is_empty() {
        return Err(Error::InvalidArgument("a write needs at least one row".into()));
    }
    if operations.len() > WRITE_ROWS_MAX {
        return Err(Error::InvalidArgument(format!(
            "the write has {} rows, the limit is {WRITE_ROWS_MAX} (write_rows_max)",
            operations.len()
        )));
    }
    let mut bytes = write_overhead_bytes(hash_key.len());
    for operation in operations {
        bytes += check_operation(operation)?;
    }
    if bytes > WRITE_BYTES_MAX {
        return Err(Error::InvalidArgument(format!(
            "the write has {bytes} bytes, the limit is {WRITE_BYTES_MAX} (write_bytes_max)"
        )));
    }
    Ok(())
}

fn check_operation(operation: &RowOperation<'_>) -> Result<usize, Error> {
    match operation {
        RowOperation::Put { sort_key, value, .. } => {
            check_sort_key(sort_key).map_err(Error::invalid)?;
            if value.len() > VALUE_BYTES_MAX {
                return Err(Error::InvalidArgument(format!(
                    "the value has {} bytes, the limit is {VALUE_BYTES_MAX} (value_bytes_max)",
                    value.len()
                )));
            }
            Ok(row_bytes(sort_key.len(), value.len()))
        }
        RowOperation::Delete { sort_key } => {
            check_sort_key(sort_key).map_err(Error::invalid)?;
            Ok(row_bytes(sort_key.len(), 0))
        }
        RowOperation::DeleteRange { range } => {
            check_sort_key(range.start).map_err(Error::invalid)?;
            check_sort_key(range.stop).map_err(Error::invalid)?;
            Ok(row_bytes(range.start.len() + range.stop.len(), 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_wire::limits::{HASH_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
    use pegasus_wire::messages::data::Write;
    use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, PartitionId};
    use proptest::prelude::*;

    fn refusal(hash_key: &[u8], batch: &WriteBatch<'_>) -> String {
        check_write(hash_key, batch.operations()).unwrap_err().to_string()
    }

    #[test]
    fn every_limit_is_named() {
        let long_key = vec![0; HASH_KEY_BYTES_MAX.max(SORT_KEY_BYTES_MAX) + 1];
        let long_value = vec![0; VALUE_BYTES_MAX + 1];
        let mut one = WriteBatch::new();
        one.put("s", "v");
        assert!(check_write(b"h", one.operations()).is_ok());
        assert!(refusal(b"", &one).contains("must not be empty"));
        assert!(refusal(&long_key, &one).contains("hash_key_bytes_max"));
        assert!(refusal(b"h", &WriteBatch::new()).contains("at least one row"));
        let mut batch = WriteBatch::new();
        batch.put(&long_key, "v");
        assert!(refusal(b"h", &batch).contains("sort_key_bytes_max"));
        let mut batch = WriteBatch::new();
        batch.delete(&long_key);
        assert!(refusal(b"h", &batch).contains("sort_key_bytes_max"));
        for (start, stop) in [(&long_key[..], &b""[..]), (b"", &long_key)] {
            let range = SortKeyRange { start: start.into(), stop: stop.into(), ..SortKeyRange::default() };
            let mut batch = WriteBatch::new();
            batch.delete_range(&range);
            assert!(refusal(b"h", &batch).contains("sort_key_bytes_max"));
        }
        let mut batch = WriteBatch::new();
        batch.put("s", &long_value);
        assert!(refusal(b"h", &batch).contains("value_bytes_max"));
        let mut batch = WriteBatch::new();
        for _ in 0..=WRITE_ROWS_MAX {
            batch.put("s", "v");
        }
        assert!(refusal(b"h", &batch).contains("write_rows_max"));
        let value = vec![0; VALUE_BYTES_MAX];
        let mut batch = WriteBatch::new();
        batch.put("1", &value).put("2", &value).put("3", &value);
        assert!(refusal(b"h", &batch).contains("write_bytes_max"));
    }

    fn bytes(length_below: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..length_below)
    }

    proptest! {
        #[test]
        fn the_size_is_known_before_encoding(
            hash_key in proptest::collection::vec(any::<u8>(), 1..40),
            rows in proptest::collection::vec((bytes(20), bytes(60), 0..3), 1..20),
        ) {
            let range = |start: &[u8], stop: &[u8]| {
                SortKeyRange { start: start.into(), stop: stop.into(), ..SortKeyRange::default() }
            };
            let ranges: Vec<SortKeyRange> = rows.iter().map(|(start, stop, _)| range(start, stop)).collect();
            let mut batch = WriteBatch::new();
            let mut expected = write_overhead_bytes(hash_key.len());
            for ((sort_key, value, kind), range) in rows.iter().zip(&ranges) {
                match kind {
                    0 => batch.put(sort_key, value),
                    1 => batch.delete(sort_key),
                    _ => batch.delete_range(range),
                };
                expected += row_bytes(sort_key.len(), if *kind == 1 { 0 } else { value.len() });
            }
            let partition = PartitionId::new(1, 0);
            let write = Write { partition, hash_key: &hash_key, operations: batch.operations() };
            let mut out = Vec::new();
            FrameBuilder::append(&mut out, FrameHeader::request(MessageKind::WRITE, 1, 1), &write, &[]);
            let frame = Frame::take(&mut out.as_slice().into()).expect("a sound frame").expect("a whole frame");
            prop_assert_eq!(frame.body.len(), expected);
        }
    }
}
