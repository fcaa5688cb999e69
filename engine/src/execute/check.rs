//! Conditions on the value of a row.

use std::cmp::Ordering;

use memchr::memmem;
use pegasus_wire::messages::data::Check;

use super::{ExecuteError, excerpt, parse_integer};

/// Whether a row passes a check; `None` is a row that is missing or expired. A row that does not exist passes none of
/// the checks on its content, also where the operand is no number.
pub fn check(current: Option<&[u8]>, check: Check, operand: &[u8]) -> Result<bool, ExecuteError> {
    let exists = match check {
        Check::Nothing => return Ok(true),
        Check::NotExist => return Ok(current.is_none()),
        Check::NotExistOrEmpty => return Ok(current.is_none_or(<[u8]>::is_empty)),
        _ => current,
    };
    let Some(value) = exists else { return Ok(false) };
    let bytes = || value.cmp(operand);
    Ok(match check {
        Check::Nothing | Check::NotExist | Check::NotExistOrEmpty | Check::Exist => true,
        Check::NotEmpty => !value.is_empty(),
        Check::MatchAnywhere => memmem::find(value, operand).is_some(),
        Check::MatchPrefix => value.starts_with(operand),
        Check::MatchPostfix => value.ends_with(operand),
        Check::BytesLess => bytes().is_lt(),
        Check::BytesLessOrEqual => bytes().is_le(),
        Check::BytesEqual => bytes().is_eq(),
        Check::BytesGreaterOrEqual => bytes().is_ge(),
        Check::BytesGreater => bytes().is_gt(),
        Check::IntegerLess => integers(value, operand)?.is_lt(),
        Check::IntegerLessOrEqual => integers(value, operand)?.is_le(),
        Check::IntegerEqual => integers(value, operand)?.is_eq(),
        Check::IntegerGreaterOrEqual => integers(value, operand)?.is_ge(),
        Check::IntegerGreater => integers(value, operand)?.is_gt(),
    })
}

fn integers(value: &[u8], operand: &[u8]) -> Result<Ordering, ExecuteError> {
    let value = parse_integer(value).ok_or_else(|| ExecuteError::ValueNotInteger(excerpt(value)))?;
    let operand = parse_integer(operand).ok_or_else(|| ExecuteError::OperandNotInteger(excerpt(operand)))?;
    Ok(value.cmp(&operand))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The value of the row, the operand, and what becomes of all checks.
    type Line<'a> = (Option<&'a [u8]>, &'a [u8], &'a str);

    /// One column per check, in the order of their numbers: `+` passes, `-` does not, `v` the value is no number, `o`
    /// the operand is none.
    fn row(current: Option<&[u8]>, operand: &[u8]) -> String {
        let one = |kind| match check(current, kind, operand) {
            Ok(true) => '+',
            Ok(false) => '-',
            Err(ExecuteError::ValueNotInteger(_)) => 'v',
            Err(ExecuteError::OperandNotInteger(_)) => 'o',
            Err(ExecuteError::Overflow { .. }) => '!',
        };
        Check::ALL.map(one).iter().collect()
    }

    #[test]
    fn all_checks_on_all_kinds_of_rows() {
        // 0 nothing, 1 not exist, 2 not exist or empty, 3 exist, 4 not empty, 5 anywhere, 6 prefix, 7 postfix,
        // 8 to 12 bytes < <= = >= >, 13 to 17 integers < <= = >= >
        let table: &[Line] = &[
            (None, b"", "+++---------------"),
            (None, b"1", "+++---------------"),
            (None, b"no number", "+++---------------"),
            (Some(b""), b"", "+-++-+++-+++-vvvvv"),
            (Some(b""), b"1", "+-++----++---vvvvv"),
            (Some(b"abc"), b"", "+--+++++---++vvvvv"),
            (Some(b"abc"), b"b", "+--+++--++---vvvvv"),
            (Some(b"abc"), b"a", "+--++++----++vvvvv"),
            (Some(b"abc"), b"c", "+--+++-+++---vvvvv"),
            (Some(b"abc"), b"abc", "+--+++++-+++-vvvvv"),
            (Some(b"abc"), b"abcd", "+--++---++---vvvvv"),
            (Some(b"\xFF"), b"\x01", "+--++------++vvvvv"),
            (Some(b"9"), b"10", "+--++------++++---"),
            (Some(b"10"), b"9", "+--++---++------++"),
            (Some(b"10"), b"10", "+--+++++-+++--+++-"),
            (Some(b"-1"), b"0x1", "+--++---++---++---"),
            (Some(b"5"), b"", "+--+++++---++ooooo"),
            (Some(b"5"), b"5x", "+--++---++---ooooo"),
            (Some(b"5 "), b"5x", "+--++---++---vvvvv"),
            (Some(b"9223372036854775807"), b"9223372036854775808", "+--++---++---ooooo"),
        ];
        for (current, operand, expected) in table {
            let shown = (current.map(|value| value.escape_ascii().to_string()), operand.escape_ascii().to_string());
            assert_eq!(row(*current, operand), *expected, "{shown:?}");
        }
    }

    proptest! {
        #[test]
        fn orders_of_bytes_and_integers_are_whole(left in any::<i64>(), right in any::<i64>(), near in -1i64..=1) {
            for right in [right, left.saturating_add(near)] {
                let (value, operand) = (left.to_string(), right.to_string());
                let outcome = |kind| check(Some(value.as_bytes()), kind, operand.as_bytes()).unwrap();
                let integers = [
                    (Check::IntegerLess, left < right),
                    (Check::IntegerLessOrEqual, left <= right),
                    (Check::IntegerEqual, left == right),
                    (Check::IntegerGreaterOrEqual, left >= right),
                    (Check::IntegerGreater, left > right),
                    (Check::BytesLess, value < operand),
                    (Check::BytesLessOrEqual, value <= operand),
                    (Check::BytesEqual, value == operand),
                    (Check::BytesGreaterOrEqual, value >= operand),
                    (Check::BytesGreater, value > operand),
                ];
                for (kind, expected) in integers {
                    prop_assert_eq!(outcome(kind), expected, "{:?} {} {}", kind, &value, &operand);
                }
            }
        }

        #[test]
        fn an_empty_operand_matches_every_row_that_exists(value in proptest::collection::vec(any::<u8>(), 0..20)) {
            for kind in [Check::MatchAnywhere, Check::MatchPrefix, Check::MatchPostfix] {
                prop_assert_eq!(check(Some(&value), kind, b""), Ok(true));
                prop_assert_eq!(check(None, kind, b""), Ok(false));
            }
        }

        #[test]
        fn a_piece_of_a_value_is_found_where_it_is(
            before in proptest::collection::vec(0u8..3, 0..5),
            piece in proptest::collection::vec(0u8..3, 0..5),
            after in proptest::collection::vec(0u8..3, 0..5),
        ) {
            let value = [&before[..], &piece, &after].concat();
            prop_assert_eq!(check(Some(&value), Check::MatchAnywhere, &piece), Ok(true));
            let prefix = value[..piece.len()] == piece[..];
            prop_assert_eq!(check(Some(&value), Check::MatchPrefix, &piece), Ok(prefix));
            let postfix = value[value.len() - piece.len()..] == piece[..];
            prop_assert_eq!(check(Some(&value), Check::MatchPostfix, &piece), Ok(postfix));
        }
    }
}
