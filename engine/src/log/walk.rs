//! Follows the chain of writes from the head of the log to its end.
//!
//! ```text
//!            next write is whole
//!           +-----------------+
//!           v                 |
//!   ----> Follow -------------+
//!           |  next write is missing or broken
//!           v
//!         Look further: every header that belongs to the log beyond this point
//!           |                                   |
//!           | none says that the missing        | some header, or a later start, says it was synced:
//!           | write was synced                  | the missing writes up to there are damage
//!           v                                   v
//!          End (what is beyond is tail, cut)   a whole write right behind the damage: Follow from there; else End
//! ```
//!
//! Invariants:
//! - a write is accepted only if it is of the incarnation that its sequence belongs to, is chained to its
//!   predecessor if that is known, and every record in it is whole;
//! - beyond a gap that is not damage nothing is accepted, even if it is whole: what is kept is a prefix of what was
//!   written, but for reported damage.

use std::collections::{BTreeMap, HashSet};

use super::error::LogError;
use super::format::{DecodedWrite, PartitionRange, SEGMENT_DATA_OFFSET, decode_write};
use super::lives::{Life, Lives};
use super::scan::{FoundWrite, Segments};

/// Where the walk is, and what it knows so far.
pub(super) struct Walk<'a> {
    segments: &'a mut Segments,
    log: u64,
    lives: &'a Lives,
    /// The sequence expected next.
    next: u64,
    /// Where its write begins unless it begins another segment.
    place: Option<(usize, u64)>,
    previous_checksum: Option<u32>,
    previous_list: Vec<PartitionRange>,
    /// Highest sequence known synced.
    synced: u64,
    /// Lowest sequence that belongs to the log, as the last write says.
    head: u64,
    visited: HashSet<usize>,
    missing: Vec<MissingWrites>,
    cut_writes: u64,
}

/// Synced writes that are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MissingWrites {
    pub(super) first: u64,
    pub(super) last: u64,
    /// What they held, if that is known.
    pub(super) list: Option<Vec<PartitionRange>>,
}

/// How a walk ended.
#[derive(Debug)]
pub(super) struct WalkEnd {
    /// The sequence the next write gets.
    pub(super) next: u64,
    pub(super) head: u64,
    /// Of the last write that was accepted.
    pub(super) previous_checksum: u32,
    pub(super) previous_list: Vec<PartitionRange>,
    pub(super) missing: Vec<MissingWrites>,
    /// Whole headers beyond the end: writes that were on their way.
    pub(super) cut_writes: u64,
}

impl<'a> Walk<'a> {
    /// Starts at the lowest sequence that belongs to the log; `head` is the one known without looking.
    pub(super) fn new(segments: &'a mut Segments, log: u64, lives: &'a Lives, head: u64) -> Walk<'a> {
        let mut walk = Walk {
            segments,
            log,
            lives,
            next: 0,
            place: None,
            previous_checksum: None,
            previous_list: Vec::new(),
            synced: lives.synced(),
            head,
            visited: HashSet::new(),
            missing: Vec::new(),
            cut_writes: 0,
        };
        // The youngest segment's first header knows of every segment that was freed before it was begun.
        let firsts = walk.segments.found.iter().filter_map(|segment| segment.first.as_ref());
        let youngest = firsts.filter(|first| walk.belongs(first)).max_by_key(|first| first.header.sequence);
        walk.head = youngest.map_or(head, |first| first.header.head.max(head));
        walk.next = walk.head;
        walk
    }

    /// Walks to the end and hands every accepted write to `accept`, in order.
    pub(super) fn run(
        mut self,
        mut accept: impl FnMut(&FoundWrite, u32, &DecodedWrite<'_>),
    ) -> Result<WalkEnd, LogError> {
        loop {
            while let Some(write) = self.following()? {
                self.take(write, &mut accept)?;
            }
            match self.look_further()? {
                Some(write) => self.take(write, &mut accept)?,
                None => break,
            }
        }
        Ok(WalkEnd {
            next: self.next,
            head: self.head,
            previous_checksum: self.previous_checksum.unwrap_or_default(),
            previous_list: self.previous_list,
            missing: self.missing,
            cut_writes: self.cut_writes,
        })
    }

    fn take(
        &mut self,
        write: FoundWrite,
        accept: &mut impl FnMut(&FoundWrite, u32, &DecodedWrite<'_>),
    ) -> Result<(), LogError> {
        let number = self.segments.found[write.segment].number;
        let content = self.segments.content(write.segment)?;
        if let Ok(decoded) = decode_write(&content[write.offset as usize..]) {
            accept(&write, number, &decoded);
        }
        self.visited.insert(write.segment);
        self.synced = self.synced.max(write.header.synced);
        self.head = self.head.max(write.header.head);
        self.next = write.header.sequence + 1;
        self.place = Some((write.segment, write.end()));
        self.previous_checksum = Some(write.checksum);
        self.previous_list = write.header.list;
        Ok(())
    }

    /// The next write, if it is whole and where it should be.
    fn following(&mut self) -> Result<Option<FoundWrite>, LogError> {
        let mut candidates = Vec::new();
        if let Some((segment, offset)) = self.place {
            let content = self.segments.content(segment)?;
            let bytes = content.get(offset as usize..).unwrap_or_default();
            if let Ok((header, checksum)) = super::format::WriteHeader::decode(bytes) {
                candidates.push(FoundWrite { segment, offset, header, checksum });
            }
        }
        let firsts = self.segments.found.iter().filter_map(|segment| segment.first.as_ref());
        candidates.extend(firsts.filter(|first| first.header.sequence == self.next).cloned());
        for candidate in candidates {
            if candidate.header.sequence == self.next && self.is_whole(&candidate, self.previous_checksum)? {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    /// The expected write is not there: notes the damage if it was synced, and finds where to go on.
    fn look_further(&mut self) -> Result<Option<FoundWrite>, LogError> {
        let beyond = self.headers_beyond()?;
        for write in beyond.values() {
            self.synced = self.synced.max(write.header.synced);
        }
        if self.next > self.synced {
            self.cut_writes = beyond.len() as u64;
            return Ok(None);
        }
        let mut resume = None;
        for (sequence, write) in beyond.range(..=self.synced + 1) {
            let previous = match sequence.checked_sub(1) {
                Some(previous) if *sequence > self.next => beyond.get(&previous).map(|write| write.checksum),
                _ => self.previous_checksum,
            };
            if self.is_whole(write, previous)? {
                resume = Some(write.clone());
                break;
            }
        }
        let last = resume.as_ref().map_or(self.synced, |write| write.header.sequence - 1);
        self.note_missing(last, &beyond);
        self.next = last + 1;
        if resume.is_none() {
            self.cut_writes = beyond.range(self.next..).count() as u64;
        }
        Ok(resume)
    }

    /// Every header that belongs to the log from the expected sequence on, as far as it can matter.
    fn headers_beyond(&mut self) -> Result<BTreeMap<u64, FoundWrite>, LogError> {
        let mut found = Vec::new();
        if let Some((segment, offset)) = self.place {
            found.extend(self.segments.headers_from(segment, offset)?);
        }
        let mut firsts = Vec::new();
        for segment in 0..self.segments.found.len() {
            if self.visited.contains(&segment) {
                continue;
            }
            match self.segments.found[segment].first.clone().filter(|first| self.is_beyond(first)) {
                Some(first) => firsts.push(first),
                None => {
                    // Its first write may be what is missing.
                    let near = self.segments.headers_near_begin(segment)?;
                    if near.iter().any(|write| self.is_beyond(write)) {
                        found.extend(self.segments.headers_from(segment, SEGMENT_DATA_OFFSET)?);
                    }
                }
            }
        }
        // The log goes on in the segment with the lowest first sequence, so all its headers count; of the later ones
        // the first says enough: whatever precedes it was synced before.
        if let Some(next) = firsts.iter().min_by_key(|first| first.header.sequence) {
            found.extend(self.segments.headers_from(next.segment, next.offset)?);
        }
        found.extend(firsts);
        found.retain(|write| self.is_beyond(write));
        Ok(found.into_iter().map(|write| (write.header.sequence, write)).collect())
    }

    fn note_missing(&mut self, last: u64, beyond: &BTreeMap<u64, FoundWrite>) {
        for sequence in self.next..=last {
            let own = beyond.get(&sequence).map(|write| &write.header.list);
            let repeated = beyond.get(&(sequence + 1)).map(|write| &write.header.repeat);
            let list = own.or(repeated).cloned();
            match self.missing.last_mut() {
                Some(range) if range.last + 1 == sequence && range.list.is_none() && list.is_none() => {
                    range.last = sequence;
                }
                _ => self.missing.push(MissingWrites { first: sequence, last: sequence, list }),
            }
        }
    }

    fn belongs(&self, write: &FoundWrite) -> bool {
        write.header.log == self.log && self.lives.of(write.header.sequence) == Some(write.header.incarnation)
    }

    fn is_beyond(&self, write: &FoundWrite) -> bool {
        write.header.sequence >= self.next && self.belongs(write)
    }

    fn is_whole(&mut self, write: &FoundWrite, previous: Option<u32>) -> Result<bool, LogError> {
        if !self.belongs(write) || previous.is_some_and(|checksum| checksum != write.header.previous_checksum) {
            return Ok(false);
        }
        let content = self.segments.content(write.segment)?;
        Ok(decode_write(&content[write.offset as usize..]).is_ok())
    }
}

/// The lives that the first headers of the segments tell of. Needed when the log's own file is lost.
pub(super) fn lives_of(segments: &Segments, log: u64, lives: &mut Lives) {
    for first in segments.found.iter().filter_map(|segment| segment.first.as_ref()) {
        if first.header.log == log {
            lives.learn(Life { incarnation: first.header.incarnation, first_sequence: first.header.first_sequence });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::{BLOCK_BYTES, WriteHeader, encode_write};
    use crate::log::scan::segment_path;

    const LOG: u64 = 5;

    /// A segment with three writes; `alter` changes the header of the third before it is encoded.
    fn walk_over(alter: impl FnOnce(&mut WriteHeader)) -> (Vec<u64>, WalkEnd) {
        let directory = tempfile::tempdir().unwrap();
        let mut content = vec![0; 8 * BLOCK_BYTES];
        let mut previous_checksum = 0;
        let mut alter = Some(alter);
        for sequence in 1..=3 {
            let mut header = WriteHeader {
                previous_checksum,
                log: LOG,
                incarnation: 1,
                first_sequence: 1,
                sequence,
                synced: 0,
                head: 1,
                write_bytes: BLOCK_BYTES as u32,
                record_bytes: 0,
                record_count: 0,
                list: Vec::new(),
                repeat: Vec::new(),
            };
            if let Some(alter) = alter.take_if(|_| sequence == 3) {
                alter(&mut header);
            }
            let at = sequence as usize * BLOCK_BYTES;
            previous_checksum = encode_write(&header, [].iter(), &mut content[at..at + BLOCK_BYTES]);
        }
        std::fs::write(segment_path(directory.path(), 0), content).unwrap();
        let mut lives = Lives::default();
        lives.learn(Life { incarnation: 1, first_sequence: 1 });
        let mut segments = Segments::open(directory.path()).unwrap();
        let mut accepted = Vec::new();
        let walk = Walk::new(&mut segments, LOG, &lives, 1);
        let end = walk.run(|write, _, _| accepted.push(write.header.sequence)).unwrap();
        (accepted, end)
    }

    #[test]
    fn only_what_belongs_and_is_chained_is_accepted() {
        let (accepted, end) = walk_over(|_| ());
        assert_eq!((accepted, end.next, end.cut_writes), (vec![1, 2, 3], 4, 0));
        let alterations: [fn(&mut WriteHeader); 4] = [
            |header| header.previous_checksum ^= 1,
            |header| header.log += 1,
            |header| header.incarnation += 1,
            |header| header.sequence += 1,
        ];
        for alter in alterations {
            let (accepted, end) = walk_over(alter);
            assert_eq!((accepted, end.next, end.missing.len()), (vec![1, 2], 3, 0));
        }
    }
}
