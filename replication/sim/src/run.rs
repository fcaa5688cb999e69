//! One run: the phases, and what is said when something is found.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pegasus_wire::Decree;

use crate::options::{Options, Planted};
use crate::profile::Profile;
use crate::random::Random;
use crate::statistics::Statistics;
use crate::trace::Trace;
use crate::world::World;

/// How long a healed cluster may take to serve and converge, in leases.
const LIVENESS_LEASES: u64 = 150;
/// How long what stays broken may keep the others from serving, in leases.
const LASTING_LEASES: u64 = 50;
/// How long an operator waits before he looks at what is stuck, in leases.
const OPERATOR_LEASES: u64 = 20;
/// Steps that the check of one key's history may take.
const HISTORY_STEPS_MAX: u64 = 200_000;

/// What was found, and what led to it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind of run.
    pub profile: Profile,
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
        let Failure { profile, seed, violation, .. } = self;
        writeln!(out, "seed {seed}: {violation}")?;
        write!(out, "replay: cargo run -p pegasus-sim -- --profile {profile} --seed {seed} --trace")
    }
}

/// Runs a seed, with or without something planted.
///
/// # Errors
/// What was found.
pub fn run_seed(profile: Profile, seed: u64, planted: Planted, trace: bool) -> Result<Statistics, Box<Failure>> {
    let mut random = Random::new(seed);
    let mut options = Options::from_seed(&mut random);
    profile.shape(&mut options, &mut random);
    options.planted = planted;
    let mut world = World::new(options, random, Trace::new(trace));
    // A replica that finds its own invariants broken panics; that is a finding like any other.
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err();
    let violation = match panicked {
        None => world.violation.take(),
        Some(panic) => Some(format!("a replica stopped: {}", panic_text(panic.as_ref()))),
    };
    match violation {
        None => Ok(world.statistics),
        Some(violation) => Err(Box::new(Failure { profile, seed, violation, trace: world.trace.into_lines() })),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl World {
    fn run(&mut self) {
        let (chaos, lease) = (self.options.chaos_micros, self.options.limits.timing.lease_micros);
        self.run_until(chaos);
        self.outlast();
        let deadline = self.now + LIVENESS_LEASES * lease;
        self.operator_from = self.now + OPERATOR_LEASES * lease;
        self.run_while("every partition takes writes again", deadline, |world| !world.has_recovered());
        self.run_while("every partition has all its members", deadline, |world| !world.is_whole());
        self.busy = false;
        self.run_while("all copies are equal", deadline, |world| !world.has_converged());
        self.check_history();
    }

    /// While one thing stays broken, what had all its members serves again without whoever is concerned.
    fn outlast(&mut self) {
        let Some(lasting) = self.options.lasting.filter(|_| self.violation.is_none()) else { return };
        let node = self.random.index(self.nodes.len());
        let whole = |partition: &usize| {
            let configuration = self.meta.configuration(*partition);
            let sound = configuration.members().all(|member| self.is_sound(member, *partition));
            sound && configuration.members().count() > 1
        };
        let concerned: Vec<usize> = (0..self.options.partitions).filter(whole).collect();
        self.afflict(node, lasting);
        let deadline = self.now + LASTING_LEASES * self.options.limits.timing.lease_micros;
        let served = |world: &World, partition: usize| {
            // A proposal that was under way may have left it alone.
            let alone =
                world.meta.configuration(partition).members().all(|member| world.names.get(&member) == Some(&node));
            alone || (0..world.nodes.len()).any(|node| world.serves(node, partition))
        };
        self.run_while("what had its members is served without one of them", deadline, |world| {
            !concerned.iter().all(|partition| served(world, *partition))
        });
        self.heal();
    }

    /// Runs on while the cluster is not where it should be. It must get there before the deadline.
    fn run_while(&mut self, goal: &str, deadline: u64, waits: impl Fn(&World) -> bool) {
        while self.violation.is_none() && waits(self) {
            if self.now >= deadline {
                let state = self.describe();
                let text = format!("it was never reached that {goal}\n{state}");
                return self.check(|| "liveness".to_owned(), Err(text));
            }
            if self.now >= self.operator_from {
                self.operate();
            }
            let next = self.now + self.options.limits.timing.lease_micros / 4;
            self.run_until(next);
        }
    }

    fn has_recovered(&self) -> bool {
        (0..self.options.partitions).all(|partition| {
            let serving = (0..self.nodes.len()).filter(|node| self.serves(*node, partition)).count();
            self.partitions[partition].healed_writes > 0 && serving == 1
        })
    }

    fn is_whole(&self) -> bool {
        let members = |partition| self.meta.configuration(partition).members().count();
        (0..self.options.partitions).all(|partition| members(partition) == self.options.replicas)
    }

    fn has_converged(&self) -> bool {
        (0..self.options.partitions).all(|partition| {
            let committed = self.partitions[partition].checker.committed();
            let mut members = self.meta.configuration(partition).members();
            members.all(|member| self.is_complete(member, partition, committed))
        })
    }

    /// True if the member has committed and applied everything, and nothing else. That its rows are right then has been
    /// checked with every apply.
    fn is_complete(&self, member: pegasus_wire::NodeId, partition: usize, committed: Decree) -> bool {
        let Some(node) = self.node_named(member) else { return false };
        let Some(copy) = &self.nodes[node].copies[partition] else { return false };
        let Some(replica) = &copy.replica else { return false };
        let point = (replica.committed(), replica.last(), copy.table.applied);
        point == (committed, committed, committed) && self.partitions[partition].checker.on_table(&copy.table).is_ok()
    }

    /// What the clients were told must have an explanation, whatever the servers think of it.
    fn check_history(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.close_history();
        let checked = self.history.check(HISTORY_STEPS_MAX);
        self.statistics.undecided += checked.undecided.len() as u64;
        if let Some((key, witness)) = checked.violations.first() {
            let text = format!("the history of key {key} has no explanation\n{witness}");
            self.check(|| "history".to_owned(), Err(text));
        }
    }

    /// What is in force, and every replica in one line each.
    fn describe(&self) -> String {
        let in_force = (0..self.options.partitions)
            .map(|partition| format!("p{partition} {}", crate::meta_link::say(self.meta.configuration(partition))));
        let replicas = self.nodes.iter().enumerate().flat_map(|(index, node)| {
            let replicas = node.copies.iter().flatten().filter_map(|copy| copy.replica.as_ref());
            replicas.map(move |replica| format!("n{} {}", index + 1, replica.describe()))
        });
        let reported = (0..self.options.partitions).flat_map(|partition| {
            let members = self.meta.configuration(partition).members();
            members.map(move |member| {
                format!("p{partition} {} reported {:?}", member.0, self.meta.report(member, partition))
            })
        });
        in_force.chain(reported).chain(replicas).collect::<Vec<_>>().join("\n")
    }
}
