//! Drops rows from files some time after they expired, whenever RocksDB rewrites the files.
//!
//! A reader judges expiry by its own "now", and after a failover "now" may be a little earlier than before. A row
//! is therefore dropped only [`EXPIRY_GRACE_SECONDS`] after its expiry: whoever could still see it has long agreed
//! that it is gone. Nothing else is ever dropped: not the engine's own keys, and not what is no value (that is for
//! a read to report).

use std::ffi::CStr;
use std::time::SystemTime;

use pegasus_wire::expiry::seconds_since_epoch;
use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use super::layout::is_reserved;
use super::value;

/// How long an expired row is kept, at least.
pub const EXPIRY_GRACE_SECONDS: u32 = 60;

/// Makes a filter for each compaction. It has no fields on purpose: RocksDB calls it from several threads at once.
pub(super) struct ExpiryFilterFactory;

impl CompactionFilterFactory for ExpiryFilterFactory {
    type Filter = ExpiryFilter;

    fn create(&mut self, _context: CompactionFilterContext) -> ExpiryFilter {
        ExpiryFilter { now_seconds: system_now_seconds() }
    }

    fn name(&self) -> &CStr {
        c"pegasus.expiry"
    }
}

/// The filter of one compaction, used by one thread. It keeps the time at which the compaction began.
pub(super) struct ExpiryFilter {
    now_seconds: u32,
}

impl CompactionFilter for ExpiryFilter {
    fn filter(&mut self, _level: u32, key: &[u8], stored: &[u8]) -> Decision {
        if may_drop(key, stored, self.now_seconds) { Decision::Remove } else { Decision::Keep }
    }

    fn name(&self) -> &CStr {
        c"pegasus.expiry"
    }
}

/// True if the row expired long enough before `now_seconds` (since 2016).
fn may_drop(key: &[u8], stored: &[u8], now_seconds: u32) -> bool {
    if is_reserved(key) {
        return false;
    }
    let Some((header, _)) = value::decode(stored) else { return false };
    header.expiry_seconds != 0 && header.expiry_seconds.saturating_add(EXPIRY_GRACE_SECONDS) <= now_seconds
}

/// A clock that cannot be read counts as the year 2016, in which nothing is dropped.
fn system_now_seconds() -> u32 {
    let since_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    seconds_since_epoch(since_unix.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::layout::APPLIED_KEY;
    use crate::table::value::ValueHeader;

    fn stored(expiry_seconds: u32) -> Vec<u8> {
        let mut out = Vec::new();
        value::encode_into(&mut out, ValueHeader { expiry_seconds, time_tag: 0 }, b"v");
        out
    }

    #[test]
    fn rows_go_after_the_grace_and_not_before() {
        let key = b"\0\x01h";
        assert!(!may_drop(key, &stored(1000), 1059));
        assert!(may_drop(key, &stored(1000), 1060));
        assert!(!may_drop(key, &stored(0), u32::MAX), "no expiry");
        assert!(!may_drop(key, &stored(u32::MAX), u32::MAX - 1), "no wrap-around");
    }

    #[test]
    fn what_is_no_row_or_no_value_stays() {
        assert!(!may_drop(&APPLIED_KEY, &stored(1), u32::MAX));
        assert!(!may_drop(b"\xFF\xFF", &stored(1), u32::MAX));
        assert!(!may_drop(b"\0\x01h", &stored(1)[..11], u32::MAX));
        assert!(!may_drop(b"\0\x01h", b"", u32::MAX));
    }
}
