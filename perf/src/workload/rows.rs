//! What a workload needs of a table, whichever way it is reached.
//!
//! There are two: our own client (`native`) and Pegasus's Thrift protocol (`thrift`). Everything else is written once,
//! for both, and compiled for each, so that measuring one does not slow down the other.

use std::fmt::Display;
use std::future::Future;

use bytes::Bytes;

/// A table that operations are performed on. Clones share their connections.
pub trait Rows: Clone + Send + Sync + 'static {
    /// Why an operation did not succeed.
    type Error: Display + Send;

    /// One word or sentence for the kind of an error, to count it by.
    fn error_kind(error: &Self::Error) -> &'static str;

    /// Reads a row; tells the length of its value.
    fn get(&self, hash_key: &[u8], sort_key: &[u8]) -> impl Future<Output = Result<Option<usize>, Self::Error>> + Send;

    /// Asks whether a row exists.
    fn exist(&self, hash_key: &[u8], sort_key: &[u8]) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Writes a row.
    fn set(
        &self,
        hash_key: &[u8],
        sort_key: &[u8],
        value: &Bytes,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Deletes a row.
    fn del(&self, hash_key: &[u8], sort_key: &[u8]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Adds 1 to a number.
    fn incr(&self, hash_key: &[u8], sort_key: &[u8]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes a row if it is there; tells whether it was.
    fn set_if_exists(
        &self,
        hash_key: &[u8],
        sort_key: &[u8],
        value: &Bytes,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Deletes the rows from one sort key to before another.
    fn del_range(
        &self,
        hash_key: &[u8],
        start: &[u8],
        stop: &[u8],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Reads at most so many rows from a sort key on; tells how many there were.
    fn multi_get(
        &self,
        hash_key: &[u8],
        start: &[u8],
        rows_max: u32,
    ) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Reads all rows of a hash key, so many with each request; tells how many there were.
    fn scan(&self, hash_key: &[u8], rows_per_request: u32) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Counts the rows of a hash key.
    fn count(&self, hash_key: &[u8]) -> impl Future<Output = Result<u64, Self::Error>> + Send;

    /// Writes rows of one hash key.
    fn multi_set(
        &self,
        hash_key: &[u8],
        rows: &[(String, &[u8])],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
