//! Reads the input of an import: lines into rows, adjacent rows of one hash key into groups that are written as one.
//!
//! Runs on a thread of its own, because standard input and files block. It is held back by the bounded channel it
//! feeds, so an input of any size takes bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use pegasus_client::{row_bytes, write_overhead_bytes};
use pegasus_wire::key::{check_hash_key, check_sort_key};
use pegasus_wire::limits::{VALUE_BYTES_MAX, WRITE_ROWS_MAX};
use tokio::sync::mpsc;

use crate::transfer::checkpoint::Position;
use crate::transfer::format::{FileRow, Format, read_line};

/// Longest line: the largest row with every byte written as an escape of six, twice over.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A group stops growing here.
const GROUP_BYTES_TARGET: usize = 128 * 1024;
/// Most rows of a group. Smaller than a write may be, so that many partitions work at once.
const GROUP_ROWS_MAX: usize = 100;

const _: () = assert!(GROUP_ROWS_MAX <= WRITE_ROWS_MAX);
const _: () = assert!(LINE_BYTES_MAX > 12 * (VALUE_BYTES_MAX + 2048));

/// Adjacent rows of one hash key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number of the first row in the input.
    pub first: u64,
    /// Behind the last row.
    pub end: Position,
    /// The hash key they share.
    pub hash_key: Vec<u8>,
    /// The rows in the order of the input.
    pub rows: Vec<FileRow>,
}

/// What the reader passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Rows to write.
    Group(Group),
    /// The end of the input.
    End(Position),
    /// The input cannot be read on; the text names the line.
    Failed(String),
}

/// Opens the input and goes to where the import continues. Returns the reader and the input's length, if known.
pub fn open(input: &Path, from: Position) -> Result<(Box<dyn BufRead + Send>, Option<u64>), String> {
    if input == Path::new("-") {
        let mut reader = BufReader::with_capacity(1 << 20, io::stdin());
        skip(&mut reader, from)?;
        return Ok((Box::new(reader), None));
    }
    let fail = |error: io::Error| format!("cannot read {}: {error}", input.display());
    let mut file = File::open(input).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_dir() {
        return Err(format!("cannot read {}: it is a directory", input.display()));
    }
    if !metadata.is_file() {
        let mut reader = BufReader::with_capacity(1 << 20, file);
        skip(&mut reader, from)?;
        return Ok((Box::new(reader), None));
    }
    if from.bytes > 0 {
        check_line_ends_at(&mut file, from, metadata.len()).map_err(|error| format!("{}: {error}", input.display()))?;
    }
    Ok((Box::new(BufReader::with_capacity(1 << 20, file)), Some(metadata.len())))
}

/// Reads all of `reader`, whose first line stands at `from`, and sends what it finds. Ends early when the receiver has
/// gone.
pub fn run(mut reader: impl BufRead, format: Format, from: Position, rows_max: usize, out: &mpsc::Sender<Input>) {
    let mut grouping = Grouping { open: None, rows_max: rows_max.clamp(1, GROUP_ROWS_MAX), bytes: 0 };
    let mut position = from;
    let mut line = Vec::new();
    loop {
        let outcome = next_line(&mut reader, &mut line).and_then(|length| match length {
            0 => Ok(None),
            length => parse(format, &line).map(|row| Some((row, length as u64))),
        });
        let sent = match outcome {
            Ok(Some((row, length))) => {
                position = Position { rows: position.rows + 1, bytes: position.bytes + length };
                grouping.add(row, position).is_none_or(|group| out.blocking_send(Input::Group(group)).is_ok())
            }
            Ok(None) => {
                finish(&mut grouping, Input::End(position), out);
                return;
            }
            Err(error) => {
                // What came before the bad line is sound and is written.
                finish(&mut grouping, Input::Failed(format!("line {}: {error}", position.rows + 1)), out);
                return;
            }
        };
        if !sent {
            return;
        }
    }
}

fn finish(grouping: &mut Grouping, last: Input, out: &mpsc::Sender<Input>) {
    let open = grouping.open.take().map(Input::Group);
    for input in open.into_iter().chain([last]) {
        if out.blocking_send(input).is_err() {
            return;
        }
    }
}

/// Gathers rows into groups.
struct Grouping {
    open: Option<Group>,
    rows_max: usize,
    bytes: usize,
}

impl Grouping {
    /// Adds a row that ends at `end`; returns the group before it if the row does not belong to it.
    fn add(&mut self, row: FileRow, end: Position) -> Option<Group> {
        let row_bytes = row_bytes(row.sort_key.len(), row.value.len());
        if let Some(open) = &mut self.open
            && open.hash_key == row.hash_key
            && open.rows.len() < self.rows_max
            && self.bytes + row_bytes <= GROUP_BYTES_TARGET
        {
            self.bytes += row_bytes;
            open.rows.push(row);
            open.end = end;
            return None;
        }
        self.bytes = write_overhead_bytes(row.hash_key.len()) + row_bytes;
        let group = Group { first: end.rows - 1, end, hash_key: row.hash_key.clone(), rows: vec![row] };
        self.open.replace(group)
    }
}

/// Parses a line and checks the row against the limits, so that an error names its line.
fn parse(format: Format, line: &[u8]) -> Result<FileRow, String> {
    let row = read_line(format, line.strip_suffix(b"\n").unwrap_or(line))?;
    check_hash_key(&row.hash_key).map_err(|error| error.to_string())?;
    check_sort_key(&row.sort_key).map_err(|error| error.to_string())?;
    if row.value.len() > VALUE_BYTES_MAX {
        let length = row.value.len();
        return Err(format!("the value has {length} bytes, the limit is {VALUE_BYTES_MAX} (value_bytes_max)"));
    }
    Ok(row)
}

/// Reads one line with its line end into `line`; returns its length, 0 at the end.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Result<usize, String> {
    line.clear();
    let length = reader
        .by_ref()
        .take(LINE_BYTES_MAX as u64 + 1)
        .read_until(b'\n', line)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if length > LINE_BYTES_MAX {
        return Err(format!("it is longer than {LINE_BYTES_MAX} bytes (line_bytes_max)"));
    }
    Ok(length)
}

/// Reads past the rows that are acknowledged already, in an input that cannot seek.
fn skip(reader: &mut impl BufRead, from: Position) -> Result<(), String> {
    let mut bytes = 0;
    let mut line = Vec::new();
    for _ in 0..from.rows {
        bytes += next_line(reader, &mut line)? as u64;
    }
    if bytes != from.bytes {
        return Err(format!(
            "this is not the input of the progress file: its first {} rows have {bytes} bytes, not {}",
            from.rows, from.bytes
        ));
    }
    Ok(())
}

/// Goes to `from` in a file, if a line ends there.
fn check_line_ends_at(file: &mut File, from: Position, length: u64) -> Result<(), String> {
    let changed =
        || format!("it has changed since the progress file was written (no line ends at byte {})", from.bytes);
    if from.bytes > length {
        return Err(changed());
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(from.bytes - 1)).and_then(|_| file.read_exact(&mut last)).map_err(|e| e.to_string())?;
    // The last line of a file may end without a line end.
    if last != *b"\n" && from.bytes != length {
        return Err(changed());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, from: Position, rows_max: usize) -> Vec<Input> {
        let (sender, mut receiver) = mpsc::channel(1000);
        run(text.as_bytes(), Format::Tsv, from, rows_max, &sender);
        drop(sender);
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    fn shape(inputs: &[Input]) -> Vec<String> {
        let name = |input: &Input| match input {
            Input::Group(group) => {
                let key = String::from_utf8_lossy(&group.hash_key);
                format!("{key}:{}..{}@{}", group.first, group.end.rows, group.end.bytes)
            }
            Input::End(position) => format!("end {}@{}", position.rows, position.bytes),
            Input::Failed(message) => format!("failed {message}"),
        };
        inputs.iter().map(name).collect()
    }

    #[test]
    fn adjacent_rows_of_a_hash_key_are_one_group() {
        let inputs = read("a\t1\tx\na\t2\ty\nb\t1\tz\na\t3\tw", Position::default(), 100);
        assert_eq!(shape(&inputs), ["a:0..2@12", "b:2..3@18", "a:3..4@23", "end 4@23"]);
    }

    #[test]
    fn groups_are_bounded() {
        let inputs = read("a\t1\tx\na\t2\ty\na\t3\tz\n", Position { rows: 5, bytes: 100 }, 2);
        assert_eq!(shape(&inputs), ["a:5..7@112", "a:7..8@118", "end 8@118"]);
        let wide = format!("a\t1\t{v}\na\t2\t{v}\n", v = "x".repeat(GROUP_BYTES_TARGET / 2 + 1));
        assert_eq!(read(&wide, Position::default(), 100).len(), 3);
    }

    #[test]
    fn a_bad_line_is_named_and_what_precedes_it_is_kept() {
        let inputs = read("a\t1\tx\nnonsense\n", Position::default(), 100);
        assert_eq!(inputs.len(), 2);
        assert!(matches!(&inputs[1], Input::Failed(text) if text.starts_with("line 2: ")), "{inputs:?}");
        let inputs = read("\t1\tx\n", Position::default(), 100);
        assert!(matches!(&inputs[0], Input::Failed(text) if text.contains("must not be empty")), "{inputs:?}");
        let inputs = read(&format!("a\t1\t{}\n", "x".repeat(VALUE_BYTES_MAX + 1)), Position::default(), 100);
        assert!(matches!(&inputs[0], Input::Failed(text) if text.contains("value_bytes_max")), "{inputs:?}");
    }

    #[test]
    fn a_file_is_continued_at_a_line_end_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rows.tsv");
        std::fs::write(&path, "a\t1\tx\nb\t1\ty\n").expect("written");
        let (mut reader, length) = open(&path, Position { rows: 1, bytes: 6 }).expect("a line end");
        assert_eq!(length, Some(12));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "b\t1\ty\n");
        assert!(open(&path, Position { rows: 1, bytes: 5 }).is_err());
        assert!(open(&path, Position { rows: 9, bytes: 90 }).is_err());
        assert!(open(&directory.path().join("none"), Position::default()).is_err());
    }

    #[test]
    fn a_pipe_is_continued_after_the_same_bytes() {
        let mut input = &b"a\t1\tx\nb\t1\ty\n"[..];
        skip(&mut input, Position { rows: 1, bytes: 6 }).expect("the same input");
        assert_eq!(input, b"b\t1\ty\n");
        let mut other = &b"abc\t1\tx\nb\t1\ty\n"[..];
        assert!(skip(&mut other, Position { rows: 1, bytes: 6 }).unwrap_err().contains("not the input"));
    }
}
