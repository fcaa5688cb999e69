//! Walking over rows: one hash key, one partition, a range, or the whole table.
//!
//! A scan is continued from the last key of the previous answer, so it survives restarts and failovers of servers. In
//! addition a server keeps, for as long as it can, a snapshot from which all answers of one partition come; when it is
//! gone, the scan goes on with a newer one, and says so ([`Scanner::snapshots`]).
//!
//! `section` is where a scan still has to go, `walk` goes there request by request, `scanner` is several walks one
//! after the other, `split` shares a table out over scanners, `sorted` merges many walks into the order of the hash
//! keys, of which `lengths` finds the parts.

mod lengths;
mod scanner;
mod section;
mod sorted;
mod split;
mod walk;

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use pegasus_wire::key::check_hash_key;
use pegasus_wire::limits::READ_ROWS_MAX;

use crate::error::Error;
use crate::keys::{KeyFilter, SortKeyRange};
use crate::table::Table;

pub use scanner::Scanner;
pub use sorted::SortedScanner;

use section::Section;
use walk::Terms;

/// Partitions counted at a time by [`Table::count_all`].
const COUNTS_AT_ONCE: usize = 8;

/// How a scan reads.
///
/// ```
/// use pegasus_client::{KeyFilter, ScanOptions};
///
/// let options = ScanOptions { hash_key_filter: KeyFilter::Prefix("user:".into()), ..ScanOptions::default() };
/// assert!(options.snapshot && options.rows_per_request == 1000);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Leave the values out.
    pub no_value: bool,
    /// Most rows fetched by one request, 1 to 3000 (`read_rows_max`). Default 1000. A server stops earlier at 1 MiB,
    /// and after looking at 3000 rows that are not wanted.
    pub rows_per_request: u32,
    /// From the end to the start.
    pub reverse: bool,
    /// Which hash keys. The pattern has at most 1024 bytes (`filter_bytes_max`).
    pub hash_key_filter: KeyFilter,
    /// Which sort keys.
    pub sort_key_filter: KeyFilter,
    /// Let the servers keep a snapshot for the scan, so that all its rows of a partition are of one moment. Default
    /// true. Without it the servers keep nothing, and each answer is of its own moment.
    pub snapshot: bool,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions {
            no_value: false,
            rows_per_request: 1000,
            reverse: false,
            hash_key_filter: KeyFilter::None,
            sort_key_filter: KeyFilter::None,
            snapshot: true,
        }
    }
}

impl ScanOptions {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.rows_per_request == 0 || self.rows_per_request as usize > READ_ROWS_MAX {
            return Err(Error::InvalidArgument(format!(
                "rows_per_request must be 1 to {READ_ROWS_MAX} (read_rows_max); it is {}",
                self.rows_per_request
            )));
        }
        self.hash_key_filter.validate()?;
        self.sort_key_filter.validate()
    }
}

impl Table {
    /// Walks over the rows of one hash key, ascending by sort key, or descending.
    ///
    /// Errors: [`Error::InvalidArgument`] for keys, patterns and options over a limit. Rows are read by
    /// [`Scanner::next`].
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{ScanOptions, SortKeyRange};
    ///
    /// table.multi_set("log", &[("05-01", "a"), ("05-02", "b"), ("06-01", "c")]).await?;
    /// let may = SortKeyRange { start: "05".into(), stop: "06".into(), ..SortKeyRange::default() };
    /// let newest_first = ScanOptions { reverse: true, ..ScanOptions::default() };
    /// let mut scanner = table.hash_scan("log", &may, newest_first)?;
    /// assert_eq!(scanner.next().await?.expect("a row").sort_key, "05-02");
    /// assert_eq!(scanner.next().await?.expect("a row").sort_key, "05-01");
    /// assert!(scanner.next().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
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
        Ok(self.scanner(Terms::new(options), [Section::hash_key(hash_key, range)]))
    }

    /// Walks over all rows of the table, one partition after another, in no useful order. To read faster use
    /// [`Table::scanners`]; for rows in order, [`Table::sorted_scan`].
    ///
    /// A row that exists from the first request to the end comes exactly once, whatever happens to the servers. Of what
    /// is written meanwhile, some is seen: each partition is as it was when the scan came to it.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// table.set("user:2", "name", "Bob").await?;
    /// let mut scanner = table.full_scan(Default::default()).await?;
    /// let mut rows = 0;
    /// while let Some(row) = scanner.next().await? {
    ///     assert_eq!(row.sort_key, "name");
    ///     rows += 1;
    /// }
    /// assert_eq!(rows, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn full_scan(&self, options: ScanOptions) -> Result<Scanner, Error> {
        options.validate()?;
        let properties = self.properties().await?;
        let sections = (0..properties.partition_count).map(Section::partition);
        Ok(self.scanner(Terms::new(options), sections).of(properties.table))
    }

    /// Walks over the rows of one partition, by its index: hash keys by length, then bytes; sort keys ascending; with
    /// `reverse` all of it from the end.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// let mut rows = 0;
    /// for index in 0..table.properties().await?.partition_count {
    ///     let mut scanner = table.partition_scan(index, Default::default())?;
    ///     while let Some(batch) = scanner.next_batch().await? {
    ///         rows += batch.len();
    ///     }
    /// }
    /// assert_eq!(rows, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn partition_scan(&self, index: u32, options: ScanOptions) -> Result<Scanner, Error> {
        options.validate()?;
        Ok(self.scanner(Terms::new(options), [Section::partition(index)]))
    }

    /// How many rows one hash key has (Pegasus: sortkey_count). The server counts the rows and does not send them. The
    /// timeout bounds each of the requests this takes, one for 3000 rows, not the whole.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    /// assert_eq!(table.count("user:1").await?, 2);
    /// assert_eq!(table.count("user:2").await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn count(&self, hash_key: impl AsRef<[u8]>) -> Result<u64, Error> {
        self.hash_scan(hash_key, &SortKeyRange::default(), counting())?.count().await
    }

    /// How many rows the table has. The rows are counted by the servers, eight partitions at a time, and not sent. The
    /// handle's timeout bounds each of the requests this takes, not the whole. To count some of the rows, use
    /// [`Scanner::count`].
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// table.set("user:2", "name", "Bob").await?;
    /// assert_eq!(table.count_all().await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn count_all(&self) -> Result<u64, Error> {
        let properties = self.properties().await?;
        let terms = Terms::new(counting());
        let counts = (0..properties.partition_count).map(|index| {
            let mut scanner = self.scanner(terms.clone(), [Section::partition(index)]).of(properties.table);
            async move { scanner.count().await }
        });
        let mut counts = stream::iter(counts).buffer_unordered(COUNTS_AT_ONCE);
        let mut total = 0;
        while let Some(count) = counts.next().await {
            total += count?;
        }
        Ok(total)
    }

    fn scanner(&self, terms: Arc<Terms>, sections: impl IntoIterator<Item = Section>) -> Scanner {
        Scanner::new(self.clone(), terms, sections)
    }
}

/// Options of a count.
fn counting() -> ScanOptions {
    ScanOptions { no_value: true, rows_per_request: READ_ROWS_MAX as u32, ..ScanOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_bounded() {
        for rows_per_request in [0, READ_ROWS_MAX as u32 + 1] {
            let options = ScanOptions { rows_per_request, ..ScanOptions::default() };
            assert!(options.validate().unwrap_err().to_string().contains("read_rows_max"));
        }
        let long = KeyFilter::Anywhere(vec![0; 1025]);
        for options in [
            ScanOptions { hash_key_filter: long.clone(), ..ScanOptions::default() },
            ScanOptions { sort_key_filter: long.clone(), ..ScanOptions::default() },
        ] {
            assert!(options.validate().unwrap_err().to_string().contains("filter_bytes_max"));
        }
        assert!(ScanOptions::default().validate().is_ok());
    }
}
