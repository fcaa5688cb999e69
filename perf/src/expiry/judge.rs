//! Whether rows were seen too long or not long enough. Pure.

use serde::Serialize;

/// When a row expires, as far as its writer knows: one of these seconds, since 2016.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The first it may be.
    pub first: u32,
    /// The last it may be.
    pub last: u32,
}

/// A look at a row: when it was asked for and answered, in seconds since 2016, and whether it was there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// When it was asked for.
    pub from_s: f64,
    /// When the answer was there.
    pub to_s: f64,
    /// The row was there.
    pub there: bool,
}

/// What is said of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// As it has to be, or too near to tell.
    Fine,
    /// The row was gone before its time.
    TooEarly,
    /// The row was there after its time.
    TooLate,
}

/// What was seen around the expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Punctuality {
    /// Looks.
    pub looks: u64,
    /// The latest sight of a row after the end of its last second, in seconds; negative if all were gone before.
    pub latest_s: f64,
}

impl Look {
    /// Judges a look at a row of this expiry. A row is gone from the first moment of its second on; a second of margin
    /// is given to the clocks.
    pub fn judge(self, expiry: Expiry) -> Judged {
        match self.there {
            false if self.to_s < f64::from(expiry.first) => Judged::TooEarly,
            true if self.from_s >= f64::from(expiry.last) + MARGIN_S => Judged::TooLate,
            _ => Judged::Fine,
        }
    }
}

impl Punctuality {
    /// Nothing seen yet.
    pub fn new() -> Punctuality {
        Punctuality { looks: 0, latest_s: f64::NEG_INFINITY }
    }

    /// Notes a look.
    pub fn note(&mut self, look: Look, expiry: Expiry) {
        self.looks += 1;
        if look.there {
            self.latest_s = self.latest_s.max(look.from_s - f64::from(expiry.last));
        }
    }
}

/// Around the second of expiry nothing is judged.
pub const MARGIN_S: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Expiry = Expiry { first: 100, last: 101 };

    fn judge(from_s: f64, to_s: f64, there: bool) -> Judged {
        Look { from_s, to_s, there }.judge(EXPIRY)
    }

    #[test]
    fn rows_are_there_until_their_second_and_then_gone() {
        assert_eq!(judge(90.0, 90.1, true), Judged::Fine);
        assert_eq!(judge(90.0, 90.1, false), Judged::TooEarly);
        assert_eq!(judge(99.9, 100.0, false), Judged::Fine);
        assert_eq!(judge(101.9, 102.0, true), Judged::Fine);
        assert_eq!(judge(102.0, 102.1, true), Judged::TooLate);
        assert_eq!(judge(500.0, 500.1, false), Judged::Fine);
    }

    #[test]
    fn the_latest_sight_is_kept() {
        let mut punctuality = Punctuality::new();
        for (from_s, there) in [(99.0, true), (101.25, true), (100.0, true), (105.0, false)] {
            punctuality.note(Look { from_s, to_s: from_s, there }, EXPIRY);
        }
        assert_eq!(punctuality, Punctuality { looks: 4, latest_s: 0.25 });
    }
}
