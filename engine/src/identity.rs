//! Who a node is, and whose data directory this is.
//!
//! ```text
//! <data>/node      identity of the node, drawn when the directory is made
//! <data>/lock      held (flock) by the process that uses the directory
//! ```
//!
//! A node that lost its directory is a new node: it must never pass for a member whose data it no longer has.
//! So an identity is never drawn into a directory that holds copies already. Randomness comes from the caller.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use pegasus_wire::{ClusterId, NodeId};

use crate::descriptor::replicas_directory;
use crate::durable_file::{BodyReader, FileError, FileKind, Loaded, create_directory, failed};

/// Identity of one boot of the machine, from the kernel.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// The present boot.
    pub fn current() -> Result<BootId, FileError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = std::fs::read_to_string(path).map_err(failed(path, "read"))?;
        BootId::parse(text.trim()).ok_or_else(|| FileError::Io {
            path: path.to_owned(),
            action: "understand",
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, format!("not an identifier: {text:?}")),
        })
    }

    fn parse(text: &str) -> Option<BootId> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        let mut bytes = [0; 16];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(BootId(bytes))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The identity in a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The identity file is not what was written.
    #[error("{path} is damaged: {detail}; move the data directory away to start as a new node")]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// There are copies but no identity: the file was lost, and a new identity would disown the copies.
    #[error("{data_directory} holds copies but no node identity; move the directory away to start as a new node")]
    Lost {
        /// The data directory.
        data_directory: PathBuf,
    },
    /// The node belongs to another cluster.
    #[error(
        "this node belongs to cluster {own}, it was offered cluster {offered}; check the addresses of the meta servers"
    )]
    OtherCluster {
        /// The cluster in the identity file.
        own: ClusterId,
        /// The cluster offered.
        offered: ClusterId,
    },
    /// Another process uses the directory.
    #[error("{path} is in use by another process ({holder}); a data directory serves one process")]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
}

/// Identity of a node: drawn once, and the cluster once it is known. Neither ever changes after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    path: PathBuf,
    node: NodeId,
    cluster: Option<ClusterId>,
}

impl NodeIdentity {
    /// Reads the identity in a data directory, or makes it with the id that `draw` gives if the directory is new.
    /// The directory is made if it is missing. Blocks until the identity is durable.
    pub fn open(data_directory: &Path, draw: impl FnOnce() -> NodeId) -> Result<NodeIdentity, IdentityError> {
        create_directory(data_directory)?;
        let path = data_directory.join("node");
        match KIND.load(&path)? {
            Loaded::Damaged(detail) => Err(IdentityError::Damaged { path, detail }),
            Loaded::Valid(body) => match decode_body(&body) {
                Some((node, cluster)) => Ok(NodeIdentity { path, node, cluster }),
                None => Err(IdentityError::Damaged { path, detail: "its body is not an identity".to_owned() }),
            },
            Loaded::Absent => {
                if replicas_directory(data_directory).exists() {
                    return Err(IdentityError::Lost { data_directory: data_directory.to_owned() });
                }
                let identity = NodeIdentity { path, node: draw(), cluster: None };
                identity.store()?;
                Ok(identity)
            }
        }
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its cluster, once known.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Joins a cluster for good. Does nothing if it is the node's cluster already; fails if the node has another.
    pub fn set_cluster(&mut self, cluster: ClusterId) -> Result<(), IdentityError> {
        match self.cluster {
            Some(own) if own == cluster => Ok(()),
            Some(own) => Err(IdentityError::OtherCluster { own, offered: cluster }),
            None => {
                let joined = NodeIdentity { cluster: Some(cluster), ..self.clone() };
                joined.store()?;
                *self = joined;
                Ok(())
            }
        }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        KIND.encode(&self.encode_body())
    }

    fn store(&self) -> Result<(), FileError> {
        KIND.store(&self.path, &self.encode_body())
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(17);
        body.extend_from_slice(&self.node.0.to_le_bytes());
        body.push(u8::from(self.cluster.is_some()));
        body.extend_from_slice(&self.cluster.unwrap_or_default().0.to_le_bytes());
        body
    }
}

fn decode_body(body: &[u8]) -> Option<(NodeId, Option<ClusterId>)> {
    let mut body = BodyReader(body);
    let node = NodeId(body.u64()?);
    let cluster = match (body.u8()?, body.u64()?) {
        (0, 0) => None,
        (1, cluster) => Some(ClusterId(cluster)),
        _ => return None,
    };
    body.0.is_empty().then_some((node, cluster))
}

/// Holds a data directory for this process. Released when dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// Takes the directory, which is made if it is missing. Fails at once if another process has it.
    pub fn acquire(data_directory: &Path) -> Result<DirectoryLock, IdentityError> {
        create_directory(data_directory)?;
        let path = data_directory.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed(&path, "open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(&path, "lock")(error).into()),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = (&file).take(64).read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { holder.trim().to_owned() } else { "unknown".to_owned() };
                return Err(IdentityError::InUse { path, holder });
            }
        }
        // Only for the message above, so it need not be durable.
        file.set_len(0).map_err(failed(&path, "write"))?;
        file.rewind().map_err(failed(&path, "write"))?;
        writeln!(file, "process {}", std::process::id()).map_err(failed(&path, "write"))?;
        Ok(DirectoryLock { file })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing the file would do as well; this says so.
        let _ = self.file.unlock();
    }
}

const KIND: FileKind = FileKind { magic: *b"PEGNODE\n", version: 1 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_identifiers_parse() {
        let boot = BootId::parse("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(boot.to_string(), "00112233445566778899aabbccddeeff");
        for bad in ["", "0011", "00112233-4455-6677-8899-aabbccddeefg", "00112233-4455-6677-8899-aabbccddeeff00"] {
            assert!(BootId::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(BootId::current().unwrap(), BootId::current().unwrap());
        assert_ne!(BootId::current().unwrap(), BootId::default());
    }
}
