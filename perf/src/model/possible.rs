//! What one hash key may hold, given everything that was asked of it and answered so far. Pure.
//!
//! Usually that is one set of rows. It becomes several where nobody can tell: a write of unknown outcome may take
//! effect at any later time, or never; operations that were under way together took effect in some order; a write near
//! the second of an expiry saw the row or did not. Each of these is a *branch*; answers rule branches out. When none is
//! left, nothing explains what the client was told.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::operation::{Answer, Item, Lifetime, LifetimeChange, Operation, Outcome};
use crate::model::read::explains;
use crate::model::rows::{MARGIN_SECONDS, Moment, Rows, Window};
use crate::model::write::carry_out;

/// One way in which things may have gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Branch {
    rows: Arc<Rows>,
    /// Which of the writes in limbo may still take effect, one bit each.
    limbo: u64,
}

/// A write of unknown outcome.
#[derive(Clone, Debug)]
struct Limbo {
    operation: Operation,
    /// The second at which it was asked.
    asked: u32,
}

/// All branches that explain the answers so far.
#[derive(Clone, Debug)]
pub struct Possible {
    default_ttl: u32,
    branches: Vec<Branch>,
    limbo: Vec<Limbo>,
}

/// What became of a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Some branch explains the answers.
    Explained,
    /// None does.
    Contradiction,
    /// There are too many branches to go on.
    TooMany,
}

impl Possible {
    /// A hash key without rows, in a table with this default time to live (0: none).
    pub fn new(default_ttl: u32) -> Possible {
        let nothing = Branch { rows: Arc::default(), limbo: 0 };
        Possible { default_ttl, branches: vec![nothing], limbo: Vec::new() }
    }

    /// The rows of one branch.
    pub fn some_rows(&self) -> &Rows {
        // There is always one: what contradicts all of them is not kept.
        &self.branches[0].rows
    }

    /// The rows of all branches.
    pub fn all_rows(&self) -> impl Iterator<Item = &Rows> {
        self.branches.iter().map(|branch| &*branch.rows)
    }

    /// How many branches there are.
    pub fn branch_count(&self) -> usize {
        self.branches.len()
    }

    /// How many writes of unknown outcome there were.
    pub fn limbo_count(&self) -> usize {
        self.limbo.len()
    }

    /// Judges operations that were under way together in a window. If nothing explains them, or too much, everything
    /// stays as it was.
    pub fn judge(&mut self, items: &[Item], window: Window) -> Judged {
        let answered: Vec<(&Operation, &Answer)> = items
            .iter()
            .filter_map(|item| match &item.outcome {
                Outcome::Answered(answer) => Some((&item.operation, answer)),
                Outcome::Nothing | Outcome::Unknown => None,
            })
            .collect();
        let unknown = items.iter().filter(|item| item.outcome == Outcome::Unknown && item.operation.is_write());
        let mut limbo = self.limbo.clone();
        limbo.extend(unknown.map(|item| Limbo { operation: item.operation.clone(), asked: window.from }));
        if limbo.len() > u64::BITS as usize || answered.len() >= u32::BITS as usize {
            return Judged::TooMany;
        }
        let fresh = (self.limbo.len()..limbo.len()).fold(0, |bits, index| bits | (1 << index));
        let starts =
            self.branches.iter().map(|branch| Branch { rows: branch.rows.clone(), limbo: branch.limbo | fresh });
        let search = Search { answered: &answered, limbo: &limbo, window, default_ttl: self.default_ttl };
        let Some(ends) = search.run(starts.collect()) else { return Judged::TooMany };
        if ends.is_empty() {
            return Judged::Contradiction;
        }
        self.limbo = limbo;
        self.branches = ends.into_iter().collect();
        self.forget_the_dead(window);
        Judged::Explained
    }

    /// Drops rows that have ended for certain. Not while a write is in limbo: it may have seen them alive.
    fn forget_the_dead(&mut self, window: Window) {
        if !self.limbo.is_empty() {
            return;
        }
        let is_dead = |expiry: u32| expiry != 0 && expiry < window.from.saturating_sub(MARGIN_SECONDS);
        let mut changed = false;
        for branch in &mut self.branches {
            if branch.rows.values().any(|cell| is_dead(cell.expiry)) {
                Arc::make_mut(&mut branch.rows).retain(|_, cell| !is_dead(cell.expiry));
                changed = true;
            }
        }
        if changed && self.branches.len() > 1 {
            self.branches.sort_unstable();
            self.branches.dedup();
        }
    }
}

struct Search<'a> {
    answered: &'a [(&'a Operation, &'a Answer)],
    limbo: &'a [Limbo],
    window: Window,
    default_ttl: u32,
}

/// A place on the way: answered operations that have not taken effect yet, one bit each, and the branch so far.
type Place = (u32, Branch);

impl Search<'_> {
    /// Tries every order, each place once. `None` if there are too many places.
    fn run(&self, starts: Vec<Branch>) -> Option<BTreeSet<Branch>> {
        let all = (0..self.answered.len()).fold(0u32, |bits, index| bits | (1 << index));
        let mut ends = BTreeSet::new();
        let mut stack: Vec<Place> = starts.into_iter().map(|branch| (all, branch)).collect();
        let mut seen: BTreeSet<Place> = stack.iter().cloned().collect();
        while let Some((left, branch)) = stack.pop() {
            if left == 0 {
                // What is in limbo may take effect later just as well.
                ends.insert(branch);
                continue;
            }
            let mut next = self.after_an_answered(left, &branch);
            next.extend(self.after_a_limbo(left, &branch));
            for place in next {
                if !seen.contains(&place) {
                    seen.insert(place.clone());
                    stack.push(place);
                }
            }
            if seen.len() > PLACES_MAX {
                return None;
            }
        }
        (ends.len() <= BRANCHES_MAX).then_some(ends)
    }

    /// The places after one of the answered operations took effect, as it was answered.
    fn after_an_answered(&self, left: u32, branch: &Branch) -> Vec<Place> {
        let mut next = Vec::new();
        for (index, (operation, answer)) in
            self.answered.iter().enumerate().filter(|(index, _)| left & (1 << index) != 0)
        {
            let left = left & !(1 << index);
            if !operation.is_write() {
                if explains(operation, answer, &branch.rows, self.window) {
                    next.push((left, branch.clone()));
                }
                continue;
            }
            for moment in self.moments(operation, &branch.rows, self.window.from) {
                let Some(written) = carry_out(operation, &branch.rows, moment) else { continue };
                if written.answer == **answer {
                    let rows = written.rows.map_or_else(|| branch.rows.clone(), Arc::new);
                    next.push((left, Branch { rows, limbo: branch.limbo }));
                }
            }
        }
        next
    }

    /// The places after one of the writes in limbo took effect.
    fn after_a_limbo(&self, left: u32, branch: &Branch) -> Vec<Place> {
        let mut next = Vec::new();
        for (index, limbo) in self.limbo.iter().enumerate().filter(|(index, _)| branch.limbo & (1 << index) != 0) {
            for moment in self.moments(&limbo.operation, &branch.rows, limbo.asked) {
                let written = carry_out(&limbo.operation, &branch.rows, moment).and_then(|written| written.rows);
                // One that changes nothing may as well not have happened yet.
                let Some(rows) = written.filter(|rows| *rows != *branch.rows) else { continue };
                next.push((left, Branch { rows: Arc::new(rows), limbo: branch.limbo & !(1 << index) }));
            }
        }
        next
    }

    /// All moments that may make a difference to a write which was asked at this second.
    fn moments(&self, operation: &Operation, rows: &Rows, asked: u32) -> Vec<Moment> {
        let whole = Window { from: asked, to: self.window.to.max(asked) };
        let Window { from, to } = whole.with_margin();
        // Between two expiries one second is like the other.
        let mut nows = BTreeSet::from([from]);
        if reads_rows(operation) {
            nows.extend(rows.values().map(|cell| cell.expiry).filter(|expiry| (from + 1..=to).contains(expiry)));
        }
        // The client reads its clock right when it is asked.
        let last_asked = if has_seconds(operation) { (asked + 1).min(whole.to) } else { asked };
        let last_stamp = if self.default_ttl > 0 && has_default(operation) { whole.to } else { asked };
        let mut moments = Vec::new();
        for now in nows {
            for asked in asked..=last_asked {
                for stamp in whole.from..=last_stamp {
                    moments.push(Moment { now, asked, stamp, default_ttl: self.default_ttl });
                }
            }
        }
        moments
    }
}

/// Whether the rows decide what comes of a write.
fn reads_rows(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Increment { .. }
            | Operation::CheckAndSet { .. }
            | Operation::CheckAndMutate { .. }
            | Operation::CompareExchange { .. }
    )
}

/// The lifetimes that a write gives.
fn lifetimes(operation: &Operation) -> Vec<Lifetime> {
    use crate::model::operation::Change;
    let of_changes = |changes: &[Change]| {
        let of_change = |change: &Change| match change {
            Change::Put { lifetime, .. } => Some(*lifetime),
            Change::Delete { .. } | Change::DeleteRange { .. } => None,
        };
        changes.iter().filter_map(of_change).collect()
    };
    match operation {
        Operation::Set { lifetime, .. }
        | Operation::MultiSet { lifetime, .. }
        | Operation::CheckAndSet { lifetime, .. }
        | Operation::CompareExchange { lifetime, .. } => vec![*lifetime],
        Operation::Write { changes } | Operation::CheckAndMutate { changes, .. } => of_changes(changes),
        Operation::Increment { lifetime: LifetimeChange::Seconds(seconds), .. } => vec![Lifetime::Seconds(*seconds)],
        Operation::Increment { .. } => vec![Lifetime::Default],
        _ => Vec::new(),
    }
}

fn has_seconds(operation: &Operation) -> bool {
    lifetimes(operation).iter().any(|lifetime| matches!(lifetime, Lifetime::Seconds(_)))
}

fn has_default(operation: &Operation) -> bool {
    lifetimes(operation).contains(&Lifetime::Default)
}

/// Branches that are kept at most.
const BRANCHES_MAX: usize = 256;
/// Places that one judgement looks at, at most.
const PLACES_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::operation::{Condition, Range};
    use pegasus_wire::messages::data::Check;

    const WINDOW: Window = Window { from: 100, to: 100 };

    fn set(value: &'static str) -> Operation {
        Operation::Set { sort_key: "a".into(), value: value.into(), lifetime: Lifetime::Default }
    }

    fn increment() -> Operation {
        Operation::Increment { sort_key: "a".into(), by: 1, lifetime: LifetimeChange::Keep }
    }

    fn ok(operation: Operation, answer: Answer) -> Item {
        Item { operation, outcome: Outcome::Answered(answer) }
    }

    fn got(value: Option<&'static str>) -> Item {
        ok(Operation::Get { sort_key: "a".into() }, Answer::Value(value.map(Bytes::from)))
    }

    fn unknown(operation: Operation) -> Item {
        Item { operation, outcome: Outcome::Unknown }
    }

    fn possible(items: &[Item]) -> Possible {
        let mut possible = Possible::new(0);
        for item in items {
            assert_eq!(possible.judge(std::slice::from_ref(item), WINDOW), Judged::Explained, "{item:?}");
        }
        possible
    }

    fn judged(before: &[Item], items: &[Item]) -> Judged {
        possible(before).judge(items, WINDOW)
    }

    #[test]
    fn one_after_the_other_is_exact() {
        let before = [got(None), ok(set("1"), Answer::Done), ok(increment(), Answer::Number(2))];
        assert_eq!(judged(&before, &[got(Some("2"))]), Judged::Explained);
        assert_eq!(judged(&before, &[got(Some("1"))]), Judged::Contradiction);
        assert_eq!(judged(&before, &[ok(increment(), Answer::Number(2))]), Judged::Contradiction);
        assert_eq!(judged(&before, &[ok(set("3"), Answer::Refused)]), Judged::Contradiction);
        let mut kept = possible(&before);
        assert_eq!(kept.judge(&[got(None)], WINDOW), Judged::Contradiction);
        assert_eq!((kept.branch_count(), kept.some_rows()[&b"a"[..]].value.as_ref()), (1, &b"2"[..]));
    }

    #[test]
    fn what_was_under_way_together_took_effect_in_some_order() {
        let before = [ok(set("1"), Answer::Done)];
        let both = [ok(increment(), Answer::Number(3)), ok(increment(), Answer::Number(2))];
        assert_eq!(judged(&before, &both), Judged::Explained);
        let twice = [ok(increment(), Answer::Number(2)), ok(increment(), Answer::Number(2))];
        assert_eq!(judged(&before, &twice), Judged::Contradiction, "one increment is lost");
        let flicker = [ok(set("5"), Answer::Done), got(Some("5")), got(Some("1"))];
        assert_eq!(judged(&before, &flicker), Judged::Explained);
        let mut open = possible(&before);
        let race = [ok(set("5"), Answer::Done), ok(set("6"), Answer::Done)];
        assert_eq!((open.judge(&race, WINDOW), open.branch_count()), (Judged::Explained, 2));
        assert_eq!((open.judge(&[got(Some("6"))], WINDOW), open.branch_count()), (Judged::Explained, 1));
        assert_eq!(open.judge(&[got(Some("5"))], WINDOW), Judged::Contradiction);
    }

    #[test]
    fn a_write_of_unknown_outcome_happens_once_or_never_and_at_any_time() {
        let before = [ok(set("1"), Answer::Done), unknown(increment())];
        assert_eq!(judged(&before, &[got(Some("1"))]), Judged::Explained);
        assert_eq!(judged(&before, &[got(Some("2"))]), Judged::Explained);
        assert_eq!(judged(&before, &[got(Some("3"))]), Judged::Contradiction, "twice");
        let late = [&before[..], &[got(Some("1")), ok(increment(), Answer::Number(2))]].concat();
        assert_eq!(judged(&late, &[got(Some("3"))]), Judged::Explained, "later");
        let done = [&late[..], &[got(Some("3"))]].concat();
        assert_eq!(judged(&done, &[got(Some("3"))]), Judged::Explained);
        assert_eq!(judged(&done, &[got(Some("2"))]), Judged::Contradiction, "undone");
        assert_eq!(judged(&done, &[got(Some("4"))]), Judged::Contradiction, "again");
    }

    #[test]
    fn what_failed_never_happens_and_unknown_reads_tell_nothing() {
        let failed = Item { operation: set("9"), outcome: Outcome::Nothing };
        let lost = Item { operation: Operation::Count, outcome: Outcome::Unknown };
        let before = [ok(set("1"), Answer::Done), failed, lost];
        assert_eq!(judged(&before, &[got(Some("9"))]), Judged::Contradiction);
        let kept = possible(&before);
        assert_eq!((kept.branch_count(), kept.limbo_count()), (1, 0));
    }

    #[test]
    fn near_an_expiry_both_is_possible_and_an_answer_decides() {
        let short = Operation::Set { sort_key: "a".into(), value: "7".into(), lifetime: Lifetime::Until(102) };
        let mut open = possible(&[ok(short.clone(), Answer::Done)]);
        let near = Window { from: 101, to: 101 };
        let conditional = Operation::CheckAndMutate {
            condition: Condition {
                sort_key: "a".into(),
                check: Check::Exist,
                operand: Bytes::new(),
                return_value: false,
            },
            changes: vec![crate::model::operation::Change::DeleteRange { range: Range::all() }],
        };
        for exists in [true, false] {
            let answer = Answer::Checked { written: exists, exists, value: None };
            let mut open = open.clone();
            assert_eq!(open.judge(&[ok(conditional.clone(), answer)], near), Judged::Explained);
        }
        for (window, number) in [(near, 8), (near, 1), (WINDOW, 8)] {
            let answer = Answer::Number(number);
            assert_eq!(open.clone().judge(&[ok(increment(), answer)], window), Judged::Explained, "{number}");
        }
        let far = Window { from: 104, to: 104 };
        assert_eq!(open.clone().judge(&[ok(increment(), Answer::Number(8))], far), Judged::Contradiction);
        assert_eq!(open.judge(&[ok(increment(), Answer::Number(1))], far), Judged::Explained);
        assert_eq!(open.some_rows()[&b"a"[..]].expiry, 0, "a new row");
    }

    #[test]
    fn seconds_count_from_the_moment_of_asking() {
        let set = Operation::Set { sort_key: "a".into(), value: "v".into(), lifetime: Lifetime::Seconds(1000) };
        let mut open = Possible::new(0);
        assert_eq!(open.judge(&[ok(set, Answer::Done)], Window { from: 100, to: 105 }), Judged::Explained);
        let expiries: Vec<u32> = open.all_rows().map(|rows| rows[&b"a"[..]].expiry).collect();
        assert_eq!(expiries, [1100, 1101]);
    }

    #[test]
    fn the_default_lifetime_counts_from_the_stamp() {
        let mut open = Possible::new(1000);
        let window = Window { from: 100, to: 101 };
        assert_eq!(open.judge(&[ok(set("1"), Answer::Done)], window), Judged::Explained);
        let expiries: Vec<u32> = open.all_rows().map(|rows| rows[&b"a"[..]].expiry).collect();
        assert_eq!(expiries, [1100, 1101]);
    }

    #[test]
    fn the_dead_are_forgotten() {
        let short = Operation::Set { sort_key: "a".into(), value: "7".into(), lifetime: Lifetime::Until(102) };
        let mut open = possible(&[ok(short, Answer::Done)]);
        assert_eq!(open.judge(&[got(None)], Window { from: 104, to: 104 }), Judged::Explained);
        assert!(open.some_rows().is_empty());
    }

    #[test]
    fn too_many_branches_are_told() {
        let writes: Vec<Item> = (0..40).map(|_| ok(set("1"), Answer::Done)).collect();
        assert_eq!(Possible::new(0).judge(&writes, WINDOW), Judged::TooMany);
        let mut open = Possible::new(0);
        let values = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"];
        let races = values.map(|value| {
            let sort_key = Bytes::from(value);
            unknown(Operation::Set { sort_key, value: value.into(), lifetime: Lifetime::Default })
        });
        let mut last = Judged::Explained;
        for race in races {
            last = open.judge(&[race, ok(Operation::Count, Answer::Count(0))], WINDOW);
            if last != Judged::Explained {
                break;
            }
        }
        assert_eq!(last, Judged::Explained, "a count of nothing rules all of them out");
        let any = ok(Operation::Get { sort_key: "x".into() }, Answer::Value(None));
        assert_eq!(open.judge(&[any], WINDOW), Judged::TooMany);
    }
}
