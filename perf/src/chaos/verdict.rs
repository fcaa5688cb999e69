//! What a run says at its end. The last line is the verdict.

use std::collections::BTreeMap;
use std::fmt;

use pegasus_history::{Checked, History};
use serde::Serialize;

use crate::chaos::course::Event;
use crate::chaos::faults::Kind;
use crate::chaos::outage::longest_outage_us;
use crate::chaos::recorder::{Counts, Recorded};
use crate::chaos::rows::{hash_key, partition_of};
use crate::chaos::settle::Settled;
use crate::chaos::switch::Traffic;

/// What a run comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Everything that was demanded is so.
    Ok,
    /// Something is wrong.
    Violation,
    /// The history could not be judged.
    Undecided,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Verdict::Ok => "OK",
            Verdict::Violation => "VIOLATION",
            Verdict::Undecided => "UNDECIDED",
        })
    }
}

/// What was found in a history and in the end of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// What it comes down to.
    pub verdict: Verdict,
    /// How operations ended.
    pub counts: Counts,
    /// What is wrong, apart from the histories of keys.
    pub problems: Vec<String>,
    /// For each key whose history is not linearizable, the reason.
    pub witnesses: Vec<String>,
    /// Keys whose history could not be judged.
    pub undecided: Vec<String>,
    /// How long it took at the end until everything worked and was equal.
    pub settled_s: f64,
}

impl Findings {
    /// Judges what was recorded in a run and at its end.
    pub fn of(recorded: Recorded, settled: Settled, mut problems: Vec<String>) -> Findings {
        let settled_s = settled.took.as_secs_f64();
        let mut all = recorded;
        all.merge(settled.recorded);
        problems.append(&mut all.damaged);
        problems.extend(settled.problems);
        let Checked { violations, undecided, .. } = all.history.check(STEPS_MAX);
        let verdict = match (problems.is_empty() && violations.is_empty(), undecided.is_empty()) {
            (false, _) => Verdict::Violation,
            (true, false) => Verdict::Undecided,
            (true, true) => Verdict::Ok,
        };
        let witnesses = violations.iter().map(|(key, witness)| format!("{}: {witness}", hash_key(*key))).collect();
        let undecided = undecided.into_iter().map(hash_key).collect();
        Findings { verdict, counts: all.counts, problems, witnesses, undecided, settled_s }
    }

    /// What is wrong, for people; empty if nothing is.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text += &format!("wrong: {problem}\n");
        }
        for witness in &self.witnesses {
            text += &format!("not linearizable: {witness}");
        }
        for key in &self.undecided {
            text += &format!("undecided: {key} has too many operations that may be ordered in too many ways\n");
        }
        text
    }
}

/// What `chaos` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Gives the same faults again.
    pub seed: u64,
    /// How long they went on.
    pub seconds: u64,
    /// What was found.
    #[serde(flatten)]
    pub findings: Findings,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The longest time in which a partition was asked and did not answer.
    pub longest_outage_s: f64,
    /// Packets, if there was a switch.
    pub traffic: Option<Traffic>,
    /// What this machine did not allow.
    pub missing: Vec<String>,
    /// What happened when.
    pub events: Vec<Event>,
    /// Where the cluster lies, if it was kept.
    pub directory: Option<String>,
}

impl Report {
    /// The report for people. Its last line is the verdict.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.findings.verdict != Verdict::Ok {
            for event in &self.events {
                text += &format!("{:10.3} s  {}\n", event.at_s, event.what);
            }
            text += &self.findings.text();
        }
        for missing in &self.missing {
            text += &format!("not on this machine: {missing}\n");
        }
        if let Some(Traffic { forwarded, lost }) = self.traffic {
            text += &format!("packets: {forwarded} passed on, {lost} lost\n");
        }
        text += &format!("settled within {:.1} s of the last fault\n", self.findings.settled_s);
        if let Some(directory) = &self.directory {
            text += &format!("the cluster's logs and data are in {directory}\n");
        }
        text + &self.verdict_line() + "\n"
    }

    /// The verdict, one line.
    pub fn verdict_line(&self) -> String {
        let Counts { operations, ok, failed, unknown } = self.findings.counts;
        let faults: Vec<String> = Kind::ALL
            .iter()
            .map(|kind| format!("{} {}", kind.name(), self.faults.get(kind.name()).unwrap_or(&0)))
            .collect();
        format!(
            "chaos: {} seed {}, {} s: operations {operations}, ok {ok}, failed {failed}, unknown {unknown}, \
             faults ({}), longest outage {:.1} s",
            self.findings.verdict,
            self.seed,
            self.seconds,
            faults.join(", "),
            self.longest_outage_s
        )
    }
}

/// The longest outage of any partition, in seconds.
pub fn longest_outage_s(history: &History, partition_count: u32) -> f64 {
    let mut partitions = vec![Vec::new(); partition_count as usize];
    for (key, operations) in history.keys() {
        partitions[partition_of(key, partition_count) as usize].extend_from_slice(operations);
    }
    let longest = partitions.iter().map(|operations| longest_outage_us(operations)).max();
    longest.unwrap_or(0) as f64 / 1e6
}

/// Steps for one key; a minute or two.
const STEPS_MAX: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use pegasus_history::{Action, Answer, Operation, Outcome};

    use super::*;
    use crate::chaos::recorder::Performed;

    fn recorded(found: Option<u64>) -> Recorded {
        let mut recorded = Recorded::default();
        let write = Operation {
            client: 1,
            invoked_us: 0,
            returned_us: 10,
            action: Action::Write(1),
            outcome: Outcome::Ok(Answer::Done),
        };
        let outcome = Outcome::Ok(Answer::Row(found));
        let read = Operation { client: 2, invoked_us: 20, returned_us: 1_500_020, action: Action::Read, outcome };
        recorded.add(7, Performed { operation: write, damage: None });
        recorded.add(7, Performed { operation: read, damage: None });
        recorded
    }

    fn report(found: Option<u64>, problems: Vec<String>) -> Report {
        let recorded = recorded(found);
        let longest_outage_s = longest_outage_s(&recorded.history, 8);
        Report {
            seed: 9,
            seconds: 60,
            findings: Findings::of(recorded, Settled::default(), problems),
            faults: BTreeMap::from([("kill", 3)]),
            longest_outage_s,
            traffic: None,
            missing: vec![],
            events: vec![Event { at_s: 1.5, what: "kill node2".to_owned() }],
            directory: Some("here".to_owned()),
        }
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        let text = report(Some(1), vec![]).text();
        let last = "chaos: OK seed 9, 60 s: operations 2, ok 2, failed 0, unknown 0, \
                    faults (kill 3, stop 0, cut 0, delay 0, disk 0), longest outage 1.5 s";
        assert_eq!(text.lines().last(), Some(last));
        assert!(!text.contains("kill node2"));
    }

    #[test]
    fn a_violation_shows_its_witness_and_what_happened() {
        let text = report(None, vec![]).text();
        assert!(text.lines().last().unwrap().starts_with("chaos: VIOLATION seed 9"), "{text}");
        for part in ["not linearizable: key7", "kill node2", "found no row", "write 1"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        let text = report(Some(1), vec!["node2 ended by itself".to_owned()]).text();
        assert!(text.contains("wrong: node2 ended by itself") && text.contains("VIOLATION"), "{text}");
    }
}
