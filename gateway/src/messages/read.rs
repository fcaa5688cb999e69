//! Reads: requests and answers.
//!
//! A key is a stored key (hash key length, hash key, sort key) where it is called `key`, `start_key` or `stop_key`.
//! `error` is a [`StorageCode`](crate::StorageCode) by its number. Answers name the node, which nobody needs but
//! people who look for a fault.

use crate::thrift::{Blob, thrift_enum, thrift_struct};

thrift_enum! {
    /// Where in a key a pattern has to be.
    pub enum FilterType {
        /// Nowhere: every key matches.
        0 => NONE,
        /// Anywhere.
        1 => ANYWHERE,
        /// At its start.
        2 => PREFIX,
        /// At its end.
        3 => POSTFIX,
    }
}

thrift_struct! {
    /// Answer to get.
    pub struct ReadResponse<'a> {
        /// Whether the row was found.
        1 => error: i32,
        /// Its value.
        2 => value: Blob<'a>,
        /// The table's number.
        3 => app_id: i32,
        /// Index of the partition.
        4 => partition_index: i32,
        /// The node that answers.
        6 => server: &'a str,
    }

    /// Answer to ttl.
    pub struct TtlResponse<'a> {
        /// Whether the row was found.
        1 => error: i32,
        /// Seconds left to live; -1 for a row without expiry.
        2 => ttl_seconds: i32,
        /// The table's number.
        3 => app_id: i32,
        /// Index of the partition.
        4 => partition_index: i32,
        /// The node that answers.
        6 => server: &'a str,
    }

    /// Answer to sortkey_count.
    pub struct CountResponse<'a> {
        /// Whether it was counted.
        1 => error: i32,
        /// Rows of the hash key; -1 if they could not be counted in time.
        2 => count: i64,
        /// The table's number.
        3 => app_id: i32,
        /// Index of the partition.
        4 => partition_index: i32,
        /// The node that answers.
        6 => server: &'a str,
    }

    /// A row of a list: by its sort key in a multi_get, by its stored key in a scan.
    pub struct KeyValue<'a> {
        /// The key.
        1 => key: Blob<'a>,
        /// The value.
        2 => value: Blob<'a>,
        /// Second at which the row expires, since 2016, if a scan asked for it.
        3 (optional) => expire_ts_seconds: i32,
    }

    /// Reads rows of one hash key: those named, or if none is those in the range.
    pub struct MultiGetRequest<'a> {
        /// The hash key.
        1 => hash_key: Blob<'a>,
        /// Exactly these rows; empty means the range.
        2 => sort_keys: Vec<Blob<'a>>,
        /// Most rows; not positive means the server's limit.
        3 => max_kv_count: i32,
        /// Most bytes; not positive means the server's limit.
        4 => max_kv_size: i32,
        /// Leave the values out.
        5 => no_value: bool,
        /// First sort key of the range.
        6 => start_sortkey: Blob<'a>,
        /// Last sort key of the range; empty means to the end.
        7 => stop_sortkey: Blob<'a>,
        /// Whether the first belongs to the range.
        8 => start_inclusive: bool,
        /// Whether the last belongs to the range.
        9 => stop_inclusive: bool,
        /// Which sort keys of the range are wanted.
        10 => sort_key_filter_type: FilterType,
        /// The filter's pattern.
        11 => sort_key_filter_pattern: Blob<'a>,
        /// Collect from the end of the range.
        12 => reverse: bool,
    }

    /// Answer to multi_get.
    pub struct MultiGetResponse<'a> {
        /// Whether all of what was asked is here.
        1 => error: i32,
        /// The rows.
        2 => kvs: Vec<KeyValue<'a>>,
        /// The table's number.
        3 => app_id: i32,
        /// Index of the partition.
        4 => partition_index: i32,
        /// The node that answers.
        6 => server: &'a str,
    }

    /// A key in its parts.
    pub struct FullKey<'a> {
        /// The hash key.
        1 => hash_key: Blob<'a>,
        /// The sort key.
        2 => sort_key: Blob<'a>,
    }

    /// A row with the parts of its key.
    pub struct FullData<'a> {
        /// The hash key.
        1 => hash_key: Blob<'a>,
        /// The sort key.
        2 => sort_key: Blob<'a>,
        /// The value.
        3 => value: Blob<'a>,
    }

    /// Reads rows of one partition by their keys.
    pub struct BatchGetRequest<'a> {
        /// The keys.
        1 => keys: Vec<FullKey<'a>>,
    }

    /// Answer to batch_get: the rows that were found.
    pub struct BatchGetResponse<'a> {
        /// Whether they could be read.
        1 => error: i32,
        /// The rows.
        2 => data: Vec<FullData<'a>>,
        /// The table's number.
        3 => app_id: i32,
        /// Index of the partition.
        4 => partition_index: i32,
        /// The node that answers.
        6 => server: &'a str,
    }

    /// Begins a scan of a range of stored keys of one partition.
    pub struct GetScannerRequest<'a> {
        /// First key.
        1 => start_key: Blob<'a>,
        /// Last key.
        2 => stop_key: Blob<'a>,
        /// Whether the first belongs to the range.
        3 => start_inclusive: bool,
        /// Whether the last belongs to the range.
        4 => stop_inclusive: bool,
        /// Most rows in one answer.
        5 => batch_size: i32,
        /// Leave the values out.
        6 => no_value: bool,
        /// Which hash keys are wanted.
        7 => hash_key_filter_type: FilterType,
        /// The filter's pattern.
        8 => hash_key_filter_pattern: Blob<'a>,
        /// Which sort keys are wanted.
        9 => sort_key_filter_type: FilterType,
        /// The filter's pattern.
        10 => sort_key_filter_pattern: Blob<'a>,
        /// Leave out rows that a split moved away.
        11 (optional) => validate_partition_hash: bool,
        /// Answer when rows expire.
        12 (optional) => return_expire_ts: bool,
        /// Asks Pegasus to pass its prefix filter by.
        13 (optional) => full_scan: bool,
        /// Only count.
        14 (optional) => only_return_count: bool,
    }

    /// Asks for the next rows of a scan.
    pub struct ScanRequest {
        /// Which scan, as the answer before said.
        1 => context_id: i64,
    }

    /// Answer to get_scanner and scan.
    pub struct ScanResponse<'a> {
        /// Whether the scan goes on.
        1 => error: i32,
        /// The rows, by stored key.
        2 => kvs: Vec<KeyValue<'a>>,
        /// Names the scan from here on; -1 at its end, -2 if it is not known.
        3 => context_id: i64,
        /// The table's number.
        4 => app_id: i32,
        /// Index of the partition.
        5 => partition_index: i32,
        /// The node that answers.
        6 => server: &'a str,
        /// Number of rows, if only that was asked.
        7 (optional) => kv_count: i32,
    }
}

/// Ends a scan, as its context.
pub const SCAN_COMPLETE: i64 = -1;
/// Says that a scan is not known (any more), as its context.
pub const SCAN_UNKNOWN: i64 = -2;
