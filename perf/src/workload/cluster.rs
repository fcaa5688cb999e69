//! The cluster as a workload sees it: a table with its rows loaded, and operations on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use pegasus_client::{Client, ClientOptions, Table, TableSpec, TableState};
use pegasus_wire::Durability;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::failure::Failure;
use crate::workload::drive::{Driven, Pace, Phases, drive};
use crate::workload::keys::{KeyChooser, hash_key};
use crate::workload::mix::Mix;
use crate::workload::options::{ClusterOptions, CommonOptions, TableOptions, WorkloadOptions};
use crate::workload::perform::{SORT_KEY, load_wide, perform};
use crate::workload::rows::Rows;

/// Connected clients.
pub struct Cluster {
    clients: Vec<Client>,
    timeout: Duration,
}

impl Cluster {
    /// Connects this many clients, each with its own socket.
    pub async fn connect(options: &ClusterOptions, connections: usize) -> Result<Cluster, Failure> {
        let meta_servers = options.meta_servers()?;
        let mut clients = Vec::with_capacity(connections);
        for _ in 0..connections.max(1) {
            let mut client = ClientOptions::new(meta_servers.clone(), options.tls_directory());
            client.operation_timeout = options.timeout();
            clients.push(Client::connect(client).await.map_err(Failure::at("connect to the cluster"))?);
        }
        Ok(Cluster { clients, timeout: options.timeout() })
    }

    /// Makes the table if it is missing, waits until all of it serves, and loads the rows that are missing or have
    /// another length. A table that is there must have the durability asked for.
    pub async fn prepare(
        &self,
        name: &str,
        durability: Durability,
        options: &TableOptions,
    ) -> Result<Prepared, Failure> {
        let client = &self.clients[0];
        self.ensure_table(name, durability, options).await?;
        client
            .wait_until_serving(name, SERVING_PATIENCE)
            .await
            .map_err(Failure::at(format!("wait until table {name} serves")))?;
        let mut tables = Vec::with_capacity(self.clients.len());
        for client in &self.clients {
            let table = client.table(name).await.map_err(Failure::at(format!("open table {name}")))?;
            tables.push(table.with_timeout(self.timeout));
        }
        Prepared::load(tables, options).await
    }

    /// Prepares the table of a workload.
    pub async fn prepare_for(&self, workload: &WorkloadOptions, common: &CommonOptions) -> Result<Prepared, Failure> {
        common.output.progress("preparing the table");
        let prepared = self.prepare(&workload.table_name(), workload.durability, &common.table).await?;
        prepared.load_wide_for(&workload.mix).await?;
        Ok(prepared)
    }

    /// One of the clients, to ask the meta service with.
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// Ends all connections.
    pub async fn close(self) {
        for client in self.clients {
            client.close().await;
        }
    }

    async fn ensure_table(&self, name: &str, durability: Durability, options: &TableOptions) -> Result<(), Failure> {
        let client = &self.clients[0];
        let tables = client.list_tables().await.map_err(Failure::at("list the tables"))?;
        let serving = tables.iter().filter(|table| table.state == TableState::Available);
        if let Some(table) = serving.map(|table| &table.properties).find(|table| table.name == name) {
            if table.durability == durability {
                return Ok(());
            }
            let is = table.durability;
            return Err(Failure::new(format!(
                "table {name} is {is}, not {durability}; use --durability {is} or another --table"
            )));
        }
        let spec = TableSpec {
            name: name.to_owned(),
            partition_count: options.partitions,
            replica_count: options.replicas,
            durability,
            if_not_exists: true,
            wait: None,
        };
        client.create_table(&spec).await.map(|_| ()).map_err(Failure::at(format!("make table {name}")))
    }
}

/// A table ready for a workload, through our own client unless it is said.
pub struct Prepared<T = Table> {
    /// The table through each client; at least one.
    tables: Vec<T>,
    value: Bytes,
    /// Rows that were missing and have been written.
    pub loaded: u64,
}

/// What to do to a table's rows, and how.
#[derive(Clone, Debug)]
pub struct Load {
    /// Shares of the operations.
    pub mix: Mix,
    /// Which row each operation touches.
    pub keys: KeyChooser,
    /// Operations in flight, shared out over the clients.
    pub depth: usize,
    /// When operations start.
    pub pace: Pace,
}

impl<T: Rows> Prepared<T> {
    /// Loads the rows that are missing or have another length into a table that serves.
    pub(crate) async fn load(tables: Vec<T>, options: &TableOptions) -> Result<Prepared<T>, Failure> {
        let value = value_of(options.value_bytes);
        let loaded = load(&tables[0], options.keys, &value).await?;
        Ok(Prepared { tables, value, loaded })
    }

    /// Writes the rows that operations on many rows need, as far as they are missing.
    pub async fn load_wide(&self) -> Result<(), Failure> {
        load_wide(&self.tables[0]).await
    }

    /// The same, if operations of this mix need them.
    pub async fn load_wide_for(&self, mix: &Mix) -> Result<(), Failure> {
        if mix.needs_wide_rows() { self.load_wide().await } else { Ok(()) }
    }

    /// Drives operations on the table (see [`drive`]).
    pub async fn drive<P>(
        &self,
        load: &Load,
        phases: Phases,
        probe: impl FnMut() -> Result<P, Failure>,
    ) -> Result<Driven<P>, Failure> {
        let workers = (0..load.depth).map(|index| {
            let table = self.tables[index % self.tables.len()].clone();
            let (mix, keys, value) = (load.mix.clone(), load.keys.clone(), self.value.clone());
            let mut random = SmallRng::seed_from_u64(index as u64);
            move || {
                let (operation, row) = (mix.next(&mut random), keys.next(&mut random));
                let (table, value) = (table.clone(), value.clone());
                async move { perform(&table, operation, row, &value).await }
            }
        });
        drive(workers.collect(), load.pace, phases, probe).await
    }
}

/// Writes the rows that are missing or have another length; returns how many.
async fn load<T: Rows>(table: &T, keys: u64, value: &Bytes) -> Result<u64, Failure> {
    let written = Arc::new(AtomicU64::new(0));
    let load_row = |row: u64| {
        let written = written.clone();
        async move {
            let key = hash_key(row);
            let found = table.get(&key, SORT_KEY).await.map_err(Failure::at("read a row while loading"))?;
            if found != Some(value.len()) {
                table.set(&key, SORT_KEY, value).await.map_err(Failure::at("write a row while loading"))?;
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        }
    };
    stream::iter(0..keys).map(load_row).buffer_unordered(LOAD_DEPTH).try_collect::<()>().await?;
    Ok(written.load(Ordering::Relaxed))
}

/// A value that does not compress.
fn value_of(length: usize) -> Bytes {
    let mut value = vec![0; length];
    SmallRng::seed_from_u64(length as u64).fill_bytes(&mut value);
    value.into()
}

/// Rows loaded at a time.
const LOAD_DEPTH: usize = 128;
/// How long a new table may take until all its partitions serve.
pub(crate) const SERVING_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_length_and_do_not_repeat() {
        assert_eq!(value_of(0).len(), 0);
        let value = value_of(1000);
        assert_eq!(value.len(), 1000);
        let distinct: std::collections::BTreeSet<&[u8]> = value.chunks(4).collect();
        assert!(distinct.len() > 245, "{}", distinct.len());
    }
}
