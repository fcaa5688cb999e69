//! Numbers in values, as C's `strtoll` reads them with base 0, which is what Pegasus uses.

/// The number that these bytes are; `None` if they are none, or one that 64 bits do not hold.
///
/// Blanks in front, a sign, then decimal digits, `0x` and hexadecimal ones, or `0` and octal ones. All bytes have to
/// belong to it: nothing may follow, no blank either.
pub fn parse_integer(bytes: &[u8]) -> Option<i64> {
    let unsigned = &bytes[bytes.iter().take_while(|byte| is_blank(**byte)).count()..];
    let (negative, digits) = match unsigned {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, unsigned),
    };
    let (base, digits) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest),
        // The zero is a digit itself, so that 0 alone is a number.
        [b'0', ..] => (8, digits),
        _ => (10, digits),
    };
    if digits.is_empty() {
        return None;
    }
    // Downwards, since there is one negative number more than there are positive ones.
    let negated = digits.iter().try_fold(0i64, |number, &byte| {
        let digit = char::from(byte).to_digit(base)?;
        number.checked_mul(i64::from(base))?.checked_sub(i64::from(digit))
    })?;
    if negative { Some(negated) } else { negated.checked_neg() }
}

/// What C's `isspace` calls blank.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0B | 0x0C | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_strtoll_reads_them() {
        let table: &[(&[u8], Option<i64>)] = &[
            (b"0", Some(0)),
            (b"-0", Some(0)),
            (b"42", Some(42)),
            (b"+42", Some(42)),
            (b"-42", Some(-42)),
            (b" \t\n\x0B\x0C\r7", Some(7)),
            (b"  -7", Some(-7)),
            (b"0x1f", Some(31)),
            (b"0X1F", Some(31)),
            (b"-0x10", Some(-16)),
            (b"017", Some(15)),
            (b"-017", Some(-15)),
            (b"00", Some(0)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"-9223372036854775808", Some(i64::MIN)),
            (b"0x7fffffffffffffff", Some(i64::MAX)),
            (b"-0x8000000000000000", Some(i64::MIN)),
            (b"0777777777777777777777", Some(i64::MAX)),
            (b"0000000000000000000000000000000001", Some(1)),
            // Out of range.
            (b"9223372036854775808", None),
            (b"-9223372036854775809", None),
            (b"0x8000000000000000", None),
            (b"99999999999999999999999999", None),
            // Not wholly a number.
            (b"", None),
            (b" ", None),
            (b"-", None),
            (b"+", None),
            (b"+-1", None),
            (b"- 1", None),
            (b"1 ", None),
            (b"1\0", None),
            (b"\x001", None),
            (b"1.5", None),
            (b"1e3", None),
            (b"a", None),
            (b"12a", None),
            (b"08", None),
            (b"0x", None),
            (b"0xg", None),
            (b"0x-1", None),
            (b"0b1", None),
            (b"0o7", None),
            (b"\xD9\xA1", None),
        ];
        for (bytes, number) in table {
            assert_eq!(parse_integer(bytes), *number, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read_in_every_base(number in any::<i64>()) {
            prop_assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
            let sign = if number < 0 { "-" } else { "" };
            let magnitude = number.unsigned_abs();
            prop_assert_eq!(parse_integer(format!(" {sign}0x{magnitude:x}").as_bytes()), Some(number));
            prop_assert_eq!(parse_integer(format!("{sign}0{magnitude:o}").as_bytes()), Some(number));
        }

        #[test]
        fn whatever_the_bytes_are_they_are_read_or_refused(
            bytes in proptest::collection::vec(proptest::sample::select(b" +-0123789aAfFxX\0".to_vec()), 0..24),
        ) {
            // What the C library says about the same bytes.
            let text = std::ffi::CString::new(bytes.split(|&byte| byte == 0).next().unwrap().to_vec()).unwrap();
            let mut end = std::ptr::null_mut();
            // SAFETY: `text` ends with a zero and outlives the call; `end` points into it afterwards.
            let (number, consumed, error) = unsafe {
                *libc::__errno_location() = 0;
                let number = libc::strtoll(text.as_ptr(), &mut end, 0);
                (number, end.offset_from(text.as_ptr()) as usize, *libc::__errno_location())
            };
            let whole = consumed == bytes.len() && consumed > 0 && error == 0;
            prop_assert_eq!(parse_integer(&bytes), whole.then_some(number));
        }
    }
}
