//! One core: an executor, its partitions, its log, its port.
//!
//! Everything here runs on one thread. State is one `State` behind a `RefCell` that is never borrowed across an
//! await. The only entry points are a batch of client frames, a frame of a replication stream, a beacon or its answer,
//! a completion (log, table, descriptor), a message of the administration thread, and the tick; each queues events and
//! calls `Core::settle`, which lets the replicas decide and carries out what they ask for, then wakes the log once.
//!
//! What began for one copy must not end in another: a copy is replaced while it lives (a checkpoint arrived, a damaged
//! one is learned again), so completions name their `CopyId` and are dropped if the copy is gone. The queue of events
//! is empty whenever a task waits.
//!
//! ```text
//!   session --+                         +-> log.append --> one write, one sync --> Logged
//!   streams --+-> events --> replica --> effects --> outbox of a stream (prepare, acknowledge)
//!   log, pool +        (settle)         +-> table.apply --> Applied --> answer
//! ```

mod admit;
mod assign;
mod beacons;
mod bucket;
mod checkpoint;
mod checks;
mod clock;
mod compact;
mod compatibility;
mod contexts;
mod copies;
mod descriptors;
mod digest;
mod durability;
mod execute;
mod fetch;
mod follow;
mod frames;
mod gate;
mod housekeeping;
mod learning;
mod leavers;
mod outcome;
mod partition;
mod payload;
mod pending;
mod perform;
mod plan;
mod query_copy;
mod reads;
mod report;
mod request;
mod rows;
mod scans;
mod session;
mod settings;
mod slow;
mod start;
mod statistics;
mod stop;
mod streams;
mod teach;
mod turnstile;
mod visit;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_channel::{mpsc, oneshot};
use pegasus_engine::identity::BootId;
use pegasus_engine::log::{Log, LogSequence};
use pegasus_engine::table::TableSnapshot;
use pegasus_replication::{Effect, Event, Moment};
use pegasus_rpc::{Endpoint, Reconnecting, Runtime};
use pegasus_wire::{NodeId, NodeInfo, PartitionId, Status};

use crate::control::ToMeta;
use crate::node::NodeShared;
use crate::tables::Told;
use contexts::Contexts;
use partition::{Broken, CopyId, Partition};
use pending::Pending;
use slow::{Lines, SlowRequests};
use statistics::Counters;

pub use start::{CoreSetup, spawn};

/// How often time-driven work is done: idle commit points, garbage collection of the log.
const TICK: Duration = Duration::from_millis(100);

/// Handle of the core; cheap to clone, bound to its thread.
#[derive(Clone)]
pub struct Core(Rc<CoreParts>);

/// What a core is made of.
pub struct CoreParts {
    /// Shared by the node's threads.
    shared: Arc<NodeShared>,
    /// Index of this core.
    id: u16,
    /// The mutation log of this core.
    log: Log,
    /// Which boot of the machine this is; kept in descriptors.
    boot_id: BootId,
    /// For what rpc spawns.
    runtime: Runtime,
    /// This core's port.
    endpoint: Endpoint,
    /// The way to the meta service.
    to_meta: RefCell<mpsc::Sender<ToMeta>>,
    /// All mutable state.
    state: RefCell<State>,
    /// Reused for stored keys.
    scratch: Cell<Vec<u8>>,
    /// Set if a partition may have a gate.
    gated: Cell<bool>,
    /// Bytes of the requests that wait at gates.
    held_bytes: Rc<Cell<usize>>,
    /// Requests that took long, until the next tick.
    slow: Rc<SlowRequests>,
    /// Scans of clients of Pegasus, between two slices.
    scanners: Rc<compatibility::Scanners>,
    /// What clients of Pegasus have not taken yet.
    outboxes: Rc<compatibility::Outboxes>,
    /// What clients of Pegasus send is received here.
    receive_buffer: Cell<Vec<u8>>,
}

impl std::ops::Deref for Core {
    type Target = CoreParts;

    fn deref(&self) -> &CoreParts {
        &self.0
    }
}

/// A task to spawn once the state is no longer borrowed: glommio polls a new task before `spawn_local` returns.
type Later = Pin<Box<dyn Future<Output = ()>>>;

/// The mutable state of a core. Invariant: never borrowed across an await or while a task is spawned.
#[derive(Default)]
pub struct State {
    /// The copies this core owns.
    partitions: HashMap<PartitionId, Partition>,
    /// What has happened and was not yet handled.
    events: VecDeque<(PartitionId, Event)>,
    /// Reused between events.
    effects: Vec<Effect>,
    /// Tasks to spawn when the current settle ends.
    later: Vec<Later>,
    /// Requests that wait for a replica: writes proposed, and what read the window.
    pending: Pending,
    /// Snapshots kept for scans.
    contexts: Contexts<Arc<TableSnapshot>>,
    /// Appends not yet written, oldest first, of `written` tables.
    waiting_written: VecDeque<partition::LogWait>,
    /// Appends not yet synced, oldest first, of `synced` tables.
    waiting_synced: VecDeque<partition::LogWait>,
    /// Records the log had no room for, oldest first; nothing is appended past them.
    stalled: VecDeque<partition::StalledAppend>,
    /// Told when the log is synced that far; only used while windows move in.
    sync_waiter: Option<(LogSequence, oneshot::Sender<()>)>,
    /// All nodes of the cluster.
    nodes: HashMap<NodeId, NodeInfo>,
    /// Connections to other nodes' cores.
    peers: HashMap<SocketAddr, Reconnecting>,
    /// Beacons on their way, by the core they are for.
    beacons: HashMap<SocketAddr, usize>,
    /// Partitions assigned to this node whose copy is gone.
    missing: BTreeSet<PartitionId>,
    /// Copies that are out of service and have no replica.
    broken: BTreeMap<PartitionId, Broken>,
    /// Ends when the last descriptor store asked for has ended: stores are done one after the other.
    descriptor_turns: Option<oneshot::Receiver<()>>,
    /// Copies being made, replaced or removed, and why; nothing else is done with them meanwhile.
    opening: BTreeMap<PartitionId, &'static str>,
    /// Checkpoints being sent to learners.
    checkpoints_served: usize,
    /// The log is closed for writing until restart.
    log_failed: bool,
    /// Why.
    log_problem: String,
    /// True while a settle is on the stack.
    settling: bool,
    /// The node is about to stop: nothing that takes long begins, and the role of primary is handed over.
    leaving: bool,
    /// No new work is admitted.
    stopping: bool,
    /// Number given to the next replication stream.
    next_session: u64,
    /// What is counted.
    counters: Counters,
    /// The tables as last told.
    told: Option<Arc<Told>>,
    /// The log is synced that far.
    log_synced: LogSequence,
    /// Bounds what is logged about slow requests.
    slow_lines: Lines,
    /// Bounds what is logged about connections of clients of Pegasus that broke the protocol.
    hostile_lines: Lines,
}

impl State {
    /// The copy, if it is still the one its partition has here.
    fn copy(&mut self, copy: CopyId) -> Option<&mut Partition> {
        self.partitions.get_mut(&copy.partition).filter(|partition| partition.incarnation == copy.incarnation)
    }
}

impl Core {
    /// Queues an event for a partition, whichever copy it has; [`Core::settle`] handles it.
    fn post(&self, partition: PartitionId, event: Event) {
        self.state.borrow_mut().events.push_back((partition, event));
    }

    /// Queues an event for one copy, unless it is gone.
    fn post_to(&self, copy: CopyId, event: Event) {
        let mut state = self.state.borrow_mut();
        if state.copy(copy).is_some() {
            state.events.push_back((copy.partition, event));
        }
    }

    /// Handles all queued events and everything that follows from them at once, then wakes the log's writer.
    fn settle(&self) {
        let mut state = self.state.borrow_mut();
        if state.settling {
            return;
        }
        self.handle_events(&mut state);
        let later = std::mem::take(&mut state.later);
        drop(state);
        self.log.submit();
        for task in later {
            glommio::spawn_local(task).detach();
        }
    }

    /// Handles all queued events and everything that follows from them. [`Core::settle`] must follow, in the same run:
    /// it also wakes the log and spawns what is to be spawned.
    fn handle_queued(&self) {
        let mut state = self.state.borrow_mut();
        if !state.settling {
            self.handle_events(&mut state);
        }
    }

    fn handle_events(&self, state: &mut State) {
        if state.events.is_empty() {
            return;
        }
        state.settling = true;
        // After everything that is in the queue has happened.
        let now = clock::now();
        while let Some((id, event)) = state.events.pop_front() {
            self.handle(state, now, id, event);
        }
        state.settling = false;
    }

    /// Lets a replica decide about one event and carries out what it asks for. [`Core::settle`] must follow.
    fn handle(&self, state: &mut State, now: Moment, id: PartitionId, event: Event) {
        let mut effects = std::mem::take(&mut state.effects);
        match state.partitions.get_mut(&id) {
            Some(partition) => {
                partition.replica.handle(now, event, &mut effects);
                self.hold_log(partition);
                self.perform(state, id, &mut effects);
            }
            None => self.orphan(state, event),
        }
        effects.clear();
        state.effects = effects;
    }

    /// An event for a partition that is not here (any more): only a request has somebody waiting.
    fn orphan(&self, state: &mut State, event: Event) {
        if let Event::Propose { request, .. } | Event::Await { request, .. } = event {
            state.pending.finish(request, Err(Status::NoSuchPartition));
        }
    }

    /// Spawns a task; safe to call while the state is borrowed by a caller further up.
    fn later(&self, task: impl Future<Output = ()> + 'static) {
        match self.state.try_borrow_mut() {
            Ok(state) if !state.settling => {
                drop(state);
                glommio::spawn_local(task).detach();
            }
            Ok(mut state) => state.later.push(Box::pin(task)),
            Err(_) => unreachable!("callers that hold the state push to State::later themselves"),
        }
    }

    /// Microseconds since the Unix epoch.
    fn clock_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Changes the counters.
    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.state.borrow_mut().counters);
    }

    /// Marks the start of a run without yielding.
    fn begin_run(&self) -> Instant {
        Instant::now()
    }

    /// Records how long the core ran without yielding.
    fn end_run(&self, started: Instant) {
        self.count(|counters| counters.record_run(started.elapsed()));
        self.slow.end_run();
    }
}
