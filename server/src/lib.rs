//! The storage node: the composition root of wire, rpc, engine and replication.
//!
//! A node runs one glommio executor per core ([`cores`]) and one administration thread ([`node`], [`meta_link`],
//! [`admin`]). A core owns its partitions outright: their replicas (protocol state), their tables, its log, its
//! port. It must never block and never wait for another thread; what may block runs in the node's pools.
//!
//! The path of a put: [`cores`]`::session` takes a batch of frames, `admit` refuses or proposes, `perform` carries
//! out the replica's effects, one log write takes all appends of the batch, and its completion drives commit,
//! apply and the answer.

pub mod admin;
pub mod config;
pub mod control;
pub mod cores;
pub mod layout;
pub mod meta_link;
pub mod node;

pub use config::Config;

#[cfg(test)]
#[path = "/tmp/w3t/t/bad_peers.rs"]
mod bad_peers;
#[cfg(test)]
#[path = "/tmp/w3t/t/learning.rs"]
mod learning;
#[cfg(test)]
#[path = "/tmp/w3t/t/leases.rs"]
mod leases;
#[cfg(test)]
#[path = "/tmp/w3t/t/roles/mod.rs"]
mod roles;
#[cfg(test)]
#[path = "/tmp/w3t/t/support/mod.rs"]
mod support;
#[cfg(test)]
mod trial;
#[cfg(test)]
#[path = "/tmp/w3t/t/uncertain.rs"]
mod uncertain;
#[cfg(test)]
#[test]
fn node_main() {
    let Ok(path) = std::env::var("TRIAL_CONFIG") else { return };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("info,pegasus_server=debug"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    if let Err(error) = node::run(Config::load(std::path::Path::new(&path)).unwrap()) {
        eprintln!("pegasus-replica: {error}");
        std::process::exit(1);
    }
}
