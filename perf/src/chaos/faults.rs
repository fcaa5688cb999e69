//! Which fault when: drawn from the seed alone, before anything runs. Pure.
//!
//! Nothing is spared: faults overlap, and together they may be more than the protocol tolerates at a time. Only what
//! would mean nothing is left out, such as stopping a process that is down.

use std::fmt;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::chaos::links::{FIRST_NODE, META, Place, RUNNER};

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// kill -9, and a start after a while
    Kill,
    /// SIGSTOP, and SIGCONT after 1 to 12 seconds
    Stop,
    /// Links on which nothing arrives, both ways or one way
    Cut,
    /// Links that delay, reorder and lose
    Delay,
    /// A full disk
    Disk,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Kill, Kind::Stop, Kind::Cut, Kind::Delay, Kind::Disk];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Stop => "stop",
            Kind::Cut => "cut",
            Kind::Delay => "delay",
            Kind::Disk => "disk",
        }
    }
}

/// The links from some places to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hurt {
    /// Where packets come from.
    pub from: Vec<Place>,
    /// Where they go.
    pub to: Vec<Place>,
    /// The links back as well.
    pub both_ways: bool,
}

impl Hurt {
    /// True if it is about the link from one place to another.
    pub fn covers(&self, from: Place, to: Place) -> bool {
        let forth = self.from.contains(&from) && self.to.contains(&to);
        forth || (self.both_ways && self.from.contains(&to) && self.to.contains(&from))
    }
}

/// What is done to the cluster, and undone when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// These processes are killed, and started when it ends.
    Kill {
        /// The processes.
        places: Vec<Place>,
    },
    /// A process is stopped, and goes on when it ends.
    Stop {
        /// The process.
        place: Place,
    },
    /// Nothing arrives.
    Cut {
        /// On these links.
        hurt: Hurt,
    },
    /// Packets arrive later, in another order, or not.
    Delay {
        /// On these links.
        hurt: Hurt,
        /// All are later by this.
        delay_us: u32,
        /// And by up to this more.
        jitter_us: u32,
        /// So many of a thousand are lost.
        loss_per_mille: u16,
    },
    /// The disk of a node is filled.
    Disk {
        /// The node.
        place: Place,
        /// What is left free.
        leave_bytes: u64,
    },
}

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Kill { .. } => Kind::Kill,
            Fault::Stop { .. } => Kind::Stop,
            Fault::Cut { .. } => Kind::Cut,
            Fault::Delay { .. } => Kind::Delay,
            Fault::Disk { .. } => Kind::Disk,
        }
    }

    /// Processes that cannot do anything meanwhile.
    fn disabled(&self) -> &[Place] {
        match self {
            Fault::Kill { places } => places,
            Fault::Stop { place } => std::slice::from_ref(place),
            Fault::Cut { .. } | Fault::Delay { .. } | Fault::Disk { .. } => &[],
        }
    }
}

/// A fault and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// From the start of the load.
    pub begin_ms: u64,
    /// When it is undone.
    pub end_ms: u64,
    /// What.
    pub fault: Fault,
}

/// Draws the faults of a run over so many milliseconds. All have ended when it ends.
pub fn draw(seed: u64, run_ms: u64, nodes: usize, kinds: &[Kind]) -> Vec<Planned> {
    let mut artist = Artist { random: SmallRng::seed_from_u64(seed), nodes, planned: Vec::new() };
    let mut begin_ms = artist.random.random_range(500..2000);
    while begin_ms + SHORTEST_MS < run_ms && artist.planned.len() < FAULTS_MAX {
        if let Some(kind) = kinds.choose(&mut artist.random) {
            artist.plan(*kind, begin_ms, run_ms);
        }
        // Once in a while everything can recover before the next fault.
        let calm = artist.random.random_range(0..8) == 0;
        begin_ms += if calm { artist.random.random_range(8000..15000) } else { artist.random.random_range(200..5000) };
    }
    artist.planned
}

struct Artist {
    random: SmallRng,
    nodes: usize,
    planned: Vec<Planned>,
}

impl Artist {
    /// Plans a fault of this kind, unless there is nobody left for it.
    fn plan(&mut self, kind: Kind, begin_ms: u64, run_ms: u64) {
        let able: Vec<Place> = (META..FIRST_NODE + self.nodes).filter(|place| self.is_able(*place, begin_ms)).collect();
        let (fault, length_ms) = match kind {
            Kind::Kill => (self.kill(&able), self.random.random_range(100..8000)),
            Kind::Stop => (self.stop(&able), self.random.random_range(1000..12_000)),
            Kind::Cut => (Some(Fault::Cut { hurt: self.hurt() }), self.random.random_range(500..10_000)),
            Kind::Delay => (Some(self.delay()), self.random.random_range(500..10_000)),
            Kind::Disk => (self.disk(begin_ms), self.random.random_range(2000..10_000)),
        };
        let end_ms = (begin_ms + length_ms).min(run_ms);
        if let Some(fault) = fault {
            self.planned.push(Planned { begin_ms, end_ms, fault });
        }
    }

    fn is_able(&self, place: Place, at_ms: u64) -> bool {
        let disables = |planned: &&Planned| planned.end_ms >= at_ms && planned.fault.disabled().contains(&place);
        !self.planned.iter().any(|planned| disables(&planned))
    }

    /// Mostly one node, at times the meta server, several processes, or all.
    fn kill(&mut self, able: &[Place]) -> Option<Fault> {
        let nodes: Vec<Place> = able.iter().copied().filter(|place| *place >= FIRST_NODE).collect();
        let places = match self.random.random_range(0..20) {
            0..13 => vec![*nodes.choose(&mut self.random)?],
            13..16 => able.iter().copied().filter(|place| *place == META).collect(),
            16..19 => nodes.choose_multiple(&mut self.random, 2).copied().collect(),
            _ => able.to_vec(),
        };
        (!places.is_empty()).then_some(Fault::Kill { places })
    }

    fn stop(&mut self, able: &[Place]) -> Option<Fault> {
        let nodes: Vec<Place> = able.iter().copied().filter(|place| *place >= FIRST_NODE).collect();
        let meta_too = self.random.random_range(0..6) == 0;
        let place = *if meta_too { able } else { &nodes }.choose(&mut self.random)?;
        Some(Fault::Stop { place })
    }

    fn delay(&mut self) -> Fault {
        let delay_us = *[500, 5_000, 30_000, 200_000].choose(&mut self.random).expect("there are four");
        Fault::Delay {
            hurt: self.hurt(),
            delay_us: self.random.random_range(0..=delay_us),
            jitter_us: self.random.random_range(0..=delay_us),
            loss_per_mille: *[0, 10, 50, 300].choose(&mut self.random).expect("there are four"),
        }
    }

    fn disk(&mut self, at_ms: u64) -> Option<Fault> {
        let is_full = |place: &Place| {
            let fills =
                |planned: &Planned| matches!(planned.fault, Fault::Disk { place: other, .. } if other == *place);
            self.planned.iter().any(|planned| planned.end_ms >= at_ms && fills(planned))
        };
        let free: Vec<Place> = (FIRST_NODE..FIRST_NODE + self.nodes).filter(|place| !is_full(place)).collect();
        let place = *free.choose(&mut self.random)?;
        // None at all, or less than the node wants to keep in reserve.
        let leave_bytes = *[0, 256 << 10, 8 << 20].choose(&mut self.random).expect("there are three");
        Some(Fault::Disk { place, leave_bytes })
    }

    /// Two nodes from each other, a node from everybody, a node from the other nodes, a process from the meta server,
    /// the clients from a node; both ways or one way.
    fn hurt(&mut self) -> Hurt {
        let mut nodes: Vec<Place> = (FIRST_NODE..FIRST_NODE + self.nodes).collect();
        let one = nodes.swap_remove(self.random.random_range(0..nodes.len()));
        let others = nodes;
        let (from, to) = match self.random.random_range(0..6) {
            0 | 1 => (vec![one], others.choose_multiple(&mut self.random, 1).copied().collect()),
            2 => (vec![one], others.iter().copied().chain([RUNNER, META]).collect()),
            3 => (vec![one], others),
            4 => (vec![META], [one].into_iter().chain(others.choose(&mut self.random).copied()).collect()),
            _ => (vec![RUNNER], vec![one]),
        };
        match self.random.random_range(0..4) {
            0 | 1 => Hurt { from, to, both_ways: true },
            2 => Hurt { from, to, both_ways: false },
            _ => Hurt { from: to, to: from, both_ways: false },
        }
    }
}

/// How a place is called.
pub fn place_name(place: Place) -> String {
    match place {
        RUNNER => "clients".to_owned(),
        META => "meta1".to_owned(),
        node => format!("node{}", node + 1 - FIRST_NODE),
    }
}

fn place_names(places: &[Place]) -> String {
    places.iter().map(|place| place_name(*place)).collect::<Vec<String>>().join(" ")
}

impl fmt::Display for Hurt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.both_ways { "<->" } else { "->" };
        write!(out, "{} {arrow} {}", place_names(&self.from), place_names(&self.to))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { places } => write!(out, "kill {}", place_names(places)),
            Fault::Stop { place } => write!(out, "stop {}", place_name(*place)),
            Fault::Cut { hurt } => write!(out, "cut {hurt}"),
            Fault::Delay { hurt, delay_us, jitter_us, loss_per_mille } => {
                let (delay_ms, jitter_ms) = (f64::from(*delay_us) / 1e3, f64::from(*jitter_us) / 1e3);
                let loss_percent = f64::from(*loss_per_mille) / 10.0;
                write!(out, "delay {hurt} by {delay_ms:.1} to {:.1} ms, loss {loss_percent} %", delay_ms + jitter_ms)
            }
            Fault::Disk { place, leave_bytes } => {
                write!(out, "disk of {} full, {} KiB left", place_name(*place), leave_bytes >> 10)
            }
        }
    }
}

/// No fault is shorter, unless the run ends.
const SHORTEST_MS: u64 = 500;
/// Faults of one run at most.
const FAULTS_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_and_another_seed_others() {
        assert_eq!(draw(7, 60_000, 3, &Kind::ALL), draw(7, 60_000, 3, &Kind::ALL));
        assert_ne!(draw(7, 60_000, 3, &Kind::ALL), draw(8, 60_000, 3, &Kind::ALL));
    }

    #[test]
    fn faults_keep_within_the_run_and_hurt_places_that_there_are() {
        for seed in 0..200 {
            let nodes = 3 + (seed % 3) as usize;
            for planned in draw(seed, 120_000, nodes, &Kind::ALL) {
                assert!(planned.begin_ms < planned.end_ms && planned.end_ms <= 120_000, "{planned:?}");
                let places: Vec<Place> = match &planned.fault {
                    Fault::Kill { places } => places.clone(),
                    Fault::Stop { place } | Fault::Disk { place, .. } => vec![*place],
                    Fault::Cut { hurt } | Fault::Delay { hurt, .. } => [&hurt.from[..], &hurt.to[..]].concat(),
                };
                let distinct: BTreeSet<Place> = places.iter().copied().collect();
                assert!(!places.is_empty() && distinct.len() == places.len(), "{planned:?}");
                assert!(places.iter().all(|place| *place < FIRST_NODE + nodes), "{planned:?}");
                assert!(!planned.fault.to_string().is_empty());
            }
        }
    }

    #[test]
    fn no_process_is_killed_or_stopped_while_it_is_down() {
        for seed in 0..100 {
            let planned = draw(seed, 300_000, 3, &[Kind::Kill, Kind::Stop]);
            for (index, first) in planned.iter().enumerate() {
                for second in &planned[index + 1..] {
                    let same = first.fault.disabled().iter().any(|place| second.fault.disabled().contains(place));
                    assert!(!same || second.begin_ms > first.end_ms, "{first:?} {second:?}");
                }
            }
        }
    }

    #[test]
    fn every_variety_comes_up() {
        let planned: Vec<Planned> = (0..50).flat_map(|seed| draw(seed, 300_000, 3, &Kind::ALL)).collect();
        let has = |wanted: &dyn Fn(&Fault) -> bool| planned.iter().any(|planned| wanted(&planned.fault));
        for kind in Kind::ALL {
            assert!(has(&|fault| fault.kind() == kind), "{kind:?}");
        }
        assert!(has(&|fault| matches!(fault, Fault::Kill { places } if places.len() == 4)));
        assert!(has(&|fault| matches!(fault, Fault::Kill { places } if *places == [META])));
        for both_ways in [false, true] {
            assert!(has(&|fault| matches!(fault, Fault::Cut { hurt } if hurt.both_ways == both_ways)));
        }
        assert!(has(&|fault| matches!(fault, Fault::Cut { hurt } if hurt.from == [RUNNER])));
        assert!(has(&|fault| matches!(fault, Fault::Disk { leave_bytes: 0, .. })));
        let only_kills = draw(1, 60_000, 3, &[Kind::Kill]);
        assert!(only_kills.len() > 5 && only_kills.iter().all(|planned| planned.fault.kind() == Kind::Kill));
    }
}
