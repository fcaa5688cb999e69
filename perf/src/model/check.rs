//! The conditions of check_and_set and check_and_mutate. Pure, and written apart from the engine on purpose.

use pegasus_wire::messages::data::Check;

use crate::model::integer::parse_integer;

/// The condition cannot be judged: a number is wanted, and value or operand is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotANumber;

/// Whether a row with this value, or one that is not there, passes a check.
pub fn passes(check: Check, value: Option<&[u8]>, operand: &[u8]) -> Result<bool, NotANumber> {
    let Some(value) = value else {
        return Ok(matches!(check, Check::Nothing | Check::NotExist | Check::NotExistOrEmpty));
    };
    Ok(match check {
        Check::Nothing | Check::Exist => true,
        Check::NotExist => false,
        Check::NotExistOrEmpty => value.is_empty(),
        Check::NotEmpty => !value.is_empty(),
        Check::MatchAnywhere => contains(value, operand),
        Check::MatchPrefix => value.starts_with(operand),
        Check::MatchPostfix => value.ends_with(operand),
        Check::BytesLess => value < operand,
        Check::BytesLessOrEqual => value <= operand,
        Check::BytesEqual => value == operand,
        Check::BytesGreaterOrEqual => value >= operand,
        Check::BytesGreater => value > operand,
        Check::IntegerLess
        | Check::IntegerLessOrEqual
        | Check::IntegerEqual
        | Check::IntegerGreaterOrEqual
        | Check::IntegerGreater => {
            let (Some(value), Some(operand)) = (parse_integer(value), parse_integer(operand)) else {
                return Err(NotANumber);
            };
            match check {
                Check::IntegerLess => value < operand,
                Check::IntegerLessOrEqual => value <= operand,
                Check::IntegerEqual => value == operand,
                Check::IntegerGreaterOrEqual => value >= operand,
                _ => value > operand,
            }
        }
    })
}

/// True if the pattern occurs in the text; an empty one always does.
pub fn contains(text: &[u8], pattern: &[u8]) -> bool {
    pattern.is_empty() || text.windows(pattern.len()).any(|part| part == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checks that pass, by number.
    fn passed(value: Option<&[u8]>, operand: &[u8]) -> Vec<usize> {
        let passes = |check: &Check| passes(*check, value, operand) == Ok(true);
        (0..18).filter(|code| passes(&Check::ALL[*code])).collect()
    }

    #[test]
    fn a_missing_row_passes_only_what_wants_none() {
        for operand in [&b""[..], b"5", b"x"] {
            assert_eq!(passed(None, operand), [0, 1, 2]);
            assert!(Check::ALL.iter().all(|check| passes(*check, None, operand).is_ok()), "{operand:?}");
        }
    }

    #[test]
    fn an_empty_value_exists_and_is_no_number() {
        assert_eq!(passed(Some(b""), b""), [0, 2, 3, 5, 6, 7, 9, 10, 11]);
        assert_eq!(passed(Some(b""), b"1"), [0, 2, 3, 8, 9]);
        assert_eq!(passes(Check::IntegerLess, Some(b""), b"1"), Err(NotANumber));
        assert_eq!(passes(Check::IntegerLess, Some(b"1"), b""), Err(NotANumber));
    }

    #[test]
    fn bytes_and_numbers_compare_differently() {
        assert_eq!(passed(Some(b"9"), b"10"), [0, 3, 4, 11, 12, 13, 14]);
        assert_eq!(passed(Some(b"-9"), b"-9"), [0, 3, 4, 5, 6, 7, 9, 10, 11, 14, 15, 16]);
        assert_eq!(passed(Some(b"0x10"), b" 16"), [0, 3, 4, 11, 12, 14, 15, 16]);
        assert_eq!(passed(Some(b"7"), b"8"), [0, 3, 4, 8, 9, 13, 14]);
    }

    #[test]
    fn patterns_match_where_they_should() {
        assert_eq!(passed(Some(b"abcabd"), b"abd"), [0, 3, 4, 5, 7, 8, 9]);
        assert_eq!(passed(Some(b"abcabd"), b"abc"), [0, 3, 4, 5, 6, 11, 12]);
        assert!(contains(b"", b"") && contains(b"abc", b"bc") && !contains(b"abc", b"ac") && !contains(b"a", b"ab"));
    }
}
