//! Up to which row of an input all rows are acknowledged, in memory and in a small file.
//!
//! Invariants of [`Acknowledged`]:
//! - every row below `rows()` is acknowledged, and `bytes()` is the length of exactly those lines
//! - runs held back begin above `rows()`; they never overlap

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Where a row stands in the input: its number (the first is 0) and the offset of its first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Rows before it.
    pub rows: u64,
    /// Bytes before it, line ends included.
    pub bytes: u64,
}

/// Turns acknowledgements in any order into "all up to here".
#[derive(Debug, Default)]
pub struct Acknowledged {
    through: Position,
    /// Runs acknowledged ahead of their turn: first row to the position behind the last.
    ahead: BTreeMap<u64, Position>,
}

impl Acknowledged {
    /// Everything before `through` is acknowledged already.
    pub fn starting_at(through: Position) -> Acknowledged {
        Acknowledged { through, ahead: BTreeMap::new() }
    }

    /// All rows before this are acknowledged.
    pub fn through(&self) -> Position {
        self.through
    }

    /// Notes that the rows from number `first` up to `end` are acknowledged.
    pub fn acknowledge(&mut self, first: u64, end: Position) {
        debug_assert!(first >= self.through.rows && end.rows > first, "each row is acknowledged once");
        self.ahead.insert(first, end);
        while let Some(end) = self.ahead.remove(&self.through.rows) {
            self.through = end;
        }
    }
}

/// What the checkpoint file says. Written as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The table that is filled.
    pub table: String,
    /// The input, as it was named.
    pub input: String,
    /// `tsv` or `json`.
    pub format: String,
    /// Rows of the input, counted from its beginning, that are all acknowledged.
    pub rows: u64,
    /// The bytes of those rows.
    pub bytes: u64,
    /// True once the end of the input was reached and all is acknowledged.
    pub complete: bool,
}

impl Checkpoint {
    /// Reads a checkpoint file; `None` if there is none.
    pub fn load(path: &Path) -> Result<Option<Checkpoint>, String> {
        load_json(path, "an import")
    }

    /// Replaces the checkpoint file atomically. A reader sees the old one or the new one, also after a crash.
    pub fn store(&self, path: &Path) -> Result<(), String> {
        store_json(path, self)
    }

    /// Where to continue an import of `input` into `table`. An error if this file is about something else.
    pub fn resume_position(&self, table: &str, input: &str, format: &str) -> Result<Position, String> {
        for (what, ours, theirs) in
            [("table", table, &self.table), ("input", input, &self.input), ("format", format, &self.format)]
        {
            if ours != theirs {
                return Err(format!("the progress file is about {what} {theirs:?}, not {ours:?}"));
            }
        }
        Ok(Position { rows: self.rows, bytes: self.bytes })
    }
}

/// Reads a progress file of `job`; `None` if there is none.
pub(crate) fn load_json<T: DeserializeOwned>(path: &Path, job: &str) -> Result<Option<T>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read the progress file {}: {error}", path.display())),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| format!("{} is not a progress file of {job}: {error}", path.display()))
}

/// Replaces a progress file atomically. A reader sees the old one or the new one, also after a crash.
pub(crate) fn store_json(path: &Path, content: &impl Serialize) -> Result<(), String> {
    let temporary = with_suffix(path, ".new");
    let write = || {
        let mut file = File::create(&temporary)?;
        serde_json::to_writer(&mut file, content)?;
        file.write_all(b"\n")?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| format!("cannot write the progress file {}: {error}", path.display()))
}

/// The path with something appended to its file name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(rows: u64) -> Position {
        Position { rows, bytes: rows * 10 }
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            table: "temp".into(),
            input: "rows.tsv".into(),
            format: "tsv".into(),
            rows: 12,
            bytes: 340,
            complete: false,
        }
    }

    #[test]
    fn a_gap_holds_the_rest_back() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.acknowledge(4, at(6));
        acknowledged.acknowledge(2, at(4));
        assert_eq!(acknowledged.through(), at(0));
        acknowledged.acknowledge(0, at(2));
        assert_eq!(acknowledged.through(), at(6));
    }

    #[test]
    fn the_file_comes_back_and_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rows.tsv.progress");
        assert_eq!(Checkpoint::load(&path), Ok(None));
        checkpoint().store(&path).expect("stored");
        let later = Checkpoint { rows: 13, ..checkpoint() };
        later.store(&path).expect("stored");
        assert_eq!(Checkpoint::load(&path), Ok(Some(later)));
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn a_file_that_is_something_else_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("rows.tsv.progress");
        fs::write(&path, "hello").expect("written");
        assert!(Checkpoint::load(&path).unwrap_err().contains("not a progress file"));
        let missing = directory.path().join("none/rows.progress");
        assert!(checkpoint().store(&missing).unwrap_err().contains("cannot write"));
    }

    #[test]
    fn a_checkpoint_belongs_to_its_input_and_table() {
        let saved = checkpoint();
        assert_eq!(saved.resume_position("temp", "rows.tsv", "tsv"), Ok(Position { rows: 12, bytes: 340 }));
        assert!(saved.resume_position("stat", "rows.tsv", "tsv").unwrap_err().contains("table"));
        assert!(saved.resume_position("temp", "other.tsv", "tsv").unwrap_err().contains("input"));
        assert!(saved.resume_position("temp", "rows.tsv", "json").unwrap_err().contains("format"));
    }

    proptest! {
        #[test]
        fn any_order_ends_at_the_end(order in Just((0..40u64).collect::<Vec<_>>()).prop_shuffle(), cut in 0usize..40) {
            let mut acknowledged = Acknowledged::default();
            for &row in &order[..cut] {
                acknowledged.acknowledge(row, at(row + 1));
            }
            let first_missing = (0..40u64).find(|row| !order[..cut].contains(row)).expect("one is missing");
            prop_assert_eq!(acknowledged.through(), at(first_missing));
            for &row in &order[cut..] {
                acknowledged.acknowledge(row, at(row + 1));
            }
            prop_assert_eq!(acknowledged.through(), at(40));
        }
    }
}
