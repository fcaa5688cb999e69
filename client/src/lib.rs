//! The Rust client of Pegasus: a strongly consistent, replicated key-value store of rows
//! `(hash key, sort key) -> value`.
//!
//! ```no_run
//! # async fn example() -> Result<(), pegasus_client::Error> {
//! use pegasus_client::{Client, ClientOptions, TableSpec};
//! use std::time::Duration;
//!
//! let meta = "127.0.0.1:34601".parse().expect("an address");
//! let client = Client::connect(ClientOptions::new(vec![meta], "./onebox/tls")).await?;
//! let wait = Some(Duration::from_secs(30));
//! client.create_table(&TableSpec { if_not_exists: true, wait, ..TableSpec::new("users", 8) }).await?;
//!
//! let users = client.table("users").await?;
//! users.set("ada", "mail", "ada@example.org").await?;
//! users.set_with_ttl("ada", "session", "7f3a", 3600).await?;
//! assert_eq!(users.count("ada").await?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! Promises:
//! - a write that returned `Ok` is logged on every member of its partition and visible to every later read
//! - a write is sent again only while it is certain that no server took it; otherwise it is [`Error::Unknown`]
//! - every operation ends within its deadline, and every limit of the data model is checked before anything is sent; a
//!   table's own, lower ones are checked by the servers
//! - a failover is ridden out: what may be sent again is, to wherever the partition has moved, until the deadline
//! - the meta service is needed to open a table for the first time and to find a partition that has moved, and for
//!   nothing else: with every meta server down, tables that were opened before are read and written
//!
//! The library runs on tokio. It must never depend on RocksDB, glommio or any server package.
//!
//! Code map: `table`, `update`, `multi_get`, `many`, `batch` and `scan` are the operations on rows, `keys` says which
//! keys they mean; `tables`, `environment` and `admin` are those of operators; `dispatch` sends one request to one
//! partition by the rule in `retry`; `route` knows where partitions are, `refresh` when to ask again; `meta` and
//! `nodes` hold the channels.

mod admin;
mod batch;
mod client;
mod dispatch;
mod environment;
mod error;
mod keys;
mod many;
mod meta;
mod multi_get;
mod nodes;
mod options;
mod range_read;
mod refresh;
mod retry;
mod route;
mod rows;
mod scan;
mod table;
mod tables;
pub mod tls;
mod update;

pub use admin::{CopyReport, Forced};
pub use batch::{WriteBatch, expiry_from_now, now_seconds, row_bytes, write_overhead_bytes};
pub use client::Client;
pub use environment::EnvironmentChange;
pub use error::Error;
pub use keys::{HashKeyRange, KeyFilter, SortKeyRange};
pub use multi_get::{RangeOptions, RangeRows};
pub use options::{ATTEMPT_TIMEOUT, ClientOptions, META_TIMEOUT, OPERATION_TIMEOUT};
pub use pegasus_wire::messages::control::{
    ClusterReply, Diagnosis, EnvironmentEntry, NodeSummary, PartitionDiagnosis, TableDescription, TableReply,
    TableState, TableSummary,
};
pub use pegasus_wire::messages::data::{Check, CompactionState, CopyReply};
pub use pegasus_wire::{
    Advice, Ballot, Configuration, Durability, NodeId, NodeInfo, PartitionId, Status, TableId, TableProperties,
};
pub use rows::{Row, ScanRow, Ttl};
pub use scan::{ScanOptions, Scanner, SortedScanner};
pub use table::Table;
pub use tables::{DropOptions, TableSpec};
pub use update::{CheckAndSet, CheckOutcome, CompareExchange, RowCheck, TtlChange};
