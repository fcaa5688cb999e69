//! Walking over rows: one hash key, one partition, or the whole table.
//!
//! There is no state at the servers. Each request continues after the last key of the previous answer, so a scan
//! survives restarts, and is not of one moment: it sees some of what is written while it runs.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use pegasus_wire::key::{after_prefix, check_hash_key, decode, encode};
use pegasus_wire::limits::READ_ROWS_MAX;
use pegasus_wire::messages::data::Scan;
use pegasus_wire::{FrameBuilder, MessageKind, partition_hash};

use crate::dispatch::Target;
use crate::error::Error;
use crate::multi_get::{SortKeyRange, check_progress};
use crate::retry::Effect;
use crate::rows::{Page, Row, ScanRow, read_page};
use crate::table::Table;

/// Partitions counted at a time by [`Table::count_all`].
const COUNTS_AT_ONCE: usize = 8;

/// How a scan reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Leave the values out.
    pub no_value: bool,
    /// Most rows fetched by one request, 1 to 3000. Default 1000.
    pub rows_per_request: u32,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions { no_value: false, rows_per_request: 1000 }
    }
}

impl ScanOptions {
    fn validate(&self) -> Result<(), Error> {
        if self.rows_per_request == 0 || self.rows_per_request as usize > READ_ROWS_MAX {
            return Err(Error::InvalidArgument(format!(
                "rows_per_request must be 1 to {READ_ROWS_MAX} (read_rows_max); it is {}",
                self.rows_per_request
            )));
        }
        Ok(())
    }
}

/// A scan under way. Each request has the table handle's timeout; the scan as a whole has none.
///
/// After an error the scan may be continued: it stands where the last answer ended. Dropping a future of
/// [`Scanner::next`] or [`Scanner::next_batch`] loses no rows.
///
/// ```no_run
/// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
/// let mut scanner = table.full_scan(Default::default()).await?;
/// while let Some(row) = scanner.next().await? {
///     println!("{:?} {:?} {:?}", row.hash_key, row.sort_key, row.value);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Scanner {
    table: Table,
    options: ScanOptions,
    sections: VecDeque<Section>,
    ready: VecDeque<ScanRow>,
}

/// A range of stored keys in one partition that is still to be read.
#[derive(Clone, Debug)]
struct Section {
    target: Target,
    start: Bytes,
    start_inclusive: bool,
    /// Exclusive; empty means to the end of the partition.
    stop: Bytes,
}

impl Section {
    fn partition(index: u32) -> Section {
        Section { target: Target::Index(index), start: Bytes::new(), start_inclusive: true, stop: Bytes::new() }
    }

    fn hash_key(hash_key: &[u8], range: &SortKeyRange) -> Section {
        let stop = if range.stop.is_empty() {
            after_prefix(&encode(hash_key, b"")).expect("a hash key within its limit has a successor")
        } else {
            let mut stop = encode(hash_key, &range.stop);
            if range.stop_inclusive {
                // The smallest key above `stop`.
                stop.push(0);
            }
            stop
        };
        Section {
            target: Target::Hash(partition_hash(hash_key, &[])),
            start: encode(hash_key, &range.start).into(),
            start_inclusive: range.start_inclusive,
            stop: stop.into(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.stop.is_empty() && self.start >= self.stop
    }
}

impl Scanner {
    fn new(table: Table, options: ScanOptions, sections: impl IntoIterator<Item = Section>) -> Scanner {
        let sections = sections.into_iter().filter(|section| !section.is_empty()).collect();
        Scanner { table, options, sections, ready: VecDeque::new() }
    }

    /// The next row; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ScanRow>, Error> {
        while self.ready.is_empty() {
            match self.fetch().await? {
                Some(rows) => self.ready.extend(rows),
                None => return Ok(None),
            }
        }
        Ok(self.ready.pop_front())
    }

    /// The next rows, as many as one request fetched and at least one; `None` at the end.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        if !self.ready.is_empty() {
            return Ok(Some(self.ready.drain(..).collect()));
        }
        while let Some(rows) = self.fetch().await? {
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    /// One request; `None` if there is nothing left to ask for. May have no rows: a server stops also after looking at
    /// many expired ones.
    async fn fetch(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        let Some(section) = self.sections.front_mut() else { return Ok(None) };
        let page = scan_page(&self.table, section, self.options, false).await?;
        let rows = page.rows.into_iter().map(split_row).collect::<Result<Vec<_>, _>>()?;
        match page.resume_after {
            None => drop(self.sections.pop_front()),
            Some(resume_after) => section.continue_after(resume_after)?,
        }
        Ok(Some(rows))
    }
}

impl Section {
    fn continue_after(&mut self, resume_after: Bytes) -> Result<(), Error> {
        check_progress(&self.start, self.start_inclusive, &resume_after)?;
        self.start = resume_after;
        self.start_inclusive = false;
        Ok(())
    }
}

impl Table {
    /// Walks over the rows of one hash key, ascending by sort key.
    pub fn hash_scan(
        &self,
        hash_key: impl AsRef<[u8]>,
        range: &SortKeyRange,
        options: ScanOptions,
    ) -> Result<Scanner, Error> {
        let hash_key = hash_key.as_ref();
        check_hash_key(hash_key).map_err(Error::invalid)?;
        range.validate()?;
        options.validate()?;
        Ok(Scanner::new(self.clone(), options, [Section::hash_key(hash_key, range)]))
    }

    /// Walks over all rows of the table, one partition after another, in no useful order. To read faster, walk over
    /// several partitions at once with [`Table::partition_scan`].
    pub async fn full_scan(&self, options: ScanOptions) -> Result<Scanner, Error> {
        options.validate()?;
        let count = self.properties().await?.partition_count;
        Ok(Scanner::new(self.clone(), options, (0..count).map(Section::partition)))
    }

    /// Walks over the rows of one partition, by its index: hash keys by length, then bytes; sort keys ascending.
    pub fn partition_scan(&self, index: u32, options: ScanOptions) -> Result<Scanner, Error> {
        options.validate()?;
        Ok(Scanner::new(self.clone(), options, [Section::partition(index)]))
    }

    /// How many rows one hash key has. The server counts the rows and does not send them. The timeout bounds each
    /// of the requests this takes, not the whole.
    pub async fn count(&self, hash_key: impl AsRef<[u8]>) -> Result<u64, Error> {
        let hash_key = hash_key.as_ref();
        check_hash_key(hash_key).map_err(Error::invalid)?;
        self.count_section(Section::hash_key(hash_key, &SortKeyRange::default())).await
    }

    /// How many rows the table has. The rows are counted by the servers and not sent. The handle's timeout bounds each
    /// of the requests this takes, not the whole.
    pub async fn count_all(&self) -> Result<u64, Error> {
        let count = self.properties().await?.partition_count;
        let counts = (0..count).map(|index| self.count_section(Section::partition(index)));
        let mut counts = stream::iter(counts).buffer_unordered(COUNTS_AT_ONCE);
        let mut total = 0;
        while let Some(count) = counts.next().await {
            total += count?;
        }
        Ok(total)
    }

    async fn count_section(&self, mut section: Section) -> Result<u64, Error> {
        let options = ScanOptions { no_value: true, rows_per_request: READ_ROWS_MAX as u32 };
        let mut total = 0;
        loop {
            let page = scan_page(self, &section, options, true).await?;
            total += page.count;
            match page.resume_after {
                None => return Ok(total),
                Some(resume_after) => section.continue_after(resume_after)?,
            }
        }
    }
}

async fn scan_page(table: &Table, section: &Section, options: ScanOptions, count_only: bool) -> Result<Page, Error> {
    let kind = MessageKind::SCAN;
    let call = table.core.call(section.target, kind, Effect::Read, table.deadline(), |out, header, partition| {
        let request = Scan {
            partition,
            start: &section.start,
            stop: &section.stop,
            start_inclusive: section.start_inclusive,
            no_value: options.no_value,
            count_only,
            rows_max: options.rows_per_request,
        };
        FrameBuilder::append(out, header, &request, &[]);
    });
    read_page(&call.await?)
}

/// Splits the stored key of a scan's row.
fn split_row(row: Row) -> Result<ScanRow, Error> {
    let stored = row.sort_key;
    let (hash_key, sort_key) = decode(&stored).map_err(Error::protocol)?;
    let (hash_key, sort_key) = (stored.slice_ref(hash_key), stored.slice_ref(sort_key));
    Ok(ScanRow { hash_key, sort_key, value: row.value, expiry_seconds: row.expiry_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_section(section: &Section, hash_key: &[u8], sort_key: &[u8]) -> bool {
        let key = encode(hash_key, sort_key);
        let from_start = if section.start_inclusive { key[..] >= section.start } else { key[..] > section.start };
        from_start && (section.stop.is_empty() || key[..] < section.stop)
    }

    #[test]
    fn a_hash_key_section_holds_exactly_its_rows() {
        let all = Section::hash_key(b"h\xFF", &SortKeyRange::default());
        assert!(in_section(&all, b"h\xFF", b"") && in_section(&all, b"h\xFF", &[0xFF; 40]));
        assert!(
            !in_section(&all, b"h", b"\xFF\xFF") && !in_section(&all, b"i\0", b"") && !in_section(&all, b"h\xFFx", b"")
        );
    }

    #[test]
    fn both_ends_can_be_inside_or_outside() {
        let mut range = SortKeyRange { start: b"b".into(), stop: b"d".into(), ..SortKeyRange::default() };
        let held = |range: &SortKeyRange| {
            let section = Section::hash_key(b"h", range);
            [&b"a"[..], b"b", b"c", b"d", b"d\0"].map(|key| in_section(&section, b"h", key))
        };
        assert_eq!(held(&range), [false, true, true, false, false]);
        range.start_inclusive = false;
        range.stop_inclusive = true;
        assert_eq!(held(&range), [false, false, true, true, false]);
    }

    #[test]
    fn a_reversed_range_is_empty() {
        let range = SortKeyRange { start: b"d".into(), stop: b"b".into(), ..SortKeyRange::default() };
        assert!(Section::hash_key(b"h", &range).is_empty());
        assert!(!Section::partition(0).is_empty());
    }

    #[test]
    fn rows_per_request_is_bounded() {
        for rows_per_request in [0, READ_ROWS_MAX as u32 + 1] {
            assert!(ScanOptions { no_value: false, rows_per_request }.validate().is_err());
        }
    }
}
