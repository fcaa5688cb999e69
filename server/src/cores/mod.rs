//! One core: an executor, its partitions, its log, its port.
//!
//! Everything here runs on one thread. State is one `State` behind a `RefCell` that is never borrowed across an
//! await. The only entry points are a batch of client frames, a frame of a replication stream, a completion (log,
//! table, descriptor), a message of the administration thread, and the tick; each queues events and calls
//! `Core::settle`, which lets the replicas decide and carries out what they ask for, then wakes the log once.
//!
//! ```text
//!   session --+                         +-> log.append --> one write, one sync --> Logged
//!   streams --+-> events --> replica --> effects --> outbox of a stream (prepare, acknowledge)
//!   log, pool +        (settle)         +-> table.apply --> Applied --> answer
//! ```

mod admit;
mod assign;
mod digest;
mod housekeeping;
mod partition;
mod pending;
mod perform;
mod reads;
mod session;
mod start;
mod statistics;
mod streams;

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
use pegasus_replication::{Effect, Event};
use pegasus_rpc::{Endpoint, Reconnecting, Runtime};
use pegasus_wire::{Ballot, NodeId, NodeInfo, PartitionId};

use crate::control::ToMeta;
use crate::node::NodeShared;
use partition::Partition;
use pending::Pending;
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
    /// Writes proposed and not answered.
    pending: Pending,
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
    /// Partitions assigned to this node whose copy is gone.
    missing: BTreeSet<PartitionId>,
    /// Copies that recovery found damaged, with the ballot of their descriptors and what is wrong.
    broken: BTreeMap<PartitionId, (Ballot, String)>,
    /// Ends when the last descriptor store asked for has ended: stores are done one after the other.
    descriptor_turns: Option<oneshot::Receiver<()>>,
    /// Copies being made.
    opening: BTreeSet<PartitionId>,
    /// The log is closed for writing until restart.
    log_failed: bool,
    /// True while a settle is on the stack.
    settling: bool,
    /// No new work is admitted.
    stopping: bool,
    /// Number given to the next replication stream.
    next_session: u64,
    /// What is counted.
    counters: Counters,
}

impl Core {
    /// Queues an event for a partition; [`Core::settle`] handles it.
    fn post(&self, partition: PartitionId, event: Event) {
        self.state.borrow_mut().events.push_back((partition, event));
    }

    /// Handles all queued events and everything that follows from them at once, then wakes the log's writer.
    fn settle(&self) {
        let mut state = self.state.borrow_mut();
        if state.settling {
            return;
        }
        state.settling = true;
        while let Some((id, event)) = state.events.pop_front() {
            let mut effects = std::mem::take(&mut state.effects);
            match state.partitions.get_mut(&id) {
                Some(partition) => {
                    partition.replica.handle(event, &mut effects);
                    self.perform(&mut state, id, &mut effects);
                }
                None => self.orphan(&mut state, event),
            }
            effects.clear();
            state.effects = effects;
        }
        state.settling = false;
        let later = std::mem::take(&mut state.later);
        drop(state);
        self.log.submit();
        for task in later {
            glommio::spawn_local(task).detach();
        }
    }

    /// An event for a partition that is not here (any more): only a proposal has somebody waiting.
    fn orphan(&self, state: &mut State, event: Event) {
        if let Event::Propose { request, .. } = event
            && let Some(request) = state.pending.take(request)
        {
            request.answer_status(pegasus_wire::Status::NoSuchPartition);
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
    }
}
