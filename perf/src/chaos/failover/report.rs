//! What `failover` says at its end. The last line is the verdict.

use serde::Serialize;

use crate::chaos::failover::Options;
use crate::chaos::recorder::Recorded;
use crate::chaos::settle::{FINAL_CLIENT, Settled};
use crate::chaos::stale::stale_reads;
use crate::chaos::verdict::Findings;
use crate::report::TextTable;

/// One kill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Round {
    /// Who.
    pub node: String,
    /// How many partitions it was primary of.
    pub partitions: usize,
    /// Until each of them took writes again, ascending; those that never did are missing.
    pub recovered_s: Vec<f64>,
    /// From the signal until all partitions were whole again.
    pub whole_s: f64,
}

/// What `failover` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the clients.
    pub seed: u64,
    /// Frozen instead of killed.
    pub stop: bool,
    /// What was found.
    #[serde(flatten)]
    pub findings: Findings,
    /// The kills.
    pub rounds: Vec<Round>,
    /// Over all kills and partitions.
    pub median_s: f64,
    /// Over all kills and partitions.
    pub max_s: f64,
    /// Reads at the end that found what had been overwritten.
    pub lost_writes: usize,
    /// Reads during the run that found what had been overwritten.
    pub stale_reads: usize,
    /// What this machine did not allow.
    pub missing: Vec<String>,
    /// Where the cluster lies, if it was kept.
    pub directory: Option<String>,
}

impl Round {
    /// One line on it.
    pub fn line(&self) -> String {
        format!(
            "{}, primary of {}: writes after {:.2} s (median), {:.2} s (max); whole after {:.2} s",
            self.node,
            self.partitions,
            median(&self.recovered_s),
            self.recovered_s.last().copied().unwrap_or(0.0),
            self.whole_s
        )
    }
}

impl Report {
    /// Judges what was measured and recorded.
    pub fn of(
        options: &Options,
        rounds: Vec<Round>,
        mut recorded: Recorded,
        mut settled: Settled,
        mut problems: Vec<String>,
        missing: Vec<String>,
    ) -> Report {
        recorded.merge(std::mem::take(&mut settled.recorded));
        let (mut lost_writes, mut stale) = (0, 0);
        for (_, operations) in recorded.history.keys() {
            let wrong = stale_reads(operations);
            let lost = wrong.iter().filter(|read| read.client == FINAL_CLIENT).count();
            lost_writes += lost;
            stale += wrong.len() - lost;
        }
        if lost_writes + stale > 0 {
            problems.push(format!("{lost_writes} acknowledged writes are lost, {stale} reads were stale"));
        }
        let mut all: Vec<f64> = rounds.iter().flat_map(|round| round.recovered_s.iter().copied()).collect();
        all.sort_by(f64::total_cmp);
        Report {
            seed: options.seed,
            stop: options.stop,
            findings: Findings::of(recorded, settled, problems),
            median_s: median(&all),
            max_s: all.last().copied().unwrap_or(0.0),
            rounds,
            lost_writes,
            stale_reads: stale,
            missing,
            directory: None,
        }
    }

    /// The report for people. Its last line is the verdict.
    pub fn text(&self) -> String {
        let mut table =
            TextTable::new(&["kill", "node", "partitions", "writes again (s), median", "max", "all whole (s)"]);
        for (index, round) in self.rounds.iter().enumerate() {
            table.row(vec![
                (index + 1).to_string(),
                round.node.clone(),
                round.partitions.to_string(),
                format!("{:.2}", median(&round.recovered_s)),
                format!("{:.2}", round.recovered_s.last().copied().unwrap_or(0.0)),
                format!("{:.2}", round.whole_s),
            ]);
        }
        let mut text = table.render() + &self.findings.text();
        for missing in &self.missing {
            text += &format!("not on this machine: {missing}\n");
        }
        if let Some(directory) = &self.directory {
            text += &format!("the cluster's logs and data are in {directory}\n");
        }
        let counts = self.findings.counts;
        text + &format!(
            "failover: {} seed {}, {} {}: writes again after median {:.2} s, max {:.2} s; lost acknowledged writes {}, \
             stale reads {}; operations {}, ok {}, failed {}, unknown {}\n",
            self.findings.verdict,
            self.seed,
            self.rounds.len(),
            if self.stop { "times SIGSTOP for 10 s" } else { "times kill -9" },
            self.median_s,
            self.max_s,
            self.lost_writes,
            self.stale_reads,
            counts.operations,
            counts.ok,
            counts.failed,
            counts.unknown
        )
    }
}

/// The middle one; of two the upper. The figures are ascending.
fn median(ascending: &[f64]) -> f64 {
    ascending.get(ascending.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use pegasus_history::{Action, Answer, Operation, Outcome};

    use super::*;
    use crate::chaos::recorder::Performed;
    use crate::chaos::verdict::Verdict;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn report(found: u64) -> Report {
        let options = Line::try_parse_from(["failover", "--kills", "2"]).unwrap().options;
        let round = |recovered_s: Vec<f64>| Round { node: "node1".into(), partitions: 3, recovered_s, whole_s: 4.0 };
        let write = |at_us, value| Operation {
            client: 1,
            invoked_us: at_us,
            returned_us: at_us + 10,
            action: Action::Write(value),
            outcome: Outcome::Ok(Answer::Done),
        };
        let outcome = Outcome::Ok(Answer::Row(Some(found)));
        let read = Operation { client: FINAL_CLIENT, action: Action::Read, outcome, ..write(100, 0) };
        let mut recorded = Recorded::default();
        for operation in [write(0, 1), write(50, 2), read] {
            recorded.add(3, Performed { operation, damage: None });
        }
        let rounds = vec![round(vec![1.0, 2.0, 3.0]), round(vec![2.5, 2.5, 2.75])];
        Report::of(&options, rounds, recorded, Settled::default(), Vec::new(), Vec::new())
    }

    #[test]
    fn the_last_line_has_the_figures() {
        let text = report(2).text();
        let last = "failover: OK seed 1, 2 times kill -9: writes again after median 2.50 s, max 3.00 s; lost \
                    acknowledged writes 0, stale reads 0; operations 3, ok 3, failed 0, unknown 0";
        assert_eq!(text.lines().last(), Some(last), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }

    #[test]
    fn a_lost_write_is_counted_and_a_violation() {
        let report = report(1);
        assert_eq!((report.lost_writes, report.stale_reads), (1, 0));
        assert_eq!(report.findings.verdict, Verdict::Violation);
        assert!(report.text().contains("lost acknowledged writes 1"));
    }

    #[test]
    fn the_median_of_nothing_is_zero() {
        assert_eq!((median(&[]), median(&[1.0]), median(&[1.0, 2.0, 3.0])), (0.0, 1.0, 2.0));
    }
}
