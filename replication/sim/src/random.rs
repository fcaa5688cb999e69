//! The one source of randomness: a seed gives the same run on every machine and in every release.

/// A small generator (splitmix64). Its numbers are part of what a seed means, so it is not exchanged for another.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The generator of a seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed ^ 0x5851_F42D_4C95_7F2D }
    }

    /// The next 64 bits.
    pub(crate) fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number from `low` up to and with `high`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        debug_assert!(low <= high);
        low + self.draw() % (high - low + 1)
    }

    /// An index below `length`, which is not zero.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        (self.draw() % length as u64) as usize
    }

    /// True this many times in a thousand.
    pub(crate) fn permille(&mut self, chances: u64) -> bool {
        self.draw() % 1000 < chances
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut random = Random::new(1);
        let drawn = [random.draw(), random.draw(), random.draw()];
        assert_eq!(drawn, [Random::new(1).draw(), drawn[1], drawn[2]]);
        assert_eq!(drawn[0], 0xC1B4_BB72_8DD9_6DC3);
    }

    #[test]
    fn ranges_hold_their_ends() {
        let mut random = Random::new(7);
        let drawn: Vec<u64> = (0..200).map(|_| random.range(3, 5)).collect();
        assert!(drawn.iter().all(|number| (3..=5).contains(number)));
        assert!((3..=5).all(|number| drawn.contains(&number)));
    }
}
