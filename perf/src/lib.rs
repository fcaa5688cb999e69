//! `pegasus-perf`: what this machine can do at best, what a cluster does on it, and the two side by side.
//!
//! Reading order: [`measure`] (clocks and histograms), [`workload`] (which operation when), [`report`] (tables and
//! JSON), then one module per command: [`limits`], [`run`], [`compare`], [`protocols`], [`operations`], [`trace`],
//! [`chaos`] and, on what `chaos` is made of, [`chaos::failover`] and the proofs: [`proof`] (what they share),
//! [`model`], [`counters`], [`scans`], [`expiry`], [`throttle`]; [`onebox`] has those that stop and start processes of
//! a onebox. Each command module owns its options and its `run`. `README.md` says what the figures mean.
//!
//! Figures come from here and never from assertions in tests. The tool ends only what it started or was told to end,
//! and every command ends by itself.

pub mod chaos;
pub mod compare;
pub mod counters;
pub mod crowd;
pub mod expiry;
pub mod failure;
pub mod limits;
pub mod measure;
pub mod model;
pub mod onebox;
pub mod operations;
pub mod proof;
pub mod protocols;
pub mod report;
pub mod run;
pub mod scans;
pub mod throttle;
pub mod trace;
pub mod workload;

pub use failure::Failure;
