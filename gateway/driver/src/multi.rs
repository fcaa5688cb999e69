//! Operations on several rows of one hash key.

use bytes::Bytes;
use pegasus_gateway::messages::read::{CountResponse, KeyValue, MultiGetRequest, MultiGetResponse};
use pegasus_gateway::messages::write::{MultiPutRequest, UpdateResponse};
use pegasus_gateway::thrift::Blob;
use pegasus_gateway::{Rpc, StorageCode};
use pegasus_wire::hash::partition_hash;

use crate::connection::Request;
use crate::error::Error;
use crate::judge::Effect;
use crate::operations::{check_hash_key, expiry_from_now, written};
use crate::scan::Filter;
use crate::table::{Place, Table, result_of};

/// A row of one hash key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its sort key.
    pub sort_key: Bytes,
    /// Its value; empty if values were left out.
    pub value: Bytes,
}

/// What a multi_get found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The rows; those of a range ascend by sort key.
    pub rows: Vec<Row>,
    /// False if a limit, ours or the server's, left some out.
    pub complete: bool,
}

/// Which rows of a hash key are read, and how many. The default is all, up to the server's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeOptions {
    /// First sort key.
    pub start: Vec<u8>,
    /// Whether it belongs to the range.
    pub start_inclusive: bool,
    /// Last sort key; empty means to the end.
    pub stop: Vec<u8>,
    /// Whether it belongs to the range.
    pub stop_inclusive: bool,
    /// Which sort keys of the range.
    pub filter: Filter,
    /// Most rows; not positive means the server's limit.
    pub rows_max: i32,
    /// Most bytes; not positive means the server's limit.
    pub bytes_max: i32,
    /// Leave the values out.
    pub no_value: bool,
    /// Collect from the end of the range.
    pub reverse: bool,
}

impl Default for RangeOptions {
    fn default() -> RangeOptions {
        RangeOptions {
            start: Vec::new(),
            start_inclusive: true,
            stop: Vec::new(),
            stop_inclusive: false,
            filter: Filter::default(),
            rows_max: 0,
            bytes_max: 0,
            no_value: false,
            reverse: false,
        }
    }
}

impl Table {
    /// The rows with these sort keys, of which there must be some; those that do not exist are left out.
    pub async fn multi_get(&self, hash_key: &[u8], sort_keys: &[impl AsRef<[u8]>]) -> Result<Found, Error> {
        if sort_keys.is_empty() {
            return Err(Error::Invalid("multi_get without sort keys".to_owned()));
        }
        let sort_keys: Vec<Blob<'_>> = sort_keys.iter().map(|key| Blob(key.as_ref())).collect();
        let argument = MultiGetRequest { hash_key: Blob(hash_key), sort_keys, ..MultiGetRequest::default() };
        self.read_rows(hash_key, argument).await
    }

    /// The rows of a range of sort keys.
    pub async fn multi_get_range(&self, hash_key: &[u8], options: &RangeOptions) -> Result<Found, Error> {
        let argument = MultiGetRequest {
            hash_key: Blob(hash_key),
            sort_keys: Vec::new(),
            max_kv_count: options.rows_max,
            max_kv_size: options.bytes_max,
            no_value: options.no_value,
            start_sortkey: Blob(&options.start),
            stop_sortkey: Blob(&options.stop),
            start_inclusive: options.start_inclusive,
            stop_inclusive: options.stop_inclusive,
            sort_key_filter_type: options.filter.kind,
            sort_key_filter_pattern: Blob(&options.filter.pattern),
            reverse: options.reverse,
        };
        self.read_rows(hash_key, argument).await
    }

    async fn read_rows(&self, hash_key: &[u8], argument: MultiGetRequest<'_>) -> Result<Found, Error> {
        check_hash_key(hash_key)?;
        let keys: usize = argument.sort_keys.iter().map(|key| key.0.len() + size_of::<i32>()).sum();
        let bytes = keys + hash_key.len() + argument.start_sortkey.0.len() + argument.stop_sortkey.0.len();
        let request = Request { rpc: Rpc::MultiGet, argument, bytes };
        let frame = self.send(place(hash_key), &request, Effect::Read).await?;
        let response: MultiGetResponse<'_> = result_of(&frame, Effect::Read)?;
        let complete = match response.error {
            code if code == StorageCode::Ok.code() => true,
            code if code == StorageCode::Incomplete.code() => false,
            code => return Err(Error::storage(code)),
        };
        let row =
            |row: &KeyValue<'_>| Row { sort_key: frame.slice_ref(row.key.0), value: frame.slice_ref(row.value.0) };
        Ok(Found { rows: response.kvs.iter().map(row).collect(), complete })
    }

    /// Sets rows of one hash key, all or none, with one time to live; 0 means until they are deleted.
    pub async fn multi_set(
        &self,
        hash_key: &[u8],
        rows: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)],
        ttl_seconds: u32,
    ) -> Result<(), Error> {
        check_hash_key(hash_key)?;
        if hash_key.is_empty() || rows.is_empty() {
            return Err(Error::Invalid("multi_set needs a hash key and rows".to_owned()));
        }
        let kvs = kvs(rows);
        let bytes: usize = kvs.iter().map(|row| row.key.0.len() + row.value.0.len()).sum();
        let argument =
            MultiPutRequest { hash_key: Blob(hash_key), kvs, expire_ts_seconds: expiry_from_now(ttl_seconds) };
        let request = Request { rpc: Rpc::MultiPut, argument, bytes: bytes + hash_key.len() };
        let frame = self.send(place(hash_key), &request, Effect::Write).await?;
        written(result_of::<UpdateResponse<'_>>(&frame, Effect::Write)?.error)
    }

    /// Number of the rows of a hash key. Errors: [`Error::Refused`] if the server could not count them in time.
    pub async fn count(&self, hash_key: &[u8]) -> Result<u64, Error> {
        check_hash_key(hash_key)?;
        let request = Request { rpc: Rpc::SortkeyCount, argument: Blob(hash_key), bytes: hash_key.len() };
        let frame = self.send(place(hash_key), &request, Effect::Read).await?;
        let response: CountResponse<'_> = result_of(&frame, Effect::Read)?;
        match u64::try_from(response.count) {
            Ok(count) if response.error == StorageCode::Ok.code() => Ok(count),
            Err(_) if response.error == StorageCode::Ok.code() => Err(Error::storage(StorageCode::Incomplete.code())),
            _ => Err(Error::storage(response.error)),
        }
    }
}

fn kvs<'a>(rows: &'a [(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> Vec<KeyValue<'a>> {
    let row = |row: &'a (_, _)| KeyValue {
        key: Blob(AsRef::as_ref(&row.0)),
        value: Blob(AsRef::as_ref(&row.1)),
        expire_ts_seconds: None,
    };
    rows.iter().map(row).collect()
}

/// Where a hash key lives.
pub(crate) fn place(hash_key: &[u8]) -> Place {
    Place::Key(partition_hash(hash_key, b""))
}
