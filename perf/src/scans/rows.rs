//! The rows that are scanned, and the count of those that were seen. Pure.
//!
//! Rows stand in groups, one for each hash key. Beside each lasting row there is room for a passing one, which is
//! written and deleted all the time: it lies between the lasting ones, and may be seen once or not at all.

use std::fmt::Write;

/// Rows of one hash key.
pub const GROUP_ROWS: u64 = 100;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// It is there from before a scan to after it.
    Lasting(u64),
    /// It comes and goes.
    Passing(u64),
}

impl Row {
    /// Its number.
    pub fn number(self) -> u64 {
        match self {
            Row::Lasting(number) | Row::Passing(number) => number,
        }
    }

    /// Its hash key: of several lengths.
    pub fn hash_key(self) -> String {
        hash_key(self.number() / GROUP_ROWS)
    }

    /// Its sort key.
    pub fn sort_key(self) -> String {
        let place = self.number() % GROUP_ROWS;
        match self {
            Row::Lasting(_) => format!("{place:02}"),
            Row::Passing(_) => format!("{place:02}x"),
        }
    }

    /// Its value: it tells which row it is of.
    pub fn value(self) -> String {
        match self {
            Row::Lasting(number) => format!("lasting {number}"),
            Row::Passing(number) => format!("passing {number}"),
        }
    }

    /// The row of an answer; `None` if there is no such row.
    pub fn parse(hash_key: &[u8], sort_key: &[u8], value: &[u8]) -> Option<Row> {
        let text = std::str::from_utf8(value).ok()?;
        let (kind, number) = text.split_once(' ')?;
        let number = number.parse().ok()?;
        let row = match kind {
            "lasting" => Row::Lasting(number),
            "passing" => Row::Passing(number),
            _ => return None,
        };
        let is_it = row.hash_key().as_bytes() == hash_key && row.sort_key().as_bytes() == sort_key;
        (is_it && row.value() == text).then_some(row)
    }
}

/// The hash key of a group: its number in letters, the last one first, without zeros in front.
pub fn hash_key(group: u64) -> String {
    let (mut text, mut rest) = (String::new(), group);
    loop {
        let letter = b'a' + (rest % 26) as u8;
        // Writing into a text does not fail.
        let _ = text.write_char(char::from(letter));
        rest /= 26;
        if rest == 0 {
            return text;
        }
        // So that each text is of one number: the next letter stands for 1 to 26.
        rest -= 1;
    }
}

/// Which rows a scan has seen.
#[derive(Debug)]
pub struct Seen {
    lasting: Vec<bool>,
    passing: Vec<bool>,
    /// Rows in all.
    pub rows: u64,
    problems: Vec<String>,
}

impl Seen {
    /// None yet, of so many lasting ones.
    pub fn new(lasting: u64) -> Seen {
        let none = || vec![false; lasting as usize];
        Seen { lasting: none(), passing: none(), rows: 0, problems: Vec::new() }
    }

    /// Sees a row.
    pub fn see(&mut self, hash_key: &[u8], sort_key: &[u8], value: &[u8]) {
        self.rows += 1;
        let row = Row::parse(hash_key, sort_key, value).filter(|row| row.number() < self.lasting.len() as u64);
        let Some(row) = row else {
            let text = [hash_key, sort_key, value].map(|bytes| bytes.escape_ascii().to_string()).join(" ");
            return self.problem(format!("a row came that nobody wrote: {text}"));
        };
        self.take(row);
    }

    fn take(&mut self, row: Row) {
        let flags = match row {
            Row::Lasting(_) => &mut self.lasting,
            Row::Passing(_) => &mut self.passing,
        };
        if std::mem::replace(&mut flags[row.number() as usize], true) {
            self.problem(format!("row {row:?} came twice"));
        }
    }

    /// Adds what another scanner of the same scan has seen.
    pub fn merge(&mut self, other: Seen) {
        self.rows += other.rows;
        for number in (0..other.lasting.len()).filter(|&number| other.lasting[number]) {
            self.take(Row::Lasting(number as u64));
        }
        for number in (0..other.passing.len()).filter(|&number| other.passing[number]) {
            self.take(Row::Passing(number as u64));
        }
        for problem in other.problems {
            self.problem(problem);
        }
    }

    /// What is wrong once the scan has ended.
    pub fn into_problems(mut self) -> Vec<String> {
        let missing: Vec<usize> = (0..self.lasting.len()).filter(|&number| !self.lasting[number]).collect();
        if let Some(first) = missing.first() {
            let first = Row::Lasting(*first as u64);
            self.problem(format!("{} rows that were there all the time did not come, {first:?} first", missing.len()));
        }
        self.problems
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// Problems of one scan that are kept.
const PROBLEMS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_group_has_a_hash_key_of_its_own() {
        let keys: BTreeSet<String> = (0..30_000).map(hash_key).collect();
        assert_eq!(keys.len(), 30_000);
        let lengths: BTreeSet<usize> = keys.iter().map(String::len).collect();
        assert_eq!(lengths, BTreeSet::from([1, 2, 3, 4]));
    }

    #[test]
    fn rows_are_known_by_all_of_their_bytes() {
        for row in [Row::Lasting(0), Row::Lasting(12_345), Row::Passing(12_345)] {
            let (hash_key, sort_key, value) = (row.hash_key(), row.sort_key(), row.value());
            let parse = |hash_key: &str, sort_key: &str, value: &str| {
                Row::parse(hash_key.as_bytes(), sort_key.as_bytes(), value.as_bytes())
            };
            assert_eq!(parse(&hash_key, &sort_key, &value), Some(row));
            assert_eq!(parse("zz9", &sort_key, &value), None);
            assert_eq!(parse(&hash_key, "0", &value), None);
            assert_eq!(parse(&hash_key, &sort_key, &format!("{value} ")), None);
        }
        assert_eq!(Row::Passing(7).hash_key(), Row::Lasting(7).hash_key());
    }

    fn see(seen: &mut Seen, row: Row) {
        seen.see(row.hash_key().as_bytes(), row.sort_key().as_bytes(), row.value().as_bytes());
    }

    #[test]
    fn each_lasting_row_is_wanted_exactly_once() {
        let mut seen = Seen::new(3);
        (0..3).for_each(|number| see(&mut seen, Row::Lasting(number)));
        see(&mut seen, Row::Passing(1));
        assert_eq!((seen.rows, seen.into_problems()), (4, vec![]));

        let mut seen = Seen::new(3);
        see(&mut seen, Row::Lasting(1));
        see(&mut seen, Row::Lasting(1));
        see(&mut seen, Row::Passing(2));
        see(&mut seen, Row::Passing(2));
        see(&mut seen, Row::Lasting(3));
        seen.see(b"a", b"b", b"c");
        let text = seen.into_problems().join("; ");
        for part in ["Lasting(1) came twice", "Passing(2) came twice", "lasting 3", "a b c", "2 rows that were there"] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
    }

    #[test]
    fn scanners_of_one_scan_share_no_row() {
        let (mut one, mut other) = (Seen::new(2), Seen::new(2));
        see(&mut one, Row::Lasting(0));
        see(&mut other, Row::Lasting(1));
        one.merge(other);
        let mut third = Seen::new(2);
        see(&mut third, Row::Lasting(1));
        let rows = one.rows;
        one.merge(third);
        assert_eq!(rows, 2);
        assert_eq!(one.into_problems(), ["row Lasting(1) came twice"]);
    }
}
