//! Values out of entropy. The same entropy gives the same value, less of it a smaller one: what it has no bytes for is
//! zero or empty, so a failing case shrinks by itself.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::LazyLock;

use pegasus_gateway::messages::admin::{AppEnvOperation, AppStatus, MatchType, NodeStatus};
use pegasus_gateway::messages::read::FilterType;
use pegasus_gateway::messages::write::{CheckType, MutateOperation};
use pegasus_gateway::thrift::{Blob, ErrorCode, Gpid, HostPort, Map, RpcAddress};

/// Blobs are slices of this.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..4096).map(|_| random.next() as u8).collect()
});

/// Texts are slices of this: characters of one to four bytes.
const TEXT: &str =
    "temp\u{e9}rature \u{4e2d}\u{6587} table.of_rows-1 \u{1f980}\0\n\"quoted\" \u{7ff}\u{ffff}\u{10ffff}";

/// Numbers that nobody has to guess: splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Entropy, read from its begin.
pub(crate) struct Source<'e> {
    rest: &'e [u8],
}

impl<'e> Source<'e> {
    pub(crate) fn new(entropy: &'e [u8]) -> Source<'e> {
        Source { rest: entropy }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *byte
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number below a bound of at most 65,536.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(u16::from_be_bytes(self.array())) % bound
    }

    /// True in a quarter of all cases, never without entropy.
    pub(crate) fn sometimes(&mut self) -> bool {
        self.byte() % 4 == 3
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = last - self.below(last + 1);
            list.swap(last, other);
        }
    }

    pub(crate) fn blob(&mut self) -> &'static [u8] {
        let length = match self.byte() {
            short @ ..250 => usize::from(short % 32),
            _ => self.below(1100),
        };
        let start = self.below(BYTES.len() - length);
        &BYTES[start..start + length]
    }

    pub(crate) fn text(&mut self) -> &'static str {
        let at: Vec<usize> = TEXT.char_indices().map(|(at, _)| at).chain([TEXT.len()]).collect();
        let start = self.below(at.len());
        let end = start + self.below(at.len() - start);
        &TEXT[at[start]..at[end]]
    }
}

/// What can be drawn.
pub(crate) trait Sample: Sized {
    fn sample(source: &mut Source<'_>) -> Self;
}

impl Sample for bool {
    fn sample(source: &mut Source<'_>) -> bool {
        source.byte() % 2 == 1
    }
}

impl Sample for i32 {
    fn sample(source: &mut Source<'_>) -> i32 {
        match source.byte() {
            0 => 0,
            1 => -1,
            2 => i32::MAX,
            3 => i32::MIN,
            _ => i32::from_be_bytes(source.array()),
        }
    }
}

impl Sample for i64 {
    fn sample(source: &mut Source<'_>) -> i64 {
        match source.byte() {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            _ => i64::from_be_bytes(source.array()),
        }
    }
}

impl Sample for &'static str {
    fn sample(source: &mut Source<'_>) -> &'static str {
        source.text()
    }
}

impl Sample for Blob<'static> {
    fn sample(source: &mut Source<'_>) -> Blob<'static> {
        Blob(source.blob())
    }
}

impl Sample for ErrorCode<'static> {
    fn sample(source: &mut Source<'_>) -> ErrorCode<'static> {
        ErrorCode(source.text())
    }
}

impl Sample for Gpid {
    fn sample(source: &mut Source<'_>) -> Gpid {
        Gpid { app_id: i32::sample(source), partition_index: i32::sample(source) }
    }
}

impl Sample for RpcAddress {
    fn sample(source: &mut Source<'_>) -> RpcAddress {
        RpcAddress((source.byte() > 50).then(|| {
            let ip = Ipv4Addr::from_bits(u32::from_be_bytes(source.array()));
            SocketAddrV4::new(ip, u16::from_be_bytes(source.array()))
        }))
    }
}

impl Sample for HostPort<'static> {
    fn sample(source: &mut Source<'_>) -> HostPort<'static> {
        HostPort { host: source.text(), port: u16::from_be_bytes(source.array()), kind: source.byte() }
    }
}

impl Sample for Map<'static> {
    fn sample(source: &mut Source<'_>) -> Map<'static> {
        let count = source.below(5);
        Map((0..count).map(|_| (source.text(), source.text())).collect())
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(source: &mut Source<'_>) -> Vec<T> {
        let count = source.below(5);
        (0..count).map(|_| T::sample(source)).collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(source: &mut Source<'_>) -> Option<T> {
        (source.byte() % 2 == 1).then(|| T::sample(source))
    }
}

macro_rules! numbers {
    ($($name:ident)*) => {$(
        impl Sample for $name {
            fn sample(source: &mut Source<'_>) -> $name {
                $name(i32::sample(source))
            }
        }
    )*};
}

numbers! { FilterType CheckType MutateOperation AppStatus NodeStatus AppEnvOperation MatchType }
