//! Which row the next operation touches: all rows alike, or few of them most of the time.

use rand::Rng;
use rand::rngs::SmallRng;

use crate::failure::Failure;

/// How operations are spread over the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Distribution {
    /// Every row as often as any other.
    Uniform,
    /// Row i is touched in proportion to 1 / (i + 1)^0.99: a few rows take most of the load. Rows hash to
    /// partitions, so the hot ones are spread over them.
    Zipfian,
}

/// Draws row numbers below a count. Cheap to clone: what it needs is worked out once.
#[derive(Clone, Debug)]
pub struct KeyChooser {
    count: u64,
    zipf: Option<Zipf>,
}

impl KeyChooser {
    /// A chooser among `count` rows, 1 to [`KEYS_MAX`].
    pub fn new(distribution: Distribution, count: u64) -> Result<KeyChooser, Failure> {
        if count == 0 || count > KEYS_MAX {
            return Err(Failure::new(format!("the number of keys must be 1 to {KEYS_MAX}, got {count}")));
        }
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipfian => Some(Zipf::new(count, ZIPFIAN_EXPONENT)),
        };
        Ok(KeyChooser { count, zipf })
    }

    /// The next row number, below the count.
    pub fn next(&self, random: &mut SmallRng) -> u64 {
        match &self.zipf {
            None => random.random_range(0..self.count),
            Some(zipf) => zipf.rank(random.random::<f64>()),
        }
    }
}

/// The hash key of a row: fixed length, so that every row costs the same.
pub fn hash_key(row: u64) -> [u8; HASH_KEY_BYTES] {
    let mut key = *b"row-000000000000";
    let mut rest = row;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Most rows a workload may have.
pub const KEYS_MAX: u64 = 100_000_000;
/// Length of [`hash_key`].
pub const HASH_KEY_BYTES: usize = 16;
/// The exponent of the zipfian distribution, the one YCSB made usual.
pub const ZIPFIAN_EXPONENT: f64 = 0.99;

/// The zipfian distribution by the closed form of Gray and others ("Quickly generating billion-record synthetic
/// databases", SIGMOD 1994): exact for the two hottest ranks, an integral in place of the sum for the others.
#[derive(Clone, Debug)]
struct Zipf {
    count: u64,
    /// Sum of 1 / i^exponent over all ranks.
    sum: f64,
    /// The same over the two hottest ranks.
    sum_of_two: f64,
    /// 1 / (1 - exponent).
    power: f64,
    /// Stretches the tail so that it ends at the last rank.
    scale: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Zipf {
        let sum: f64 = (1..=count).map(|rank| (rank as f64).powf(-exponent)).sum();
        let sum_of_two = 1.0 + 0.5f64.powf(exponent);
        let scale = (1.0 - (2.0 / count as f64).powf(1.0 - exponent)) / (1.0 - sum_of_two / sum);
        Zipf { count, sum, sum_of_two, power: 1.0 / (1.0 - exponent), scale }
    }

    /// The rank (0 is the hottest) at this point of the unit interval.
    fn rank(&self, point: f64) -> u64 {
        let height = point * self.sum;
        if self.count == 1 || height < 1.0 {
            return 0;
        }
        if self.count == 2 || height < self.sum_of_two {
            return 1;
        }
        let rank = self.count as f64 * (self.scale * point - self.scale + 1.0).powf(self.power);
        (rank as u64).min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn counts(distribution: Distribution, rows: u64, draws: u64) -> Vec<u64> {
        let chooser = KeyChooser::new(distribution, rows).unwrap();
        let mut random = SmallRng::seed_from_u64(7);
        let mut counts = vec![0; rows as usize];
        for _ in 0..draws {
            counts[chooser.next(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_touches_every_row_alike() {
        let counts = counts(Distribution::Uniform, 100, 100_000);
        for (row, count) in counts.iter().enumerate() {
            assert!((800..1200).contains(count), "row {row}: {count}");
        }
    }

    #[test]
    fn zipfian_follows_its_law() {
        let (rows, draws) = (1000, 1_000_000);
        let counts = counts(Distribution::Zipfian, rows, draws);
        let sum: f64 = (1..=rows).map(|rank| (rank as f64).powf(-ZIPFIAN_EXPONENT)).sum();
        for (rank, tolerance) in [(1u64, 0.03), (2, 0.03), (10, 0.25), (100, 0.25)] {
            let expected = draws as f64 * (rank as f64).powf(-ZIPFIAN_EXPONENT) / sum;
            let share = counts[rank as usize - 1] as f64 / expected;
            assert!((share - 1.0).abs() < tolerance, "rank {rank}: {share} of what is expected");
        }
        let hottest_tenth: u64 = counts[..100].iter().sum();
        assert!((0.62..0.76).contains(&(hottest_tenth as f64 / draws as f64)), "{hottest_tenth}");
    }

    #[test]
    fn zipfian_stays_in_range_also_for_few_rows() {
        for rows in [1, 2, 3, 10] {
            let zipf = Zipf::new(rows, ZIPFIAN_EXPONENT);
            for point in [0.0, 0.1, 0.5, 0.9, 0.999_999_999] {
                assert!(zipf.rank(point) < rows, "rank at {point} of {rows}");
            }
            let counts = counts(Distribution::Zipfian, rows, 10_000);
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        }
    }

    #[test]
    fn impossible_counts_are_refused() {
        assert!(KeyChooser::new(Distribution::Uniform, 0).is_err());
        assert!(KeyChooser::new(Distribution::Zipfian, KEYS_MAX + 1).is_err());
    }

    #[test]
    fn hash_keys_are_distinct_and_readable() {
        assert_eq!(&hash_key(0), b"row-000000000000");
        assert_eq!(&hash_key(1_234), b"row-000000001234");
        assert_ne!(hash_key(KEYS_MAX), hash_key(KEYS_MAX - 1));
    }
}
