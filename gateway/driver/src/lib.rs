//! A small client of any server that speaks Pegasus's Thrift protocol: a cluster of ours through its compatibility
//! ports, or one of Apache Pegasus.
//!
//! It is made for two uses: to measure such servers with the workloads of our own client, and to read their tables
//! when data is moved. Applications have the clients of Pegasus, or `pegasus-client`.
//!
//! ```no_run
//! # async fn example() -> Result<(), pegasus_driver::Error> {
//! use pegasus_driver::{Cluster, Options, Target};
//!
//! let target = Target::parse("pegasus://127.0.0.1:34601/users")?;
//! let cluster = Cluster::connect(&target.meta_servers, Options::default()).await?;
//! let users = cluster.table(&target.table).await?;
//! users.set(b"ada", b"mail", b"ada@example.org", 0).await?;
//! assert!(users.exist(b"ada", b"mail").await?);
//! # Ok(())
//! # }
//! ```
//!
//! Promises:
//! - a write is sent again only if an answer, or the state of its connection, proves that it had no effect; otherwise
//!   it is [`Error::Unknown`]
//! - every operation ends within the timeout of [`Options`]
//! - what a server sends may be anything: a damaged or oversized answer ends its connection and nothing else
//!
//! The library runs on tokio. It must never depend on a server package, and never on our own client.
//!
//! Code map: `target` reads addresses; `connection` is one TCP connection with many calls on it, `node` those to one
//! address; `meta` asks where partitions are, `route` keeps the answer; `table` sends a request to its partition by the
//! rule in `judge`; `operations`, `multi` and `scan` are the operations on rows.

mod cluster;
mod connection;
mod error;
mod judge;
mod meta;
mod multi;
mod node;
mod operations;
mod options;
mod route;
mod scan;
mod table;
mod target;

pub use cluster::{Cluster, TableSpec};
pub use error::Error;
pub use multi::{Found, RangeOptions, Row};
pub use operations::{CheckAndSet, Ttl, now_seconds};
pub use options::Options;
pub use pegasus_gateway::messages::read::FilterType;
pub use pegasus_gateway::messages::write::CheckType;
pub use scan::{Filter, ScanOptions, ScanRow, Scanner};
pub use table::Table;
pub use target::Target;
