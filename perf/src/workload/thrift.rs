//! A table through Pegasus's Thrift protocol: of a cluster of ours, or of Apache Pegasus.

use bytes::Bytes;
use pegasus_driver::{
    CheckAndSet, CheckType, Cluster, Error, Options, RangeOptions, ScanOptions, Table, TableSpec, Target,
};

use crate::failure::Failure;
use crate::workload::cluster::{Prepared, SERVING_PATIENCE};
use crate::workload::mix::{Mix, Operation};
use crate::workload::options::{ClusterOptions, TableOptions};
use crate::workload::rows::Rows;

/// Operations that the protocol does not have.
const MISSING: [Operation; 1] = [Operation::DeleteRange];

/// Refuses operations that no server of this protocol can perform.
pub fn check_mix(mix: &Mix) -> Result<(), Failure> {
    match MISSING.into_iter().find(|&operation| mix.has(operation)) {
        None => Ok(()),
        Some(operation) => Err(Failure::new(format!(
            "--mix {mix}: {operation} is none of the operations of Pegasus's protocol, so --target cannot have it"
        ))),
    }
}

/// Opens a table, made if it is missing, waits until all of it serves, and loads the rows that are missing or have
/// another length.
pub async fn prepare(
    target: &Target,
    connections: u16,
    cluster: &ClusterOptions,
    options: &TableOptions,
) -> Result<Prepared<Table>, Failure> {
    let driver = Options { timeout: cluster.timeout(), connections_per_node: usize::from(connections) };
    let cluster = Cluster::connect(&target.meta_servers, driver).await.map_err(Failure::at(target))?;
    let table = match cluster.table(&target.table).await {
        Err(Error::NoSuchTable(_)) => make(&cluster, target, options).await?,
        opened => opened.map_err(Failure::at(format!("open {target}")))?,
    };
    table.wait_until_serving(SERVING_PATIENCE).await.map_err(Failure::at(format!("wait until {target} serves")))?;
    Prepared::load(vec![table], options).await
}

async fn make(cluster: &Cluster, target: &Target, options: &TableOptions) -> Result<Table, Failure> {
    let spec = TableSpec { name: &target.table, partition_count: options.partitions, replica_count: options.replicas };
    let refused = format!("{target} does not exist and cannot be made; make it with the tools of its cluster");
    cluster.create_table(&spec).await.map_err(Failure::at(refused))?;
    cluster.table(&target.table).await.map_err(Failure::at(format!("open {target}, which was just made")))
}

impl Rows for Table {
    type Error = Error;

    fn error_kind(error: &Error) -> &'static str {
        error.kind()
    }

    async fn get(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<Option<usize>, Error> {
        Ok(Table::get(self, hash_key, sort_key).await?.map(|value| value.len()))
    }

    async fn exist(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<bool, Error> {
        Table::exist(self, hash_key, sort_key).await
    }

    async fn set(&self, hash_key: &[u8], sort_key: &[u8], value: &Bytes) -> Result<(), Error> {
        Table::set(self, hash_key, sort_key, value, 0).await
    }

    async fn del(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<(), Error> {
        Table::del(self, hash_key, sort_key).await
    }

    async fn incr(&self, hash_key: &[u8], sort_key: &[u8]) -> Result<(), Error> {
        Table::incr(self, hash_key, sort_key, 1).await.map(|_| ())
    }

    async fn set_if_exists(&self, hash_key: &[u8], sort_key: &[u8], value: &Bytes) -> Result<bool, Error> {
        let change = CheckAndSet {
            check_sort_key: sort_key,
            check: CheckType::VALUE_EXIST,
            operand: b"",
            set_sort_key: sort_key,
            value,
            ttl_seconds: 0,
        };
        self.check_and_set(hash_key, &change).await
    }

    async fn del_range(&self, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), Error> {
        // `check_mix` has refused it before anything was started.
        Err(Error::Invalid("the protocol cannot delete a range".to_owned()))
    }

    async fn multi_get(&self, hash_key: &[u8], start: &[u8], rows_max: u32) -> Result<u64, Error> {
        let rows_max = i32::try_from(rows_max).unwrap_or(i32::MAX);
        let options = RangeOptions { start: start.into(), rows_max, ..RangeOptions::default() };
        Ok(self.multi_get_range(hash_key, &options).await?.rows.len() as u64)
    }

    async fn scan(&self, hash_key: &[u8], rows_per_request: u32) -> Result<u64, Error> {
        let mut scanner = self.hash_scan(hash_key, ScanOptions { rows_per_request, ..ScanOptions::default() })?;
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
        Table::multi_set(self, hash_key, rows, 0).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_lacks_is_refused_by_its_name() {
        let error = check_mix(&"get=1,del_range=1".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("del_range is none"), "{error}");
        let others = Operation::ALL.into_iter().filter(|operation| !MISSING.contains(operation));
        for operation in others {
            assert_eq!(check_mix(&Mix::only(operation)), Ok(()), "{operation}");
        }
    }
}
