//! A whole table in the order of the hash keys' bytes: a merge of one walk per partition and hash key length.
//!
//! ```text
//! partition 0, length 1:  b d x        \
//! partition 0, length 3:  abc aaa..     >  the smallest hash key goes next:  aaa abc b cc d ...
//! partition 1, length 2:  cc dd        /
//! ```
//!
//! Each walk is in the order of the bytes, because all its hash keys have one length. All rows of a hash key are in one
//! walk, so they stay together. Memory holds one batch per walk.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::ScanOptions;
use super::lengths::Wanted;
use super::walk::{Terms, Walk};
use crate::error::Error;
use crate::keys::{HashKeyRange, SortKeyRange};
use crate::rows::ScanRow;
use crate::table::Table;

/// Requests under way at a time, to find the walks and to fill them.
const REQUESTS_AT_ONCE: usize = 16;
/// Rows held by all walks together, unless they are so many that each has fewer than [`BATCH_ROWS_MIN`].
const ROWS_HELD: usize = 16 * 1024;
/// Rows that a walk fetches at least.
const BATCH_ROWS_MIN: usize = 16;

/// A scan of the whole table in the order of the hash keys' bytes; see [`Table::sorted_scan`].
///
/// It has the guarantees and the errors of [`super::Scanner`]; what is of one moment here are the rows of one partition
/// whose hash keys have one length, so always those of one hash key.
pub struct SortedScanner {
    walks: Vec<Source>,
    /// The next hash key of each walk that has rows ready.
    heads: BinaryHeap<Head>,
    /// Walks that have to be asked before the next row can be given.
    hungry: usize,
    batch_rows: u32,
    rows_per_request: u32,
    reverse: bool,
}

/// One walk of the merge.
struct Source {
    walk: Walk,
    ready: VecDeque<ScanRow>,
    /// It is among the heads.
    queued: bool,
}

impl Table {
    /// Walks over the whole table in the order of the hash keys' bytes, ascending or descending; the rows of one hash
    /// key in the order of their sort keys, in the same direction.
    ///
    /// Both ranges are in the order of the bytes. Hash keys of any mix of lengths come in their place: `"a"`, `"aa"`,
    /// `"b"`. Every row costs the client a little more than with other scans, and it holds a batch of rows for each
    /// partition and length of hash keys; a table with hash keys of very many lengths costs as many requests at the
    /// beginning. Rows with hash keys of a length that no row of the partition had at the beginning may be left out.
    ///
    /// Errors: [`Error::InvalidArgument`] for keys, patterns and options over a limit, and those of every read.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{HashKeyRange, ScanOptions, SortKeyRange};
    ///
    /// for name in ["b", "aa", "a", "abc", "c"] {
    ///     table.multi_set(name, &[("mail", ""), ("phone", "")]).await?;
    /// }
    /// let from_aa = HashKeyRange { start: "aa".into(), stop: "c".into(), ..HashKeyRange::default() };
    /// let mails = SortKeyRange { stop: "n".into(), ..SortKeyRange::default() };
    /// let mut scanner = table.sorted_scan(&from_aa, &mails, ScanOptions::default()).await?;
    /// let mut names = Vec::new();
    /// while let Some(row) = scanner.next().await? {
    ///     names.push(row.hash_key);
    /// }
    /// assert_eq!(names, ["aa", "abc", "b"]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn sorted_scan(
        &self,
        hash_keys: &HashKeyRange,
        sort_keys: &SortKeyRange,
        options: ScanOptions,
    ) -> Result<SortedScanner, Error> {
        hash_keys.validate()?;
        sort_keys.validate()?;
        options.validate()?;
        let properties = self.properties().await?;
        let (of, wanted) = (properties.table, Wanted::new(hash_keys, &options.hash_key_filter));
        let (reverse, rows_per_request) = (options.reverse, options.rows_per_request);
        let terms = Arc::new(Terms { options, sort_keys: sort_keys.clone() });
        let mut walks = Vec::new();
        let sections = (0..properties.partition_count).map(|index| wanted.sections(self, of, index));
        let mut sections = stream::iter(sections).buffer_unordered(REQUESTS_AT_ONCE);
        while let Some(sections) = sections.next().await {
            let walk = |section| Walk::new(self.clone(), of, terms.clone(), section);
            walks.extend(sections?.into_iter().map(walk).map(Source::new));
        }
        let share = (ROWS_HELD / walks.len().max(1)).max(BATCH_ROWS_MIN);
        Ok(SortedScanner {
            hungry: walks.len(),
            heads: BinaryHeap::with_capacity(walks.len()),
            batch_rows: rows_per_request.min(share as u32),
            walks,
            rows_per_request,
            reverse,
        })
    }
}

impl SortedScanner {
    /// The next row; `None` at the end. After an error the scan may be continued; dropping the future loses no rows.
    pub async fn next(&mut self) -> Result<Option<ScanRow>, Error> {
        self.feed().await?;
        Ok(self.pop())
    }

    /// The next rows, as many as there are without a request in between and at least one; `None` at the end.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::ScanOptions;
    ///
    /// table.set("b", "", "2").await?;
    /// table.set("aa", "", "1").await?;
    /// let descending = ScanOptions { reverse: true, ..ScanOptions::default() };
    /// let mut scanner = table.sorted_scan(&Default::default(), &Default::default(), descending).await?;
    /// let mut values = Vec::new();
    /// while let Some(rows) = scanner.next_batch().await? {
    ///     values.extend(rows.into_iter().map(|row| row.value));
    /// }
    /// assert_eq!(values, ["2", "1"]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_batch(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        self.feed().await?;
        let mut rows = Vec::new();
        while self.hungry == 0
            && rows.len() < self.rows_per_request as usize
            && let Some(row) = self.pop()
        {
            rows.push(row);
        }
        Ok((!rows.is_empty()).then_some(rows))
    }

    /// How many moments the rows so far are of: the number of pairs of a partition and a length, as long as the servers
    /// have kept their snapshots.
    pub fn snapshots(&self) -> u64 {
        self.walks.iter().map(|source| source.walk.moments()).sum()
    }

    /// Asks the walks that have no rows until each has some or has ended.
    async fn feed(&mut self) -> Result<(), Error> {
        if self.hungry == 0 {
            return Ok(());
        }
        let rows_max = self.batch_rows;
        let asked = self.walks.iter_mut().filter(|source| source.is_hungry()).map(|source| source.fill(rows_max));
        let mut asked = stream::iter(asked).buffer_unordered(REQUESTS_AT_ONCE);
        while let Some(outcome) = asked.next().await {
            outcome?;
        }
        drop(asked);
        for (index, source) in self.walks.iter_mut().enumerate().filter(|(_, source)| !source.queued) {
            if let Some(row) = source.ready.front() {
                self.heads.push(Head { hash_key: row.hash_key.clone(), index, reverse: self.reverse });
                source.queued = true;
            }
        }
        self.hungry = 0;
        Ok(())
    }

    /// The next row, if no walk is hungry.
    fn pop(&mut self) -> Option<ScanRow> {
        let mut head = self.heads.peek_mut()?;
        let source = &mut self.walks[head.index];
        let row = source.ready.pop_front()?;
        match source.ready.front() {
            // It sinks to its new place when it is let go.
            Some(next) if next.hash_key != head.hash_key => head.hash_key = next.hash_key.clone(),
            Some(_) => {}
            None => {
                source.queued = false;
                std::collections::binary_heap::PeekMut::pop(head);
                self.hungry += usize::from(source.is_hungry());
            }
        }
        Some(row)
    }
}

impl Source {
    fn new(walk: Walk) -> Source {
        Source { walk, ready: VecDeque::new(), queued: false }
    }

    fn is_hungry(&self) -> bool {
        self.ready.is_empty() && !self.walk.is_ended()
    }

    async fn fill(&mut self, rows_max: u32) -> Result<(), Error> {
        while self.is_hungry() {
            let rows = self.walk.rows(rows_max).await?;
            self.ready.extend(rows);
        }
        Ok(())
    }
}

/// The next hash key of a walk. The greatest head is the one whose row goes next.
#[derive(PartialEq, Eq)]
struct Head {
    hash_key: Bytes,
    index: usize,
    reverse: bool,
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        let ascending = self.hash_key.cmp(&other.hash_key);
        // No two walks have one hash key; the index only makes the order total.
        (if self.reverse { ascending } else { ascending.reverse() }).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
