//! Bytes as people read them.

/// Sixteen bytes a line: offset, hex, the printable characters.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let line = |(index, chunk): (usize, &[u8])| {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable = |&byte: &u8| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
        let text: String = chunk.iter().map(printable).collect();
        format!("{:08x}  {:<47}  |{text}|\n", index * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

/// The bytes of a dump.
pub(crate) fn parse_dump(dump: &str) -> Vec<u8> {
    dump.lines().flat_map(|line| parse(&line[10..57])).collect()
}

/// Bytes from pairs of digits; blanks and ends of lines between them mean nothing.
pub(crate) fn parse(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text:?}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
