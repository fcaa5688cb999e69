//! A file system of a few megabytes for one node, which can be filled and freed from outside of the node.
//!
//! It is a private mount. Where that is not allowed, the test that asks for one says that it is skipped.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::replica_program;

/// A mount namespace with a small file system of its own, alive as long as this is.
pub(crate) struct SmallDisk {
    holder: Child,
    /// Where it is mounted.
    pub(crate) directory: PathBuf,
}

impl SmallDisk {
    /// Mounts `directory` in a new namespace, with the files it has so far; `None`, and says so, where that is not
    /// allowed.
    pub(crate) fn mount(directory: PathBuf, options: &str) -> Option<SmallDisk> {
        fs::create_dir_all(&directory).unwrap();
        let script = format!("mount -t tmpfs -o {options} tmpfs {} && echo mounted && exec cat", directory.display());
        let mut command = Command::new("unshare");
        // cat ends when the pipe to it closes, so nothing outlives the test.
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = match command.spawn() {
            Ok(holder) => holder,
            Err(error) => {
                eprintln!("skipped, unshare does not run: {error}");
                return None;
            }
        };
        let mut said = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(holder.stdout.as_mut().unwrap()), &mut said).unwrap();
        let disk = SmallDisk { holder, directory };
        if said != "mounted\n" {
            eprintln!("skipped, a private mount is not allowed here");
            return None;
        }
        for hidden in fs::read_dir(&disk.directory).unwrap() {
            let hidden = hidden.unwrap();
            fs::copy(hidden.path(), disk.outside(hidden.file_name().to_str().unwrap())).unwrap();
        }
        Some(disk)
    }

    /// A node that runs in the namespace.
    pub(crate) fn node(&self, config: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(replica_program());
        command.arg("--config").arg(config);
        command
    }

    /// The directory as it is seen from outside of the namespace.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.directory.strip_prefix("/").unwrap()).join(name)
    }

    /// Takes all the room there is, but for `leave` bytes.
    pub(crate) fn fill(&self, leave: u64) {
        let mut file = fs::File::create(self.outside("filler")).unwrap();
        let block = vec![0xAA; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..4096]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(leave)).unwrap();
    }

    /// Gives that room back.
    pub(crate) fn give_back(&self) {
        fs::remove_file(self.outside("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
