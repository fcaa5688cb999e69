//! Keys and values as text: C-style escapes.
//!
//! ```text
//! \\  backslash      \t  tab           \n  new line     \r  carriage return   \0  zero byte
//! \"  double quote   \'  single quote  \a \b \f \v  bell, backspace, form feed, vertical tab
//! \xHH  the byte with this value, exactly two hexadecimal digits
//! ```
//!
//! Everything else stands for itself; text outside ASCII for its UTF-8 bytes. Writing uses only `\\ \t \n \r \0 \xHH`,
//! and these only where they are needed: for controls, for bytes that are not UTF-8 and, when people read it, for
//! characters that are invisible or change how others are shown. Reading what was written gives back the same bytes,
//! always.

use std::fmt::Write;

/// Text that is not a sequence of bytes with escapes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EscapeError {
    /// A backslash at the end.
    #[error("a backslash at the end of the text; write \\\\ for a backslash")]
    Unfinished,
    /// A letter that does not follow a backslash.
    #[error("unknown escape \\{0} at byte {1}; write \\\\ for a backslash, \\xHH for any byte")]
    Unknown(char, usize),
    /// `\x` without two hexadecimal digits.
    #[error("\\x at byte {0} needs two hexadecimal digits")]
    BadHex(usize),
}

/// Writes bytes as text for people.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    append(&mut out, bytes, |character| !character.is_control() && !is_deceptive(character));
    out
}

/// Writes every byte as an escape, so that nothing depends on what the reader takes for text.
pub fn escape_all(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(4 * bytes.len());
    bytes.iter().for_each(|byte| push_hex(&mut out, *byte));
    out
}

/// Appends bytes as text for files: only what must be escaped is.
pub fn escape_into(out: &mut String, bytes: &[u8]) {
    append(out, bytes, |character| !character.is_control());
}

fn append(out: &mut String, bytes: &[u8], stands_for_itself: impl Fn(char) -> bool) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character != '\\' && stands_for_itself(character) {
                out.push(character);
            } else {
                escape_character(out, character);
            }
        }
        for byte in chunk.invalid() {
            push_hex(out, *byte);
        }
    }
}

/// Reads text with escapes. Takes bytes, because a file may hold text that is not UTF-8.
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, EscapeError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.iter().position(|&byte| byte == b'\\') {
        out.extend_from_slice(&rest[..position]);
        let offset = text.len() - rest.len() + position;
        let escape = &rest[position + 1..];
        let (byte, taken) = read_escape(escape, offset)?;
        out.push(byte);
        rest = &escape[taken..];
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// The byte an escape stands for, and how many bytes it takes after the backslash.
fn read_escape(text: &[u8], offset: usize) -> Result<(u8, usize), EscapeError> {
    let byte = match text.first() {
        None => return Err(EscapeError::Unfinished),
        Some(b'x') => return read_hex(text, offset).map(|byte| (byte, 3)),
        Some(b'\\') => b'\\',
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'0') => 0,
        Some(b'a') => 0x07,
        Some(b'b') => 0x08,
        Some(b'f') => 0x0C,
        Some(b'v') => 0x0B,
        Some(b'"') => b'"',
        Some(b'\'') => b'\'',
        Some(&other) => return Err(EscapeError::Unknown(char::from(other), offset)),
    };
    Ok((byte, 1))
}

fn read_hex(text: &[u8], offset: usize) -> Result<u8, EscapeError> {
    let digit = |index: usize| text.get(index).and_then(|&byte| char::from(byte).to_digit(16));
    match (digit(1), digit(2)) {
        (Some(high), Some(low)) => Ok((high * 16 + low) as u8),
        _ => Err(EscapeError::BadHex(offset)),
    }
}

fn escape_character(out: &mut String, character: char) {
    match character {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        '\0' => out.push_str("\\0"),
        _ => {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                push_hex(out, byte);
            }
        }
    }
}

/// Characters that have no width or turn the direction of their neighbours: what is shown would not be what is there.
fn is_deceptive(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

fn push_hex(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_texts() {
        assert_eq!(escape(b"plain text~"), "plain text~");
        assert_eq!(escape(b"a\tb\nc\rd\0e\\f"), "a\\tb\\nc\\rd\\0e\\\\f");
        assert_eq!(escape(b"\x01\x7f\xff"), "\\x01\\x7f\\xff");
        assert_eq!(escape("\u{e9}\u{2019}\u{202e}".as_bytes()), "\u{e9}\u{2019}\\xe2\\x80\\xae");
        let mut file = String::new();
        escape_into(&mut file, "\u{200b}\u{9b}\t".as_bytes());
        assert_eq!(file, "\u{200b}\\xc2\\x9b\\t");
        assert_eq!(escape_all(b"a\xff"), "\\x61\\xff");
        assert_eq!(unescape(br#"\a\b\f\v\"\'\x41\x4a"#).expect("sound text"), b"\x07\x08\x0c\x0b\"'AJ");
        assert_eq!(unescape(br"\01").expect("sound text"), b"\x001");
        assert_eq!(unescape(b"raw \xff\xfe").expect("sound text"), b"raw \xff\xfe");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        assert_eq!(unescape(br"abc\"), Err(EscapeError::Unfinished));
        assert_eq!(unescape(br"ab\q"), Err(EscapeError::Unknown('q', 2)));
        assert_eq!(unescape(br"\\ab\xg1"), Err(EscapeError::BadHex(4)));
        assert_eq!(unescape(br"\x1"), Err(EscapeError::BadHex(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = escape(&bytes);
            prop_assert!(!text.chars().any(|c| c.is_control()), "{text:?}");
            prop_assert_eq!(&unescape(text.as_bytes()).expect("written by escape"), &bytes);
            let mut file = String::new();
            escape_into(&mut file, &bytes);
            prop_assert!(!file.chars().any(|c| c.is_control()), "{file:?}");
            prop_assert_eq!(&unescape(file.as_bytes()).expect("written by escape_into"), &bytes);
            prop_assert_eq!(unescape(escape_all(&bytes).as_bytes()).expect("written by escape_all"), bytes);
        }

        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            prop_assert_eq!(unescape(escape(text.as_bytes()).as_bytes()).expect("written by escape"), text.as_bytes());
        }

        #[test]
        fn reading_never_panics(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _result = unescape(&text);
        }
    }
}
