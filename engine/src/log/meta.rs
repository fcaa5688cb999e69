//! The log's own small file: what must outlive every segment. Replaced as a whole at each start, before the first
//! write of the new incarnation; blocks.
//!
//! ```text
//! <log>/meta      a file as drawn in `durable_file`, magic "PGSLMETA", version 1, body little endian:
//!      0    8 log              drawn at random when the directory was made
//!      8   16 boot             the machine's boot
//!     24    8 incarnation      of the present life
//!     32    8 head             lowest sequence that belongs to the log
//!     40    4 life count
//!     44    4 damage count
//!     48      lives: incarnation 8, first sequence 8; rising in both
//!      +      damage: first sequence 8, last sequence 8; already reported
//! ```

use std::path::Path;

use super::error::LogError;
use super::lives::{Life, Lives};
use crate::durable_file::{BodyReader, FileKind, Loaded};
use crate::identity::BootId;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) log: u64,
    pub(super) boot: BootId,
    pub(super) incarnation: u64,
    pub(super) head: u64,
    pub(super) lives: Lives,
    /// Ranges of sequences (first, last) whose damage an earlier recovery reported and the caller dealt with.
    pub(super) reported: Vec<(u64, u64)>,
}

impl Meta {
    pub(super) fn store(&self, directory: &Path) -> Result<(), LogError> {
        Ok(KIND.store(&directory.join(META_NAME), &self.encode())?)
    }

    /// Reads the file. One that is whole but says nonsense counts as damaged.
    pub(super) fn load(directory: &Path) -> Result<Loaded<Meta>, LogError> {
        Ok(match KIND.load(&directory.join(META_NAME))? {
            Loaded::Absent => Loaded::Absent,
            Loaded::Damaged(detail) => Loaded::Damaged(detail),
            Loaded::Valid(body) => match Meta::decode(&body) {
                Some(meta) => Loaded::Valid(meta),
                None => Loaded::Damaged("its fields do not fit each other".to_owned()),
            },
        })
    }

    fn encode(&self) -> Vec<u8> {
        let reported = &self.reported[self.reported.len().saturating_sub(REPORTED_MAX)..];
        let mut body = Vec::new();
        body.extend_from_slice(&self.log.to_le_bytes());
        body.extend_from_slice(&self.boot.0);
        body.extend_from_slice(&self.incarnation.to_le_bytes());
        body.extend_from_slice(&self.head.to_le_bytes());
        body.extend_from_slice(&(self.lives.as_slice().len() as u32).to_le_bytes());
        body.extend_from_slice(&(reported.len() as u32).to_le_bytes());
        let lives = self.lives.as_slice().iter().map(|life| (life.incarnation, life.first_sequence));
        for (left, right) in lives.chain(reported.iter().copied()) {
            body.extend_from_slice(&left.to_le_bytes());
            body.extend_from_slice(&right.to_le_bytes());
        }
        body
    }

    fn decode(body: &[u8]) -> Option<Meta> {
        let mut reader = BodyReader(body);
        let log = reader.u64()?;
        let boot = BootId(reader.array()?);
        let incarnation = reader.u64()?;
        let head = reader.u64()?;
        let life_count = reader.u32()?;
        let reported_count = reader.u32()?;
        let mut lives = Lives::default();
        for _ in 0..life_count {
            lives.learn(Life { incarnation: reader.u64()?, first_sequence: reader.u64()? });
        }
        let mut reported = Vec::new();
        for _ in 0..reported_count {
            reported.push((reader.u64()?, reader.u64()?));
        }
        (reader.0.is_empty()).then_some(Meta { log, boot, incarnation, head, lives, reported })
    }
}

pub(super) const META_NAME: &str = "meta";
const KIND: FileKind = FileKind { magic: *b"PGSLMETA", version: 1 };
/// Bounds the file. Beyond it the oldest damage is reported once more, which is safe.
const REPORTED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        let mut lives = Lives::default();
        lives.learn(Life { incarnation: 1, first_sequence: 1 });
        lives.learn(Life { incarnation: 3, first_sequence: 77 });
        Meta { log: 9, boot: BootId([4; 16]), incarnation: 3, head: 12, lives, reported: vec![(20, 21), (30, 30)] }
    }

    #[test]
    fn round_trips_through_a_file() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Meta::load(directory.path()).unwrap(), Loaded::Absent);
        meta().store(directory.path()).unwrap();
        assert_eq!(Meta::load(directory.path()).unwrap(), Loaded::Valid(meta()));
    }

    #[test]
    fn every_cut_body_is_refused() {
        let body = meta().encode();
        for length in 0..body.len() {
            assert_eq!(Meta::decode(&body[..length]), None);
        }
    }
}
