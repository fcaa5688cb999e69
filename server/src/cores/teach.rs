//! What a primary's host does for learners besides moving messages: reads the log for them, keeps what they may still
//! need in it, and counts how they were brought up to date.

use std::fmt;

use pegasus_engine::log::LogError;
use pegasus_replication::{Event, Session};
use pegasus_wire::{Configuration, Decree, Mutation, NodeId, PartitionId};

use super::statistics::Counters;
use super::{Core, Partition, State};
use crate::layout::mutation_of;

/// Payload bytes that one reading of the log gives a learner, about.
const LOG_READ_BYTES: usize = 2 << 20;

/// Where a learner gets what it lacks; each takes more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The primary's memory is enough.
    Window,
    /// The primary's log is needed.
    Log,
    /// A checkpoint is needed, and what follows it.
    Checkpoint,
}

/// The learners of one primary. A handful.
#[derive(Debug, Default)]
pub(crate) struct Lessons(Vec<(NodeId, Source)>);

impl Lessons {
    /// A node was asked to become a learner; or was asked again, which changes nothing.
    pub(crate) fn begin(&mut self, node: NodeId) {
        self.needs(node, Source::Window);
    }

    /// The learner has to take a checkpoint.
    pub(crate) fn take_checkpoint(&mut self, node: NodeId) {
        self.needs(node, Source::Checkpoint);
    }

    fn needs(&mut self, node: NodeId, source: Source) {
        match self.0.iter_mut().find(|(known, _)| *known == node) {
            Some((_, known)) => *known = source.max(*known),
            None => self.0.push((node, source)),
        }
    }

    /// True if the node was told to take a checkpoint and has not become a member since.
    pub(crate) fn may_fetch(&self, node: NodeId) -> bool {
        self.0.contains(&(node, Source::Checkpoint))
    }

    /// A configuration is in force: learners that are members now have learned.
    pub(crate) fn settle(&mut self, configuration: &Configuration, counters: &mut Counters) {
        self.0.retain(|(node, source)| {
            let learned = configuration.contains(*node);
            if learned {
                tracing::info!(%node, %source, "a learner became a member");
                match source {
                    Source::Window => counters.learned_from_window += 1,
                    Source::Log => counters.learned_from_log += 1,
                    Source::Checkpoint => counters.learned_from_checkpoint += 1,
                }
            }
            !learned
        });
    }

    /// Forgets those that the replica does not teach any more.
    pub(crate) fn keep(&mut self, is_taught: impl Fn(NodeId) -> bool) {
        self.0.retain(|(node, _)| is_taught(*node));
    }

    /// Nobody is taught any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many learn.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Source::Window => "window",
            Source::Log => "log",
            Source::Checkpoint => "checkpoint",
        })
    }
}

impl Core {
    /// Reads mutations from the log for a learner.
    pub(crate) fn read_log(
        &self,
        state: &mut State,
        id: PartitionId,
        peer: NodeId,
        session: Session,
        from: Decree,
        through: Decree,
    ) {
        let Some(partition) = state.partitions.get_mut(&id) else { return };
        partition.lessons.needs(peer, Source::Log);
        let copy = partition.copy();
        let core = self.clone();
        state.later.push(Box::pin(async move {
            let mutations = match core.log.read(id, from, through, LOG_READ_BYTES).await {
                Ok(records) => Some(records.into_iter().filter_map(mutation_of).collect::<Vec<Mutation>>()),
                Err(error @ LogError::NotInLog { .. }) => {
                    tracing::info!(partition = %id, learner = %peer, %error, "the learner needs a checkpoint");
                    None
                }
                Err(error) => {
                    tracing::error!(partition = %id, learner = %peer, %error, "cannot read the log for a learner");
                    None
                }
            };
            let mutations = mutations.filter(|mutations| !mutations.is_empty());
            core.post_to(copy, Event::LogRead { peer, session, mutations });
            core.settle();
        }));
    }

    /// Keeps in the log what the learners of a primary may still need, and no more.
    pub(crate) fn hold_log(&self, partition: &mut Partition) {
        match (partition.replica.learner_floor(), &mut partition.pin) {
            (None, None) => {}
            (None, _) => partition.pin = None,
            (Some(floor), Some((pinned, _))) if floor == *pinned => {}
            (Some(floor), Some((pinned, pin))) if floor > *pinned => {
                pin.advance(floor);
                *pinned = floor;
            }
            // The new pin is there before the old one goes.
            (Some(floor), _) => partition.pin = Some((floor, self.log.pin(partition.id, floor))),
        }
    }
}

#[cfg(test)]
mod tests {
    use pegasus_wire::Ballot;

    use super::*;

    #[test]
    fn a_lesson_counts_for_the_most_it_took() {
        let (window, log, checkpoint, leaving) = (NodeId(1), NodeId(2), NodeId(3), NodeId(4));
        let mut lessons = Lessons::default();
        for node in [window, log, checkpoint, leaving] {
            lessons.begin(node);
        }
        lessons.needs(log, Source::Log);
        lessons.take_checkpoint(checkpoint);
        lessons.needs(checkpoint, Source::Log);
        lessons.begin(log);
        assert!(lessons.may_fetch(checkpoint) && !lessons.may_fetch(log) && !lessons.may_fetch(NodeId(9)));

        let mut counters = Counters::default();
        let secondaries = vec![window, log, checkpoint];
        lessons.settle(&Configuration { ballot: Ballot(4), primary: Some(NodeId(9)), secondaries }, &mut counters);
        let counted = (counters.learned_from_window, counters.learned_from_log, counters.learned_from_checkpoint);
        assert_eq!((counted, lessons.len()), ((1, 1, 1), 1));
        assert!(!lessons.may_fetch(checkpoint));
        lessons.clear();
        assert_eq!(lessons.len(), 0);
    }
}
