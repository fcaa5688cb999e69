//! The rows that are written and read under faults, and how their values tell where they come from. Pure.

use std::fmt::Write;

use pegasus_client::Error;
use pegasus_history::{Answer, Outcome, State, Value};
use pegasus_wire::Advice;
use pegasus_wire::hash::partition_index;

/// The sort key of every row.
pub const SORT_KEY: &[u8] = b"value";

/// The hash key of a row.
pub fn hash_key(key: u64) -> String {
    format!("key{key}")
}

/// The partition of a row.
pub fn partition_of(key: u64, partition_count: u32) -> u32 {
    partition_index(hash_key(key).as_bytes(), SORT_KEY, partition_count)
}

/// What is stored as a value: its number, and bytes that follow from it, so that a value that is damaged or put
/// together from two shows.
pub fn value_bytes(value: Value) -> Vec<u8> {
    let mut text = format!("{value}:");
    let length = value.wrapping_mul(7919) % FILLER_BYTES_MAX;
    let mut mixed = value;
    while (text.len() as u64) < length {
        mixed = mixed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Writing into a text does not fail.
        let _ = write!(text, "{:016x}", mixed);
    }
    text.into_bytes()
}

/// The value that was stored; `None` if nobody could have stored these bytes.
pub fn parse_value(bytes: &[u8]) -> Option<Value> {
    let digits = bytes.split(|byte| *byte == b':').next()?;
    let value = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value_bytes(value) == bytes).then_some(value)
}

/// The outcome of a write, exactly as the client reports it.
pub fn outcome_of_write(result: &Result<(), Error>) -> Outcome {
    match result {
        Ok(()) => Outcome::Ok(Answer::Done),
        Err(error) if error.advice() == Advice::Unknown => Outcome::Unknown,
        Err(_) => Outcome::Failed,
    }
}

/// The outcome of a read; a failed one tells nothing. `Err` if what was read is no value of anybody.
pub fn outcome_of_read<B: AsRef<[u8]>>(result: &Result<Option<B>, Error>) -> Result<Outcome, String> {
    match result {
        Ok(Some(bytes)) => match parse_value(bytes.as_ref()) {
            Some(value) => Ok(row(Some(value))),
            None => {
                let start = &bytes.as_ref()[..bytes.as_ref().len().min(60)];
                Err(format!("read a damaged value that begins with {:?}", String::from_utf8_lossy(start)))
            }
        },
        Ok(None) => Ok(row(None)),
        Err(_) => Ok(Outcome::Failed),
    }
}

fn row(state: State) -> Outcome {
    Outcome::Ok(Answer::Row(state))
}

const FILLER_BYTES_MAX: u64 = 1500;

#[cfg(test)]
mod tests {
    use pegasus_client::Status;

    use super::*;

    #[test]
    fn values_are_told_from_anything_else() {
        for value in [0, 1, 17, 123_456_789, u64::MAX] {
            let bytes = value_bytes(value);
            assert_eq!(parse_value(&bytes), Some(value));
            assert_eq!(parse_value(&bytes[..bytes.len() - 1]), None);
            let mut damaged = bytes.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(parse_value(&damaged), None, "{value}");
        }
        assert_eq!(parse_value(b""), None);
        assert_eq!(parse_value(b"x:"), None);
        assert!(value_bytes(3).len() > 100 && value_bytes(0).len() < 10, "values have many lengths");
    }

    #[test]
    fn errors_become_outcomes_as_the_client_means_them() {
        let refused = Error::Refused { status: Status::Internal, message: String::new() };
        assert_eq!(outcome_of_write(&Ok(())), Outcome::Ok(Answer::Done));
        assert_eq!(outcome_of_write(&Err(Error::Unknown(String::new()))), Outcome::Unknown);
        assert_eq!(outcome_of_write(&Err(Error::Timeout(String::new()))), Outcome::Failed);
        assert_eq!(outcome_of_write(&Err(refused)), Outcome::Failed);
        let read = |found: Option<Vec<u8>>| outcome_of_read(&Ok(found));
        assert_eq!(read(None), Ok(Outcome::Ok(Answer::Row(None))));
        assert_eq!(read(Some(value_bytes(5))), Ok(Outcome::Ok(Answer::Row(Some(5)))));
        assert!(read(Some(b"5:x".to_vec())).unwrap_err().contains("5:x"));
        assert_eq!(outcome_of_read::<Vec<u8>>(&Err(Error::Timeout(String::new()))), Ok(Outcome::Failed));
    }

    #[test]
    fn rows_spread_over_the_partitions() {
        let hit: std::collections::BTreeSet<u32> = (0..64).map(|key| partition_of(key, 8)).collect();
        assert_eq!(hit.len(), 8);
    }
}
