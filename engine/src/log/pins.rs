//! What learners still have to read: pins keep segments that nothing else needs, up to half of the budget.
//!
//! ```text
//!   oldest                                                       youngest
//!   +---------+---------+---------+---------+---------+---------+
//!   | s1      | s2      | s3      | s4      | s5      | s6      |
//!   +---------+---------+---------+---------+---------+---------+
//!        ^ pin           all flushed ------>|<-- not flushed -->
//!   |<------ kept by the pin alone -------->|
//!            more than half of the budget: the pin is broken, the segments go, the learner takes a checkpoint
//! ```
//!
//! The oldest segment goes first, so a pin keeps everything behind its decree too, of all partitions. A pin is never
//! the reason that the log is full: it is also broken when only the reserve is left to write to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use pegasus_wire::{Decree, PartitionId};

use super::handle::{Log, Shared};

/// Keeps the records of a partition from a decree on readable, until it is dropped, moved on, or broken because the log
/// needs the room. Belongs to the executor of its log.
pub struct LogPin {
    shared: Rc<Shared>,
    number: u64,
    partition: PartitionId,
}

impl Log {
    /// Keeps what the log has of a partition from `decree` on, which may be yet to come. If it has not all of it, the
    /// pin is broken from the beginning.
    pub fn pin(&self, partition: PartitionId, decree: Decree) -> LogPin {
        let number = self.shared.state.borrow_mut().pin(partition, decree);
        LogPin { shared: Rc::clone(&self.shared), number, partition }
    }
}

impl LogPin {
    /// Everything below `decree` has been read: it may go. Going back has no effect.
    pub fn advance(&self, decree: Decree) {
        self.shared.state.borrow_mut().advance_pin(self.number, self.partition, decree);
    }

    /// True if it keeps nothing (any more): records from its decree on may be gone.
    pub fn is_broken(&self) -> bool {
        !self.shared.state.borrow().space.pins.holds(self.number)
    }
}

impl Drop for LogPin {
    fn drop(&mut self) {
        self.shared.state.borrow_mut().unpin(self.number);
    }
}

impl fmt::Debug for LogPin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LogPin({}{})", self.partition, if self.is_broken() { ", broken" } else { "" })
    }
}

/// The pins of one log. Pure.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// Whose each is, and the sequence of the first log write that it keeps.
    floors: BTreeMap<u64, (PartitionId, u64)>,
    issued: u64,
    broken: u64,
}

impl Pins {
    /// Makes a pin; one without a floor is broken.
    pub(super) fn add(&mut self, partition: PartitionId, floor: Option<u64>) -> u64 {
        self.issued += 1;
        match floor {
            Some(floor) => {
                self.floors.insert(self.issued, (partition, floor));
            }
            None => self.broken += 1,
        }
        self.issued
    }

    /// Raises the floor of a pin that is not broken.
    pub(super) fn advance(&mut self, number: u64, floor: u64) {
        if let Some((_, present)) = self.floors.get_mut(&number) {
            *present = floor.max(*present);
        }
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.floors.remove(&number);
    }

    /// The lowest sequence that is kept, if any is.
    pub(super) fn floor(&self) -> Option<u64> {
        self.floors.values().map(|(_, floor)| *floor).min()
    }

    /// Breaks the pins that keep something below a sequence.
    pub(super) fn break_below(&mut self, sequence: u64) {
        self.break_those(|_, floor| floor < sequence);
    }

    /// Breaks the pins of a partition: its records are not what was pinned any more.
    pub(super) fn break_of(&mut self, partition: PartitionId) {
        self.break_those(|of, _| of == partition);
    }

    fn break_those(&mut self, is_concerned: impl Fn(PartitionId, u64) -> bool) {
        let before = self.floors.len();
        let mut broken = BTreeSet::new();
        self.floors.retain(|_, (partition, floor)| {
            let concerned = is_concerned(*partition, *floor);
            if concerned {
                broken.insert(*partition);
            }
            !concerned
        });
        self.broken += (before - self.floors.len()) as u64;
        for partition in broken {
            tracing::info!(%partition, "the log keeps nothing for a learner of this partition any more");
        }
    }

    pub(super) fn holds(&self, number: u64) -> bool {
        self.floors.contains_key(&number)
    }

    pub(super) fn count(&self) -> usize {
        self.floors.len()
    }

    pub(super) fn broken_count(&self) -> u64 {
        self.broken
    }
}
