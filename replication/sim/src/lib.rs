//! A deterministic simulator of a replicated cluster: real replicas (`pegasus-replication`) and the real core of the
//! meta service (`pegasus-meta`), everything else made of numbers drawn from one seed.
//!
//! A run has two phases. First things break: processes are killed, stopped and frozen, machines lose power, logs fail,
//! copies are damaged or lost, links are cut in one direction or both, clocks run too fast and too slow, the meta
//! service is away or loses answers. After every step the oracles look at disks, messages, clocks and answers. Then
//! everything heals, and the cluster must serve again, bring every partition back to all its members, take writes in
//! each, and make all copies equal. In the end what the clients were told must be linearizable.
//!
//! It must never look at a clock, a thread or any randomness but the seed's: a seed that fails fails for ever.
//!
//! | file | what it is |
//! |---|---|
//! | `run`, `world`, `statistics`, `trace` | a run, its queue and its state, what it did |
//! | `options`, `profile`, `random` | what a run looks like |
//! | `faults`, `clock`, `network` | what breaks |
//! | `node`, `host`, `storage`, `streams`, `beacons`, `learning`, `requests` | what a host does around its replicas |
//! | `meta`, `meta_link` | the meta service and the way to it |
//! | `clients` | who asks, and remembers |
//! | `disk`, `log_view` | what survives |
//! | `checker`, `judge` | what must hold, of one copy and of all |

mod beacons;
mod checker;
mod clients;
mod clock;
mod disk;
mod faults;
mod host;
mod judge;
mod learning;
mod log_view;
mod meta;
mod meta_link;
mod network;
mod node;
mod options;
mod profile;
mod random;
mod requests;
mod run;
mod statistics;
mod storage;
mod streams;
mod trace;
mod world;

pub use options::{Fault, HostBug, Planted};
pub use profile::Profile;
pub use run::{Failure, run_seed};
pub use statistics::Statistics;
