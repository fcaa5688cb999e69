//! One run: the phases, and what is said when something is found.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pegasus_wire::Status;

use crate::options::{Options, Planted};
use crate::random::Random;
use crate::trace::Trace;
use crate::world::{Statistics, World};

/// How long a healed cluster may take to serve and converge, microseconds of simulated time.
const LIVENESS_MICROS: u64 = 30_000_000;
/// How long it is looked at between two questions whether it has.
const LOOK_MICROS: u64 = 250_000;

/// What was found, and what led to it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that finds it again.
    pub seed: u64,
    /// What must not be.
    pub violation: String,
    /// The event log, one line each, if it was asked for.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "seed {}: {}", self.seed, self.violation)?;
        write!(out, "replay: cargo run -p pegasus-sim -- --seed {} --trace", self.seed)
    }
}

/// Runs a seed with the options it stands for, with or without something planted.
pub fn run_seed(seed: u64, planted: Planted, trace: bool) -> Result<Statistics, Box<Failure>> {
    let mut random = Random::new(seed);
    let options = Options { planted, ..Options::from_seed(&mut random) };
    run_options(seed, options, random, trace)
}

/// Runs a seed with chosen options; `random` goes on from where the options were drawn.
pub fn run_options(seed: u64, options: Options, random: Random, trace: bool) -> Result<Statistics, Box<Failure>> {
    let mut world = World::new(options, random, Trace::new(trace));
    // A replica that finds its own invariants broken panics; that is a finding like any other.
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err();
    let violation = match panicked {
        None => world.violation.take(),
        Some(panic) => Some(format!("a replica stopped: {}", panic_text(panic.as_ref()))),
    };
    match violation {
        None => Ok(world.statistics),
        Some(violation) => Err(Box::new(Failure { seed, violation, trace: world.trace.into_lines() })),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl World {
    fn run(&mut self) {
        let chaos = self.options.chaos_micros;
        self.run_until(chaos);
        let deadline = chaos + LIVENESS_MICROS;
        self.run_while("every partition takes writes again", deadline, |world| !world.has_recovered());
        self.busy = false;
        self.run_while("all copies are equal", deadline, |world| !world.has_converged());
    }

    /// Runs on while the cluster is not where it should be. It must get there before the deadline.
    fn run_while(&mut self, goal: &str, deadline: u64, waits: impl Fn(&World) -> bool) {
        while self.violation.is_none() && waits(self) {
            if self.now >= deadline {
                let state = self.describe();
                self.check("liveness", Err(format!("it was never reached that {goal}\n{state}")));
                return;
            }
            let next = self.now + LOOK_MICROS;
            self.run_until(next);
        }
    }

    fn has_recovered(&self) -> bool {
        let serves = |partition: usize| {
            let copies = self.nodes.iter().filter_map(|node| node.copies[partition].as_ref());
            let replicas = copies.filter_map(|copy| copy.replica.as_ref());
            // A full window is a sign of life.
            replicas.filter(|replica| matches!(replica.admit(), Ok(()) | Err(Status::Busy))).count() == 1
        };
        (0..self.options.partitions).all(|partition| self.healed_writes[partition] > 0 && serves(partition))
    }

    fn has_converged(&self) -> bool {
        (0..self.options.partitions).all(|partition| {
            let committed = self.checkers[partition].committed();
            self.nodes.iter().take(self.options.members).all(|node| {
                let Some(copy) = &node.copies[partition] else { return false };
                let Some(replica) = &copy.replica else { return false };
                let first = self.nodes[0].copies[partition].as_ref().map(|copy| copy.table);
                let point = (replica.committed(), replica.last(), copy.table.applied);
                point == (committed, committed, committed) && Some(copy.table) == first
            })
        })
    }

    /// Every replica in one line each.
    fn describe(&self) -> String {
        let mut lines = Vec::new();
        for node in &self.nodes {
            for replica in node.copies.iter().flatten().filter_map(|copy| copy.replica.as_ref()) {
                let description = replica.describe();
                lines.push(format!("n{} {description}", description.node.0));
            }
        }
        lines.join("\n")
    }
}
