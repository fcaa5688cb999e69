//! One stream of rows from several sections, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use pegasus_wire::TableId;

use super::section::Section;
use super::walk::{Terms, Walk};
use crate::error::Error;
use crate::rows::ScanRow;
use crate::table::Table;

/// A scan under way. Each request has the table handle's timeout; the scan as a whole has none.
///
/// What it guarantees: a row that exists from the first request to the end comes exactly once, and nothing comes twice,
/// across failovers and restarts too. The rows of one partition are of one moment as long as the server keeps its
/// snapshot; a server that restarts, loses its role, or hears nothing for five minutes does not, and the scan goes on
/// with a newer one. [`Scanner::snapshots`] tells.
///
/// After an error the scan may be continued: it stands where the last answer ended. Dropping a future of
/// [`Scanner::next`] or [`Scanner::next_batch`] loses no rows. A scanner that is dropped before its end tells the
/// server, if that can be done at once.
///
/// Errors: those of every read of [`Table`]. [`Error::NoSuchTable`] ends the scan for good: a new table of the same
/// name is another one.
///
/// ```no_run
/// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
/// table.multi_set("user:1", &[("mail", "ada@example.org"), ("name", "Ada")]).await?;
/// let mut scanner = table.full_scan(Default::default()).await?;
/// while let Some(row) = scanner.next().await? {
///     println!("{:?} {:?} {:?}", row.hash_key, row.sort_key, row.value);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Scanner {
    table: Table,
    /// The table that the first request was for.
    of: Option<TableId>,
    terms: Arc<Terms>,
    walk: Option<Walk>,
    sections: VecDeque<Section>,
    ready: VecDeque<ScanRow>,
    counted: u64,
    /// Of the walks that have ended.
    moments: u64,
}

impl Scanner {
    pub(crate) fn new(table: Table, terms: Arc<Terms>, sections: impl IntoIterator<Item = Section>) -> Scanner {
        Scanner {
            table,
            of: None,
            terms,
            walk: None,
            sections: sections.into_iter().collect(),
            ready: VecDeque::new(),
            counted: 0,
            moments: 0,
        }
    }

    /// The same scan, of this table and no other.
    pub(crate) fn of(self, table: TableId) -> Scanner {
        Scanner { of: Some(table), ..self }
    }

    /// The next row; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ScanRow>, Error> {
        while self.ready.is_empty() {
            let rows_max = self.terms.options.rows_per_request;
            let Some(walk) = self.walk().await? else { return Ok(None) };
            let rows = walk.rows(rows_max).await?;
            self.ready.extend(rows);
        }
        Ok(self.ready.pop_front())
    }

    /// The next rows, as many as one request fetched and at least one; `None` at the end.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.multi_set("user:1", &[("mail", "ada@example.org"), ("name", "Ada")]).await?;
    /// let mut scanner = table.full_scan(Default::default()).await?;
    /// assert_eq!(scanner.next_batch().await?.expect("rows").len(), 2);
    /// assert!(scanner.next_batch().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_batch(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        if !self.ready.is_empty() {
            return Ok(Some(self.ready.drain(..).collect()));
        }
        let rows_max = self.terms.options.rows_per_request;
        while let Some(walk) = self.walk().await? {
            let rows = walk.rows(rows_max).await?;
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    /// Counts the rows that are left and ends the scan. The servers count; rows are not sent. If it fails or is given
    /// up it can be called again, and goes on counting.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{KeyFilter, ScanOptions};
    ///
    /// table.set("user:1", "name", "Ada").await?;
    /// table.set("page:1", "title", "Home").await?;
    /// let users = ScanOptions { hash_key_filter: KeyFilter::Prefix("user:".into()), ..ScanOptions::default() };
    /// assert_eq!(table.full_scan(users).await?.count().await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn count(&mut self) -> Result<u64, Error> {
        self.counted += self.ready.drain(..).count() as u64;
        while let Some(walk) = self.walk().await? {
            let counted = walk.count().await?;
            self.counted += counted;
        }
        Ok(std::mem::take(&mut self.counted))
    }

    /// How many moments the rows so far are of. It is the number of partitions begun as long as the servers have kept
    /// their snapshots; each one lost adds one. With [`super::ScanOptions::snapshot`] off every answer has its own
    /// moment.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.multi_set("user:1", &[("mail", "ada@example.org"), ("name", "Ada")]).await?;
    /// let mut scanner = table.hash_scan("user:1", &Default::default(), Default::default())?;
    /// while scanner.next().await?.is_some() {}
    /// assert_eq!(scanner.snapshots(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn snapshots(&self) -> u64 {
        self.moments + self.walk.as_ref().map_or(0, Walk::moments)
    }

    /// The walk to go on with; `None` if there is nothing left to ask for.
    async fn walk(&mut self) -> Result<Option<&mut Walk>, Error> {
        while self.walk.as_ref().is_none_or(Walk::is_ended) {
            if self.sections.is_empty() {
                return Ok(None);
            }
            let of = match self.of {
                Some(of) => of,
                None => self.table.core.route(self.table.deadline()).await?.table.table,
            };
            self.of = Some(of);
            self.moments += self.walk.take().map_or(0, |walk| walk.moments());
            let section = self.sections.pop_front();
            self.walk = section.map(|section| Walk::new(self.table.clone(), of, self.terms.clone(), section));
        }
        Ok(self.walk.as_mut())
    }
}
