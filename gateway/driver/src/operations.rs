//! Operations on one row.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pegasus_gateway::messages::read::{ReadResponse, TtlResponse};
use pegasus_gateway::messages::write::{
    CheckAndSetRequest, CheckResponse, CheckType, IncrRequest, IncrResponse, UpdateRequest, UpdateResponse,
};
use pegasus_gateway::thrift::Blob;
use pegasus_gateway::{Rpc, StorageCode};
use pegasus_wire::expiry::{expiry_seconds, seconds_since_epoch};
use pegasus_wire::hash::partition_hash;
use pegasus_wire::key;

use crate::connection::Request;
use crate::error::Error;
use crate::judge::Effect;
use crate::table::{Place, Table, result_of};

/// Longest hash key that a stored key can have.
const HASH_KEY_BYTES_MAX: usize = 0xFFFE;
/// What the protocol says for a row without expiry.
const TTL_NEVER: i32 = -1;

/// How long a row has to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Until it is deleted.
    Never,
    /// So many seconds.
    Seconds(u32),
}

/// Sets a row if another one of its hash key, or the same, passes a check.
#[derive(Clone, Copy, Debug)]
pub struct CheckAndSet<'a> {
    /// Sort key of the row checked.
    pub check_sort_key: &'a [u8],
    /// The check.
    pub check: CheckType,
    /// What it compares with.
    pub operand: &'a [u8],
    /// Sort key of the row that is set.
    pub set_sort_key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// How long it lives; 0 means until it is deleted.
    pub ttl_seconds: u32,
}

/// Seconds since 2016, by this machine's clock.
pub fn now_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    seconds_since_epoch(since.as_micros() as u64)
}

/// The second of expiry as it travels.
pub(crate) fn expiry_from_now(ttl_seconds: u32) -> i32 {
    expiry_seconds(now_seconds(), ttl_seconds).cast_signed()
}

/// A row's key, stored and hashed.
pub(crate) struct RowKey {
    stored: Vec<u8>,
    place: Place,
}

impl RowKey {
    fn new(hash_key: &[u8], sort_key: &[u8]) -> Result<RowKey, Error> {
        check_hash_key(hash_key)?;
        Ok(RowKey { stored: key::encode(hash_key, sort_key), place: Place::Key(partition_hash(hash_key, sort_key)) })
    }

    fn request(&self, rpc: Rpc) -> Request<Blob<'_>> {
        Request { rpc, argument: Blob(&self.stored), bytes: self.stored.len() }
    }
}

pub(crate) fn check_hash_key(hash_key: &[u8]) -> Result<(), Error> {
    match hash_key.len() {
        ..=HASH_KEY_BYTES_MAX => Ok(()),
        length => Err(Error::Invalid(format!("a hash key of {length} bytes, the limit is {HASH_KEY_BYTES_MAX}"))),
    }
}

/// What a storage code in the answer to a write says: some prove that nothing was done.
pub(crate) fn written(code: i32) -> Result<(), Error> {
    const REFUSALS: [StorageCode; 3] = [StorageCode::NotSupported, StorageCode::InvalidArgument, StorageCode::TryAgain];
    if code == StorageCode::Ok.code() {
        return Ok(());
    }
    let error = Error::storage(code);
    if REFUSALS.iter().any(|refusal| refusal.code() == code) {
        Err(error)
    } else {
        Err(Error::Unknown(error.to_string()))
    }
}

/// What a storage code in the answer to a read says: whether there is a row.
pub(crate) fn found(code: i32) -> Result<bool, Error> {
    match code {
        code if code == StorageCode::Ok.code() => Ok(true),
        code if code == StorageCode::NotFound.code() => Ok(false),
        code => Err(Error::storage(code)),
    }
}

impl Table {
    /// The value of a row; `None` if there is no such row.
    pub async fn get(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<Option<Bytes>, Error> {
        let key = RowKey::new(hash_key, sort_key)?;
        let frame = self.send(key.place, &key.request(Rpc::Get), Effect::Read).await?;
        let response: ReadResponse<'_> = result_of(&frame, Effect::Read)?;
        Ok(found(response.error)?.then(|| frame.slice_ref(response.value.0)))
    }

    /// How long a row has to live; `None` if there is no such row.
    pub async fn ttl(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<Option<Ttl>, Error> {
        let key = RowKey::new(hash_key, sort_key)?;
        let frame = self.send(key.place, &key.request(Rpc::Ttl), Effect::Read).await?;
        let response: TtlResponse<'_> = result_of(&frame, Effect::Read)?;
        if !found(response.error)? {
            return Ok(None);
        }
        match u32::try_from(response.ttl_seconds) {
            Ok(seconds) => Ok(Some(Ttl::Seconds(seconds))),
            Err(_) if response.ttl_seconds == TTL_NEVER => Ok(Some(Ttl::Never)),
            Err(_) => Err(Error::Protocol(format!("{} seconds to live", response.ttl_seconds))),
        }
    }

    /// Whether there is such a row.
    pub async fn exist(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<bool, Error> {
        Ok(self.ttl(hash_key, sort_key).await?.is_some())
    }

    /// Inserts or overwrites a row that lives for `ttl_seconds`; 0 means until it is deleted.
    pub async fn set(&self, hash_key: &[u8], sort_key: &[u8], value: &[u8], ttl_seconds: u32) -> Result<(), Error> {
        let key = RowKey::new(hash_key, sort_key)?;
        let argument = UpdateRequest {
            key: Blob(&key.stored),
            value: Blob(value),
            expire_ts_seconds: expiry_from_now(ttl_seconds),
        };
        let request = Request { rpc: Rpc::Put, argument, bytes: key.stored.len() + value.len() };
        let frame = self.send(key.place, &request, Effect::Write).await?;
        written(result_of::<UpdateResponse<'_>>(&frame, Effect::Write)?.error)
    }

    /// Deletes a row, if it is there.
    pub async fn del(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<(), Error> {
        let key = RowKey::new(hash_key, sort_key)?;
        let frame = self.send(key.place, &key.request(Rpc::Remove), Effect::Write).await?;
        written(result_of::<UpdateResponse<'_>>(&frame, Effect::Write)?.error)
    }

    /// Adds to the number in a row, whose time to live stays as it is; tells the number then.
    ///
    /// Errors: [`Error::Refused`] with `invalid argument` if the row holds no number, or one that would grow too large.
    pub async fn incr(&self, hash_key: &[u8], sort_key: &[u8], increment: i64) -> Result<i64, Error> {
        let key = RowKey::new(hash_key, sort_key)?;
        let argument = IncrRequest { key: Blob(&key.stored), increment, expire_ts_seconds: 0 };
        let request = Request { rpc: Rpc::Incr, argument, bytes: key.stored.len() };
        let frame = self.send(key.place, &request, Effect::Write).await?;
        let response: IncrResponse<'_> = result_of(&frame, Effect::Write)?;
        written(response.error).map(|()| response.new_value)
    }

    /// Sets a row if a check holds; tells whether it did.
    pub async fn check_and_set(&self, hash_key: &[u8], change: &CheckAndSet<'_>) -> Result<bool, Error> {
        check_hash_key(hash_key)?;
        let argument = CheckAndSetRequest {
            hash_key: Blob(hash_key),
            check_sort_key: Blob(change.check_sort_key),
            check_type: change.check,
            check_operand: Blob(change.operand),
            set_diff_sort_key: change.check_sort_key != change.set_sort_key,
            set_sort_key: Blob(change.set_sort_key),
            set_value: Blob(change.value),
            set_expire_ts_seconds: expiry_from_now(change.ttl_seconds),
            return_check_value: false,
        };
        let keys = hash_key.len() + change.check_sort_key.len() + change.set_sort_key.len();
        let bytes = keys + change.operand.len() + change.value.len();
        let request = Request { rpc: Rpc::CheckAndSet, argument, bytes };
        let place = Place::Key(partition_hash(hash_key, b""));
        let frame = self.send(place, &request, Effect::Write).await?;
        let response: CheckResponse<'_> = result_of(&frame, Effect::Write)?;
        if response.error == StorageCode::TryAgain.code() {
            return Ok(false);
        }
        written(response.error).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_refused_for_certain_or_unknown() {
        assert_eq!(written(0), Ok(()));
        for code in [3, 4, 13] {
            assert!(matches!(written(code), Err(Error::Refused { .. })), "{code}");
        }
        for code in [1, 2, 5, 7, 9, 11, -1, 99] {
            assert!(matches!(written(code), Err(Error::Unknown(_))), "{code}");
        }
    }

    #[test]
    fn a_read_finds_a_row_or_not_or_fails() {
        assert_eq!((found(0), found(1)), (Ok(true), Ok(false)));
        assert!(matches!(found(2), Err(Error::Refused { name: "corruption", .. })));
    }

    #[test]
    fn a_hash_key_must_fit_its_length() {
        assert!(check_hash_key(&vec![0; HASH_KEY_BYTES_MAX]).is_ok());
        assert!(matches!(check_hash_key(&vec![0; HASH_KEY_BYTES_MAX + 1]), Err(Error::Invalid(_))));
        assert_eq!(expiry_from_now(0), 0);
    }
}
