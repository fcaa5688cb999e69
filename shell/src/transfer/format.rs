//! Rows as lines, for import and export. Both forms give back any bytes exactly.
//!
//! TSV: `hash key TAB sort key TAB value [TAB expiry]`, with the escapes of [`crate::escape`]. There is no header line.
//!
//! JSON lines: one object per line,
//!
//! ```text
//! {"hash_key": BYTES, "sort_key": BYTES, "value": BYTES, "expiry": SECONDS}
//! ```
//!
//! where BYTES is a string if the bytes are UTF-8, else `{"hex": "00ff"}`; both are read.
//!
//! The expiry is the second at which the row expires, since 1970-01-01 00:00:00 UTC; 0, an empty column or a missing
//! field mean never. It is kept only from 2016 on; an earlier one is read as 2016-01-01 00:00:01, long gone.

use std::fmt::{self, Write};
use std::path::Path;
use std::str::FromStr;

use pegasus_wire::expiry::EPOCH_UNIX_SECONDS;
use serde_json::{Map, Value, json};

use crate::escape::{escape_into, unescape};

/// How rows are written as lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns separated by tabs, with C-style escapes.
    Tsv,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// The form a file's name suggests: `.json`, `.jsonl` and `.ndjson` are JSON lines, all else is TSV.
    pub fn of_path(path: &Path) -> Format {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json" | "jsonl" | "ndjson") => Format::Json,
            _ => Format::Tsv,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Format::Tsv => "tsv",
            Format::Json => "json",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "tsv" => Ok(Format::Tsv),
            "json" | "jsonl" => Ok(Format::Json),
            _ => Err(format!("the format is tsv or json, got {text:?}")),
        }
    }
}

/// A row as a file holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRow {
    /// Hash key.
    pub hash_key: Vec<u8>,
    /// Sort key.
    pub sort_key: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
    /// Second at which it expires, since 2016 (as the store has it); 0 means never.
    pub expiry_seconds: u32,
}

/// Reads one line, without its line end.
pub fn read_line(format: Format, line: &[u8]) -> Result<FileRow, String> {
    match format {
        Format::Tsv => read_tsv(line),
        Format::Json => read_json(line),
    }
}

/// Appends one row as a line with its line end; with the expiry (of the store) if there is one to write.
pub fn write_line(
    out: &mut String,
    format: Format,
    hash_key: &[u8],
    sort_key: &[u8],
    value: &[u8],
    expiry_seconds: Option<u32>,
) {
    match format {
        Format::Tsv => {
            escape_into(out, hash_key);
            out.push('\t');
            escape_into(out, sort_key);
            out.push('\t');
            escape_into(out, value);
            if let Some(expiry) = expiry_seconds {
                write!(out, "\t{}", to_unix(expiry)).expect("writing to a string does not fail");
            }
        }
        Format::Json => {
            let mut object = Map::new();
            object.insert("hash_key".into(), bytes_to_json(hash_key));
            object.insert("sort_key".into(), bytes_to_json(sort_key));
            object.insert("value".into(), bytes_to_json(value));
            if let Some(expiry) = expiry_seconds {
                object.insert("expiry".into(), json!(to_unix(expiry)));
            }
            out.push_str(&Value::Object(object).to_string());
        }
    }
    out.push('\n');
}

/// Bytes as JSON: a string if they are UTF-8, else `{"hex": "..."}`.
pub fn bytes_to_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => {
            let mut hex = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                write!(hex, "{byte:02x}").expect("writing to a string does not fail");
            }
            json!({ "hex": hex })
        }
    }
}

/// The second since 1970 for an expiry of the store; 0 stays 0.
pub fn to_unix(expiry_seconds: u32) -> u64 {
    if expiry_seconds == 0 { 0 } else { u64::from(expiry_seconds) + EPOCH_UNIX_SECONDS }
}

/// The expiry of the store for a second since 1970; 0 stays 0, what is too early is 1, what is too late the last one.
pub fn from_unix(unix_seconds: u64) -> u32 {
    if unix_seconds == 0 {
        return 0;
    }
    u32::try_from(unix_seconds.saturating_sub(EPOCH_UNIX_SECONDS).max(1)).unwrap_or(u32::MAX)
}

fn read_tsv(line: &[u8]) -> Result<FileRow, String> {
    let columns: Vec<&[u8]> = line.split(|&byte| byte == b'\t').collect();
    if !(3..=4).contains(&columns.len()) {
        return Err(format!(
            "a line has hash key, sort key, value and perhaps an expiry, separated by tabs; this one has {} columns",
            columns.len()
        ));
    }
    let column = |index: usize, name: &str| unescape(columns[index]).map_err(|error| format!("{name}: {error}"));
    let expiry_seconds = match columns.get(3) {
        None | Some(&[]) => 0,
        Some(text) => {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
            from_unix(number.ok_or("the expiry must be a number of seconds since 1970")?)
        }
    };
    Ok(FileRow {
        hash_key: column(0, "hash key")?,
        sort_key: column(1, "sort key")?,
        value: column(2, "value")?,
        expiry_seconds,
    })
}

fn read_json(line: &[u8]) -> Result<FileRow, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(mut object) = value else { return Err("the line is not a JSON object".into()) };
    let mut take = |name: &str| match object.remove(name) {
        Some(value) => json_to_bytes(value).map_err(|error| format!("{name}: {error}")),
        None => Err(format!("{name} is missing")),
    };
    let (hash_key, sort_key, value) = (take("hash_key")?, take("sort_key")?, take("value")?);
    let expiry_seconds = match object.remove("expiry") {
        None | Some(Value::Null) => 0,
        Some(expiry) => from_unix(expiry.as_u64().ok_or("the expiry must be a number of seconds since 1970")?),
    };
    match object.keys().next() {
        Some(unknown) => Err(format!("unknown field {unknown:?}")),
        None => Ok(FileRow { hash_key, sort_key, value, expiry_seconds }),
    }
}

fn json_to_bytes(value: Value) -> Result<Vec<u8>, String> {
    match value {
        Value::String(text) => Ok(text.into_bytes()),
        Value::Object(object) if object.len() == 1 => match object.get("hex") {
            Some(Value::String(hex)) => hex_to_bytes(hex),
            _ => Err("must be a string or {\"hex\": \"...\"}".into()),
        },
        _ => Err("must be a string or {\"hex\": \"...\"}".into()),
    }
}

fn hex_to_bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => {
            Ok(digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect())
        }
        _ => Err(format!("not an even number of hexadecimal digits: {hex:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(format: Format, row: &FileRow, with_expiry: bool) -> String {
        let mut out = String::new();
        let expiry = with_expiry.then_some(row.expiry_seconds);
        write_line(&mut out, format, &row.hash_key, &row.sort_key, &row.value, expiry);
        out
    }

    #[test]
    fn known_lines() {
        let row = FileRow { hash_key: b"a\tb".into(), sort_key: b"".into(), value: b"\xff".into(), expiry_seconds: 5 };
        assert_eq!(written(Format::Tsv, &row, false), "a\\tb\t\t\\xff\n");
        assert_eq!(written(Format::Tsv, &row, true), "a\\tb\t\t\\xff\t1451606405\n");
        let json = written(Format::Json, &row, true);
        assert_eq!(
            json,
            "{\"expiry\":1451606405,\"hash_key\":\"a\\tb\",\"sort_key\":\"\",\"value\":{\"hex\":\"ff\"}}\n"
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (format, line, word) in [
            (Format::Tsv, "a\tb", "columns"),
            (Format::Tsv, "a\tb\tc\td\te", "columns"),
            (Format::Tsv, "a\tb\\q\tc", "sort key"),
            (Format::Tsv, "a\tb\tc\tsoon", "seconds since 1970"),
            (Format::Json, "{", "not JSON"),
            (Format::Json, "[]", "not a JSON object"),
            (Format::Json, "{\"hash_key\":\"a\",\"value\":\"v\"}", "sort_key is missing"),
            (Format::Json, "{\"hash_key\":1,\"sort_key\":\"\",\"value\":\"v\"}", "hash_key"),
            (Format::Json, "{\"hash_key\":\"a\",\"sort_key\":\"\",\"value\":{\"hex\":\"abc\"}}", "even number"),
            (Format::Json, "{\"hash_key\":\"a\",\"sort_key\":\"\",\"value\":\"v\",\"ttl\":3}", "unknown field"),
            (
                Format::Json,
                "{\"hash_key\":\"a\",\"sort_key\":\"\",\"value\":\"v\",\"expiry\":-1}",
                "seconds since 1970",
            ),
        ] {
            let error = read_line(format, line.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn expiry_saturates() {
        assert_eq!(from_unix(0), 0);
        assert_eq!(from_unix(1), 1);
        assert_eq!(from_unix(EPOCH_UNIX_SECONDS + 7), 7);
        assert_eq!(from_unix(u64::MAX), u32::MAX);
        assert_eq!(to_unix(from_unix(1_900_000_000)), 1_900_000_000);
    }

    #[test]
    fn the_name_tells_the_format() {
        assert_eq!(Format::of_path(Path::new("rows.jsonl")), Format::Json);
        assert_eq!(Format::of_path(Path::new("rows.tsv")), Format::Tsv);
        assert_eq!(Format::of_path(Path::new("-")), Format::Tsv);
        assert!("csv".parse::<Format>().is_err());
    }

    fn any_row() -> impl Strategy<Value = FileRow> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
        (bytes(), bytes(), bytes(), any::<u32>()).prop_map(|(hash_key, sort_key, value, expiry_seconds)| FileRow {
            hash_key,
            sort_key,
            value,
            expiry_seconds,
        })
    }

    proptest! {
        #[test]
        fn any_row_comes_back(row in any_row(), json in any::<bool>(), with_expiry in any::<bool>()) {
            let format = if json { Format::Json } else { Format::Tsv };
            let line = written(format, &row, with_expiry);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let expected = FileRow { expiry_seconds: if with_expiry { row.expiry_seconds } else { 0 }, ..row };
            prop_assert_eq!(read_line(format, line.trim_end_matches('\n').as_bytes()), Ok(expected));
        }

        #[test]
        fn reading_never_panics(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _tsv = read_line(Format::Tsv, &line);
            let _json = read_line(Format::Json, &line);
        }
    }
}
