//! What runs did, for the summary line.

use std::collections::BTreeMap;
use std::fmt;

use crate::options::Fault;

/// What a run did, or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Events given to replicas.
    pub steps: u64,
    /// Simulated time, microseconds.
    pub micros: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Reads and failed checks answered.
    pub reads: u64,
    /// Requests refused.
    pub refused: u64,
    /// Writes whose outcome their clients never learned.
    pub unknown: u64,
    /// What was broken, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Secondaries that took over.
    pub takeovers: u64,
    /// Primaries that handed over.
    pub hand_overs: u64,
    /// Members that were removed.
    pub removals: u64,
    /// Learners that became members having been sent nothing but what the primary had in memory.
    pub learned_from_window: u64,
    /// Learners that became members having been sent something from the primary's log, and no checkpoint.
    pub learned_from_log: u64,
    /// Learners that became members having fetched a checkpoint.
    pub learned_from_checkpoint: u64,
    /// Mutations truncated by members.
    pub truncated: u64,
    /// Copies that restarted without knowing whether they had lost something.
    pub uncertain: u64,
    /// Partitions that an operator had to force.
    pub forced: u64,
    /// Keys whose histories were too long to be judged.
    pub undecided: u64,
}

impl Statistics {
    /// Adds another run's numbers.
    pub fn add(&mut self, other: &Statistics) {
        self.steps += other.steps;
        self.micros += other.micros;
        self.writes += other.writes;
        self.reads += other.reads;
        self.refused += other.refused;
        self.unknown += other.unknown;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.takeovers += other.takeovers;
        self.hand_overs += other.hand_overs;
        self.removals += other.removals;
        self.learned_from_window += other.learned_from_window;
        self.learned_from_log += other.learned_from_log;
        self.learned_from_checkpoint += other.learned_from_checkpoint;
        self.truncated += other.truncated;
        self.uncertain += other.uncertain;
        self.forced += other.forced;
        self.undecided += other.undecided;
    }

    /// All faults together.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.micros / 1_000_000;
        write!(out, "{} steps in {seconds} simulated seconds; ", self.steps)?;
        write!(
            out,
            "{} writes, {} reads, {} refused, {} unknown; ",
            self.writes, self.reads, self.refused, self.unknown
        )?;
        write!(out, "{} takeovers, {} hand-overs, {} removals, ", self.takeovers, self.hand_overs, self.removals)?;
        let learned = self.learned_from_window + self.learned_from_log + self.learned_from_checkpoint;
        write!(out, "{learned} learnings ({} window, ", self.learned_from_window)?;
        write!(out, "{} log, {} checkpoint), ", self.learned_from_log, self.learned_from_checkpoint)?;
        write!(out, "{} truncated, {} uncertain, {} forced, ", self.truncated, self.uncertain, self.forced)?;
        write!(out, "{} undecided; ", self.undecided)?;
        write!(out, "{} faults", self.fault_count())?;
        for (index, (fault, count)) in self.faults.iter().enumerate() {
            write!(out, "{}{fault:?} {count}", if index == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}
