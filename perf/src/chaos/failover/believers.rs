//! Clients that still believe in a frozen primary: they hold a route from before and have not been told of another one.
//! What they read when it wakes up must not be stale.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pegasus_client::{Client, ClientOptions, Table};
use tokio::task::JoinSet;

use crate::chaos::recorder::{Ask, Clock, Recorded, perform};
use crate::chaos::setup::TABLE;
use crate::failure::Failure;

/// Clients with a route from before: while all others have long asked for a new one, they go on with the old.
pub struct Believers {
    client: Client,
    table: Table,
    keys: Vec<u64>,
}

impl Believers {
    /// Connects, and reads once so that route and connections are there.
    pub async fn connect(options: &ClientOptions, keys: Vec<u64>, clock: &Clock) -> Result<Believers, Failure> {
        let client = Client::connect(options.clone()).await.map_err(Failure::at("connect a client"))?;
        let table = client.table(TABLE).await.map_err(Failure::at("open the table"))?;
        for key in &keys {
            perform(&table, clock, BELIEVER, *key, Ask::Read).await;
        }
        Ok(Believers { client, table, keys })
    }

    /// Reads every few milliseconds, whether or not the last read was answered.
    pub async fn read_on(self, clock: Arc<Clock>) -> Recorded {
        let (mut recorded, mut under_way) = (Recorded::default(), JoinSet::new());
        let mut ticks = tokio::time::interval(INTERVAL);
        let until = Instant::now() + BELIEVERS_AHEAD * 2;
        while Instant::now() < until {
            ticks.tick().await;
            for &key in &self.keys {
                let (table, clock) = (self.table.clone(), clock.clone());
                under_way.spawn(async move { (key, perform(&table, &clock, BELIEVER, key, Ask::Read).await) });
            }
        }
        while let Some(ended) = under_way.join_next().await {
            match ended {
                Ok((key, performed)) => recorded.add(key, performed),
                Err(panicked) => recorded.damaged.push(format!("a read did not end well: {panicked}")),
            }
        }
        self.client.close().await;
        recorded
    }
}

/// How long before a frozen process goes on its believers begin to read, and how long after it they end.
pub const BELIEVERS_AHEAD: Duration = Duration::from_millis(1500);
const INTERVAL: Duration = Duration::from_millis(20);
/// The number of these clients.
const BELIEVER: u32 = 20_000;
