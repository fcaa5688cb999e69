//! Several rows of one hash key in one read.
//!
//! A server answers at most so many rows or bytes at once; the rest is fetched by further requests, so an answer that
//! took several is not of one moment.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use pegasus_wire::key::{check_hash_key, check_sort_key};
use pegasus_wire::limits::READ_ROWS_MAX;
use pegasus_wire::messages::data::{Filter, MultiGet, SortKey, SortKeys};
use pegasus_wire::{FrameBuilder, MessageKind};

use crate::dispatch::Target;
use crate::error::Error;
use crate::keys::{KeyFilter, SortKeyRange};
use crate::range_read::RangeRead;
use crate::retry::Effect;
use crate::rows::{Page, Row, read_page};
use crate::table::Table;

/// What [`Table::multi_get_range`] reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeOptions {
    /// Which sort keys.
    pub range: SortKeyRange,
    /// Which of them.
    pub filter: KeyFilter,
    /// Collect from the end of the range: of a read that `rows_max` or `bytes_max` ends, the last rows are answered.
    /// They come in ascending order all the same.
    pub reverse: bool,
    /// Leave the values out.
    pub no_value: bool,
    /// Most rows wanted; 0 means all.
    pub rows_max: usize,
    /// Ends the read once sort keys and values have this many bytes, the row that reaches it included; 0 means never.
    pub bytes_max: usize,
}

/// Rows of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRows {
    /// The rows, ascending by sort key.
    pub rows: Vec<Row>,
    /// False if `rows_max` or `bytes_max` ended the read before the range did. There need not be more rows. To read on,
    /// begin after the last row, exclusive; with `reverse`, end before the first one.
    pub complete: bool,
}

impl Table {
    /// Rows of one hash key by their sort keys, in the order asked; those that do not exist are left out.
    ///
    /// Limits: at most 3000 keys (`read_rows_max`); one named twice is answered once. The rows of an answer above 1 MiB
    /// are not all of one moment.
    ///
    /// Errors: [`Error::InvalidArgument`] for keys over a limit, or none; [`Error::Timeout`]. All of [`Table`] apply.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    /// let rows = table.multi_get("user:1", &["mail", "phone", "name"]).await?;
    /// assert_eq!(rows.len(), 2);
    /// assert_eq!((&rows[0].sort_key[..], &rows[0].value[..]), (&b"mail"[..], &b"ada@example.org"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_get<K>(&self, hash_key: impl AsRef<[u8]>, sort_keys: &[K]) -> Result<Vec<Row>, Error>
    where
        K: AsRef<[u8]>,
    {
        self.multi_get_keys(hash_key, sort_keys, false).await
    }

    /// Which of the sort keys exist, in the order asked. Like [`Table::multi_get`] without the values.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// let found = table.multi_exist("user:1", &["phone", "name"]).await?;
    /// assert_eq!(found.len(), 1);
    /// assert_eq!(found[0].sort_key, "name");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_exist<K>(&self, hash_key: impl AsRef<[u8]>, sort_keys: &[K]) -> Result<Vec<Row>, Error>
    where
        K: AsRef<[u8]>,
    {
        self.multi_get_keys(hash_key, sort_keys, true).await
    }

    /// Rows of one hash key by a range of sort keys, ascending, as far as the options let it go. An empty or reversed
    /// range has no rows.
    ///
    /// All rows are held in memory: for more than some megabytes use [`Table::hash_scan`]. An answer above 3000 rows or
    /// 1 MiB is read in pieces, within the one deadline, and not all of one moment.
    ///
    /// Errors: [`Error::InvalidArgument`] for keys and patterns over a limit; [`Error::Timeout`]. All of [`Table`]
    /// apply.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{KeyFilter, RangeOptions, SortKeyRange};
    ///
    /// table.multi_set("log", &[("05-01 a", "1"), ("05-02 b", "2"), ("05-02 c", "3"), ("06-01 d", "4")]).await?;
    /// let may = SortKeyRange { start: "05".into(), stop: "06".into(), ..SortKeyRange::default() };
    /// let options = RangeOptions { range: may, reverse: true, rows_max: 2, ..RangeOptions::default() };
    /// let last = table.multi_get_range("log", &options).await?;
    /// assert_eq!((&last.rows[0].value[..], &last.rows[1].value[..]), (&b"2"[..], &b"3"[..]));
    /// assert!(!last.complete);
    ///
    /// let options = RangeOptions { filter: KeyFilter::Anywhere("-01".into()), ..RangeOptions::default() };
    /// assert_eq!(table.multi_get_range("log", &options).await?.rows.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_get_range(
        &self,
        hash_key: impl AsRef<[u8]>,
        options: &RangeOptions,
    ) -> Result<RangeRows, Error> {
        let hash_key = hash_key.as_ref();
        check_hash_key(hash_key).map_err(Error::invalid)?;
        options.range.validate()?;
        options.filter.validate()?;
        let mut read = RangeRead::new(options);
        if options.range.as_wire().is_empty() {
            return Ok(read.ended(true));
        }
        let deadline = self.deadline();
        let target = self.core.bind(Target::hash_key(hash_key), deadline).await?;
        loop {
            let page = self.range_page(hash_key, target, &read, deadline).await?;
            if let Some(complete) = read.take(page)? {
                return Ok(read.ended(complete));
            }
        }
    }

    /// The sort keys of one hash key in a range, ascending, all of them.
    ///
    /// Like [`Table::multi_get_range`] without values and limits, whose errors it has.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    /// assert_eq!(table.multi_get_sort_keys("user:1", &Default::default()).await?, ["mail", "name"]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_get_sort_keys(
        &self,
        hash_key: impl AsRef<[u8]>,
        range: &SortKeyRange,
    ) -> Result<Vec<Bytes>, Error> {
        let options = RangeOptions { range: range.clone(), no_value: true, ..RangeOptions::default() };
        let rows = self.multi_get_range(hash_key, &options).await?.rows;
        Ok(rows.into_iter().map(|row| row.sort_key).collect())
    }

    async fn multi_get_keys<K>(
        &self,
        hash_key: impl AsRef<[u8]>,
        sort_keys: &[K],
        no_value: bool,
    ) -> Result<Vec<Row>, Error>
    where
        K: AsRef<[u8]>,
    {
        let hash_key = hash_key.as_ref();
        check_hash_key(hash_key).map_err(Error::invalid)?;
        let keys = distinct_keys(sort_keys)?;
        let mut remaining: &[SortKey<'_>] = &keys;
        let mut rows = Vec::with_capacity(keys.len());
        let deadline = self.deadline();
        let target = self.core.bind(Target::hash_key(hash_key), deadline).await?;
        while !remaining.is_empty() {
            let page = self.keys_page(hash_key, target, remaining, no_value, deadline).await?;
            rows.extend(page.rows);
            let Some(resume_after) = page.resume_after else { break };
            let position = remaining.iter().position(|key| key.bytes == resume_after);
            let Some(position) = position else {
                return Err(Error::Protocol("the answer to a multi_get continues at a key not asked for".into()));
            };
            remaining = &remaining[position + 1..];
        }
        Ok(rows)
    }

    async fn keys_page(
        &self,
        hash_key: &[u8],
        target: Target,
        sort_keys: &[SortKey<'_>],
        no_value: bool,
        deadline: Instant,
    ) -> Result<Page, Error> {
        let kind = MessageKind::MULTI_GET;
        let call = self.core.call(target, kind, Effect::Read, deadline, |out, header, partition| {
            let request = MultiGet {
                partition,
                hash_key,
                sort_keys,
                range: SortKeys::ALL,
                filter: Filter::ALL,
                reverse: false,
                no_value,
                count_only: false,
                rows_max: 0,
                bytes_max: 0,
            };
            FrameBuilder::append(out, header, &request, &[]);
        });
        read_page(&call.await?)
    }

    async fn range_page(
        &self,
        hash_key: &[u8],
        target: Target,
        read: &RangeRead<'_>,
        deadline: Instant,
    ) -> Result<Page, Error> {
        let kind = MessageKind::MULTI_GET;
        let call = self.core.call(target, kind, Effect::Read, deadline, |out, header, partition| {
            let request = MultiGet {
                partition,
                hash_key,
                sort_keys: &[],
                range: read.rest(),
                filter: read.options.filter.as_wire(),
                reverse: read.options.reverse,
                no_value: read.options.no_value,
                count_only: false,
                rows_max: read.rows_left(),
                bytes_max: read.bytes_left(),
            };
            FrameBuilder::append(out, header, &request, &[]);
        });
        read_page(&call.await?)
    }
}

/// The keys to ask for, checked, each once, in their order.
fn distinct_keys<K: AsRef<[u8]>>(sort_keys: &[K]) -> Result<Vec<SortKey<'_>>, Error> {
    if sort_keys.is_empty() {
        return Err(Error::InvalidArgument("a multi_get by keys needs at least one sort key".into()));
    }
    if sort_keys.len() > READ_ROWS_MAX {
        return Err(Error::InvalidArgument(format!(
            "the multi_get names {} sort keys, the limit is {READ_ROWS_MAX} (read_rows_max)",
            sort_keys.len()
        )));
    }
    let mut seen = HashSet::with_capacity(sort_keys.len());
    let mut keys = Vec::with_capacity(sort_keys.len());
    for key in sort_keys {
        let bytes = key.as_ref();
        check_sort_key(bytes).map_err(Error::invalid)?;
        if seen.insert(bytes) {
            keys.push(SortKey { bytes });
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_and_kept_in_order() {
        let keys = distinct_keys(&["b", "a", "b", ""]).expect("sound keys");
        let bytes: Vec<&[u8]> = keys.iter().map(|key| key.bytes).collect();
        assert_eq!(bytes, [&b"b"[..], b"a", b""]);
        assert!(distinct_keys::<&str>(&[]).is_err());
        assert!(distinct_keys(&vec!["x"; READ_ROWS_MAX + 1]).unwrap_err().to_string().contains("read_rows_max"));
        assert!(distinct_keys(&[vec![0u8; 1025]]).unwrap_err().to_string().contains("sort_key_bytes_max"));
    }
}
