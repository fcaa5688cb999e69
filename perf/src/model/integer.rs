//! Numbers in values, read as `strtoll` with base 0 reads them. Pure, and written apart from the engine on purpose.

/// The number that a whole text says: blanks, a sign, then decimal digits, `0x` and hexadecimal ones, or `0` and octal
/// ones, and nothing after them. `None` for anything else and for what 64 bits do not hold.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0B | 0x0C | b'\r');
    let begin = text.iter().position(|byte| !is_blank(byte))?;
    let (negative, rest) = match text[begin] {
        b'-' => (true, &text[begin + 1..]),
        b'+' => (false, &text[begin + 1..]),
        _ => (false, &text[begin..]),
    };
    let (radix, digits) = match rest {
        [b'0', b'x' | b'X', digits @ ..] => (16, digits),
        // The zero is a digit itself, so that "0" is a number.
        [b'0', ..] => (8, rest),
        _ => (10, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut size: u64 = 0;
    for byte in digits {
        let digit = char::from(*byte).to_digit(radix)?;
        size = size.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))?;
    }
    if negative { 0i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strtoll_takes_is_a_number() {
        let numbers: [(&[u8], i64); 16] = [
            (b"0", 0),
            (b"-0", 0),
            (b"+7", 7),
            (b" \t\n\x0B\x0C\r42", 42),
            (b"0x1F", 31),
            (b"-0X1f", -31),
            (b"010", 8),
            (b"-017", -15),
            (b"00", 0),
            (b"0000000000000000000000012", 10),
            (b"9223372036854775807", i64::MAX),
            (b"-9223372036854775808", i64::MIN),
            (b"0x7fffffffffffffff", i64::MAX),
            (b"-0x8000000000000000", i64::MIN),
            (b"0777777777777777777777", i64::MAX),
            (b"100", 100),
        ];
        for (text, number) in numbers {
            assert_eq!(parse_integer(text), Some(number), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn anything_else_is_none() {
        let texts: [&[u8]; 24] = [
            b"",
            b" ",
            b"+",
            b"-",
            b"- 5",
            b"--5",
            b"+-5",
            b"5 ",
            b"5\0",
            b"\x005",
            b"0x",
            b"0xg",
            b"0x 1",
            b"08",
            b"019",
            b"12a",
            b"1e3",
            b"1.0",
            b"0b1",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"0x8000000000000000",
            b"99999999999999999999",
            b"\xA05",
        ];
        for text in texts {
            assert_eq!(parse_integer(text), None, "{}", text.escape_ascii());
        }
    }
}
