//! Which operation comes next: shares such as `get=50,set=50`.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use rand::rngs::SmallRng;

/// What a workload can do to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reads the row.
    Get,
    /// Writes the row.
    Set,
    /// Deletes the row.
    Delete,
    /// Asks whether the row exists.
    Exist,
    /// Adds to a number beside the row.
    Increment,
    /// Writes the row if it is there.
    CheckAndSet,
    /// Deletes a range of sort keys beside the row.
    DeleteRange,
    /// Reads 100 rows of a wide hash key.
    MultiGet,
    /// Scans the 1000 rows of a wide hash key.
    Scan,
}

impl Operation {
    /// All operations.
    pub const ALL: [Operation; 9] = [
        Operation::Get,
        Operation::Set,
        Operation::Delete,
        Operation::Exist,
        Operation::Increment,
        Operation::CheckAndSet,
        Operation::DeleteRange,
        Operation::MultiGet,
        Operation::Scan,
    ];

    /// The word for it, the one the shell uses too.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Set => "set",
            Operation::Delete => "del",
            Operation::Exist => "exist",
            Operation::Increment => "incr",
            Operation::CheckAndSet => "cas",
            Operation::DeleteRange => "del_range",
            Operation::MultiGet => "multi_get",
            Operation::Scan => "scan",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Shares of operations.
///
/// Invariant: at least one share is above zero, and no operation appears twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    shares: Vec<(Operation, u32)>,
    total: u32,
}

impl Mix {
    /// Nothing but this operation.
    pub fn only(operation: Operation) -> Mix {
        Mix { shares: vec![(operation, 1)], total: 1 }
    }

    /// The next operation.
    pub fn next(&self, random: &mut SmallRng) -> Operation {
        let mut point = random.random_range(0..self.total);
        for (operation, share) in &self.shares {
            if point < *share {
                return *operation;
            }
            point -= share;
        }
        unreachable!("the shares add up to the total")
    }

    /// Whether the operation has a share.
    pub fn has(&self, operation: Operation) -> bool {
        self.shares.iter().any(|(known, _)| *known == operation)
    }

    /// Whether some operation is on hash keys with many rows.
    pub fn needs_wide_rows(&self) -> bool {
        self.has(Operation::MultiGet) || self.has(Operation::Scan)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let mut mix = Mix { shares: Vec::new(), total: 0 };
        for part in text.split(',') {
            let (name, share) = part.split_once('=').ok_or_else(|| format!("{part:?} is not of the form get=50"))?;
            let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name);
            let operation = operation.ok_or_else(|| {
                let known = Operation::ALL.map(Operation::name).join(", ");
                format!("unknown operation {name:?}; there are {known}")
            })?;
            let share: u32 = share.parse().map_err(|error| format!("the share of {name} is not a number: {error}"))?;
            if share > SHARE_MAX {
                return Err(format!("the share of {name} is over {SHARE_MAX}"));
            }
            if mix.shares.iter().any(|(known, _)| *known == operation) {
                return Err(format!("{name} appears twice"));
            }
            if share > 0 {
                mix.shares.push((operation, share));
                mix.total += share;
            }
        }
        if mix.total == 0 { Err("some operation must have a share above zero".to_owned()) } else { Ok(mix) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (operation, share)) in self.shares.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(out, "{comma}{operation}={share}")?;
        }
        Ok(())
    }
}

/// The largest share; shares are relative, so per cent or per mille are usual.
const SHARE_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn shares_come_true() {
        let mix: Mix = "get=90,set=9,del=1,exist=0".parse().unwrap();
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts: BTreeMap<Operation, u32> = BTreeMap::new();
        for _ in 0..100_000 {
            *counts.entry(mix.next(&mut random)).or_default() += 1;
        }
        assert!((89_000..91_000).contains(&counts[&Operation::Get]), "{counts:?}");
        assert!((8_500..9_500).contains(&counts[&Operation::Set]), "{counts:?}");
        assert!((800..1_200).contains(&counts[&Operation::Delete]), "{counts:?}");
        assert!(!counts.contains_key(&Operation::Exist));
    }

    #[test]
    fn text_round_trips() {
        let mix: Mix = "get=50,set=50".parse().unwrap();
        assert_eq!(mix.to_string(), "get=50,set=50");
        assert!(!mix.needs_wide_rows());
        assert!(Mix::only(Operation::Scan).needs_wide_rows());
        for operation in Operation::ALL {
            assert_eq!(Mix::only(operation).to_string().parse(), Ok(Mix::only(operation)));
        }
        assert_eq!(Mix::only(Operation::Set).next(&mut SmallRng::seed_from_u64(0)), Operation::Set);
    }

    #[test]
    fn bad_texts_say_what_is_wrong() {
        let cases = [
            ("", "form"),
            ("get", "form"),
            ("fly=1", "unknown operation"),
            ("get=x", "not a number"),
            ("get=-1", "not a number"),
            ("get=1,get=2", "twice"),
            ("get=0", "above zero"),
            ("get=4294967295,set=1", "over"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
