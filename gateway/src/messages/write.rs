//! Writes: requests and answers. Expiries are seconds since 2016; 0 means never, but where it says otherwise.

use super::read::KeyValue;
use crate::thrift::{Blob, thrift_enum, thrift_struct};

thrift_enum! {
    /// What a mutate does.
    pub enum MutateOperation {
        /// Inserts or overwrites.
        0 => PUT,
        /// Deletes.
        1 => DELETE,
    }

    /// A condition on a value; the numbers are those of our own `Check`.
    pub enum CheckType {
        /// Always.
        0 => NO_CHECK,
        /// The row is missing.
        1 => VALUE_NOT_EXIST,
        /// The row exists.
        3 => VALUE_EXIST,
        /// Value = operand, as bytes.
        10 => VALUE_BYTES_EQUAL,
    }
}

thrift_struct! {
    /// Sets one row.
    pub struct UpdateRequest<'a> {
        /// Its stored key.
        1 => key: Blob<'a>,
        /// Its value.
        2 => value: Blob<'a>,
        /// When it expires.
        3 => expire_ts_seconds: i32,
    }

    /// Answer to set, multi_set and del.
    pub struct UpdateResponse<'a> {
        /// Whether it was written.
        1 => error: i32,
        /// The table's number.
        2 => app_id: i32,
        /// Index of the partition.
        3 => partition_index: i32,
        /// Where the write stands in the partition's history.
        4 => decree: i64,
        /// The node that answers.
        5 => server: &'a str,
    }

    /// Sets rows of one hash key.
    pub struct MultiPutRequest<'a> {
        /// The hash key.
        1 => hash_key: Blob<'a>,
        /// The rows, by sort key.
        2 => kvs: Vec<KeyValue<'a>>,
        /// When they expire.
        3 => expire_ts_seconds: i32,
    }

    /// Deletes rows of one hash key.
    pub struct MultiRemoveRequest<'a> {
        /// The hash key.
        1 => hash_key: Blob<'a>,
        /// The rows.
        2 => sort_keys: Vec<Blob<'a>>,
        /// Means nothing.
        3 => max_count: i64,
    }

    /// Answer to multi_del.
    pub struct MultiRemoveResponse<'a> {
        /// Whether they were deleted.
        1 => error: i32,
        /// Number of rows named in the request.
        2 => count: i64,
        /// The table's number.
        3 => app_id: i32,
        /// Index of the partition.
        4 => partition_index: i32,
        /// Where the write stands in the partition's history.
        5 => decree: i64,
        /// The node that answers.
        6 => server: &'a str,
    }

    /// Adds to a number.
    pub struct IncrRequest<'a> {
        /// The row's stored key.
        1 => key: Blob<'a>,
        /// What to add.
        2 => increment: i64,
        /// 0 keeps the expiry, a positive number sets it, a negative one clears it.
        3 => expire_ts_seconds: i32,
    }

    /// Answer to incr.
    pub struct IncrResponse<'a> {
        /// Whether the row holds a number that can take it.
        1 => error: i32,
        /// The number now.
        2 => new_value: i64,
        /// The table's number.
        3 => app_id: i32,
        /// Index of the partition.
        4 => partition_index: i32,
        /// Where the write stands in the partition's history.
        5 => decree: i64,
        /// The node that answers.
        6 => server: &'a str,
    }

    /// Sets a row if another, or the same, passes a check.
    pub struct CheckAndSetRequest<'a> {
        /// The hash key of both.
        1 => hash_key: Blob<'a>,
        /// Sort key of the row checked.
        2 => check_sort_key: Blob<'a>,
        /// The condition.
        3 => check_type: CheckType,
        /// Its operand.
        4 => check_operand: Blob<'a>,
        /// Set another row than the one checked.
        5 => set_diff_sort_key: bool,
        /// Its sort key.
        6 => set_sort_key: Blob<'a>,
        /// The value.
        7 => set_value: Blob<'a>,
        /// When it expires.
        8 => set_expire_ts_seconds: i32,
        /// Answer with the value checked.
        9 => return_check_value: bool,
    }

    /// Answer to check_and_set and check_and_mutate.
    pub struct CheckResponse<'a> {
        /// `TryAgain` if the check did not hold.
        1 => error: i32,
        /// The value checked is here, if the row exists.
        2 => check_value_returned: bool,
        /// The row checked exists.
        3 => check_value_exist: bool,
        /// Its value.
        4 => check_value: Blob<'a>,
        /// The table's number.
        5 => app_id: i32,
        /// Index of the partition.
        6 => partition_index: i32,
        /// Where the write stands in the partition's history.
        7 => decree: i64,
        /// The node that answers.
        8 => server: &'a str,
    }

    /// One step of a check_and_mutate.
    pub struct Mutate<'a> {
        /// What it does.
        1 => operation: MutateOperation,
        /// With which row.
        2 => sort_key: Blob<'a>,
        /// The value of a put.
        3 => value: Blob<'a>,
        /// When a row that is put expires.
        4 => set_expire_ts_seconds: i32,
    }

    /// Changes rows if one passes a check.
    pub struct CheckAndMutateRequest<'a> {
        /// The hash key of all.
        1 => hash_key: Blob<'a>,
        /// Sort key of the row checked.
        2 => check_sort_key: Blob<'a>,
        /// The condition.
        3 => check_type: CheckType,
        /// Its operand.
        4 => check_operand: Blob<'a>,
        /// What is done, in order.
        5 => mutate_list: Vec<Mutate<'a>>,
        /// Answer with the value checked.
        6 => return_check_value: bool,
    }
}
