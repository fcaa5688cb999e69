//! What a run looks like. Drawn from the seed, so that seeds differ in kind and not only in order.

use pegasus_replication::{Replica, ReplicaLimits};

use crate::random::Random;

/// Mistakes of a host (not of the replica) that a test may plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostBug {
    /// After a restart the table is taken to be one decree behind where it is.
    DuplicateApplyAfterRestart,
    /// The log says `Logged` when a write begins.
    LoggedTooEarly,
    /// At recovery a mutation of a higher ballot voids not only the record of its own decree but every later one of
    /// a lower ballot.
    MutationVoidsTail,
}

/// What is planted in every replica and host of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    /// Called with every replica when it is made.
    pub replica: Option<fn(&mut Replica)>,
    /// A bug of the hosts.
    pub host: Option<HostBug>,
}

/// Knobs of one run. Times are in microseconds of simulated time.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes in the cluster; every partition has a member on each of the first `members`.
    pub nodes: usize,
    /// Members of each partition.
    pub members: usize,
    /// Partitions.
    pub partitions: usize,
    /// Clients.
    pub clients: usize,
    /// Keys in each partition.
    pub keys: usize,
    /// Longest pause of a client between two requests.
    pub think_micros_max: u64,
    /// How long things are broken.
    pub chaos_micros: u64,
    /// Longest pause between two faults; 0: no faults.
    pub fault_pause_micros_max: u64,
    /// Network latency, usually.
    pub latency_micros_max: u64,
    /// How many messages in a thousand take up to a hundred times as long.
    pub slow_messages_permille: u64,
    /// Time of a log write, at most.
    pub log_micros_max: u64,
    /// Time of a descriptor store, at most.
    pub descriptor_micros_max: u64,
    /// How many applies in a thousand go to a slow pool.
    pub slow_apply_permille: u64,
    /// How many log writes in a hundred thousand fail for good.
    pub failed_writes_per_100k: u64,
    /// True if the meta service moves primaries by force. Without leases the old primary may then serve stale reads
    /// for a while, so reads are judged only where they are served under the newest ballot.
    pub moves: bool,
    /// Bounds of the replicas.
    pub limits: ReplicaLimits,
    /// What is planted.
    pub planted: Planted,
}

impl Options {
    /// The options of a seed.
    pub fn from_seed(random: &mut Random) -> Options {
        let members = [3, 3, 3, 2, 1][random.index(5)];
        let limits = ReplicaLimits {
            window_mutations_max: random.range(2, 40) as usize,
            window_bytes_max: random.range(64, 4096),
            flight_bytes_max: random.range(16, 4096),
        };
        Options {
            nodes: 3,
            members,
            partitions: random.range(1, 3) as usize,
            clients: random.range(1, 6) as usize,
            keys: random.range(1, 3) as usize,
            think_micros_max: [2_000, 10_000, 40_000][random.index(3)],
            chaos_micros: random.range(500_000, 2_500_000),
            fault_pause_micros_max: [0, 50_000, 200_000, 200_000, 600_000][random.index(5)],
            latency_micros_max: [300, 2_000, 10_000][random.index(3)],
            slow_messages_permille: [0, 0, 5, 30][random.index(4)],
            log_micros_max: [200, 2_000, 20_000][random.index(3)],
            descriptor_micros_max: [1_000, 20_000, 100_000][random.index(3)],
            slow_apply_permille: [0, 20, 300][random.index(3)],
            failed_writes_per_100k: [0, 0, 20][random.index(3)],
            moves: random.permille(250),
            limits,
            planted: Planted::default(),
        }
    }
}
