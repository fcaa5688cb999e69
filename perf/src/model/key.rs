//! One hash key under test: what it may hold, and what was asked of it.

use std::collections::VecDeque;

use bytes::Bytes;
use rand::rngs::SmallRng;

use crate::model::draw::Artist;
use crate::model::operation::Item;
use crate::model::possible::{Judged, Possible};
use crate::model::rows::{Life, Rows, Window};
use crate::model::text::{self, rows_text};
use crate::model::words::SortKeys;

/// A hash key and everything known of it.
#[derive(Debug)]
pub struct Key {
    /// The hash key.
    pub hash_key: Bytes,
    /// It gets many rows, and large ones.
    pub wide: bool,
    /// Bursts that it has seen.
    bursts: u64,
    /// There were too many possibilities to go on.
    given_up: bool,
    sort_keys: SortKeys,
    possible: Possible,
    history: VecDeque<Entry>,
}

/// Operations that were under way together.
#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    window: Window,
    items: Vec<Item>,
}

impl Key {
    /// A hash key that nobody has written to.
    pub fn new(hash_key: Bytes, default_ttl: u32, wide: bool, random: &mut SmallRng) -> Key {
        let sort_keys = SortKeys::draw(random, if wide { WIDE_ROWS } else { 0 });
        let possible = Possible::new(default_ttl);
        Key { hash_key, wide, bursts: 0, given_up: false, sort_keys, possible, history: VecDeque::new() }
    }

    /// Draws operations on it.
    pub fn artist<'a>(&'a self, random: &'a mut SmallRng, now: u32) -> Artist<'a> {
        Artist { random, sort_keys: &self.sort_keys, rows: self.possible.some_rows(), now, wide: self.wide }
    }

    /// True if writes of unknown outcome may still take effect.
    pub fn has_limbo(&self) -> bool {
        self.possible.limbo_count() > 0
    }

    /// True if it is time to leave it: too much is open, or it has seen enough.
    pub fn is_spent(&self) -> bool {
        let limbo_max = if self.wide { 0 } else { LIMBO_MAX };
        self.given_up
            || self.possible.limbo_count() > limbo_max
            || self.possible.branch_count() > BRANCHES_SPENT
            || self.bursts > if self.wide { WIDE_BURSTS_MAX } else { BURSTS_MAX }
    }

    /// The least and the greatest number of rows that it may have in a window, if nothing is in limbo.
    pub fn row_count(&self, window: Window) -> Option<(u64, u64)> {
        let count = |rows: &Rows, counts: fn(Life) -> bool| {
            rows.values().filter(|cell| counts(cell.life(window))).count() as u64
        };
        let least = self.possible.all_rows().map(|rows| count(rows, |life| life == Life::Sure)).min();
        let most = self.possible.all_rows().map(|rows| count(rows, |life| life != Life::Over)).max();
        least.zip(most).filter(|_| !self.has_limbo() && !self.given_up)
    }

    /// Judges operations that were under way together. Gives what is wrong, for people.
    pub fn judge(&mut self, items: Vec<Item>, window: Window) -> (Judged, Option<String>) {
        self.bursts += 1;
        let judged = self.possible.judge(&items, window);
        self.given_up |= judged == Judged::TooMany;
        self.history.push_back(Entry { number: self.bursts, window, items });
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
        let difference = (judged == Judged::Contradiction).then(|| self.difference());
        (judged, difference)
    }

    /// What was asked lately, the last of which nothing explains, and what there could be before it.
    fn difference(&self) -> String {
        let mut out = format!("hash key {}, seconds since 2016:\n", text::Bytes(&self.hash_key));
        for Entry { number, window, items } in &self.history {
            for (place, Item { operation, outcome }) in items.iter().enumerate() {
                let number = if place == 0 { format!("{number:>6}") } else { " ".repeat(6) };
                out += &format!("{number}  {} .. {}  {operation}\n          -> {outcome}\n", window.from, window.to);
            }
        }
        out += "  the last answers contradict what the hash key could hold before them:\n";
        for rows in self.possible.all_rows().take(BRANCHES_SHOWN) {
            out += &format!("    {}\n", rows_text(rows));
        }
        let more = self.possible.branch_count().saturating_sub(BRANCHES_SHOWN);
        if more > 0 {
            out += &format!("    or one of {more} others\n");
        }
        if self.has_limbo() {
            out += &format!("  and {} writes of unknown outcome may still happen\n", self.possible.limbo_count());
        }
        out
    }
}

/// Sort keys of a wide hash key: above what one request looks at.
const WIDE_ROWS: u32 = 7000;
/// Writes of unknown outcome that a hash key can bear.
const LIMBO_MAX: usize = 4;
/// With more branches than that it is left.
const BRANCHES_SPENT: usize = 64;
/// Bursts until a hash key is left, so that new ones are begun.
const BURSTS_MAX: u64 = 1500;
/// The same of wide ones, whose operations take long.
const WIDE_BURSTS_MAX: u64 = 300;
/// Bursts of a hash key that are remembered.
const HISTORY_MAX: usize = 100;
/// Branches that are shown.
const BRANCHES_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::model::operation::{Answer, Lifetime, Operation, Outcome};

    const WINDOW: Window = Window { from: 100, to: 100 };

    fn key() -> Key {
        Key::new("h\0".into(), 0, false, &mut SmallRng::seed_from_u64(1))
    }

    fn set(value: &'static str, outcome: Outcome) -> Item {
        let operation = Operation::Set { sort_key: "a".into(), value: value.into(), lifetime: Lifetime::Default };
        Item { operation, outcome }
    }

    #[test]
    fn a_difference_tells_the_history() {
        let mut key = key();
        assert_eq!(key.row_count(WINDOW), Some((0, 0)));
        for turn in 0..150 {
            let value = if turn % 2 == 0 { "even" } else { "odd" };
            assert_eq!(key.judge(vec![set(value, Outcome::Answered(Answer::Done))], WINDOW).1, None);
        }
        assert_eq!(key.row_count(WINDOW), Some((1, 1)));
        let get = Operation::Get { sort_key: "a".into() };
        let wrong = Item { operation: get, outcome: Outcome::Answered(Answer::Value(Some("even".into()))) };
        let (judged, difference) = key.judge(vec![wrong], WINDOW);
        let difference = difference.unwrap();
        assert_eq!(judged, Judged::Contradiction);
        for part in ["hash key \"h\\x00\"", "   151  100 .. 100  get \"a\"", "-> \"even\"", "\"a\" = \"odd\""] {
            assert!(difference.contains(part), "{part:?} is missing in\n{difference}");
        }
        assert!(!difference.contains("    50  "), "only the last ones\n{difference}");
    }

    #[test]
    fn a_hash_key_with_too_much_open_is_spent() {
        let mut key = key();
        let values = ["1", "2", "3", "4", "5"];
        for (number, value) in values.into_iter().enumerate() {
            assert!(!key.is_spent(), "{number}");
            key.judge(vec![set(value, Outcome::Unknown)], WINDOW);
        }
        assert!(key.is_spent() && key.has_limbo() && key.row_count(WINDOW).is_none());
    }
}
