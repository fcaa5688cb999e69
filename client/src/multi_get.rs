//! Several rows of one hash key in one read.
//!
//! A server answers at most so many rows or bytes at once; the rest is fetched by further requests, so an answer that
//! took several is not of one moment.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use pegasus_wire::key::{check_hash_key, check_sort_key};
use pegasus_wire::limits::READ_ROWS_MAX;
use pegasus_wire::messages::data::{MultiGet, SortKey};
use pegasus_wire::{FrameBuilder, MessageKind, partition_hash};

use crate::dispatch::Target;
use crate::error::Error;
use crate::retry::Effect;
use crate::rows::{Page, Row, read_page};
use crate::table::Table;

/// A range of sort keys. The default is all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKeyRange {
    /// First sort key; empty means from the beginning.
    pub start: Vec<u8>,
    /// Whether `start` itself belongs to the range. Default true.
    pub start_inclusive: bool,
    /// Last sort key; empty means to the end.
    pub stop: Vec<u8>,
    /// Whether `stop` itself belongs to the range. Default false.
    pub stop_inclusive: bool,
}

impl Default for SortKeyRange {
    fn default() -> SortKeyRange {
        SortKeyRange { start: Vec::new(), start_inclusive: true, stop: Vec::new(), stop_inclusive: false }
    }
}

impl SortKeyRange {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        check_sort_key(&self.start).map_err(Error::invalid)?;
        check_sort_key(&self.stop).map_err(Error::invalid)
    }
}

/// What [`Table::multi_get_range`] reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeOptions {
    /// Which sort keys.
    pub range: SortKeyRange,
    /// Leave the values out.
    pub no_value: bool,
    /// Most rows wanted; 0 means all.
    pub rows_max: usize,
}

/// Rows of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRows {
    /// The rows, ascending by sort key.
    pub rows: Vec<Row>,
    /// False if `rows_max` ended the read before the range did. To read on, begin after the last row, exclusive.
    pub complete: bool,
}

impl Table {
    /// Rows of one hash key by their sort keys, in the order asked; those that do not exist are left out. At most 3000
    /// keys; one named twice is answered once.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// for row in table.multi_get("user:1", &["name", "mail"]).await? {
    ///     println!("{:?} = {:?}", row.sort_key, row.value);
    /// }
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
    pub async fn multi_exist<K>(&self, hash_key: impl AsRef<[u8]>, sort_keys: &[K]) -> Result<Vec<Row>, Error>
    where
        K: AsRef<[u8]>,
    {
        self.multi_get_keys(hash_key, sort_keys, true).await
    }

    /// Rows of one hash key by a range of sort keys, ascending.
    pub async fn multi_get_range(
        &self,
        hash_key: impl AsRef<[u8]>,
        options: &RangeOptions,
    ) -> Result<RangeRows, Error> {
        let hash_key = hash_key.as_ref();
        check_hash_key(hash_key).map_err(Error::invalid)?;
        options.range.validate()?;
        let mut start = Bytes::copy_from_slice(&options.range.start);
        let mut start_inclusive = options.range.start_inclusive;
        let deadline = self.deadline();
        let mut rows = Vec::new();
        loop {
            let wanted = options.rows_max.saturating_sub(rows.len()).min(READ_ROWS_MAX);
            let request = RangeRequest {
                start: &start,
                start_inclusive,
                rows_max: if options.rows_max == 0 { 0 } else { wanted as u32 },
                options,
            };
            let page = self.range_page(hash_key, &request, deadline).await?;
            rows.extend(page.rows);
            let Some(resume_after) = page.resume_after else {
                return Ok(RangeRows { rows, complete: true });
            };
            if options.rows_max > 0 && rows.len() >= options.rows_max {
                return Ok(RangeRows { rows, complete: false });
            }
            check_progress(&start, start_inclusive, &resume_after)?;
            (start, start_inclusive) = (resume_after, false);
        }
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
        while !remaining.is_empty() {
            let page = self.keys_page(hash_key, remaining, no_value, deadline).await?;
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
        sort_keys: &[SortKey<'_>],
        no_value: bool,
        deadline: Instant,
    ) -> Result<Page, Error> {
        let target = Target::Hash(partition_hash(hash_key, &[]));
        let kind = MessageKind::MULTI_GET;
        let call = self.core.call(target, kind, Effect::Read, deadline, |out, header, partition| {
            let request = MultiGet {
                partition,
                hash_key,
                sort_keys,
                start: b"",
                stop: b"",
                start_inclusive: true,
                stop_inclusive: false,
                no_value,
                rows_max: 0,
                bytes_max: 0,
            };
            FrameBuilder::append(out, header, &request, &[]);
        });
        read_page(&call.await?)
    }

    async fn range_page(&self, hash_key: &[u8], asked: &RangeRequest<'_>, deadline: Instant) -> Result<Page, Error> {
        let target = Target::Hash(partition_hash(hash_key, &[]));
        let kind = MessageKind::MULTI_GET;
        let call = self.core.call(target, kind, Effect::Read, deadline, |out, header, partition| {
            let request = MultiGet {
                partition,
                hash_key,
                sort_keys: &[],
                start: asked.start,
                stop: &asked.options.range.stop,
                start_inclusive: asked.start_inclusive,
                stop_inclusive: asked.options.range.stop_inclusive,
                no_value: asked.options.no_value,
                rows_max: asked.rows_max,
                bytes_max: 0,
            };
            FrameBuilder::append(out, header, &request, &[]);
        });
        read_page(&call.await?)
    }
}

/// One request of a range read.
struct RangeRequest<'a> {
    start: &'a [u8],
    start_inclusive: bool,
    rows_max: u32,
    options: &'a RangeOptions,
}

/// A server that names a place it has been asked to begin behind would keep a client asking for ever.
pub(crate) fn check_progress(start: &[u8], start_inclusive: bool, resume_after: &[u8]) -> Result<(), Error> {
    let moved = if start_inclusive { resume_after >= start } else { resume_after > start };
    if moved { Ok(()) } else { Err(Error::Protocol("the answer to a read does not move on".into())) }
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

    #[test]
    fn a_read_must_move_on() {
        assert!(check_progress(b"a", true, b"a").is_ok());
        assert!(check_progress(b"a", false, b"b").is_ok());
        assert!(check_progress(b"a", false, b"a").is_err());
        assert!(check_progress(b"b", true, b"a").is_err());
    }
}
