//! Which groups of an import are under way. Pure.
//!
//! Invariants:
//! - at most `concurrency` rows are under way, unless a single group has more
//! - two groups that name the same row are never under way together: the last line of the input wins
//! - groups start in the order of the input

use std::collections::HashSet;
use std::rc::Rc;

use crate::transfer::checkpoint::{Acknowledged, Position};
use crate::transfer::reader::Group;

/// A row's hash key and sort key.
type RowKey = (Rc<[u8]>, Rc<[u8]>);

/// The groups under way, and the one that waits.
#[derive(Debug)]
pub struct Flight {
    concurrency: usize,
    acknowledged: Acknowledged,
    rows_under_way: usize,
    keys_under_way: HashSet<RowKey>,
    waiting: Option<Group>,
    rows_done: u64,
}

impl Flight {
    /// Nothing under way; everything before `from` was acknowledged by an earlier run.
    pub fn new(concurrency: usize, from: Position) -> Flight {
        Flight {
            concurrency,
            acknowledged: Acknowledged::starting_at(from),
            rows_under_way: 0,
            keys_under_way: HashSet::new(),
            waiting: None,
            rows_done: 0,
        }
    }

    /// True if there is no group waiting, so that the next can be offered.
    pub fn has_place(&self) -> bool {
        self.waiting.is_none()
    }

    /// Takes the next group of the input. There must be a place.
    pub fn offer(&mut self, group: Group) {
        debug_assert!(self.has_place(), "one group waits at a time");
        self.waiting = Some(group);
    }

    /// The waiting group, if it may start now. It is under way from then on.
    pub fn start(&mut self) -> Option<Group> {
        let group = self.waiting.as_ref()?;
        if self.rows_under_way > 0 && self.rows_under_way + group.rows.len() > self.concurrency {
            return None;
        }
        let keys: HashSet<RowKey> = keys_of(group).collect();
        if !keys.is_disjoint(&self.keys_under_way) {
            return None;
        }
        self.rows_under_way += group.rows.len();
        self.keys_under_way.extend(keys);
        self.waiting.take()
    }

    /// A group has ended, acknowledged or not.
    pub fn end(&mut self, group: &Group, acknowledged: bool) {
        self.rows_under_way -= group.rows.len();
        for key in keys_of(group) {
            self.keys_under_way.remove(&key);
        }
        if acknowledged {
            self.rows_done += group.rows.len() as u64;
            self.acknowledged.acknowledge(group.first, group.end);
        }
    }

    /// All rows of the input before this are acknowledged.
    pub fn through(&self) -> Position {
        self.acknowledged.through()
    }

    /// Rows acknowledged by this run, also beyond [`Flight::through`].
    pub fn rows_done(&self) -> u64 {
        self.rows_done
    }
}

fn keys_of(group: &Group) -> impl Iterator<Item = RowKey> + '_ {
    let hash_key: Rc<[u8]> = group.hash_key.as_slice().into();
    group.rows.iter().map(move |row| (hash_key.clone(), Rc::from(row.sort_key.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::format::FileRow;

    fn group(first: u64, hash_key: &str, sort_keys: &[&str]) -> Group {
        let row =
            |sort_key: &&str| FileRow { hash_key: hash_key.into(), sort_key: (*sort_key).into(), ..FileRow::default() };
        let rows: Vec<FileRow> = sort_keys.iter().map(row).collect();
        let end = first + rows.len() as u64;
        Group { first, end: Position { rows: end, bytes: end * 10 }, hash_key: hash_key.into(), rows }
    }

    fn begin(flight: &mut Flight, group: Group) -> bool {
        flight.offer(group);
        flight.start().is_some()
    }

    #[test]
    fn rows_under_way_are_bounded() {
        let mut flight = Flight::new(3, Position::default());
        let first = group(0, "a", &["1", "2"]);
        assert!(begin(&mut flight, first.clone()));
        assert!(!begin(&mut flight, group(2, "b", &["1", "2"])));
        assert!(!flight.has_place());
        flight.end(&first, true);
        assert!(flight.start().is_some());
        let mut narrow = Flight::new(1, Position::default());
        assert!(begin(&mut narrow, first), "a group larger than the bound goes alone");
    }

    #[test]
    fn the_same_row_is_never_under_way_twice() {
        let mut flight = Flight::new(100, Position::default());
        let first = group(0, "a", &["1", "1"]);
        assert!(begin(&mut flight, first.clone()));
        assert!(begin(&mut flight, group(2, "a", &["2"])));
        assert!(begin(&mut flight, group(3, "b", &["1"])));
        assert!(!begin(&mut flight, group(4, "a", &["3", "1"])));
        flight.end(&first, true);
        assert!(flight.start().is_some());
    }

    #[test]
    fn only_acknowledged_rows_count() {
        let mut flight = Flight::new(100, Position { rows: 10, bytes: 100 });
        let groups = [group(10, "a", &["1"]), group(11, "b", &["1", "2"]), group(13, "c", &["1"])];
        for one in &groups {
            assert!(begin(&mut flight, one.clone()));
        }
        flight.end(&groups[1], true);
        flight.end(&groups[2], false);
        assert_eq!((flight.through().rows, flight.rows_done()), (10, 2));
        flight.end(&groups[0], true);
        assert_eq!((flight.through(), flight.rows_done()), (Position { rows: 13, bytes: 130 }, 3));
    }
}
