//! How much room a file system has. The server refuses writes while any member has less than the disk reserve.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Room of the file system that holds a directory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the file system.
    pub total_bytes: u64,
    /// What a process without special rights may still use.
    pub free_bytes: u64,
}

/// Asks the kernel for the room of the file system that holds `path`. Blocks for as long as the file system does:
/// call it in a pool.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let text = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path has a zero byte"))?;
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is a C string and the answer has room for the structure; both live over the call.
    let result = unsafe { libc::statvfs(text.as_ptr(), answer.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the structure.
    let answer = unsafe { answer.assume_init() };
    let fragment = answer.f_frsize;
    Ok(DiskSpace {
        total_bytes: fragment.saturating_mul(answer.f_blocks),
        free_bytes: fragment.saturating_mul(answer.f_bavail),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_and_a_missing_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let space = disk_space(directory.path()).unwrap();
        assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes, "{space:?}");
        assert!(disk_space(&directory.path().join("absent")).is_err());
    }
}
