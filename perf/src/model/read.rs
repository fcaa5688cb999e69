//! Whether rows explain what a read was told. Rows that end about now may be there or not. Pure, and written apart from
//! the engine on purpose.

use bytes::Bytes;

use crate::model::operation::{Answer, Found, Left, Operation, RangeRead};
use crate::model::rows::{Cell, Life, Rows, Window};
use crate::model::write::breaks_a_limit;

/// True if the rows explain the answer to a read, somewhere in the window.
pub fn explains(operation: &Operation, answer: &Answer, rows: &Rows, window: Window) -> bool {
    if breaks_a_limit(operation) || *answer == Answer::Refused {
        return breaks_a_limit(operation) && *answer == Answer::Refused;
    }
    match (operation, answer) {
        (Operation::Get { sort_key }, Answer::Value(found)) => match (found, rows.get(sort_key)) {
            (Some(value), Some(cell)) => cell.life(window) != Life::Over && cell.value == value,
            (Some(_), None) => false,
            (None, cell) => may_be_missing(cell, window),
        },
        (Operation::Exist { sort_key }, Answer::Exists(exists)) => match rows.get(sort_key) {
            Some(cell) if *exists => cell.life(window) != Life::Over,
            cell => !exists && may_be_missing(cell, window),
        },
        (Operation::Ttl { sort_key }, Answer::Left(left)) => explains_left(rows.get(sort_key), *left, window),
        (Operation::MultiGet { sort_keys, no_value }, Answer::Rows { rows: found, complete }) => {
            let wanted = distinct(sort_keys).into_iter().filter_map(|key| Some((key, rows.get(key)?)));
            *complete && Walk { window, no_value: *no_value }.rest_after(wanted, found) == Some(Rest::Optional)
        }
        (Operation::MultiGetRange { read, rows_max, bytes_max }, Answer::Rows { rows: found, complete }) => {
            let limit = Limit { rows_max: *rows_max, bytes_max: *bytes_max };
            explains_range(read, limit, rows, found, *complete, window)
        }
        (Operation::Scan { read, .. }, Answer::Rows { rows: found, complete }) => {
            let mut candidates = candidates(read, rows);
            if read.reverse {
                candidates.reverse();
            }
            let rest = Walk { window, no_value: read.no_value }.rest_after(candidates.into_iter(), found);
            *complete && rest == Some(Rest::Optional)
        }
        (Operation::Count, Answer::Count(count)) => {
            let lives = || rows.values().map(|cell| cell.life(window));
            let least = lives().filter(|life| *life == Life::Sure).count() as u64;
            let most = lives().filter(|life| *life != Life::Over).count() as u64;
            (least..=most).contains(count)
        }
        _ => false,
    }
}

fn may_be_missing(cell: Option<&Cell>, window: Window) -> bool {
    cell.is_none_or(|cell| cell.life(window) != Life::Sure)
}

fn explains_left(cell: Option<&Cell>, left: Left, window: Window) -> bool {
    match (left, cell) {
        (Left::Missing, cell) => may_be_missing(cell, window),
        (Left::Forever, cell) => cell.is_some_and(|cell| cell.expiry == 0),
        (Left::Seconds(seconds), Some(cell)) => {
            let Window { from, to } = window.with_margin();
            let second = cell.expiry.checked_sub(seconds);
            seconds > 0 && second.is_some_and(|second| (from..=to).contains(&second))
        }
        (Left::Seconds(_), None) => false,
    }
}

/// Where a read of a range may stop.
#[derive(Clone, Copy, Debug)]
struct Limit {
    rows_max: usize,
    /// Of sort keys and values.
    bytes_max: usize,
}

fn explains_range(
    read: &RangeRead,
    limit: Limit,
    rows: &Rows,
    found: &[Found],
    complete: bool,
    window: Window,
) -> bool {
    let mut candidates = candidates(read, rows);
    let mut found: Vec<&Found> = found.iter().collect();
    if read.reverse {
        // The answer is ascending, but was collected from the end.
        candidates.reverse();
        found.reverse();
    }
    let walk = Walk { window, no_value: read.no_value };
    let Some(rest) = walk.rest_after(candidates.into_iter(), found.iter().copied()) else { return false };
    limit.allows(&found) && if complete { rest == Rest::Optional } else { limit.is_reached(&found) }
}

/// The rows of a range that pass its filter, ascending.
fn candidates<'a>(read: &RangeRead, rows: &'a Rows) -> Vec<(&'a Bytes, &'a Cell)> {
    rows.iter().filter(|(key, _)| read.range.holds(key) && read.filter.takes(key)).collect()
}

impl Limit {
    /// True if the rows, in the order in which they were collected, do not go beyond it.
    fn allows(self, found: &[&Found]) -> bool {
        let Some((_, before)) = found.split_last() else { return true };
        !self.is_reached(before)
    }

    /// True if it was a reason to stop.
    fn is_reached(self, found: &[&Found]) -> bool {
        let bytes: usize = found.iter().map(|row| row.sort_key.len() + row.value.len()).sum();
        (self.rows_max > 0 && found.len() >= self.rows_max) || (self.bytes_max > 0 && bytes >= self.bytes_max)
    }
}

/// What is left of the candidates after the last row found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing, or only rows that need not be there.
    Optional,
    /// A row that has to be there.
    Sure,
}

struct Walk {
    window: Window,
    no_value: bool,
}

impl Walk {
    /// Walks along the candidates and the rows found together. `None` if a row was found that is none of the
    /// candidates, or not in their order, or with another value or expiry; or if one is missing in between.
    fn rest_after<'a>(
        &self,
        candidates: impl Iterator<Item = (&'a Bytes, &'a Cell)>,
        found: impl IntoIterator<Item = &'a Found>,
    ) -> Option<Rest> {
        let mut candidates = candidates;
        for row in found {
            loop {
                let (sort_key, cell) = candidates.next()?;
                let life = cell.life(self.window);
                if row.sort_key == sort_key {
                    if life == Life::Over || !self.is_same(row, cell) {
                        return None;
                    }
                    break;
                }
                if life == Life::Sure {
                    return None;
                }
            }
        }
        let is_sure = |(_, cell): (&Bytes, &Cell)| cell.life(self.window) == Life::Sure;
        Some(if candidates.any(is_sure) { Rest::Sure } else { Rest::Optional })
    }

    fn is_same(&self, row: &Found, cell: &Cell) -> bool {
        let same_value = if self.no_value { row.value.is_empty() } else { row.value == cell.value };
        same_value && row.expiry.is_none_or(|expiry| expiry == cell.expiry)
    }
}

/// Each key once, in the order in which they come first.
fn distinct(keys: &[Bytes]) -> Vec<&Bytes> {
    let mut seen = std::collections::BTreeSet::new();
    keys.iter().filter(|key| seen.insert(*key)).collect()
}

#[cfg(test)]
mod tests {
    use pegasus_wire::messages::data::FilterKind;

    use super::*;
    use crate::model::operation::{Filter, Range};

    const WINDOW: Window = Window { from: 100, to: 100 };

    /// "a" to "d", of which "c" ends about now, and "over" which has ended.
    fn rows() -> Rows {
        let row = |key: &'static str, expiry| (Bytes::from(key), Cell { value: Bytes::from(key.repeat(3)), expiry });
        [row("a", 0), row("b", 500), row("c", 101), row("d", 0), row("over", 50)].into_iter().collect()
    }

    fn found(keys: &[&'static str]) -> Vec<Found> {
        let expiry = |key| Some(rows()[key].expiry);
        let row = |key: &&'static str| Found {
            sort_key: Bytes::from(*key),
            value: Bytes::from(key.repeat(3)),
            expiry: expiry(key.as_bytes()),
        };
        keys.iter().map(row).collect()
    }

    fn says(operation: &Operation, answer: Answer) -> bool {
        explains(operation, &answer, &rows(), WINDOW)
    }

    fn range_says(read: &RangeRead, rows_max: usize, bytes_max: usize, keys: &[&'static str], complete: bool) -> bool {
        let operation = Operation::MultiGetRange { read: read.clone(), rows_max, bytes_max };
        says(&operation, Answer::Rows { rows: found(keys), complete })
    }

    fn all() -> RangeRead {
        RangeRead { range: Range::all(), filter: Filter::default(), reverse: false, no_value: false }
    }

    #[test]
    fn single_reads_are_exact_outside_of_the_margin() {
        let get = |key: &'static str| Operation::Get { sort_key: key.into() };
        assert!(says(&get("a"), Answer::Value(Some("aaa".into()))));
        assert!(!says(&get("a"), Answer::Value(Some("aab".into()))) && !says(&get("a"), Answer::Value(None)));
        assert!(says(&get("c"), Answer::Value(Some("ccc".into()))) && says(&get("c"), Answer::Value(None)));
        assert!(says(&get("over"), Answer::Value(None)) && says(&get("x"), Answer::Value(None)));
        assert!(!says(&get("over"), Answer::Value(Some("overoverover".into()))));
        let exist = |key: &'static str| Operation::Exist { sort_key: key.into() };
        assert!(says(&exist("b"), Answer::Exists(true)) && !says(&exist("b"), Answer::Exists(false)));
        assert!(says(&exist("c"), Answer::Exists(true)) && says(&exist("c"), Answer::Exists(false)));
        assert!(!says(&exist("over"), Answer::Exists(true)) && !says(&exist("x"), Answer::Exists(true)));
        assert!(!says(&exist("b"), Answer::Value(None)), "an answer to another question");
    }

    #[test]
    fn times_to_live_are_those_of_the_window() {
        let left = |key: &'static str, left| says(&Operation::Ttl { sort_key: key.into() }, Answer::Left(left));
        assert!(left("a", Left::Forever) && !left("a", Left::Seconds(5)) && !left("a", Left::Missing));
        for (seconds, right) in [(398, false), (399, true), (400, true), (401, true), (402, false)] {
            assert_eq!(left("b", Left::Seconds(seconds)), right, "{seconds}");
        }
        assert!(!left("b", Left::Forever) && left("c", Left::Missing) && left("over", Left::Missing));
        assert!(!left("c", Left::Seconds(0)));
    }

    #[test]
    fn whole_ranges_have_every_sure_row() {
        for keys in [&["a", "b", "c", "d"][..], &["a", "b", "d"]] {
            assert!(range_says(&all(), 0, 0, keys, true), "{keys:?}");
        }
        for keys in [&["a", "b"][..], &["a", "d"], &["a", "b", "d", "over"], &["b", "a", "c", "d"], &[]] {
            assert!(!range_says(&all(), 0, 0, keys, true), "{keys:?}");
        }
        assert!(!range_says(&all(), 0, 0, &["a", "b"], false), "nothing was a reason to stop");
        let none = RangeRead { filter: Filter { kind: FilterKind::Exact, pattern: "q".into() }, ..all() };
        assert!(range_says(&none, 0, 0, &[], true));
    }

    #[test]
    fn rows_limits_give_the_first_or_the_last_rows() {
        assert!(range_says(&all(), 2, 0, &["a", "b"], false) && !range_says(&all(), 2, 0, &["a", "b"], true));
        assert!(!range_says(&all(), 2, 0, &["a"], false) && !range_says(&all(), 2, 0, &["a", "d"], false));
        assert!(range_says(&all(), 3, 0, &["a", "b", "d"], true) && range_says(&all(), 3, 0, &["a", "b", "c"], false));
        assert!(!range_says(&all(), 3, 0, &["a", "b", "c", "d"], true), "one too many");
        let reverse = RangeRead { reverse: true, ..all() };
        assert!(range_says(&reverse, 2, 0, &["b", "d"], false) && range_says(&reverse, 2, 0, &["c", "d"], false));
        assert!(!range_says(&reverse, 2, 0, &["a", "b"], false) && !range_says(&reverse, 1, 0, &["a"], false));
    }

    #[test]
    fn bytes_limits_are_passed_by_one_row_at_most() {
        // Each row has 4 bytes.
        assert!(range_says(&all(), 0, 8, &["a", "b"], false) && range_says(&all(), 0, 7, &["a", "b"], false));
        assert!(!range_says(&all(), 0, 8, &["a", "b", "c"], false) && !range_says(&all(), 0, 8, &["a"], false));
        assert!(
            range_says(&all(), 0, 100, &["a", "b", "d"], true) && !range_says(&all(), 0, 5, &["a", "b", "d"], true)
        );
        assert!(range_says(&all(), 0, 1, &["a"], false) && !range_says(&all(), 0, 1, &[], false));
    }

    #[test]
    fn values_are_left_out_only_where_that_was_asked() {
        let without: Vec<Found> =
            found(&["a", "b", "d"]).into_iter().map(|row| Found { value: Bytes::new(), ..row }).collect();
        let answer = Answer::Rows { rows: without, complete: true };
        let ask =
            |no_value| Operation::MultiGetRange { read: RangeRead { no_value, ..all() }, rows_max: 0, bytes_max: 0 };
        assert!(says(&ask(true), answer.clone()) && !says(&ask(false), answer));
        let mut late = found(&["a", "b", "d"]);
        late[1].expiry = Some(501);
        assert!(!says(&ask(false), Answer::Rows { rows: late, complete: true }));
    }

    #[test]
    fn keys_are_answered_in_the_order_asked_and_once() {
        let operation = |keys: &[&'static str]| Operation::MultiGet {
            sort_keys: keys.iter().map(|key| Bytes::from(*key)).collect(),
            no_value: false,
        };
        let rows = |keys| Answer::Rows { rows: found(keys), complete: true };
        let asked = operation(&["d", "x", "a", "d", "c"]);
        assert!(says(&asked, rows(&["d", "a"])) && says(&asked, rows(&["d", "a", "c"])));
        assert!(
            !says(&asked, rows(&["a", "d"])) && !says(&asked, rows(&["d", "a", "d"])) && !says(&asked, rows(&["d"]))
        );
        assert!(says(&operation(&[]), Answer::Refused) && !says(&operation(&["a"]), Answer::Refused));
    }

    #[test]
    fn scans_against_the_order_answer_against_the_order() {
        let scan =
            |reverse| Operation::Scan { read: RangeRead { reverse, ..all() }, rows_per_request: 2, snapshot: true };
        let rows = |keys| Answer::Rows { rows: found(keys), complete: true };
        assert!(says(&scan(true), rows(&["d", "c", "b", "a"])) && says(&scan(true), rows(&["d", "b", "a"])));
        assert!(!says(&scan(true), rows(&["a", "b", "d"])) && says(&scan(false), rows(&["a", "b", "d"])));
    }

    #[test]
    fn counts_leave_the_margin_open() {
        let counts: Vec<u64> = (0..6).filter(|count| says(&Operation::Count, Answer::Count(*count))).collect();
        assert_eq!(counts, [3, 4]);
    }
}
