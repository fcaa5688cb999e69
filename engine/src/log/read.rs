//! Reading records back: for a member that fell behind, or a learner.
//!
//! The index says which log writes hold a decree. Writes that are near each other on the disk are read at once, so that
//! catching up goes in large steps where one partition has the log to itself, and reads little of others' where not.

use pegasus_wire::{Decree, PartitionId};

use super::error::LogError;
use super::format::decode_write;
use super::handle::Log;
use super::history::HistoryBuilder;
use super::index::{IndexEntry, Span};
use super::record::LogRecord;

impl Log {
    /// The mutations of a partition from decree `from` on, in order and without a gap, up to `through` or until about
    /// `bytes_max` of payload (but at least one). Of several of one decree it is the one of the highest ballot; void
    /// ones and those of an earlier copy are left out. What is pending or in flight is not seen. Which of them are
    /// committed the log does not know: `through` says how far the caller knows it.
    ///
    /// # Errors
    /// [`LogError::NotInLog`] if `from` itself was never written, is void, or was recycled: the caller falls back to
    /// a checkpoint. [`LogError::Damaged`] if the bytes are not what was written.
    pub async fn read(
        &self,
        partition: PartitionId,
        from: Decree,
        through: Decree,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>, LogError> {
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while next <= through && (bytes < bytes_max || records.is_empty()) {
            let rest = bytes_max.saturating_sub(bytes);
            let Some(span) = self.shared.state.borrow().index.span(partition, next, through, rest) else { break };
            let found = match self.read_span(partition, &span, next, through).await {
                // Recycled while it was read: what was read before stands.
                Err(LogError::NotInLog { .. }) => break,
                found => found?,
            };
            if found.is_empty() {
                break;
            }
            for record in found {
                if bytes >= bytes_max && !records.is_empty() {
                    break;
                }
                bytes += record.payload.len();
                next = record.decree.next();
                records.push(record);
            }
        }
        if records.is_empty() && from <= through {
            return Err(self.not_in_log(partition, from));
        }
        Ok(records)
    }

    /// The valid records of the writes in a span, from `from` on and without a gap.
    async fn read_span(
        &self,
        partition: PartitionId,
        span: &Span,
        from: Decree,
        through: Decree,
    ) -> Result<Vec<LogRecord>, LogError> {
        let (segment, offset, length) = span.place();
        let file = self.shared.file(segment)?;
        let read = file.read(offset, length).await?;
        self.shared.state.borrow_mut().counters.read_bytes += read.len() as u64;
        let mut records: Vec<LogRecord> = Vec::new();
        for entry in &span.entries {
            let next = records.last().map_or(from, |record| record.decree.next());
            let begin = ((entry.place.offset - offset) as usize).min(read.len());
            let found = self.decode(partition, span, entry, &read[begin..], next..=entry.last.min(through))?;
            let whole = found.last().is_some_and(|record| record.decree == entry.last);
            records.extend(found);
            if !whole {
                break;
            }
        }
        Ok(records)
    }

    /// The records of one write with these decrees, as far as there is no gap.
    fn decode(
        &self,
        partition: PartitionId,
        span: &Span,
        entry: &IndexEntry,
        bytes: &[u8],
        decrees: std::ops::RangeInclusive<Decree>,
    ) -> Result<Vec<LogRecord>, LogError> {
        let first = *decrees.start();
        let write = match decode_write(bytes) {
            Ok(write) if write.header.sequence == entry.place.sequence => write,
            // The segment was given up and written again while the read was in flight.
            _ if !self.is_indexed(partition, entry) => return Err(self.not_in_log(partition, first)),
            Ok(_) => return Err(damaged(entry, "another write is in its place".to_owned())),
            Err(error) => return Err(damaged(entry, error.to_string())),
        };
        let mut history = HistoryBuilder::new(span.incarnation, first.previous());
        for record in &write.records {
            let concerned = record.partition == partition && record.incarnation == span.incarnation;
            if concerned && decrees.contains(&record.decree) {
                history.push(*record);
            }
        }
        let mut records = history.finish().records;
        let contiguous =
            records.iter().zip(first.0..).take_while(|(record, decree)| record.decree.0 == *decree).count();
        records.truncate(contiguous);
        Ok(records)
    }

    fn is_indexed(&self, partition: PartitionId, entry: &IndexEntry) -> bool {
        self.shared.state.borrow().index.place_of(partition, entry.first).is_some_and(|place| place == entry.place)
    }

    fn not_in_log(&self, partition: PartitionId, decree: Decree) -> LogError {
        let first_available = self.shared.state.borrow().index.first_above(partition, decree);
        LogError::NotInLog { partition, decree, first_available }
    }
}

fn damaged(entry: &IndexEntry, detail: String) -> LogError {
    LogError::Damaged { segment: entry.place.segment, offset: entry.place.offset, detail }
}
