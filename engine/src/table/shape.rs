//! How RocksDB shapes the files of one table, which may change while it is open.
//!
//! - `normal`: as the node says.
//! - `prefer_write`: write buffers of one to two times the size, so that the copies of a table do not all flush at one
//!   time; level 0 holds about as much as level 1 before it is compacted.
//! - `bulk_load`: write buffers of four times the size, six at least; level 0 is never compacted and never slows
//!   writes down.
//!
//! The shape a table was last given is kept in it, so that it has that shape from the moment it is opened: a table that
//! is being loaded in bulk has far more files in level 0 than another one would stand.

use std::sync::PoisonError;

use pegasus_wire::Environment;
use pegasus_wire::environment::UsageScenario;

use super::layout::SHAPE_KEY;
use super::{SharedOptions, Table, TableError};

/// What a table's environment says about its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableShape {
    /// Size of a write buffer; 0: the node's setting.
    pub write_buffer_bytes: usize,
    /// What the table is used for.
    pub usage_scenario: UsageScenario,
}

impl From<&Environment> for TableShape {
    fn from(environment: &Environment) -> TableShape {
        TableShape { write_buffer_bytes: environment.write_buffer_bytes, usage_scenario: environment.usage_scenario }
    }
}

impl Table {
    /// The shape it has. Never blocks.
    pub fn shape(&self) -> TableShape {
        *self.inner.shape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it another shape, and keeps that. Write buffers have the new size from the next one on. Cheap if it has
    /// that shape already; else it blocks: run it in a pool.
    pub fn reshape(&self, shape: TableShape) -> Result<(), TableError> {
        let _one_at_a_time = self.inner.reshaping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shape() == shape {
            return Ok(());
        }
        self.set_shape_options(shape, &[])?;
        let stored = self.inner.db.put_opt(SHAPE_KEY, shape.encode(), &self.inner.blocking_writes);
        stored.map_err(|error| self.failed("keep the shape", error))?;
        *self.inner.shape.lock().unwrap_or_else(PoisonError::into_inner) = shape;
        Ok(())
    }

    /// Sets RocksDB's options of a shape, and others with them: each call writes a file.
    pub(super) fn set_shape_options(&self, shape: TableShape, others: &[(&str, &str)]) -> Result<(), TableError> {
        let options = shape.options(self.inner.shared.options(), self.inner.partition.index);
        let options = options.iter().map(|(name, value)| (*name, value.as_str()));
        let options: Vec<(&str, &str)> = options.chain(others.iter().copied()).collect();
        self.inner.db.set_options(&options).map_err(|error| self.failed("set options", error))
    }
}

impl TableShape {
    /// RocksDB's options, all that any shape changes. `index` is the partition's: it spreads sizes.
    fn options(&self, node: &SharedOptions, index: u32) -> Vec<(&'static str, String)> {
        let asked = if self.write_buffer_bytes == 0 { node.write_buffer_bytes } else { self.write_buffer_bytes };
        let mut buffer_bytes = asked as u64;
        let mut buffer_count = node.write_buffer_count;
        let mut compaction_files = i64::from(node.level0_compaction_files);
        let mut slowdown_files = i64::from(node.level0_slowdown_files);
        let mut stop_files = i64::from(node.level0_stop_files);
        let (mut soft_limit, mut hard_limit) = (PENDING_BYTES_SLOWDOWN, PENDING_BYTES_STOP);
        match self.usage_scenario {
            UsageScenario::Normal => {}
            UsageScenario::PreferWrite => {
                // Neighbours in number are far apart in size.
                let part = u64::from(index.wrapping_mul(0x9E37_79B9) >> 24);
                buffer_bytes += buffer_bytes * part / 256;
                let files = i64::try_from(node.level1_bytes / buffer_bytes.max(1)).unwrap_or(i64::MAX);
                compaction_files = compaction_files.max(files.min(LEVEL0_FILES_MANY));
                slowdown_files = slowdown_files.max(2 * compaction_files);
                stop_files = stop_files.max(4 * compaction_files);
            }
            UsageScenario::BulkLoad => {
                buffer_bytes *= 4;
                buffer_count = buffer_count.max(6);
                (compaction_files, slowdown_files, stop_files) = (NEVER, NEVER, NEVER);
                (soft_limit, hard_limit) = (0, 0);
            }
        }
        let bulk_load = self.usage_scenario == UsageScenario::BulkLoad;
        vec![
            ("write_buffer_size", buffer_bytes.min(node.write_buffer_bytes_total as u64).to_string()),
            ("max_write_buffer_number", buffer_count.to_string()),
            ("level0_file_num_compaction_trigger", compaction_files.to_string()),
            ("level0_slowdown_writes_trigger", slowdown_files.to_string()),
            ("level0_stop_writes_trigger", stop_files.to_string()),
            ("soft_pending_compaction_bytes_limit", soft_limit.to_string()),
            ("hard_pending_compaction_bytes_limit", hard_limit.to_string()),
            ("disable_auto_compactions", bulk_load.to_string()),
        ]
    }

    /// As it is kept; drawn in `layout`.
    fn encode(&self) -> [u8; SHAPE_BYTES] {
        let mut bytes = [0; SHAPE_BYTES];
        bytes[0] = SHAPE_VERSION;
        bytes[1] = match self.usage_scenario {
            UsageScenario::Normal => 0,
            UsageScenario::PreferWrite => 1,
            UsageScenario::BulkLoad => 2,
        };
        bytes[2..].copy_from_slice(&(self.write_buffer_bytes as u64).to_be_bytes());
        bytes
    }

    /// What cannot be read counts as the default: the table is told its shape again soon.
    pub(super) fn decode(bytes: &[u8]) -> Option<TableShape> {
        let (&[SHAPE_VERSION, scenario], size) = bytes.split_first_chunk::<2>()? else { return None };
        let usage_scenario = match scenario {
            0 => UsageScenario::Normal,
            1 => UsageScenario::PreferWrite,
            2 => UsageScenario::BulkLoad,
            _ => return None,
        };
        let write_buffer_bytes = usize::try_from(u64::from_be_bytes(size.try_into().ok()?)).ok()?;
        Some(TableShape { write_buffer_bytes, usage_scenario })
    }
}

const SHAPE_VERSION: u8 = 1;
const SHAPE_BYTES: usize = 10;

/// RocksDB's own defaults, written out because they have to be set again after a bulk load.
const PENDING_BYTES_SLOWDOWN: u64 = 64 << 30;
const PENDING_BYTES_STOP: u64 = 256 << 30;
/// Pegasus's number for as many files as there may ever be.
const NEVER: i64 = 1_000_000_000;
/// Reads look into every file of level 0.
const LEVEL0_FILES_MANY: i64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn options(shape: TableShape, index: u32) -> Vec<(&'static str, i64)> {
        let options = shape.options(&SharedOptions::default(), index);
        options.into_iter().map(|(name, value)| (name, value.parse().unwrap_or(i64::from(value == "true")))).collect()
    }

    #[test]
    fn records_golden_bytes() {
        let shape = TableShape { write_buffer_bytes: 0x0102_0304, usage_scenario: UsageScenario::BulkLoad };
        assert_eq!(&shape.encode(), b"\x01\x02\0\0\0\0\x01\x02\x03\x04");
        for usage_scenario in [UsageScenario::Normal, UsageScenario::PreferWrite, UsageScenario::BulkLoad] {
            let shape = TableShape { usage_scenario, ..shape };
            assert_eq!(TableShape::decode(&shape.encode()), Some(shape));
        }
        for unknown in
            [&b"\x02\x02\0\0\0\0\x01\x02\x03\x04"[..], b"\x01\x03\0\0\0\0\x01\x02\x03\x04", b"\x01\x02\0", b""]
        {
            assert_eq!(TableShape::decode(unknown), None);
        }
    }

    #[test]
    fn scenarios_are_options() {
        let shape = |usage_scenario| TableShape { write_buffer_bytes: 32 << 20, usage_scenario };
        let normal = options(shape(UsageScenario::Normal), 5);
        assert_eq!(
            normal.iter().map(|(_, value)| *value).collect::<Vec<_>>(),
            [32 << 20, 4, 4, 30, 60, 64 << 30, 256 << 30, 0]
        );
        let bulk = options(shape(UsageScenario::BulkLoad), 5);
        let values: Vec<_> = bulk.iter().map(|(_, value)| *value).collect();
        assert_eq!(values, [128 << 20, 6, NEVER, NEVER, NEVER, 0, 0, 1]);
        let sizes: Vec<i64> = (0..64).map(|index| options(shape(UsageScenario::PreferWrite), index)[0].1).collect();
        assert!(sizes.iter().all(|size| (32 << 20..64 << 20).contains(size)), "{sizes:?}");
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() > 24 << 20, "they are spread");
        let prefer_write = options(shape(UsageScenario::PreferWrite), 0);
        assert_eq!(prefer_write[2..5].iter().map(|(_, value)| *value).collect::<Vec<_>>(), [20, 40, 80]);
        let names: Vec<_> = normal.iter().map(|(name, _)| *name).collect();
        assert!(bulk.iter().chain(&prefer_write).all(|(name, _)| names.contains(name)), "what is set is set back");
    }

    #[test]
    fn no_buffer_is_larger_than_the_memory_for_all() {
        let shape = TableShape { write_buffer_bytes: 512 << 20, usage_scenario: UsageScenario::BulkLoad };
        assert_eq!(options(shape, 0)[0].1, SharedOptions::default().write_buffer_bytes_total as i64);
        let default = TableShape::default();
        assert_eq!(options(default, 0)[0].1, SharedOptions::default().write_buffer_bytes as i64);
    }
}
