//! What the shell prints: for people, or as JSON.

use std::io::{self, ErrorKind, Write};

use pegasus_client::Error;
use serde_json::{Value, json};

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One word for programs.
    pub kind: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl Failure {
    /// A failure outside the client library.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new("usage", message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let what_to_do = match &error {
            Error::NoSuchTable(_) => "\n  `table list --all` lists the tables",
            Error::Unknown(_) => "\n  it may have happened or not: look before you repeat it",
            _ => "",
        };
        Failure::new(error.kind(), format!("{error}{what_to_do}"))
    }
}

/// How a command ended, if it did not fail. The numbers are the process's exit codes; a failure is 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Done; a question is answered with yes.
    Yes = 0,
    /// There is no such row; a question is answered with no.
    No = 1,
    /// Stopped by the user.
    Interrupted = 130,
}

/// What every command returns.
pub type Outcome = Result<Ending, Failure>;

/// Whether output is for people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Aligned text.
    Text,
    /// One JSON value per command, on one line.
    Json,
}

impl Style {
    /// Prints one result: `text` for people, `value` for programs.
    pub fn show(self, text: &str, value: Value) {
        match self {
            Style::Text => print_line(text),
            Style::Json => print_line(&value.to_string()),
        }
    }

    /// Prints why a command failed, on standard error.
    pub fn show_failure(self, failure: &Failure) {
        match self {
            Style::Text => eprintln!("error: {}", failure.message),
            Style::Json => eprintln!("{}", json!({"error": {"kind": failure.kind, "message": failure.message}})),
        }
    }
}

/// Prints a line, or lines, on standard output. Ends the process quietly when nobody reads any more.
pub fn print_line(text: &str) {
    let mut out = io::stdout().lock();
    let line_end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(line_end.as_bytes()));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            std::process::exit(2);
        }
        Ok(()) => {}
    }
}

/// Rows and columns for people. Columns of numbers and sizes are aligned to the right; `-` stands for none.
#[derive(Debug)]
pub struct Grid {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    only_texts: bool,
}

impl Grid {
    /// A grid with these columns.
    pub fn new(headings: &[&'static str]) -> Grid {
        Grid { headings: headings.to_vec(), rows: Vec::new(), only_texts: false }
    }

    /// A grid whose cells are texts, also where they look like numbers.
    pub fn of_texts(headings: &[&'static str]) -> Grid {
        Grid { only_texts: true, ..Grid::new(headings) }
    }

    /// Adds a row, which has one cell per column.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headings.len(), "one cell per column");
        self.rows.push(cells);
    }

    /// The text: a line of headings, then a line per row.
    pub fn render(&self) -> String {
        let columns = self.headings.len();
        let width_of = |cell: &str| cell.chars().count();
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| width_of(heading)).collect();
        let mut numeric = vec![!self.only_texts; columns];
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                widths[column] = widths[column].max(width_of(cell));
                numeric[column] &= cell == "-" || is_quantity(cell);
            }
        }
        for (column, numeric) in numeric.iter_mut().enumerate() {
            *numeric &= self.rows.iter().any(|row| row[column] != "-");
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut out = String::new();
            for (column, cell) in cells.enumerate() {
                let fill = " ".repeat(widths[column] - width_of(cell));
                let (before, after) = if numeric[column] { (fill.as_str(), "") } else { ("", fill.as_str()) };
                out.push_str(&format!("{before}{cell}{after}"));
                out.push_str(if column + 1 < columns { "  " } else { "" });
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
            out
        };
        let mut out = line(&mut self.headings.iter().copied());
        for row in &self.rows {
            out.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        out
    }
}

/// True for `17`, `99.5` and either of them with a unit: `1.5 KiB`, `40 %`.
fn is_quantity(cell: &str) -> bool {
    let (number, unit) = cell.split_once(' ').unwrap_or((cell, ""));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && digits(fraction) && unit.chars().all(|c| c.is_ascii_alphabetic() || c == '%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_align() {
        let mut grid = Grid::new(&["name", "rows"]);
        grid.row(vec!["temp".into(), "7".into()]);
        grid.row(vec!["statistics".into(), "1234".into()]);
        assert_eq!(grid.render(), "name        rows\ntemp           7\nstatistics  1234\n");
        assert_eq!(Grid::new(&["a", "b"]).render(), "a  b\n");
    }

    #[test]
    fn sizes_are_aligned_to_the_right_and_texts_to_the_left() {
        let mut grid = Grid::new(&["files", "moment", "note"]);
        grid.row(vec!["1.5 KiB".into(), "2016-01-01 00:00:00 UTC".into(), "-".into()]);
        grid.row(vec!["-".into(), "-".into(), "-".into()]);
        grid.row(vec!["17 B".into(), "never".into(), "-".into()]);
        let rendered = grid.render();
        let lines: Vec<&str> = rendered.lines().collect();
        assert_eq!(lines[0], "  files  moment                   note");
        assert_eq!(lines[1], "1.5 KiB  2016-01-01 00:00:00 UTC  -");
        assert_eq!(lines[2], "      -  -                        -");
        assert_eq!(lines[3], "   17 B  never                    -");
        assert!(is_quantity("99.5 %") && is_quantity("0"));
        let mut texts = Grid::of_texts(&["value"]);
        texts.row(vec!["7".into()]);
        assert_eq!(texts.render(), "value\n7\n");
        for text in ["", "127.0.0.1:34801", "1.2.3", "-1", "3:00", "5 of 8", "1.", "12 h 5"] {
            assert!(!is_quantity(text), "{text}");
        }
    }

    #[test]
    fn failures_keep_the_kind_of_the_client() {
        let failure = Failure::from(Error::Unknown("lost".into()));
        assert_eq!(failure.kind, "unknown");
        assert!(failure.message.contains("lost") && failure.message.contains("look before"), "{failure:?}");
        let failure = Failure::from(Error::NoSuchTable("no table".into()));
        assert!(failure.message.contains("table list --all"), "{failure:?}");
        assert_eq!(Failure::from(Error::Timeout("lost".into())).message.lines().count(), 1);
    }
}
