//! The tables under test: one as it is made, and one whose rows get a time to live where none is asked for.

use std::time::{Duration, Instant};

use pegasus_client::{Client, ClientOptions, EnvironmentChange, Table, TableSpec, Ttl};
use pegasus_wire::Durability;
use pegasus_wire::hash::partition_index;

use crate::chaos::setup::TABLE;
use crate::failure::Failure;
use crate::model::worker::Subject;

/// Makes the second table, and waits until all of it serves and gives rows their time to live.
pub async fn make_second(options: &ClientOptions, partitions: u32, durability: Durability) -> Result<(), Failure> {
    let client = Client::connect(options.clone()).await.map_err(Failure::at("connect"))?;
    let wait = Some(SERVING_TIME);
    let spec = TableSpec { durability, if_not_exists: true, wait, ..TableSpec::new(SECOND_TABLE, partitions) };
    client.create_table(&spec).await.map_err(Failure::at("make the second table"))?;
    let change = EnvironmentChange::set("default_ttl", DEFAULT_TTL_SECONDS);
    client.change_environment(SECOND_TABLE, &change).await.map_err(Failure::at("set default_ttl"))?;
    let table = client.table(SECOND_TABLE).await.map_err(Failure::at("open the second table"))?;
    wait_for_default_ttl(&table, partitions).await?;
    client.close().await;
    Ok(())
}

/// Waits until what is written in any partition gets the default time to live.
async fn wait_for_default_ttl(table: &Table, partitions: u32) -> Result<(), Failure> {
    let deadline = Instant::now() + SERVING_TIME;
    for partition in 0..partitions {
        let mut keys = (0u32..).map(|number| format!("probe{number}"));
        let key = keys.find(|key| partition_index(key.as_bytes(), b"", partitions) == partition);
        let key = key.expect("keys spread over all partitions");
        while !gives_ttl(table, &key).await.map_err(Failure::at("try the second table"))? {
            if Instant::now() >= deadline {
                return Err(Failure::new(format!("default_ttl is not in effect in partition {partition}")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(())
}

/// Whether a row that is written now gets a time to live; it is not left there.
async fn gives_ttl(table: &Table, key: &str) -> Result<bool, pegasus_client::Error> {
    table.set(key, "", "").await?;
    let ttl = table.ttl(key, "").await?;
    table.del(key, "").await?;
    Ok(matches!(ttl, Some(Ttl::Seconds(_))))
}

/// A client and the tables under test: the one as it is made, then the second.
pub async fn open(options: &ClientOptions, timeout: Duration) -> Result<(Client, Vec<Subject>), Failure> {
    let client = Client::connect(options.clone()).await.map_err(Failure::at("connect the workers"))?;
    let mut subjects = Vec::new();
    for (name, default_ttl) in [(TABLE, 0), (SECOND_TABLE, DEFAULT_TTL_SECONDS)] {
        let table = client.table(name).await.map_err(Failure::at(format!("open table {name}")))?;
        subjects.push(Subject { table: table.with_timeout(timeout), default_ttl });
    }
    Ok((client, subjects))
}

/// The table with a default time to live.
pub const SECOND_TABLE: &str = "chaos_ttl";
/// How long it may take until a new table serves as it was told.
pub const SERVING_TIME: Duration = Duration::from_secs(30);
/// Longer than any run, so that no row ends by it.
const DEFAULT_TTL_SECONDS: u32 = 1_000_000;
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
