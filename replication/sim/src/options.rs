//! What a run looks like. Drawn from the seed, so that seeds differ in kind and not only in order.

use pegasus_replication::{Replica, ReplicaLimits, Timing};
use pegasus_wire::Durability;

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
    /// The times are not checked: the grace period is as long as the lease, and shorter under drift.
    GraceShorterThanLease,
    /// Requests are admitted by a reading of the clock taken at the last tick.
    LeaseOldClock,
    /// A row that was read when the primary had become a secondary is answered with.
    ReadAfterRole,
    /// Among copies that may have lost something, the longest log wins, whatever its ballot.
    LongestLogWins,
    /// The log drops what is applied, also where the table would not have it after a crash.
    LogCollectedTooEarly,
    /// A failed sync is tried again, and believed when it succeeds.
    RetriedSyncBelieved,
    /// What was cut off the log at a restart is found again at the next one.
    CutTailRevived,
    /// A check that fails is answered at once, also when it failed because of a write that is not committed.
    FailedCheckAnsweredEarly,
    /// Under `written` durability a descriptor becomes durable before what was logged earlier.
    DescriptorBeforeLog,
}

/// What is planted in every replica and host of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    /// Called with every replica when it is made.
    pub replica: Option<fn(&mut Replica)>,
    /// A bug of the hosts.
    pub host: Option<HostBug>,
}

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed and started again.
    Crash,
    /// All processes are.
    CrashAll,
    /// A machine loses power.
    PowerLoss,
    /// All machines do.
    PowerLossAll,
    /// A process is stopped for a while and then goes on.
    Freeze,
    /// A node does everything slowly for a while.
    Slow,
    /// The streams between two nodes break.
    BreakStreams,
    /// Nothing passes between two nodes.
    CutLink,
    /// Nothing passes from one node to another.
    CutOneWay,
    /// One node reaches no other node.
    Isolate,
    /// What is on the way between two nodes is late.
    StallLink,
    /// No meta server answers.
    MetaDown,
    /// One node does not reach the meta service.
    MetaUnreachable,
    /// A primary is asked to hand over.
    HandOver,
    /// A sync fails; the log of that node is closed until it restarts.
    FailedSync,
    /// A process is killed, and finds a copy damaged when it starts again.
    Damage,
    /// A process is killed, and finds a copy gone when it starts again.
    LostCopy,
    /// A node loses its directory, and with it its name.
    Wipe,
    /// A process is asked to stop, and started again.
    Stop,
    /// A clock runs at another rate.
    ClockTurns,
    /// An operator makes one member the only one, though nothing is wrong with the others.
    Force,
}

impl Fault {
    /// All of them, each as often as it should be drawn.
    pub const USUAL: &'static [Fault] = &[
        Fault::Crash,
        Fault::Crash,
        Fault::Crash,
        Fault::CrashAll,
        Fault::PowerLoss,
        Fault::PowerLossAll,
        Fault::Freeze,
        Fault::Freeze,
        Fault::Freeze,
        Fault::Slow,
        Fault::BreakStreams,
        Fault::BreakStreams,
        Fault::CutLink,
        Fault::CutLink,
        Fault::CutOneWay,
        Fault::CutOneWay,
        Fault::Isolate,
        Fault::StallLink,
        Fault::MetaDown,
        Fault::MetaUnreachable,
        Fault::HandOver,
        Fault::FailedSync,
        Fault::Damage,
        Fault::LostCopy,
        Fault::Wipe,
        Fault::Stop,
        Fault::ClockTurns,
        Fault::Force,
    ];
}

/// What is still broken on one node when everything else works again. The others must serve without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// It does not start.
    Down,
    /// It is frozen.
    Frozen,
    /// It reaches no node, and none reaches it.
    CutOff,
    /// It hears nobody, neither nodes nor the meta service; all hear it.
    Deaf,
    /// It does not reach the meta service.
    NoMeta,
    /// It and one other node do not reach each other.
    Link,
}

/// Knobs of one run. Times are in microseconds of simulated time.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Nodes in the cluster; at least as many as replicas.
    pub(crate) nodes: usize,
    /// Members that a whole partition has.
    pub(crate) replicas: usize,
    /// Partitions; a power of two.
    pub(crate) partitions: usize,
    /// When a member may acknowledge.
    pub(crate) durability: Durability,
    /// Clients.
    pub(crate) clients: usize,
    /// Keys in each partition.
    pub(crate) keys: usize,
    /// Longest pause of a client between two requests.
    pub(crate) think_micros_max: u64,
    /// Of a thousand requests, how many are reads; the others are writes.
    pub(crate) reads_permille: u64,
    /// Of a thousand writes, how many are made only if the row is as expected.
    pub(crate) checks_permille: u64,
    /// Of a thousand requests, how many go to a node that was primary before, or to any.
    pub(crate) stale_routes_permille: u64,
    /// How long things are broken.
    pub(crate) chaos_micros: u64,
    /// Longest pause between two faults; 0: no faults.
    pub(crate) fault_pause_micros_max: u64,
    /// What breaks; drawn from evenly.
    pub(crate) faults: Vec<Fault>,
    /// What is still broken for a while when everything else works again.
    pub(crate) lasting: Option<Lasting>,
    /// Longest duration of what lasts for a while: short, medium, long.
    pub(crate) outage_micros_max: [u64; 3],
    /// Network latency, usually.
    pub(crate) latency_micros_max: u64,
    /// How many messages in a thousand take up to a hundred times as long.
    pub(crate) slow_messages_permille: u64,
    /// How many beacons, requests, proposals and answers in a thousand are lost.
    pub(crate) lost_calls_permille: u64,
    /// Time of a log write, at most.
    pub(crate) log_micros_max: u64,
    /// Time of a descriptor store, at most.
    pub(crate) descriptor_micros_max: u64,
    /// Time to bring a checkpoint over, at most.
    pub(crate) checkpoint_micros_max: u64,
    /// How many applies in a thousand go to a slow pool.
    pub(crate) slow_apply_permille: u64,
    /// How many ticks in a thousand flush a table.
    pub(crate) flush_permille: u64,
    /// How many ticks in a thousand collect a log.
    pub(crate) collect_permille: u64,
    /// Pause between two ticks of a host.
    pub(crate) tick_micros: u64,
    /// How long the place of a member that is away is kept.
    pub(crate) return_micros: u64,
    /// Bounds and times of the replicas.
    pub(crate) limits: ReplicaLimits,
    /// What is planted.
    pub(crate) planted: Planted,
}

impl Options {
    /// The options of a seed.
    pub(crate) fn from_seed(random: &mut Random) -> Options {
        let replicas = [3, 3, 3, 3, 2, 1][random.index(6)];
        let nodes = random.range(3, 5) as usize;
        let timing = timing(random);
        let lease = timing.lease_micros;
        let limits = ReplicaLimits {
            window_mutations_max: random.range(2, 40) as usize,
            window_bytes_max: random.range(64, 8192),
            flight_bytes_max: random.range(32, 8192),
            timing,
            min_members: [2, 2, 2, 1, 3][random.index(5)],
            learners_max: random.range(1, 2) as usize,
        };
        Options {
            nodes,
            replicas,
            partitions: [1, 1, 2, 2, 4][random.index(5)],
            durability: [Durability::Synced, Durability::Synced, Durability::Written][random.index(3)],
            clients: random.range(2, 8) as usize,
            keys: random.range(1, 3) as usize,
            think_micros_max: lease / [100, 20, 5][random.index(3)],
            reads_permille: [100, 300, 600][random.index(3)],
            checks_permille: [0, 200, 500][random.index(3)],
            stale_routes_permille: [20, 100, 300][random.index(3)],
            chaos_micros: lease * random.range(10, 100),
            fault_pause_micros_max: lease * [0, 1, 2, 2, 5, 5, 10][random.index(7)],
            faults: faults(random),
            lasting: lasting(random),
            outage_micros_max: [lease / 4, 2 * lease, 8 * lease],
            latency_micros_max: lease / [400, 100, 30][random.index(3)],
            slow_messages_permille: [0, 0, 5, 30][random.index(4)],
            lost_calls_permille: [0, 10, 60][random.index(3)],
            log_micros_max: lease / [1000, 100, 20][random.index(3)],
            descriptor_micros_max: lease / [200, 50, 10][random.index(3)],
            checkpoint_micros_max: lease / [20, 2, 1][random.index(3)],
            slow_apply_permille: [0, 20, 300][random.index(3)],
            flush_permille: [20, 200, 600][random.index(3)],
            collect_permille: [0, 20, 300][random.index(3)],
            tick_micros: lease / 20,
            return_micros: lease * [0, 2, 20][random.index(3)],
            limits,
            planted: Planted::default(),
        }
    }

    /// The longest a client waits for an answer before it takes the outcome for unknown.
    pub(crate) fn patience_micros(&self) -> u64 {
        3 * self.limits.timing.lease_micros
    }
}

/// Times in the proportions of a real cluster, a few times shorter; in half of the runs with the least grace period
/// that is safe.
fn timing(random: &mut Random) -> Timing {
    let lease_micros = [100_000, 200_000, 400_000][random.index(3)];
    let drift_permille = [50, 50, 20][random.index(3)];
    let least = lease_micros * (1000 + drift_permille) / (1000 - drift_permille) + 1;
    let timing = Timing {
        beacon_interval_micros: lease_micros / [2, 4, 4, 8][random.index(4)],
        lease_micros,
        grace_micros: [least, lease_micros * 3 / 2][random.index(2)],
        prepare_timeout_micros: lease_micros * [1, 1, 2][random.index(3)],
        drift_permille,
    };
    timing.validate().expect("these times are safe");
    timing
}

fn lasting(random: &mut Random) -> Option<Lasting> {
    let kinds = [Lasting::Down, Lasting::Frozen, Lasting::CutOff, Lasting::Deaf, Lasting::NoMeta, Lasting::Link];
    kinds.get(random.index(2 * kinds.len())).copied()
}

/// Every kind of fault, or a few kinds often.
fn faults(random: &mut Random) -> Vec<Fault> {
    if random.permille(500) {
        return Fault::USUAL.to_vec();
    }
    (0..random.range(1, 4)).map(|_| Fault::USUAL[random.index(Fault::USUAL.len())]).collect()
}
