//! Which of the rows that a scan looks at are wanted, and where it goes on from those that are not.
//!
//! Rows between those that can be wanted are jumped over. A jump is a seek, which costs about as much as a few steps:
//! so a few steps are tried first.

use memchr::memmem::Finder;
use pegasus_wire::key;
use pegasus_wire::limits::HASH_KEY_BYTES_MAX;
use pegasus_wire::messages::data::{Filter, FilterKind};

use super::ScanRequest;
use super::layout::{encode_range_end, to_end_of_prefix};
use super::seek::SeekRange;

/// What becomes of a row that a scan looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is one of those asked for, if it has not expired.
    Wanted,
    /// It is passed over; the next one may be wanted.
    Unwanted,
    /// It is passed over, and so is everything before [`Judge::target`] or, in reverse, at or behind it.
    Jump,
    /// Neither it nor anything that follows is wanted.
    End,
}

/// Judges rows in the order of the scan.
pub(super) struct Judge<'a> {
    /// The range has all that was asked for and nothing else.
    everything: bool,
    reverse: bool,
    /// What every wanted hash key begins with.
    hash_prefix: &'a [u8],
    hash_keys: Matcher<'a>,
    sort_keys: Matcher<'a>,
    low: &'a [u8],
    high: Option<&'a [u8]>,
    target: Vec<u8>,
    /// Rows seen in a row that could have been jumped over.
    steps: u32,
}

/// Where a row is, seen from those that are wanted.
enum Place {
    /// Its hash key sorts below those of its length that have the prefix.
    BelowHashKeys,
    /// Its hash key sorts above those of its length that have the prefix.
    AboveHashKeys,
    /// Its hash key does not match.
    OtherHashKey,
    /// Its sort key is below the range.
    BelowSortKeys,
    /// Its sort key is above the range.
    AboveSortKeys,
    /// Among them.
    Inside,
}

impl<'a> Judge<'a> {
    pub(super) fn new(request: &'a ScanRequest<'a>, range: &'a SeekRange) -> Judge<'a> {
        let bounds = range.sort_keys();
        let filters = [request.hash_key_filter, request.sort_key_filter];
        let everything = bounds.low.is_empty() && bounds.high.is_none() && filters.iter().all(Filter::is_off);
        Judge {
            everything,
            reverse: request.reverse,
            hash_prefix: request.hash_key_filter.prefix(),
            hash_keys: Matcher::new(request.hash_key_filter),
            sort_keys: Matcher::new(request.sort_key_filter),
            low: &bounds.low,
            high: bounds.high.as_deref(),
            target: Vec::new(),
            steps: 0,
        }
    }

    /// What becomes of the row with this stored key; `None` if it is no stored key.
    pub(super) fn judge(&mut self, key: &[u8]) -> Option<Verdict> {
        if self.everything {
            return Some(Verdict::Wanted);
        }
        let (hash_key, sort_key) = key::decode(key).ok()?;
        let place = self.place(hash_key, sort_key);
        if let Place::Inside = place {
            self.steps = 0;
            let wanted = self.sort_keys.matches(sort_key);
            return Some(if wanted { Verdict::Wanted } else { Verdict::Unwanted });
        }
        if self.steps < STEPS_BEFORE_JUMP {
            self.steps += 1;
            return Some(Verdict::Unwanted);
        }
        self.steps = 0;
        let somewhere = if self.reverse { self.aim_back(&place, hash_key) } else { self.aim(&place, hash_key) };
        Some(if somewhere { Verdict::Jump } else { Verdict::End })
    }

    /// Where a jump goes.
    pub(super) fn target(&self) -> &[u8] {
        &self.target
    }

    fn place(&self, hash_key: &[u8], sort_key: &[u8]) -> Place {
        if !self.hash_prefix.is_empty() && !hash_key.starts_with(self.hash_prefix) {
            let below = hash_key.len() < self.hash_prefix.len() || hash_key < self.hash_prefix;
            return if below { Place::BelowHashKeys } else { Place::AboveHashKeys };
        }
        if !self.hash_keys.matches(hash_key) {
            return Place::OtherHashKey;
        }
        // To compare with nothing is not free: the processor takes its time over an empty slice's address.
        if !self.low.is_empty() && sort_key < self.low {
            return Place::BelowSortKeys;
        }
        if self.high.is_some_and(|high| sort_key >= high) {
            return Place::AboveSortKeys;
        }
        Place::Inside
    }

    /// Sets the target to the next key that may be wanted; false if there is none.
    fn aim(&mut self, place: &Place, hash_key: &[u8]) -> bool {
        let target = &mut self.target;
        match place {
            Place::BelowHashKeys => {
                prefix_of_length(target, hash_key.len().max(self.hash_prefix.len()), self.hash_prefix)
            }
            Place::AboveHashKeys if hash_key.len() >= HASH_KEY_BYTES_MAX => return false,
            Place::AboveHashKeys => prefix_of_length(target, hash_key.len() + 1, self.hash_prefix),
            Place::OtherHashKey | Place::AboveSortKeys => encode_range_end(target, hash_key, b"", false),
            Place::BelowSortKeys => key::encode_into(target, hash_key, self.low),
            Place::Inside => return false,
        }
        true
    }

    /// Sets the target to the key below which the next one is that may be wanted; false if there is none.
    fn aim_back(&mut self, place: &Place, hash_key: &[u8]) -> bool {
        let target = &mut self.target;
        match place {
            Place::AboveHashKeys => {
                prefix_of_length(target, hash_key.len(), self.hash_prefix);
                to_end_of_prefix(target);
            }
            Place::BelowHashKeys if hash_key.len() <= self.hash_prefix.len() => return false,
            Place::BelowHashKeys => {
                prefix_of_length(target, hash_key.len() - 1, self.hash_prefix);
                to_end_of_prefix(target);
            }
            Place::OtherHashKey | Place::BelowSortKeys => key::encode_into(target, hash_key, b""),
            Place::AboveSortKeys => key::encode_into(target, hash_key, self.high.unwrap_or_default()),
            Place::Inside => return false,
        }
        true
    }
}

/// The lowest stored key whose hash key has this length and begins with this prefix, which is no longer.
fn prefix_of_length(target: &mut Vec<u8>, length: usize, prefix: &[u8]) {
    target.clear();
    target.extend_from_slice(&(length as u16).to_be_bytes());
    target.extend_from_slice(prefix);
}

/// A filter, prepared for many keys.
enum Matcher<'a> {
    Anywhere(Box<Finder<'a>>),
    Other(Filter<'a>),
}

impl<'a> Matcher<'a> {
    fn new(filter: Filter<'a>) -> Matcher<'a> {
        match filter.kind {
            FilterKind::Anywhere if !filter.is_off() => Matcher::Anywhere(Box::new(Finder::new(filter.pattern))),
            _ => Matcher::Other(filter),
        }
    }

    fn matches(&self, key: &[u8]) -> bool {
        match self {
            Matcher::Anywhere(finder) => finder.find(key).is_some(),
            Matcher::Other(filter) => filter.matches(key),
        }
    }
}

/// About what a jump costs, in steps.
const STEPS_BEFORE_JUMP: u32 = 4;
