//! The table against a model and against what a disk and a machine do to it.
#![allow(clippy::unwrap_used)]

mod applies;
mod checkpoints;
mod damage;
mod expiry;
mod model;
mod queries;
mod query;
mod range_deletes;
mod reads;
mod scans;
mod shapes;
mod snapshots;
mod support;
