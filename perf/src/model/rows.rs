//! The rows of one hash key as the model knows them, and what it knows of time. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Its value.
    pub value: Bytes,
    /// The second at which it ends, since 2016; 0: never.
    pub expiry: u32,
}

/// Rows by sort key. Those that have expired may still be among them: they count as missing.
pub type Rows = BTreeMap<Bytes, Cell>;

/// What decides how a write comes out, apart from the rows. Seconds since 2016.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Rows that end at this second or before it are gone.
    pub now: u32,
    /// The second from which the client counted a time to live.
    pub asked: u32,
    /// The second from which the server counted the table's default.
    pub stamp: u32,
    /// The table's default time to live; 0: none.
    pub default_ttl: u32,
}

/// The seconds in which something may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub from: u32,
    /// The last.
    pub to: u32,
}

/// What can be said of a row in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is there.
    Sure,
    /// It ends about now: nobody can tell.
    Open,
    /// It has ended.
    Over,
}

impl Cell {
    /// True if the row is there at this second.
    pub fn is_alive(&self, now: u32) -> bool {
        self.expiry == 0 || self.expiry > now
    }

    /// Whether the row is there in a window, with the margin around the second of its expiry.
    pub fn life(&self, window: Window) -> Life {
        let Window { from, to } = window.with_margin();
        match self.expiry {
            0 => Life::Sure,
            expiry if expiry > to => Life::Sure,
            expiry if expiry <= from => Life::Over,
            _ => Life::Open,
        }
    }
}

impl Window {
    /// The window and the margin on both sides of it: servers may read their clock a little before and after.
    pub fn with_margin(self) -> Window {
        Window { from: self.from.saturating_sub(MARGIN_SECONDS), to: self.to.saturating_add(MARGIN_SECONDS) }
    }
}

/// Around the second of its expiry a row may be there or not.
pub const MARGIN_SECONDS: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_is_not_judged_and_all_else_is() {
        let window = Window { from: 100, to: 101 };
        let life = |expiry| Cell { value: Bytes::new(), expiry }.life(window);
        assert_eq!([life(0), life(103), life(u32::MAX)], [Life::Sure; 3]);
        assert_eq!([life(102), life(101), life(100)], [Life::Open; 3]);
        assert_eq!([life(99), life(1)], [Life::Over; 2]);
    }

    #[test]
    fn a_row_ends_at_the_second_of_its_expiry() {
        let alive = |expiry, now| Cell { value: Bytes::new(), expiry }.is_alive(now);
        assert!(alive(0, u32::MAX) && alive(11, 10) && !alive(10, 10) && !alive(9, 10));
    }
}
