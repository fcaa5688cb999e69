//! Goes through one section of a table, request by request.

use std::sync::Arc;

use bytes::Bytes;
use pegasus_wire::key::decode;
use pegasus_wire::messages::data::Scan;
use pegasus_wire::{FrameBuilder, MessageKind, TableId};

use super::ScanOptions;
use super::section::Section;
use crate::error::Error;
use crate::keys::SortKeyRange;
use crate::retry::Effect;
use crate::rows::{Page, Row, ScanRow, read_page};
use crate::table::Table;

/// What all walks of one scan share.
#[derive(Debug)]
pub(crate) struct Terms {
    /// As the caller gave them.
    pub(crate) options: ScanOptions,
    /// Which sort keys of each hash key; the server jumps from one hash key to the next.
    pub(crate) sort_keys: SortKeyRange,
}

impl Terms {
    /// All sort keys.
    pub(crate) fn new(options: ScanOptions) -> Arc<Terms> {
        Arc::new(Terms { options, sort_keys: SortKeyRange::default() })
    }
}

/// A walk under way.
///
/// Invariant: `context` is 0 or names one that the server may still keep; whoever ends the walk early tells the server.
pub(crate) struct Walk {
    table: Table,
    terms: Arc<Terms>,
    section: Section,
    context: u64,
    moments: u64,
    ended: bool,
}

impl Walk {
    /// Begins with the first key of the section, or the last in reverse. All of it is of this table.
    pub(crate) fn new(table: Table, of: TableId, terms: Arc<Terms>, mut section: Section) -> Walk {
        section.target = section.target.of(of);
        let ended = section.is_empty();
        Walk { table, terms, section, context: 0, moments: 0, ended }
    }

    /// True if there is nothing left to ask for.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// How many moments the rows so far are of.
    pub(crate) fn moments(&self) -> u64 {
        self.moments
    }

    /// The next rows, at most so many. May be none: a server stops also after looking at many that are not wanted. If
    /// the future is dropped nothing has happened.
    pub(crate) async fn rows(&mut self, rows_max: u32) -> Result<Vec<ScanRow>, Error> {
        let page = self.ask(rows_max, false).await?;
        let rows = page.rows.into_iter().map(split_row).collect::<Result<Vec<_>, _>>()?;
        self.advance(page.resume_after, page.context)?;
        Ok(rows)
    }

    /// The number of the next rows.
    pub(crate) async fn count(&mut self) -> Result<u64, Error> {
        let page = self.ask(0, true).await?;
        self.advance(page.resume_after, page.context)?;
        Ok(page.count)
    }

    async fn ask(&self, rows_max: u32, count_only: bool) -> Result<Page, Error> {
        let (section, options, kind) = (&self.section, &self.terms.options, MessageKind::SCAN);
        let (core, deadline) = (&self.table.core, self.table.deadline());
        let call = core.call(section.target, kind, Effect::Read, deadline, |out, header, partition| {
            let request = Scan {
                partition,
                context: self.context,
                keep_context: options.snapshot,
                start: &section.start,
                start_inclusive: section.start_inclusive,
                stop: &section.stop,
                reverse: options.reverse,
                sort_keys: self.terms.sort_keys.as_wire(),
                hash_key_filter: options.hash_key_filter.as_wire(),
                sort_key_filter: options.sort_key_filter.as_wire(),
                no_value: options.no_value,
                count_only,
                rows_max,
            };
            FrameBuilder::append(out, header, &request, &[]);
        });
        read_page(&call.await?)
    }

    fn advance(&mut self, resume_after: Option<Bytes>, context: u64) -> Result<(), Error> {
        let goes_on = resume_after.is_some();
        match resume_after {
            None => self.ended = true,
            Some(resume_after) => self.section.continue_after(resume_after, self.terms.options.reverse)?,
        }
        if self.context == 0 || self.context != context {
            self.moments += 1;
        }
        self.context = if goes_on { context } else { 0 };
        Ok(())
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if self.context != 0 {
            self.table.core.end_scan(self.section.target, self.context);
        }
    }
}

/// Splits the stored key of a scan's row.
fn split_row(row: Row) -> Result<ScanRow, Error> {
    let stored = row.sort_key;
    let (hash_key, sort_key) = decode(&stored).map_err(Error::protocol)?;
    let (hash_key, sort_key) = (stored.slice_ref(hash_key), stored.slice_ref(sort_key));
    Ok(ScanRow { hash_key, sort_key, value: row.value, expiry_seconds: row.expiry_seconds })
}
