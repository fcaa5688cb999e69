//! A table as it was at one moment.

use std::fmt;

use rocksdb::Snapshot;

use super::walk;
use super::{ReadMode, Scan, ScanRequest, Table, TableError};

/// The rows of a table as they were when it was made; later writes are not seen. Any thread may use it.
///
/// It keeps the table open, and what compaction would drop otherwise: not for longer than it is read. To make one and
/// to drop one takes RocksDB's lock for a moment, and the last handle to a table closes it: both are for a pool, except
/// where it is known to be harmless.
pub struct TableSnapshot {
    /// The first field, so that it is released while the database is open.
    snapshot: Snapshot<'static>,
    table: Table,
}

impl Table {
    /// The table as it is now, with everything that was applied before.
    pub fn snapshot(&self) -> TableSnapshot {
        let table = self.clone();
        let snapshot = table.inner.db.snapshot();
        // SAFETY: the database is in memory shared by all handles and never moves; `table` is one of them and is
        // dropped after the snapshot, so what the snapshot borrows outlives it. Nobody gets the snapshot itself.
        let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
        TableSnapshot { snapshot, table }
    }
}

impl TableSnapshot {
    /// Reads one slice of a range. What has expired is decided by the request, not by the moment of the snapshot, and
    /// compaction may drop rows that expired a while ago.
    pub fn scan(&self, request: &ScanRequest<'_>, mode: ReadMode) -> Result<Scan, TableError> {
        walk::walk(&self.table, Some(&self.snapshot), request, mode)
    }

    /// The table it is of.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl fmt::Debug for TableSnapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TableSnapshot").field("table", &self.table).finish_non_exhaustive()
    }
}
