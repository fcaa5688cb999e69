//! Payloads of mutations that are made here, not taken as they came: what read-dependent operations write, and writes
//! whose rows get the table's time to live.
//!
//! A payload is the body of a `Write` frame, whoever made it; replicas and tables know no other.

use bytes::Bytes;
use pegasus_wire::PartitionId;
use pegasus_wire::frame::append_body;
use pegasus_wire::messages::data::{ArchivedRowOperation, ArchivedWrite, RowOperation, Write};

/// Room for what an archive adds to its bytes, for the write and for each of its rows.
const OVERHEAD_BYTES: usize = 48;

/// The payload of a write.
pub(crate) fn encode(write: &Write<'_>) -> Bytes {
    let rows: usize = write.operations.iter().map(|operation| bytes_of(operation) + OVERHEAD_BYTES).sum();
    let mut payload = Vec::with_capacity(OVERHEAD_BYTES + write.hash_key.len() + rows);
    append_body(&mut payload, write);
    Bytes::from(payload)
}

/// The payload of a write, whose rows get the table's time to live if they have none and the table has one.
pub(crate) fn encode_with_default(write: &Write<'_>, default_expiry: Option<u32>) -> Bytes {
    let Some(expiry_seconds) = default_expiry else { return encode(write) };
    let mut operations = write.operations.to_vec();
    fill_expiry(&mut operations, expiry_seconds);
    encode(&Write { operations: &operations, ..*write })
}

/// The same write, in which rows that are put without an expiry have this one; `None` if there are none such.
pub(crate) fn with_expiry(write: &ArchivedWrite<'_>, expiry_seconds: u32) -> Option<Bytes> {
    let needs = |operation: &ArchivedRowOperation<'_>| match operation {
        ArchivedRowOperation::Put { expiry_seconds, .. } => expiry_seconds.to_native() == 0,
        ArchivedRowOperation::Delete { .. } | ArchivedRowOperation::DeleteRange { .. } => false,
    };
    if !write.operations.iter().any(needs) {
        return None;
    }
    let mut operations: Vec<RowOperation<'_>> = write.operations.iter().map(plain_operation).collect();
    fill_expiry(&mut operations, expiry_seconds);
    let partition = PartitionId::from(&write.partition);
    Some(encode(&Write { partition, hash_key: &write.hash_key, operations: &operations }))
}

/// Gives rows that are put without an expiry this one.
pub(crate) fn fill_expiry(operations: &mut [RowOperation<'_>], with: u32) {
    for operation in operations {
        if let RowOperation::Put { expiry_seconds, .. } = operation
            && *expiry_seconds == 0
        {
            *expiry_seconds = with;
        }
    }
}

/// An operation as it stands in a body, borrowed.
pub(crate) fn plain_operation<'a>(operation: &'a ArchivedRowOperation<'_>) -> RowOperation<'a> {
    match operation {
        ArchivedRowOperation::Put { sort_key, value, expiry_seconds } => {
            RowOperation::Put { sort_key, value, expiry_seconds: expiry_seconds.to_native() }
        }
        ArchivedRowOperation::Delete { sort_key } => RowOperation::Delete { sort_key },
        ArchivedRowOperation::DeleteRange { range } => RowOperation::DeleteRange { range: range.plain() },
    }
}

fn bytes_of(operation: &RowOperation<'_>) -> usize {
    match operation {
        RowOperation::Put { sort_key, value, .. } => sort_key.len() + value.len(),
        RowOperation::Delete { sort_key } => sort_key.len(),
        RowOperation::DeleteRange { range } => range.start.len() + range.stop.len(),
    }
}

#[cfg(test)]
mod tests {
    use pegasus_wire::MessageKind;
    use pegasus_wire::frame::read_body;
    use pegasus_wire::messages::data::SortKeys;

    use super::*;

    const KEPT: u32 = 7;
    const DEFAULT: u32 = 99;

    fn put(sort_key: &'static [u8], expiry_seconds: u32) -> RowOperation<'static> {
        RowOperation::Put { sort_key, value: b"value", expiry_seconds }
    }

    fn write(operations: &[RowOperation<'_>]) -> Bytes {
        encode(&Write { partition: PartitionId::new(3, 1), hash_key: b"hash", operations })
    }

    fn read(payload: &Bytes) -> &ArchivedWrite<'_> {
        read_body(MessageKind::WRITE, payload).unwrap()
    }

    #[test]
    fn only_rows_without_an_expiry_get_one() {
        let range = SortKeys { start: b"c", stop: b"d", start_inclusive: false, stop_inclusive: true };
        let operations = [
            put(b"a", 0),
            RowOperation::Delete { sort_key: b"b" },
            RowOperation::DeleteRange { range },
            put(b"e", KEPT),
        ];
        let payload = write(&operations);
        let changed = with_expiry(read(&payload), DEFAULT).unwrap();
        assert_eq!(changed.len(), payload.len(), "nothing else has changed");
        let mut wanted = operations;
        wanted[0] = put(b"a", DEFAULT);
        assert_eq!(changed, write(&wanted));
        let read = read(&changed);
        assert_eq!((PartitionId::from(&read.partition), &*read.hash_key), (PartitionId::new(3, 1), &b"hash"[..]));
    }

    #[test]
    fn what_needs_nothing_stays_as_it_is() {
        let payload = write(&[put(b"a", KEPT), RowOperation::Delete { sort_key: b"b" }]);
        assert_eq!(with_expiry(read(&payload), DEFAULT), None);
    }

    #[test]
    fn the_room_for_a_payload_is_enough() {
        for rows in [1, 2, 1000] {
            let operations: Vec<RowOperation<'_>> = (0..rows).map(|_| put(b"sort key", 0)).collect();
            let payload = write(&operations);
            let counted: usize = operations.iter().map(|operation| bytes_of(operation) + OVERHEAD_BYTES).sum();
            assert!(payload.len() <= OVERHEAD_BYTES + 4 + counted, "{} bytes for {rows} rows", payload.len());
        }
    }
}
