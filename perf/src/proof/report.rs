//! What a proof says at its end. The last line is the verdict.

use serde::Serialize;

use crate::chaos::course::Event;
use crate::chaos::verdict::Verdict;

/// What the work of a proof came to.
#[derive(Clone, Debug)]
pub struct Conclusion<D> {
    /// What was counted, for the last line.
    pub counts: String,
    /// What people want to see above it: tables, figures. Ends in a newline, or is empty.
    pub text: String,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What could not be judged; without a problem the verdict is then `UNDECIDED`.
    pub undecided: Vec<String>,
    /// For machines.
    pub details: D,
}

/// A proof, as it is written down.
#[derive(Clone, Debug, Serialize)]
pub struct Report<D> {
    /// Which.
    pub command: &'static str,
    /// What it comes to.
    pub verdict: Verdict,
    /// Gives the same operations and the same kills again.
    pub seed: u64,
    /// How often nodes were killed.
    pub kills: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What could not be judged.
    pub undecided: Vec<String>,
    /// What happened when.
    pub events: Vec<Event>,
    /// Where the cluster lies, if it was kept.
    pub directory: Option<String>,
    /// What was found.
    #[serde(flatten)]
    pub details: D,
    #[serde(skip)]
    text: String,
    #[serde(skip)]
    counts: String,
}

impl<D> Report<D> {
    /// The report of a proof in which nodes were killed so often, with what happened meanwhile.
    pub fn new(
        command: &'static str,
        seed: u64,
        conclusion: Conclusion<D>,
        events: Vec<Event>,
        kills: u64,
    ) -> Report<D> {
        let Conclusion { counts, text, problems, undecided, details } = conclusion;
        let verdict = match (problems.is_empty(), undecided.is_empty()) {
            (false, _) => Verdict::Violation,
            (true, false) => Verdict::Undecided,
            (true, true) => Verdict::Ok,
        };
        Report { command, verdict, seed, kills, problems, undecided, events, directory: None, details, text, counts }
    }

    /// The report for people. Its last line is the verdict.
    pub fn text(&self) -> String {
        let mut text = self.text.clone();
        if self.verdict != Verdict::Ok {
            for event in &self.events {
                text += &format!("{:10.3} s  {}\n", event.at_s, event.what);
            }
        }
        for problem in &self.problems {
            text += &format!("wrong: {problem}\n");
        }
        for open in &self.undecided {
            text += &format!("undecided: {open}\n");
        }
        if let Some(directory) = &self.directory {
            text += &format!("the cluster's logs and data are in {directory}\n");
        }
        text + &self.verdict_line() + "\n"
    }

    /// The verdict, one line.
    pub fn verdict_line(&self) -> String {
        let kills = if self.kills > 0 { format!(", kills {}", self.kills) } else { String::new() };
        format!("{}: {} seed {}: {}{kills}", self.command, self.verdict, self.seed, self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(problems: &[&str], undecided: &[&str], kills: u64) -> Report<serde_json::Value> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let conclusion = Conclusion {
            counts: "rows 5".to_owned(),
            text: "a table\n".to_owned(),
            problems: owned(problems),
            undecided: owned(undecided),
            details: serde_json::json!({"rows": 5}),
        };
        let events = vec![Event { at_s: 1.5, what: "kill node2".to_owned() }];
        Report::new("scans", 9, conclusion, events, kills)
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        assert_eq!(report(&[], &[], 0).text(), "a table\nscans: OK seed 9: rows 5\n");
        assert_eq!(report(&[], &[], 3).verdict_line(), "scans: OK seed 9: rows 5, kills 3");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_happened() {
        let text = report(&["a row is lost"], &["too many ways"], 1).text();
        for part in ["kill node2", "wrong: a row is lost", "undecided: too many ways", "scans: VIOLATION seed 9"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert_eq!(report(&[], &["too many ways"], 0).verdict, Verdict::Undecided);
    }

    #[test]
    fn machines_get_the_details_beside_the_verdict() {
        let json = serde_json::to_value(report(&[], &[], 2)).unwrap();
        assert_eq!((&json["verdict"], &json["rows"], &json["kills"]), (&"OK".into(), &5.into(), &2.into()));
        assert!(json.get("text").is_none());
    }
}
