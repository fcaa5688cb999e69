//! How far a read of a range of sort keys has come: what is left of it, and when it ends. Pure.

use bytes::Bytes;
use pegasus_wire::limits::{READ_BYTES_TARGET, READ_ROWS_MAX};
use pegasus_wire::messages::data::SortKeys;

use crate::error::Error;
use crate::keys::SortKeyRange;
use crate::multi_get::{RangeOptions, RangeRows};
use crate::rows::{Page, Row};

/// A read of a range under way.
pub(crate) struct RangeRead<'a> {
    /// What was asked.
    pub(crate) options: &'a RangeOptions,
    /// The ends of what is still to be read.
    start: (Bytes, bool),
    stop: (Bytes, bool),
    /// In the order in which they were collected.
    rows: Vec<Row>,
    bytes: usize,
}

impl<'a> RangeRead<'a> {
    /// Nothing is read yet.
    pub(crate) fn new(options: &'a RangeOptions) -> RangeRead<'a> {
        let SortKeyRange { start, start_inclusive, stop, stop_inclusive } = &options.range;
        RangeRead {
            options,
            start: (Bytes::copy_from_slice(start), *start_inclusive),
            stop: (Bytes::copy_from_slice(stop), *stop_inclusive),
            rows: Vec::new(),
            bytes: 0,
        }
    }

    /// What is still to be read.
    pub(crate) fn rest(&self) -> SortKeys<'_> {
        let ((start, start_inclusive), (stop, stop_inclusive)) = (&self.start, &self.stop);
        SortKeys { start, stop, start_inclusive: *start_inclusive, stop_inclusive: *stop_inclusive }
    }

    /// Most rows that the next answer may have; 0 for the server's limit.
    pub(crate) fn rows_left(&self) -> u32 {
        left(self.options.rows_max, self.rows.len(), READ_ROWS_MAX)
    }

    /// Bytes at which the next answer ends; 0 for the server's limit.
    pub(crate) fn bytes_left(&self) -> u32 {
        left(self.options.bytes_max, self.bytes, READ_BYTES_TARGET)
    }

    /// Takes the rows of an answer. `Some` if the read ends: whether it is complete.
    pub(crate) fn take(&mut self, page: Page) -> Result<Option<bool>, Error> {
        self.bytes += page.rows.iter().map(|row| row.sort_key.len() + row.value.len()).sum::<usize>();
        if self.options.reverse {
            self.rows.extend(page.rows.into_iter().rev());
        } else {
            self.rows.extend(page.rows);
        }
        let Some(resume_after) = page.resume_after else { return Ok(Some(true)) };
        if is_reached(self.options.rows_max, self.rows.len()) || is_reached(self.options.bytes_max, self.bytes) {
            return Ok(Some(false));
        }
        if self.options.reverse {
            // No sort key is below the empty one; and as the end of a range it would mean that there is none.
            if resume_after.is_empty() {
                return Ok(Some(true));
            }
            check_reverse_progress(&self.stop.0, self.stop.1, &resume_after)?;
            self.stop = (resume_after, false);
        } else {
            check_progress(&self.start.0, self.start.1, &resume_after)?;
            self.start = (resume_after, false);
        }
        Ok(None)
    }

    /// The answer.
    pub(crate) fn ended(self, complete: bool) -> RangeRows {
        let mut rows = self.rows;
        if self.options.reverse {
            rows.reverse();
        }
        RangeRows { rows, complete }
    }
}

/// What is left of a limit, as a request says it: 0 for none.
fn left(limit: usize, used: usize, at_once: usize) -> u32 {
    if limit == 0 { 0 } else { limit.saturating_sub(used).clamp(1, at_once) as u32 }
}

fn is_reached(limit: usize, used: usize) -> bool {
    limit > 0 && used >= limit
}

/// A server that names a place it has been asked to begin behind would keep a client asking for ever.
pub(crate) fn check_progress(start: &[u8], start_inclusive: bool, resume_after: &[u8]) -> Result<(), Error> {
    let moved = if start_inclusive { resume_after >= start } else { resume_after > start };
    if moved { Ok(()) } else { Err(no_progress()) }
}

/// The same for a read from the end; an empty `stop` is no end.
pub(crate) fn check_reverse_progress(stop: &[u8], stop_inclusive: bool, resume_after: &[u8]) -> Result<(), Error> {
    let moved = stop.is_empty() || if stop_inclusive { resume_after <= stop } else { resume_after < stop };
    if moved { Ok(()) } else { Err(no_progress()) }
}

fn no_progress() -> Error {
    Error::Protocol("the answer to a read does not move on".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Row;

    #[test]
    fn a_read_must_move_on() {
        assert!(check_progress(b"a", true, b"a").is_ok());
        assert!(check_progress(b"a", false, b"b").is_ok());
        assert!(check_progress(b"a", false, b"a").is_err());
        assert!(check_progress(b"b", true, b"a").is_err());
        assert!(check_reverse_progress(b"b", true, b"b").is_ok());
        assert!(check_reverse_progress(b"b", false, b"a").is_ok());
        assert!(check_reverse_progress(b"", false, b"a").is_ok());
        assert!(check_reverse_progress(b"b", false, b"b").is_err());
        assert!(check_reverse_progress(b"b", true, b"c").is_err());
    }

    fn page(keys: &[&'static str], resume_after: Option<&'static str>) -> Page {
        let row = |&key: &&'static str| Row { sort_key: key.into(), value: "vv".into(), expiry_seconds: 0 };
        Page { rows: keys.iter().map(row).collect(), count: 0, resume_after: resume_after.map(Into::into), context: 0 }
    }

    #[test]
    fn a_read_from_the_end_goes_down_to_the_empty_sort_key() {
        let options = RangeOptions { reverse: true, ..RangeOptions::default() };
        let mut read = RangeRead::new(&options);
        assert_eq!(read.take(page(&["c", "d"], Some("c"))).expect("progress"), None);
        assert_eq!((read.rest().stop, read.rest().stop_inclusive), (&b"c"[..], false));
        assert_eq!(read.take(page(&["", "b"], Some(""))).expect("progress"), Some(true), "nothing is below");
        let rows = read.ended(true).rows;
        assert_eq!(rows.iter().map(|row| &row.sort_key[..]).collect::<Vec<_>>(), [&b""[..], b"b", b"c", b"d"]);
    }

    #[test]
    fn limits_end_a_read_that_has_not_ended_by_itself() {
        let options = RangeOptions { rows_max: 3, bytes_max: 9, ..RangeOptions::default() };
        let mut read = RangeRead::new(&options);
        assert_eq!(read.take(page(&["a", "b"], Some("b"))).expect("progress"), None);
        assert_eq!((read.rows_left(), read.bytes_left()), (1, 3));
        assert_eq!(read.take(page(&["c"], Some("c"))).expect("progress"), Some(false));
        let mut read = RangeRead::new(&options);
        assert_eq!(read.take(page(&["a", "b", "c"], None)).expect("progress"), Some(true), "all there is");
        let options = RangeOptions { bytes_max: 4, ..RangeOptions::default() };
        let mut read = RangeRead::new(&options);
        assert_eq!(read.take(page(&["a", "b"], Some("x"))).expect("progress"), Some(false), "by bytes");
        assert_eq!((left(0, 7, 3000), left(9000, 7, 3000), left(5, 9, 3000)), (0, 3000, 1));
    }
}
