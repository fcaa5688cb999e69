//! Adding to the number in a row.

use pegasus_wire::messages::data::ExpiryChange;

use super::{Current, ExecuteError, excerpt, parse_integer};

/// What becomes of a row that is incremented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incremented {
    /// Its number. It is stored as decimal text: [`Incremented::text`].
    pub value: i64,
    /// Second at which it expires, since 2016; 0 means never.
    pub expiry_seconds: u32,
}

impl Incremented {
    /// The value to store.
    pub fn text(&self) -> String {
        self.value.to_string()
    }
}

/// Adds to the number in a row; `None` is a row that is missing or expired. It counts as 0, and so does an empty one.
pub fn increment(current: Option<Current<'_>>, by: i64, change: ExpiryChange) -> Result<Incremented, ExecuteError> {
    let before = match current {
        None => 0,
        Some(row) if row.value.is_empty() => 0,
        Some(row) => parse_integer(row.value).ok_or_else(|| ExecuteError::ValueNotInteger(excerpt(row.value)))?,
    };
    let overflow = ExecuteError::Overflow { value: before, increment: by };
    let value = before.checked_add(by).ok_or(overflow)?;
    let expiry_seconds = match change {
        ExpiryChange::Keep => current.map_or(0, |row| row.expiry_seconds),
        ExpiryChange::Set(expiry_seconds) => expiry_seconds,
        ExpiryChange::Clear => 0,
    };
    Ok(Incremented { value, expiry_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(value: &[u8]) -> Option<Current<'_>> {
        Some(Current { value, expiry_seconds: 500 })
    }

    #[test]
    fn what_is_missing_or_empty_counts_as_zero() {
        assert_eq!(increment(None, -5, ExpiryChange::Keep), Ok(Incremented { value: -5, expiry_seconds: 0 }));
        assert_eq!(increment(row(b""), 7, ExpiryChange::Keep), Ok(Incremented { value: 7, expiry_seconds: 500 }));
        assert_eq!(increment(None, i64::MIN, ExpiryChange::Keep).unwrap().text(), "-9223372036854775808");
        assert_eq!(increment(None, 0, ExpiryChange::Keep).unwrap().text(), "0");
    }

    #[test]
    fn numbers_of_any_form_become_decimal() {
        for (value, sum) in [(&b"10"[..], 13), (b" 0x10", 19), (b"-010", -5), (b"+1", 4)] {
            assert_eq!(increment(row(value), 3, ExpiryChange::Keep).unwrap().value, sum);
        }
        assert_eq!(increment(row(b"0x10"), 0, ExpiryChange::Keep).unwrap().text(), "16", "also when nothing is added");
    }

    #[test]
    fn the_time_to_live_is_kept_set_or_cleared() {
        let expiry = |current, change| increment(current, 1, change).unwrap().expiry_seconds;
        assert_eq!([row(b"1"), None].map(|current| expiry(current, ExpiryChange::Keep)), [500, 0]);
        assert_eq!([row(b"1"), None].map(|current| expiry(current, ExpiryChange::Set(900))), [900, 900]);
        assert_eq!([row(b"1"), None].map(|current| expiry(current, ExpiryChange::Clear)), [0, 0]);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for value in [&b"abc"[..], b"1 ", b"9223372036854775808", b"\0", b" "] {
            let error = increment(row(value), 1, ExpiryChange::Keep).unwrap_err();
            assert_eq!(error, ExecuteError::ValueNotInteger(excerpt(value)));
        }
    }

    #[test]
    fn a_sum_out_of_range_is_refused_with_the_value_that_stays() {
        let overflow = |value, increment| Err(ExecuteError::Overflow { value, increment });
        assert_eq!(increment(row(b"9223372036854775807"), 1, ExpiryChange::Clear), overflow(i64::MAX, 1));
        assert_eq!(increment(row(b"-2"), i64::MIN, ExpiryChange::Keep), overflow(-2, i64::MIN));
        let edge = increment(row(b"-9223372036854775808"), i64::MAX, ExpiryChange::Keep).unwrap();
        assert_eq!(edge.value, -1);
    }

    proptest! {
        #[test]
        fn sums_are_those_of_wider_numbers(before in any::<i64>(), by in any::<i64>()) {
            let value = before.to_string();
            let sum = i64::try_from(i128::from(before) + i128::from(by)).ok();
            let outcome = increment(row(value.as_bytes()), by, ExpiryChange::Keep);
            prop_assert_eq!(outcome.clone().ok().map(|row| row.value), sum);
            if let Ok(row) = outcome {
                prop_assert_eq!(parse_integer(row.text().as_bytes()), sum);
            }
        }
    }
}
