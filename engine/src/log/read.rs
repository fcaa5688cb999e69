//! Reading records back: for a member that fell behind, or a learner.

use pegasus_wire::{Decree, PartitionId};

use super::error::LogError;
use super::format::decode_write;
use super::handle::Log;
use super::history::HistoryBuilder;
use super::index::IndexEntry;
use super::record::LogRecord;

impl Log {
    /// The mutations of a partition from decree `from` on, without a gap, up to `through` or until about
    /// `bytes_max` of payload (but at least one). What is pending or in flight is not seen. Void records are left
    /// out.
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
        let entries = self.shared.state.borrow().index.find(partition, from, through);
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let next = records.last().map_or(from, |record| record.decree.next());
            if entry.first > next || (bytes >= bytes_max && !records.is_empty()) {
                break;
            }
            for record in self.read_entry(partition, entry, next, through).await? {
                if bytes >= bytes_max && !records.is_empty() {
                    break;
                }
                bytes += record.payload.len();
                records.push(record);
            }
        }
        if records.is_empty() && from <= through {
            return Err(LogError::NotInLog { partition, decree: from });
        }
        Ok(records)
    }

    /// The records of one write that are valid, from `from` on and without a gap.
    async fn read_entry(
        &self,
        partition: PartitionId,
        entry: IndexEntry,
        from: Decree,
        through: Decree,
    ) -> Result<Vec<LogRecord>, LogError> {
        let place = entry.place;
        let file = self.shared.file(place.segment)?;
        let read = file.read(place.offset, place.bytes as usize).await?;
        let write = match decode_write(&read) {
            Ok(write) if write.header.sequence == place.sequence => write,
            // The segment was given up and written again while the read was in flight.
            _ if !self.is_indexed(partition, entry) => return Err(LogError::NotInLog { partition, decree: from }),
            Ok(_) => return Err(damaged(entry, "another write is in its place".to_owned())),
            Err(error) => return Err(damaged(entry, error.to_string())),
        };
        let mut history: Option<HistoryBuilder> = None;
        let last = entry.last.min(through);
        for record in write.records.iter().filter(|record| record.partition == partition) {
            if (from..=last).contains(&record.decree) {
                let builder = || HistoryBuilder::new(record.incarnation, from.previous());
                history.get_or_insert_with(builder).push(*record);
            }
        }
        let mut records = history.map(|history| history.finish().records).unwrap_or_default();
        let contiguous = records.iter().zip(from.0..).take_while(|(record, decree)| record.decree.0 == *decree).count();
        records.truncate(contiguous);
        Ok(records)
    }

    fn is_indexed(&self, partition: PartitionId, entry: IndexEntry) -> bool {
        let found = self.shared.state.borrow().index.find(partition, entry.first, entry.first);
        found.iter().any(|other| other.place == entry.place)
    }
}

fn damaged(entry: IndexEntry, detail: String) -> LogError {
    LogError::Damaged { segment: entry.place.segment, offset: entry.place.offset, detail }
}
