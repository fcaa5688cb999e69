//! Runs the guardian: a plan for every state and every change of who is alive, and a wake-up for the watches that wait.
//!
//! ```text
//! state applied, node came or went, tick -> plan -> tasks of some node changed? -> watches look again
//! ```
//!
//! An answer to a watch never mixes a state with the plan of another one: the plan is made again, at most once per
//! change, when the state is found to have moved. So a request that is still wanted is never missing in between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pegasus_wire::NodeId;
use tokio::sync::watch;

use super::group::Group;
use super::liveness::Liveness;
use super::service::stop_asked;
use crate::core::{Heard, Limits, State, Tasks, plan};

/// What every node is asked to do; no entry for a node with nothing to do.
pub type AllTasks = BTreeMap<NodeId, Tasks>;

/// The latest plan of this server. Clones share it.
#[derive(Clone)]
pub struct Planner {
    limits: Limits,
    liveness: Liveness,
    latest: Arc<Mutex<Latest>>,
    moved: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Latest {
    /// The changes of the state and of liveness that it takes in; `None` before the first plan.
    made_at: Option<(u64, u64)>,
    tasks: Arc<AllTasks>,
}

impl Planner {
    /// No plan yet.
    pub fn new(limits: Limits, liveness: Liveness) -> Planner {
        Planner { limits, liveness, latest: Arc::default(), moved: Arc::new(watch::Sender::new(0)) }
    }

    /// What the guardian keeps to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Who has been heard of, among the nodes of this state.
    pub fn heard(&self, state: &State) -> Heard {
        self.liveness.heard(state.nodes().keys().copied(), Instant::now())
    }

    /// The tasks for this state. `changes` is its number; the caller holds the state, so it cannot move meanwhile.
    pub fn tasks(&self, state: &State, changes: u64) -> Arc<AllTasks> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.made_at != Some((changes, self.liveness.change_count())) {
            self.make(&mut latest, state, changes);
        }
        Arc::clone(&latest.tasks)
    }

    /// Tells when the tasks of some node have changed.
    pub fn watch_tasks(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Keeps the plan fresh until the service stops.
    pub async fn run(self, group: Group, mut stopping: watch::Receiver<bool>) {
        let mut states = group.watch_changes();
        let mut lives = self.liveness.watch_changes();
        loop {
            group.read_numbered(|state, changes| {
                let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
                self.make(&mut latest, state, changes);
            });
            tokio::select! {
                // An error means that the sender is gone, and with it the service.
                changed = states.changed() => if changed.is_err() { return },
                changed = lives.changed() => if changed.is_err() { return },
                // Silence and return times run out without any event.
                () = tokio::time::sleep(TICK) => {}
                () = stop_asked(&mut stopping) => return,
            }
        }
    }

    fn make(&self, latest: &mut Latest, state: &State, changes: u64) {
        // Read before liveness is: what comes in between is taken in by the next plan.
        let made_at = (changes, self.liveness.change_count());
        let tasks = plan(state, &self.heard(state), &self.limits).tasks;
        latest.made_at = Some(made_at);
        if *latest.tasks != tasks {
            latest.tasks = Arc::new(tasks);
            self.moved.send_modify(|count| *count += 1);
        }
    }
}

/// How late a plan may notice that a time ran out.
const TICK: Duration = Duration::from_millis(500);
