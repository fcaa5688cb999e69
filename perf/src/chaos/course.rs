//! Carries out the planned faults on a cluster, keeps its processes running otherwise, and writes down what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::chaos::cluster::Cluster;
use crate::chaos::faults::{Fault, Kind, Planned, place_name};
use crate::chaos::interrupt::Interrupt;
use crate::chaos::links::Place;
use crate::chaos::recorder::Clock;
use crate::failure::Failure;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// On the clock of the operations.
    pub at_s: f64,
    /// What.
    pub what: String,
}

/// A run's faults, those in force, and what came of them.
pub struct Course<'a> {
    cluster: &'a mut Cluster,
    clock: &'a Clock,
    /// Told to people as it happens.
    tell: &'a dyn Fn(&str),
    planned: Vec<Planned>,
    /// Where the plan has its zero.
    start_us: u64,
    active: BTreeSet<usize>,
    /// Processes that ended by themselves and when they are started again, in milliseconds of the plan.
    restarts: Vec<(u64, Place)>,
    /// Nodes whose disk was full: their log may have closed.
    to_mend: BTreeSet<Place>,
    next_mend_ms: u64,
    ends: u32,
    /// What happened.
    pub events: Vec<Event>,
    /// Faults by kind.
    pub counts: BTreeMap<Kind, u64>,
    /// What must not happen.
    pub problems: Vec<String>,
}

impl<'a> Course<'a> {
    /// A course that begins now.
    pub fn new(
        cluster: &'a mut Cluster,
        clock: &'a Clock,
        planned: Vec<Planned>,
        tell: &'a dyn Fn(&str),
    ) -> Course<'a> {
        Course {
            cluster,
            clock,
            tell,
            planned,
            start_us: clock.now_us(),
            active: BTreeSet::new(),
            restarts: Vec::new(),
            to_mend: BTreeSet::new(),
            next_mend_ms: 0,
            ends: 0,
            events: Vec::new(),
            counts: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Goes on until `run_ms`, or until `is_over` says so; then undoes all faults.
    pub fn run(&mut self, run_ms: u64, is_over: impl Fn() -> bool, interrupt: &Interrupt) -> Result<(), Failure> {
        let mut turns = turns(&self.planned).into_iter().peekable();
        loop {
            let now_ms = self.now_ms();
            while let Some(turn) = turns.next_if(|turn| turn.at_ms <= now_ms) {
                if turn.ends { self.end(turn.index)? } else { self.begin(turn.index)? }
            }
            self.tend()?;
            if now_ms >= run_ms || is_over() {
                break;
            }
            let next_ms = turns.peek().map_or(run_ms, |turn| turn.at_ms).min(run_ms).min(now_ms + TEND_INTERVAL_MS);
            interrupt.wait(Duration::from_millis(next_ms.saturating_sub(self.now_ms())));
            interrupt.check()?;
        }
        self.heal(interrupt)
    }

    /// Finds processes that have ended by themselves since the last fault was undone.
    pub fn look_once_more(&mut self) -> Result<(), Failure> {
        self.tend()
    }

    /// Undoes what is still done, and waits until nothing is left to mend.
    fn heal(&mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        for index in self.active.clone() {
            self.end(index)?;
        }
        let patience_ms = self.now_ms() + HEAL_PATIENCE_MS;
        while !(self.restarts.is_empty() && self.to_mend.is_empty()) && self.now_ms() < patience_ms {
            interrupt.wait(Duration::from_millis(TEND_INTERVAL_MS));
            interrupt.check()?;
            self.tend()?;
        }
        for place in self.cluster.places() {
            self.cluster.start_one(place)?;
        }
        if !self.planned.is_empty() {
            self.note("all faults are undone".to_owned());
        }
        Ok(())
    }

    fn begin(&mut self, index: usize) -> Result<(), Failure> {
        let Planned { begin_ms, end_ms, fault } = self.planned[index].clone();
        self.note(format!("{fault}, for {:.1} s", (end_ms - begin_ms) as f64 / 1e3));
        *self.counts.entry(fault.kind()).or_default() += 1;
        self.active.insert(index);
        match fault {
            Fault::Kill { places } => places.into_iter().for_each(|place| self.cluster.kill(place)),
            Fault::Stop { place } => self.cluster.set_stopped(place, true),
            Fault::Cut { .. } | Fault::Delay { .. } => self.set_links(),
            Fault::Disk { place, leave_bytes } => self.cluster.fill_disk(place, leave_bytes)?,
        }
        Ok(())
    }

    fn end(&mut self, index: usize) -> Result<(), Failure> {
        if !self.active.remove(&index) {
            return Ok(());
        }
        let fault = self.planned[index].fault.clone();
        self.note(format!("undone: {fault}"));
        match fault {
            Fault::Kill { places } => {
                for place in places {
                    self.cluster.start_one(place)?;
                }
            }
            Fault::Stop { place } => self.cluster.set_stopped(place, false),
            Fault::Cut { .. } | Fault::Delay { .. } => self.set_links(),
            Fault::Disk { place, .. } => {
                self.cluster.free_disk(place)?;
                self.to_mend.insert(place);
            }
        }
        Ok(())
    }

    fn set_links(&self) {
        self.cluster.set_links(self.active.iter().map(|index| &self.planned[*index].fault));
    }

    /// What an operator would do: starts what ended by itself, and restarts a node whose log closed for a full disk
    /// once there is room again.
    fn tend(&mut self) -> Result<(), Failure> {
        for (place, how) in self.cluster.ended()? {
            let name = place_name(place);
            self.note(format!("{name} ended by itself: {}", how.lines().next().unwrap_or_default()));
            if !self.had_full_disk(place) {
                self.problems.push(format!("{name} ended by itself: {how}"));
            }
            self.ends += 1;
            if self.ends > ENDS_MAX {
                return Err(Failure::new(format!("{name} ends again and again: {how}")));
            }
            self.restarts.push((self.now_ms() + RESTART_AFTER_MS, place));
        }
        let now_ms = self.now_ms();
        let due: Vec<Place> = self.restarts.iter().filter(|(at, _)| *at <= now_ms).map(|(_, place)| *place).collect();
        self.restarts.retain(|(at, _)| *at > now_ms);
        for place in due {
            // A process that is meant to be down stays down: its own fault starts it.
            if !self.active_faults().any(|fault| matches!(fault, Fault::Kill { places } if places.contains(&place))) {
                self.note(format!("{} is started again", place_name(place)));
                self.cluster.start_one(place)?;
            }
        }
        if now_ms >= self.next_mend_ms {
            self.next_mend_ms = now_ms + MEND_INTERVAL_MS;
            self.mend()?;
        }
        Ok(())
    }

    fn mend(&mut self) -> Result<(), Failure> {
        for place in self.to_mend.clone() {
            let busy = self.active_faults().any(|fault| match fault {
                Fault::Kill { places } => places.contains(&place),
                Fault::Stop { place: other } | Fault::Disk { place: other, .. } => *other == place,
                Fault::Cut { .. } | Fault::Delay { .. } => false,
            });
            if busy {
                continue;
            }
            match self.cluster.is_log_closed(place) {
                None => {}
                Some(false) => {
                    self.to_mend.remove(&place);
                }
                Some(true) => {
                    self.to_mend.remove(&place);
                    self.note(format!("{} has closed its log; it is restarted", place_name(place)));
                    self.cluster.kill(place);
                    self.cluster.start_one(place)?;
                }
            }
        }
        Ok(())
    }

    fn active_faults(&self) -> impl Iterator<Item = &Fault> {
        self.active.iter().map(|index| &self.planned[*index].fault)
    }

    /// True while a node's disk is full, and until it was seen to be well after that.
    fn had_full_disk(&self, place: Place) -> bool {
        let fills = |fault: &Fault| matches!(fault, Fault::Disk { place: other, .. } if *other == place);
        self.to_mend.contains(&place) || self.active_faults().any(fills)
    }

    fn note(&mut self, what: String) {
        let event = Event { at_s: self.clock.now_us() as f64 / 1e6, what };
        (self.tell)(&format!("{:8.3} s  {}", event.at_s, event.what));
        self.events.push(event);
    }

    fn now_ms(&self) -> u64 {
        (self.clock.now_us() - self.start_us) / 1000
    }
}

/// The begin or the end of a planned fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    at_ms: u64,
    /// At one moment beginnings go first: a fault of no length still happens.
    ends: bool,
    index: usize,
}

fn turns(planned: &[Planned]) -> Vec<Turn> {
    let both = |(index, planned): (usize, &Planned)| {
        [Turn { at_ms: planned.begin_ms, ends: false, index }, Turn { at_ms: planned.end_ms, ends: true, index }]
    };
    let mut turns: Vec<Turn> = planned.iter().enumerate().flat_map(both).collect();
    turns.sort_unstable();
    turns
}

/// How often processes are looked at.
const TEND_INTERVAL_MS: u64 = 100;
/// How long a process that ended by itself stays down.
const RESTART_AFTER_MS: u64 = 1000;
/// How often a node is asked whether its log is closed.
const MEND_INTERVAL_MS: u64 = 1000;
/// How long mending may take at the end.
const HEAL_PATIENCE_MS: u64 = 15_000;
/// Processes that may end by themselves before the run is given up.
const ENDS_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_and_ends_come_in_the_order_of_time() {
        let fault = Fault::Stop { place: 2 };
        let planned =
            [Planned { begin_ms: 10, end_ms: 30, fault: fault.clone() }, Planned { begin_ms: 20, end_ms: 20, fault }];
        let order: Vec<(u64, bool, usize)> =
            turns(&planned).iter().map(|turn| (turn.at_ms, turn.ends, turn.index)).collect();
        assert_eq!(order, [(10, false, 0), (20, false, 1), (20, true, 1), (30, true, 0)]);
    }
}
