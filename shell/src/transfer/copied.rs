//! Which partitions of a table were copied, in a small file: what a copy that was stopped need not do again.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::transfer::checkpoint::{load_json, store_json};

/// What the progress file of a copy says. Written as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copied {
    /// The table that is read, as `name@cluster`.
    pub source: String,
    /// The table that is filled, as `name@cluster`.
    pub target: String,
    /// Which rows and how, as far as that decides what is in the target.
    pub terms: String,
    /// Partitions of the source all of whose rows are acknowledged.
    pub partitions: BTreeSet<u32>,
    /// Rows copied so far.
    pub rows: u64,
}

impl Copied {
    /// Reads a progress file; `None` if there is none.
    pub fn load(path: &Path) -> Result<Option<Copied>, String> {
        load_json(path, "a copy")
    }

    /// Replaces the progress file atomically.
    pub fn store(&self, path: &Path) -> Result<(), String> {
        store_json(path, self)
    }

    /// Goes on from an earlier copy. An error if that was about something else.
    pub fn resume(&mut self, earlier: Copied) -> Result<(), String> {
        let pairs = [
            ("source", &self.source, &earlier.source),
            ("target", &self.target, &earlier.target),
            ("options", &self.terms, &earlier.terms),
        ];
        for (what, ours, theirs) in pairs {
            if ours != theirs {
                return Err(format!("the progress file is about the {what} {theirs:?}, not {ours:?}"));
            }
        }
        (self.partitions, self.rows) = (earlier.partitions, earlier.rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied() -> Copied {
        Copied {
            source: "temp@7".into(),
            target: "stat@7".into(),
            terms: "all".into(),
            partitions: BTreeSet::new(),
            rows: 0,
        }
    }

    #[test]
    fn the_file_comes_back_and_is_about_one_copy() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("copy.progress");
        assert_eq!(Copied::load(&path), Ok(None));
        let earlier = Copied { partitions: [1, 5].into(), rows: 70, ..copied() };
        earlier.store(&path).expect("stored");
        let loaded = Copied::load(&path).expect("sound").expect("there");
        let mut ours = copied();
        assert_eq!(ours.resume(loaded.clone()), Ok(()));
        assert_eq!(ours, earlier);
        let others = [
            (Copied { source: "x".into(), ..copied() }, "source"),
            (Copied { target: "x".into(), ..copied() }, "target"),
            (Copied { terms: "x".into(), ..copied() }, "options"),
        ];
        for (mut other, word) in others {
            assert!(other.resume(loaded.clone()).unwrap_err().contains(word), "{word}");
            assert!(other.partitions.is_empty());
        }
        std::fs::write(&path, "{}").expect("written");
        assert!(Copied::load(&path).unwrap_err().contains("not a progress file of a copy"));
    }
}
