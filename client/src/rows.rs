//! Rows of answers. Keys and values are slices of the receive buffer: nothing is copied, and a value kept keeps the
//! buffer of its answer (at most one frame).

use bytes::Bytes;
use pegasus_wire::Frame;
use pegasus_wire::messages::data::ArchivedRows;

use crate::batch::now_seconds;
use crate::error::Error;

/// How long a row has to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Until it is deleted.
    Never,
    /// So many seconds.
    Seconds(u32),
}

impl Ttl {
    /// From the second of expiry (since 2016, 0 for never), by this machine's clock.
    pub fn from_expiry(expiry_seconds: u32) -> Ttl {
        match expiry_seconds {
            0 => Ttl::Never,
            second => Ttl::Seconds(second.saturating_sub(now_seconds())),
        }
    }
}

/// A row of one hash key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Sort key.
    pub sort_key: Bytes,
    /// Value; empty if values were left out.
    pub value: Bytes,
    /// Second at which it expires, since 2016-01-01 00:00:00 UTC; 0 means never.
    pub expiry_seconds: u32,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRow {
    /// Hash key.
    pub hash_key: Bytes,
    /// Sort key.
    pub sort_key: Bytes,
    /// Value; empty if values were left out.
    pub value: Bytes,
    /// Second at which it expires, since 2016-01-01 00:00:00 UTC; 0 means never.
    pub expiry_seconds: u32,
}

/// The decoded answer to a multi_get or scan: rows with the key as it was sent.
pub(crate) struct Page {
    pub(crate) rows: Vec<Row>,
    pub(crate) count: u64,
    /// Where to continue; `None` when all was read.
    pub(crate) resume_after: Option<Bytes>,
    /// The context that the rows are of; 0 for none.
    pub(crate) context: u64,
}

/// Reads an answer that carries rows.
pub(crate) fn read_page(frame: &Frame) -> Result<Page, Error> {
    let body = frame.body::<ArchivedRows<'_>>().map_err(Error::protocol)?;
    let row = |row: &pegasus_wire::messages::data::ArchivedRow<'_>| Row {
        sort_key: frame.body.slice_ref(&row.key),
        value: frame.body.slice_ref(&row.value),
        expiry_seconds: row.expiry_seconds.to_native(),
    };
    let resume_after = if body.complete { None } else { Some(frame.body.slice_ref(&body.resume_after)) };
    let rows = body.rows.iter().map(row).collect();
    Ok(Page { rows, count: body.count.to_native(), resume_after, context: body.context.to_native() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_to_live_comes_from_the_expiry() {
        assert_eq!(Ttl::from_expiry(0), Ttl::Never);
        assert_eq!(Ttl::from_expiry(1), Ttl::Seconds(0));
        assert!(matches!(Ttl::from_expiry(now_seconds() + 100), Ttl::Seconds(99..=100)));
    }
}
