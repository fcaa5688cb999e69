//! Kinds of runs: everything that can happen, or much of one thing on few nodes.

use std::fmt;
use std::str::FromStr;

use pegasus_wire::Durability;

use crate::options::{Fault, Options};
use crate::random::Random;

/// A kind of run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Everything, in all proportions, and now and then one of the others.
    #[default]
    Usual,
    /// Processes come and go.
    Crashing,
    /// Nodes are cut off and frozen, and clocks are wrong.
    Apart,
    /// The same, and what is said arrives late.
    Late,
    /// A primary with much to send is frozen, and goes on sending when another one leads.
    Behind,
    /// Primaries hand over again and again, and tables are slow.
    Handing,
    /// Logs fail.
    Failing,
    /// Members are removed and taught again, while answers are lost.
    Learning,
    /// The meta service is out of reach, for all or for one, while members change.
    Asking,
    /// Machines lose power, and what was not synced.
    Powerless,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 10] = [
        Profile::Usual,
        Profile::Crashing,
        Profile::Apart,
        Profile::Late,
        Profile::Behind,
        Profile::Handing,
        Profile::Failing,
        Profile::Learning,
        Profile::Asking,
        Profile::Powerless,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Usual => "usual",
            Profile::Crashing => "crashing",
            Profile::Apart => "apart",
            Profile::Late => "late",
            Profile::Behind => "behind",
            Profile::Handing => "handing",
            Profile::Failing => "failing",
            Profile::Learning => "learning",
            Profile::Asking => "asking",
            Profile::Powerless => "powerless",
        }
    }

    /// Makes options that were drawn for everything those of this profile.
    pub(crate) fn shape(self, options: &mut Options, random: &mut Random) {
        if self == Profile::Usual {
            if random.permille(400) {
                Profile::ALL[random.range(1, Profile::ALL.len() as u64 - 1) as usize].shape(options, random);
            }
            return;
        }
        options.nodes = 3;
        options.replicas = 3;
        options.partitions = 1;
        options.durability = Durability::Synced;
        let lease = options.limits.timing.lease_micros;
        options.fault_pause_micros_max = 2 * lease;
        options.chaos_micros = 50 * lease;
        let faults: &[Fault] = match self {
            Profile::Usual => &[],
            Profile::Crashing => &[Fault::Crash, Fault::CrashAll, Fault::BreakStreams, Fault::HandOver],
            Profile::Apart | Profile::Late => {
                &[Fault::Freeze, Fault::Isolate, Fault::CutOneWay, Fault::CutLink, Fault::ClockTurns]
            }
            Profile::Behind => &[Fault::Freeze, Fault::CutLink],
            Profile::Handing => &[Fault::HandOver, Fault::HandOver, Fault::HandOver, Fault::Stop],
            Profile::Failing => &[Fault::Crash, Fault::FailedSync],
            Profile::Learning => &[Fault::Crash, Fault::Isolate, Fault::BreakStreams, Fault::LostCopy],
            Profile::Asking => {
                &[Fault::MetaUnreachable, Fault::MetaUnreachable, Fault::Crash, Fault::Isolate, Fault::HandOver]
            }
            Profile::Powerless => &[Fault::PowerLossAll, Fault::PowerLoss, Fault::Crash, Fault::Isolate],
        };
        options.faults = faults.to_vec();
        match self {
            Profile::Late => {
                options.latency_micros_max = lease / 30;
                options.slow_messages_permille = 100;
            }
            Profile::Behind => {
                options.clients = 8;
                options.reads_permille = 0;
                options.latency_micros_max = lease / 30;
                options.limits.window_mutations_max = 40;
                options.limits.window_bytes_max = 8192;
                options.limits.flight_bytes_max = 32;
            }
            Profile::Handing => {
                options.clients = 8;
                options.reads_permille = 600;
                options.slow_apply_permille = 300;
                options.fault_pause_micros_max = lease / 2;
            }
            Profile::Learning | Profile::Asking => {
                options.nodes = 4;
                options.lost_calls_permille = 100;
                options.return_micros = 0;
            }
            Profile::Powerless => options.durability = Durability::Written,
            Profile::Usual | Profile::Crashing | Profile::Apart | Profile::Failing => {}
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Profile::ALL.into_iter().find(|profile| profile.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Profile::ALL.iter().map(|profile| profile.name()).collect();
            format!("a profile is one of {}; got {text:?}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!("nothing".parse::<Profile>().is_err());
    }
}
