//! Which incarnation of the log wrote which sequences. Pure.
//!
//! Each start continues the sequence after the last write it kept, under a higher incarnation:
//!
//! ```text
//! incarnation 3 |                         12 13 14        belongs to the log
//! incarnation 2 |             7 8 9 10 11 .  .            cut tail: void for ever
//! incarnation 1 | 1 2 3 4 5 6 .                           cut tail: void for ever
//! ```
//!
//! So a sequence belongs to exactly one incarnation, and a write of another one is not a write of the log, whatever
//! its checksum says. This is what keeps cut tails and earlier contents of recycled segments from coming back.

/// One start of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) incarnation: u64,
    pub(super) first_sequence: u64,
}

/// The starts whose writes belong to the log.
///
/// Invariant: rising in both fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lives(Vec<Life>);

impl Lives {
    /// Takes note of a life; one that a later life continued from its beginning or before it is dropped.
    pub(super) fn learn(&mut self, life: Life) {
        let void = |other: &Life| other.incarnation >= life.incarnation && other.first_sequence <= life.first_sequence;
        if self.0.iter().any(void) {
            return;
        }
        self.0.retain(|other| other.incarnation > life.incarnation || other.first_sequence < life.first_sequence);
        let at = self.0.partition_point(|other| other.incarnation < life.incarnation);
        self.0.insert(at, life);
    }

    /// The incarnation that wrote a sequence.
    pub(super) fn of(&self, sequence: u64) -> Option<u64> {
        self.0.iter().rev().find(|life| life.first_sequence <= sequence).map(|life| life.incarnation)
    }

    /// Everything below the returned sequence was kept by a later start, which synced it: sequences up to here are
    /// known synced.
    pub(super) fn synced(&self) -> u64 {
        self.0.last().map_or(0, |life| life.first_sequence.saturating_sub(1))
    }

    /// Drops the lives of which nothing at or beyond `head` is left.
    pub(super) fn forget_below(&mut self, head: u64) {
        let keep_from = self.0.partition_point(|life| life.first_sequence <= head).saturating_sub(1);
        self.0.drain(..keep_from);
    }

    pub(super) fn as_slice(&self) -> &[Life] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(list: &[(u64, u64)]) -> Lives {
        let mut lives = Lives::default();
        for (incarnation, first_sequence) in list {
            lives.learn(Life { incarnation: *incarnation, first_sequence: *first_sequence });
        }
        lives
    }

    #[test]
    fn a_sequence_has_one_incarnation() {
        let lives = lives(&[(1, 1), (2, 7), (3, 12)]);
        let of: Vec<_> = [1, 6, 7, 11, 12, 99].iter().map(|sequence| lives.of(*sequence)).collect();
        assert_eq!(of, [Some(1), Some(1), Some(2), Some(2), Some(3), Some(3)]);
        assert_eq!((lives.of(0), lives.synced()), (None, 11));
    }

    #[test]
    fn a_life_without_writes_is_superseded() {
        let expected = lives(&[(1, 1), (4, 7)]);
        assert_eq!(lives(&[(1, 1), (2, 7), (3, 7), (4, 7)]), expected);
        assert_eq!(lives(&[(4, 7), (3, 7), (1, 1), (2, 9)]), expected, "in any order");
        assert_eq!(lives(&[(1, 1), (2, 9), (4, 7)]), expected, "a later start may cut further back");
    }

    #[test]
    fn old_lives_are_forgotten() {
        let mut lives = lives(&[(1, 1), (2, 7), (3, 12)]);
        lives.forget_below(8);
        assert_eq!(lives.as_slice().len(), 2);
        assert_eq!(lives.of(8), Some(2));
        lives.forget_below(100);
        assert_eq!(lives.of(100), Some(3));
    }
}
