//! A table through our own client.

use bytes::Bytes;
use pegasus_client::{Check, CheckAndSet, Error, RangeOptions, ScanOptions, SortKeyRange, Table};

use crate::workload::rows::Rows;

impl Rows for Table {
    type Error = Error;

    fn error_kind(error: &Error) -> &'static str {
        match error {
            // A refusal is told by its status.
            Error::Refused { status, .. } => status.sentence(),
            _ => error.kind(),
        }
    }

    async fn get(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<Option<usize>, Error> {
        Ok(Table::get(self, hash_key, sort_key).await?.map(|value| value.len()))
    }

    async fn exist(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<bool, Error> {
        Table::exist(self, hash_key, sort_key).await
    }

    async fn set(&self, hash_key: &[u8], sort_key: &[u8], value: &Bytes) -> Result<(), Error> {
        Table::set(self, hash_key, sort_key, value).await
    }

    async fn del(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<(), Error> {
        Table::del(self, hash_key, sort_key).await
    }

    async fn incr(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<(), Error> {
        Table::incr(self, hash_key, sort_key, 1).await.map(|_| ())
    }

    async fn set_if_exists(&self, hash_key: &[u8], sort_key: &[u8], value: &Bytes) -> Result<bool, Error> {
        let request = CheckAndSet {
            check_sort_key: sort_key,
            check: Check::Exist,
            operand: b"",
            set_sort_key: sort_key,
            value,
            ttl_seconds: 0,
            return_value: false,
        };
        Ok(self.check_and_set(hash_key, &request).await?.written)
    }

    async fn del_range(&self, hash_key: &[u8], start: &[u8], stop: &[u8]) -> Result<(), Error> {
        let range = SortKeyRange { start: start.into(), stop: stop.into(), ..SortKeyRange::default() };
        Table::del_range(self, hash_key, &range).await
    }

    async fn multi_get(&self, hash_key: &[u8], start: &[u8], rows_max: u32) -> Result<u64, Error> {
        let range = SortKeyRange { start: start.into(), ..SortKeyRange::default() };
        let options = RangeOptions { range, rows_max: rows_max as usize, ..RangeOptions::default() };
        Ok(self.multi_get_range(hash_key, &options).await?.rows.len() as u64)
    }

    async fn scan(&self, hash_key: &[u8], rows_per_request: u32) -> Result<u64, Error> {
        let options = ScanOptions { rows_per_request, ..ScanOptions::default() };
        let mut scanner = self.hash_scan(hash_key, &SortKeyRange::default(), options)?;
        let mut rows = 0;
        while let Some(batch) = scanner.next_batch().await? {
            rows += batch.len() as u64;
        }
        Ok(rows)
    }

    async fn count(&self, hash_key: &[u8]) -> Result<u64, Error> {
        Table::count(self, hash_key).await
    }

    async fn multi_set(&self, hash_key: &[u8], rows: &[(String, &[u8])]) -> Result<(), Error> {
        Table::multi_set(self, hash_key, rows).await
    }
}

#[cfg(test)]
mod tests {
    use pegasus_wire::Status;

    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let refused = |status: Status| Error::Refused { status, message: String::new() };
        let kind = |error: &Error| <Table as Rows>::error_kind(error);
        assert_ne!(kind(&refused(Status::Damaged)), kind(&refused(Status::StorageFailed)));
        assert_eq!(kind(&Error::Unknown(String::new())), "unknown");
        assert_eq!(kind(&Error::Timeout(String::new())), "timeout");
    }
}
