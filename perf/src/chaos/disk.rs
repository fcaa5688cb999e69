//! A small file system of its own for each node, which can be filled and freed: an ext4 image in a file, mounted
//! through a loop device. A real one, because the log writes with O_DIRECT.
//!
//! The mount belongs to the mount namespace of this process and is gone with it, at the latest.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// A mounted image. Dropping it takes the mount away; the image stays.
#[derive(Debug)]
pub struct Disk {
    mount_point: PathBuf,
}

impl Disk {
    /// Makes an image of `bytes` and mounts it. Takes as much of the disk below as is written to it.
    pub fn make(image: &Path, bytes: u64, mount_point: PathBuf) -> Result<Disk, Failure> {
        let file = File::create(image).map_err(Failure::at(format!("make {}", image.display())))?;
        file.set_len(bytes).map_err(Failure::at(format!("make {}", image.display())))?;
        drop(file);
        // -m 0: nothing is set aside for root, so that full is full.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image))?;
        fs::create_dir_all(&mount_point).map_err(Failure::at(format!("make {}", mount_point.display())))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&mount_point))?;
        Ok(Disk { mount_point })
    }

    /// Takes all the room there is, but for `leave_bytes`.
    pub fn fill(&self, leave_bytes: u64) -> Result<(), Failure> {
        let doing = format!("fill {}", self.mount_point.display());
        let file = File::create(self.filler()).map_err(Failure::at(&doing))?;
        let (mut length, mut step) = (0u64, FILL_STEP_BYTES);
        while step >= FILL_STEP_BYTES_MIN {
            // SAFETY: fallocate takes a descriptor, which is open, and three numbers.
            let code = unsafe { libc::fallocate(file.as_raw_fd(), 0, length as libc::off_t, step as libc::off_t) };
            if code == 0 {
                length += step;
                continue;
            }
            match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOSPC) => step /= 2,
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(Failure::at(&doing)(error)),
            }
        }
        file.set_len(length.saturating_sub(leave_bytes)).map_err(Failure::at(&doing))
    }

    /// Gives that room back. Without anything to give back it does nothing.
    pub fn free(&self) -> Result<(), Failure> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::at(format!("free {}", self.mount_point.display()))(error))
            }
            _ => Ok(()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.mount_point.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.mount_point.as_os_str().as_bytes()) {
            // SAFETY: the path is a C string that lives across the call. A failure leaves the mount to the end of the
            // mount namespace.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(Failure::at(format!("run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

const FILL_STEP_BYTES: u64 = 64 << 20;
/// A block.
const FILL_STEP_BYTES_MIN: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::chaos::namespace::isolate;

    #[test]
    fn a_disk_is_filled_and_freed() {
        // On a thread of its own: it leaves the machine's namespaces for good.
        let test = || {
            let allowed = isolate().is_ok_and(|isolation| isolation.may_mount);
            let home = tempfile::tempdir().unwrap();
            let made = Disk::make(&home.path().join("image"), 16 << 20, home.path().join("data"));
            let (true, Ok(disk)) = (allowed, made) else {
                eprintln!("skipped: mounting is not allowed here");
                return;
            };
            let write = |bytes: usize| {
                let mut file = File::create(home.path().join("data/file"))?;
                file.write_all(&vec![1; bytes])?;
                file.sync_all()
            };
            write(1 << 20).unwrap();
            disk.fill(0).unwrap();
            assert_eq!(write(2 << 20).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
            disk.free().unwrap();
            disk.free().unwrap();
            write(2 << 20).unwrap();
            disk.fill(4 << 20).unwrap();
            write(3 << 20).unwrap();
            drop(disk);
            assert!(!home.path().join("data/file").exists(), "it is not mounted any more");
        };
        std::thread::spawn(test).join().unwrap();
    }
}
