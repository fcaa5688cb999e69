//! The learner's host: a primary that leads a partition of which this node is no member asks it to become one.
//!
//! ```text
//!   ESTABLISH whose configuration does not name this node
//!        |
//!        +-- a copy is here and fit ------------------------------> its replica hears it and becomes a learner
//!        |
//!        +-- none, or an unfit one ---> set aside what there is --> an empty learning copy under a new
//!                                       (damaged: kept a while)    incarnation hears it
//! ```
//!
//! A core takes part in a bounded number of learnings; beyond it a primary is answered Busy and asks again.

use std::sync::atomic::Ordering;

use pegasus_engine::copies;
use pegasus_engine::descriptor::{CopyState, Descriptor};
use pegasus_engine::table::Table;
use pegasus_replication::{Recovered, Role};
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::peer::Establish;
use pegasus_wire::{Configuration, Decree, PartitionId, ReplicaIncarnation, Status, TableProperties};

use super::copies::{Departing, unix_seconds};
use super::partition::{Partition, StoredAs};
use super::{Core, State};

impl Core {
    /// Sees to it that there is a copy that can learn. Waits while one is made.
    pub(crate) async fn find_learner_copy(&self, establish: &Establish) -> Result<(), (Status, String)> {
        let id = establish.partition;
        let departing = {
            let mut state = self.state.borrow_mut();
            self.admit_learner(&state, establish)?;
            match state.partitions.get(&id) {
                Some(copy) if copy.problem.is_none() => return Ok(()),
                _ => self.part_with(&mut state, id, "is made anew"),
            }
        };
        self.settle();
        let table = self.properties_now(id.table, establish.table.clone());
        let configuration = establish.configuration.clone();
        tracing::info!(partition = %id, primary = %establish.sender, "a learner begins with an empty copy");
        let made = self.make_learning(id, table, configuration, departing).await;
        self.settle();
        made.map_err(|reason| (Status::StorageFailed, format!("cannot make a copy of partition {id}: {reason}")))
    }

    /// Every reason to learn nothing now.
    fn admit_learner(&self, state: &State, establish: &Establish) -> Result<(), (Status, String)> {
        let id = establish.partition;
        if state.leaving {
            return Err((Status::ShuttingDown, "the node stops".to_owned()));
        }
        if state.log_failed {
            return Err((Status::StorageFailed, "the mutation log of this core is closed; see the node's log".into()));
        }
        if let Some(doing) = state.opening.get(&id) {
            return Err((Status::Busy, format!("the copy of partition {id} on this node {doing}")));
        }
        let (known, problem) = match (state.partitions.get(&id), state.broken.get(&id)) {
            (Some(copy), _) => (copy.replica.ballot(), copy.problem.as_ref()),
            (None, Some(broken)) => (broken.ballot, Some(&broken.problem)),
            (None, None) => (Default::default(), None),
        };
        // What failed for want of room has lost nothing, and a restart would bring it back. But the others go on
        // without it, so nobody needs to come: once there is room again it is made anew.
        let mends = |status: &Status| match status {
            Status::Damaged => true,
            Status::StorageFailed => !self.shared.disk_low.load(Ordering::Relaxed),
            _ => false,
        };
        if let Some((status, message)) = problem.filter(|(status, _)| !mends(status)) {
            return Err((*status, message.clone()));
        }
        let ballot = establish.configuration.ballot;
        if problem.is_some() && ballot < known {
            return Err((Status::StaleBallot, format!("established ballot {ballot}, here it is {known}")));
        }
        let learners = state.learners(id);
        let limit = self.shared.config.replication.learners_per_core;
        if learners >= limit {
            return Err((Status::Busy, format!("{learners} partitions learn on this core already")));
        }
        Ok(())
    }

    /// Makes an empty learning copy. What was there is set aside; if that fails it stays what it was, out of service.
    async fn make_learning(
        &self,
        id: PartitionId,
        table: TableProperties,
        configuration: Configuration,
        departing: Departing,
    ) -> Result<(), String> {
        let broken = departing.as_broken();
        // What is intact, and is learned again from whoever leads, is not kept: the disk was full already.
        let keep = broken.as_ref().is_none_or(|broken| broken.problem.0 != Status::StorageFailed);
        let former = departing.quiesce(self).await;
        let descriptor = Descriptor {
            cluster: self.shared.cluster().unwrap_or_default(),
            table: table.clone(),
            partition: id,
            incarnation: ReplicaIncarnation(rand::random()),
            configuration: configuration.clone(),
            state: CopyState::Learning,
            boot_id: self.boot_id,
        };
        let incarnation = descriptor.incarnation;
        self.close_table(former).await;
        let shared = self.shared.clone();
        let make = move || -> Result<Table, String> {
            let data = &shared.config.data_directory;
            let aside = copies::set_aside(data, id, unix_seconds()).map_err(|error| error.to_string())?;
            if let Some(aside) = aside {
                let directory = aside.directory.display();
                tracing::warn!(partition = %id, %directory, keep, "an unfit copy was set aside");
                if !keep {
                    std::fs::remove_dir_all(&aside.directory).map_err(|error| error.to_string())?;
                }
            }
            copies::create_learning(data, &descriptor, &shared.tables).map_err(|error| error.to_string())
        };
        let made = self.insist(&self.shared.long_pool, make).await.flatten();
        let mut state = self.state.borrow_mut();
        state.opening.remove(&id);
        match made {
            Ok(opened) => {
                state.broken.remove(&id);
                state.missing.remove(&id);
                self.log.forget(id);
                let recovered = Recovered { configuration, ..Recovered::learner() };
                let stored = self.stored_as(ReplicaState::Learning, &recovered);
                let replica = self.replica(id, table.clone(), recovered);
                let copy = Partition::new(table, id, incarnation, replica, opened, Decree(0), stored);
                state.partitions.insert(id, copy);
                self.take_table(&mut state, id);
                self.shared.copies_changed.notify_one();
                Ok(())
            }
            Err(reason) => {
                tracing::error!(partition = %id, %reason, "cannot make a copy to learn into");
                state.broken.extend(broken.map(|broken| (id, broken)));
                Err(reason)
            }
        }
    }

    /// What a descriptor that was just stored or read says.
    pub(crate) fn stored_as(&self, state: ReplicaState, recovered: &Recovered) -> StoredAs {
        let last = Decree(recovered.applied.0 + recovered.mutations.len() as u64);
        StoredAs { state, ballot: recovered.configuration.ballot, boot: self.boot_id, last }
    }
}

impl State {
    /// Partitions other than this one that learn from a primary on this core, or are about to.
    pub(crate) fn learners(&self, except: PartitionId) -> usize {
        let learns = |copy: &&Partition| copy.replica.role() == Role::Learner && !copy.streams.is_empty();
        self.partitions.values().filter(|copy| copy.id != except).filter(learns).count() + self.opening.len()
    }
}
