//! Which keys a read or a delete means: ranges and patterns.

use pegasus_wire::key::{check_hash_key, check_sort_key};
use pegasus_wire::limits::FILTER_BYTES_MAX;
use pegasus_wire::messages::data::{Filter, FilterKind, SortKeys};

use crate::error::Error;

/// A range of sort keys, in the order of their bytes. The default is all of them.
///
/// ```
/// use pegasus_client::SortKeyRange;
///
/// let range = SortKeyRange { start: "2024-05".into(), stop: "2024-06".into(), ..SortKeyRange::default() };
/// assert!(range.contains(b"2024-05") && range.contains(b"2024-05-31") && !range.contains(b"2024-06"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKeyRange {
    /// First sort key; empty means from the beginning.
    pub start: Vec<u8>,
    /// Whether `start` itself belongs to the range. Default true.
    pub start_inclusive: bool,
    /// Last sort key; empty means to the end.
    pub stop: Vec<u8>,
    /// Whether `stop` itself belongs to the range. Default false.
    pub stop_inclusive: bool,
}

impl Default for SortKeyRange {
    fn default() -> SortKeyRange {
        SortKeyRange { start: Vec::new(), start_inclusive: true, stop: Vec::new(), stop_inclusive: false }
    }
}

impl SortKeyRange {
    /// Whether a sort key belongs to the range.
    pub fn contains(&self, sort_key: &[u8]) -> bool {
        self.as_wire().contains(sort_key)
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        check_sort_key(&self.start).map_err(Error::invalid)?;
        check_sort_key(&self.stop).map_err(Error::invalid)
    }

    pub(crate) fn as_wire(&self) -> SortKeys<'_> {
        let SortKeyRange { start, start_inclusive, stop, stop_inclusive } = self;
        SortKeys { start, stop, start_inclusive: *start_inclusive, stop_inclusive: *stop_inclusive }
    }
}

/// A range of hash keys. The default is all of them. What comes between two hash keys depends on the order: see
/// [`crate::Table::range_scanners`] and [`crate::Table::sorted_scan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashKeyRange {
    /// First hash key; empty means from the beginning.
    pub start: Vec<u8>,
    /// Whether `start` itself belongs to the range. Default true.
    pub start_inclusive: bool,
    /// Last hash key; empty means to the end.
    pub stop: Vec<u8>,
    /// Whether `stop` itself belongs to the range. Default false.
    pub stop_inclusive: bool,
}

impl Default for HashKeyRange {
    fn default() -> HashKeyRange {
        HashKeyRange { start: Vec::new(), start_inclusive: true, stop: Vec::new(), stop_inclusive: false }
    }
}

impl HashKeyRange {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        for end in [&self.start, &self.stop].into_iter().filter(|end| !end.is_empty()) {
            check_hash_key(end).map_err(Error::invalid)?;
        }
        Ok(())
    }
}

/// Which keys of a range are wanted, by a pattern. Bytes are compared, and an empty pattern matches every key.
///
/// ```
/// use pegasus_client::KeyFilter;
///
/// assert!(KeyFilter::Prefix("user:".into()).matches(b"user:1"));
/// assert!(!KeyFilter::Postfix("user:".into()).matches(b"user:1"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyFilter {
    /// Every key.
    #[default]
    None,
    /// Keys in which the pattern occurs anywhere.
    Anywhere(Vec<u8>),
    /// Keys that begin with the pattern. Servers go there at once.
    Prefix(Vec<u8>),
    /// Keys that end with the pattern.
    Postfix(Vec<u8>),
    /// The key that is the pattern.
    Exact(Vec<u8>),
}

impl KeyFilter {
    /// Whether a key is wanted.
    pub fn matches(&self, key: &[u8]) -> bool {
        self.as_wire().matches(key)
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let bytes = self.as_wire().pattern.len();
        if bytes > FILTER_BYTES_MAX {
            return Err(Error::InvalidArgument(format!(
                "the pattern of a filter has {bytes} bytes, the limit is {FILTER_BYTES_MAX} (filter_bytes_max)"
            )));
        }
        Ok(())
    }

    pub(crate) fn as_wire(&self) -> Filter<'_> {
        let (kind, pattern): (_, &[u8]) = match self {
            KeyFilter::None => (FilterKind::None, &[]),
            KeyFilter::Anywhere(pattern) => (FilterKind::Anywhere, pattern),
            KeyFilter::Prefix(pattern) => (FilterKind::Prefix, pattern),
            KeyFilter::Postfix(pattern) => (FilterKind::Postfix, pattern),
            KeyFilter::Exact(pattern) => (FilterKind::Exact, pattern),
        };
        Filter { kind, pattern }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_patterns_and_ends_are_named() {
        let says = |outcome: Result<(), Error>| outcome.unwrap_err().to_string();
        let long = vec![0; 1025];
        assert!(says(KeyFilter::Anywhere(long.clone()).validate()).contains("filter_bytes_max"));
        assert!(KeyFilter::Exact(long[1..].to_vec()).validate().is_ok());
        let range = SortKeyRange { stop: long.clone(), ..SortKeyRange::default() };
        assert!(says(range.validate()).contains("sort_key_bytes_max"));
        let range = HashKeyRange { start: long, ..HashKeyRange::default() };
        assert!(says(range.validate()).contains("hash_key_bytes_max"));
        assert!(HashKeyRange::default().validate().is_ok() && SortKeyRange::default().validate().is_ok());
    }

    #[test]
    fn filters_say_the_same_as_the_servers() {
        let wanted = |filter: KeyFilter| [&b"ab"[..], b"b", b"ba", b"c"].map(|key| filter.matches(key));
        assert_eq!(wanted(KeyFilter::None), [true; 4]);
        assert_eq!(wanted(KeyFilter::Anywhere(b"b".into())), [true, true, true, false]);
        assert_eq!(wanted(KeyFilter::Prefix(b"b".into())), [false, true, true, false]);
        assert_eq!(wanted(KeyFilter::Postfix(b"b".into())), [true, true, false, false]);
        assert_eq!(wanted(KeyFilter::Exact(b"b".into())), [false, true, false, false]);
        assert_eq!(wanted(KeyFilter::Exact(b"".into())), [true; 4]);
    }
}
