//! The bytes that keys and values are made of: few enough that operations meet, odd enough to find the edges. Pure:
//! randomness comes in.

use bytes::Bytes;
use pegasus_wire::limits::{HASH_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

/// The bytes that all hash keys of a worker begin with, and nobody else's. All of the same length, so that none begins
/// with another.
pub fn worker_prefix(worker: u16) -> [u8; PREFIX_BYTES] {
    // First and last in the order of bytes, too.
    let first = [b'w', 0x00, 0xFF][usize::from(worker) % 3];
    let [high, low] = worker.to_be_bytes();
    [first, high, low]
}

/// The hash key that a worker uses as its `number`th: of many lengths, and each another one.
pub fn hash_key(worker: u16, number: u32, random: &mut SmallRng) -> Bytes {
    let mut key = worker_prefix(worker).to_vec();
    let filler_bytes = match number % 8 {
        // The prefix, and nothing but the number behind it.
        0 | 1 => 0,
        7 => HASH_KEY_BYTES_MAX - key.len() - size_of::<u32>() - 1,
        _ => random.random_range(1..40),
    };
    let filler = *[0x00, b'a', 0xFF].choose(random).expect("there are three");
    key.extend(std::iter::repeat_n(filler, filler_bytes));
    // Length and number make it the only one of its kind.
    key.push(filler_bytes as u8);
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

/// Sort keys of one hash key.
#[derive(Clone, Debug)]
pub struct SortKeys {
    pool: Vec<Bytes>,
    /// How many numbered ones there are beside the pool; they are what makes a hash key wide.
    numbered: u32,
}

impl SortKeys {
    /// A pool drawn at random, and so many numbered ones.
    pub fn draw(random: &mut SmallRng, numbered: u32) -> SortKeys {
        let mut pool: Vec<Bytes> = ODD_SORT_KEYS.iter().map(|key| Bytes::from_static(key)).collect();
        let longest = *[0x00, b'z', 0xFF].choose(random).expect("there are three");
        pool.push(vec![longest; SORT_KEY_BYTES_MAX].into());
        for _ in 0..random.random_range(2..12) {
            let length = random.random_range(1..5);
            pool.push((0..length).map(|_| *ALPHABET.choose(random).expect("it is not empty")).collect());
        }
        SortKeys { pool, numbered }
    }

    /// One of them.
    pub fn choose(&self, random: &mut SmallRng) -> Bytes {
        if self.numbered > 0 && random.random_bool(0.7) {
            return numbered(random.random_range(0..self.numbered));
        }
        self.pool.choose(random).expect("there are always some").clone()
    }

    /// So many numbered ones in a row, from a random place on.
    pub fn choose_row(&self, random: &mut SmallRng, count: u32) -> Vec<Bytes> {
        let first = random.random_range(0..self.numbered.max(1));
        (first..(first + count).min(self.numbered)).map(numbered).collect()
    }
}

fn numbered(number: u32) -> Bytes {
    format!("n{number:06}").into()
}

/// A value: a number, what looks like one, text, or bytes of some length.
pub fn value(random: &mut SmallRng) -> Bytes {
    match random.random_range(0..100) {
        0..45 => Bytes::from_static(NUMBERS.choose(random).expect("it is not empty")),
        45..60 => random.random_range(-1000i64..1000).to_string().into(),
        60..75 => Bytes::from_static(TEXTS.choose(random).expect("it is not empty")),
        75..97 => random_bytes(random, 60),
        _ => random_bytes(random, 4000),
    }
}

/// A value that shows how long an answer may become.
pub fn large_value(random: &mut SmallRng) -> Bytes {
    random_bytes(random, 200_000)
}

fn random_bytes(random: &mut SmallRng, length_max: usize) -> Bytes {
    let length = random.random_range(0..=length_max);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes[..]);
    bytes.into()
}

/// What to add to a number.
pub fn increment(random: &mut SmallRng) -> i64 {
    match random.random_range(0..12) {
        0 => 0,
        1 => i64::MAX,
        2 => i64::MIN,
        3 => random.random(),
        _ => random.random_range(-20..20),
    }
}

/// A pattern for a filter on sort keys.
pub fn pattern(random: &mut SmallRng) -> Bytes {
    let length = random.random_range(0..3);
    (0..length).map(|_| *ALPHABET.choose(random).expect("it is not empty")).collect()
}

/// Length of [`worker_prefix`].
pub const PREFIX_BYTES: usize = 3;
/// Few letters, so that sort keys share beginnings and ends.
const ALPHABET: &[u8] = &[0x00, b'a', b'b', b'n', b'0', 0xFF];
const ODD_SORT_KEYS: &[&[u8]] =
    &[b"", b"\0", b"\0\0", b"a", b"a\0", b"a\xFF", b"ab", b"abc", b"b", b"\xFE", b"\xFF", b"\xFF\xFF", b"\xFF\xFF\0"];
/// Numbers as people and programs write them, and what only looks like one.
const NUMBERS: &[&[u8]] = &[
    b"",
    b"0",
    b"1",
    b"-1",
    b"5",
    b"-7",
    b"+3",
    b"42",
    b" 42",
    b"\t\n9",
    b"42 ",
    b"0x1F",
    b"-0x10",
    b"0X7f",
    b"010",
    b"-017",
    b"08",
    b"0x",
    b"--5",
    b"- 5",
    b"1.5",
    b"1e3",
    b"12a",
    b"1\0",
    b" ",
    b"+",
    b"9223372036854775806",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"99999999999999999999",
    b"0x7fffffffffffffff",
    b"0x8000000000000000",
    b"0777777777777777777777",
    b"00000000000000000000007",
];
const TEXTS: &[&[u8]] = &[b"a", b"ab", b"abc", b"b", b"bc", b"c", b"abcabc", b"\0", b"\xFF\xFF", b"a\0b", b"true"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn hash_keys_are_all_different_and_know_their_worker() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut keys = BTreeSet::new();
        let mut lengths = BTreeSet::new();
        for worker in [0, 1, 2, 3, 255, 256, 65_535] {
            for number in 0..300 {
                let key = hash_key(worker, number, &mut random);
                assert!(key.starts_with(&worker_prefix(worker)) && key.len() <= HASH_KEY_BYTES_MAX);
                lengths.insert(key.len());
                assert!(keys.insert(key), "worker {worker}, number {number}");
            }
        }
        assert!(lengths.len() > 20 && lengths.contains(&HASH_KEY_BYTES_MAX), "{lengths:?}");
        let prefixes: BTreeSet<[u8; PREFIX_BYTES]> = (0..=u16::MAX).map(worker_prefix).collect();
        assert_eq!(prefixes.len(), 65_536);
    }

    #[test]
    fn sort_keys_repeat_and_keep_their_limit() {
        let mut random = SmallRng::seed_from_u64(2);
        let keys = SortKeys::draw(&mut random, 0);
        let drawn: BTreeSet<Bytes> = (0..2000).map(|_| keys.choose(&mut random)).collect();
        assert!(drawn.contains(&b""[..]) && drawn.len() < 40, "{}", drawn.len());
        assert_eq!(drawn.iter().map(Bytes::len).max(), Some(SORT_KEY_BYTES_MAX));
        assert!(keys.choose_row(&mut random, 10).is_empty());
        let wide = SortKeys::draw(&mut random, 5000);
        let row = wide.choose_row(&mut random, 100);
        assert!(row.len() <= 100 && row.is_sorted());
    }

    #[test]
    fn values_are_numbers_often_enough() {
        use crate::model::integer::parse_integer;
        let mut random = SmallRng::seed_from_u64(3);
        let values: Vec<Bytes> = (0..2000).map(|_| value(&mut random)).collect();
        let numbers = values.iter().filter(|value| parse_integer(value).is_some()).count();
        assert!((700..1500).contains(&numbers), "{numbers}");
        assert!(values.iter().any(|value| value.is_empty()) && values.iter().any(|value| value.len() > 2000));
    }
}
