//! The result of an operation inside its answer: RocksDB's status codes, as Pegasus passes them on (facts 1.3).

/// What an operation came to at the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum StorageCode {
    /// Carried out.
    Ok = 0,
    /// No such row, or no such scan.
    NotFound = 1,
    /// What is stored is damaged.
    Corruption = 2,
    /// There is no such operation.
    NotSupported = 3,
    /// The request, or what the row holds, does not allow it.
    InvalidArgument = 4,
    /// The disk failed.
    IoError = 5,
    /// A limit stopped a read before its end.
    Incomplete = 7,
    /// A check did not hold.
    TryAgain = 13,
}

impl StorageCode {
    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }
}
