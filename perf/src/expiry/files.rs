//! What the copies' files hold, before and after a manual compaction.

use std::time::{Duration, Instant, SystemTime};

use pegasus_client::{Client, CompactionState, CopyReply, EnvironmentChange};
use serde::Serialize;

use crate::failure::Failure;

/// All copies of a table together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Copies.
    pub copies: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Rows in them, as RocksDB estimates them.
    pub rows: u64,
}

/// Has all copies of a table compacted, the last level too, and waits until they are. What their files hold then.
pub async fn compact(client: &Client, table: &str) -> Result<Files, Failure> {
    let begin = Instant::now();
    let trigger_seconds = unix_seconds();
    let change = EnvironmentChange::set("manual_compact.once.trigger_time", trigger_seconds)
        .and_set("manual_compact.once.bottommost_level_compaction", "force");
    client.change_environment(table, &change).await.map_err(Failure::at("ask for a compaction"))?;
    loop {
        let (mut files, mut waiting) = (Files::default(), 0);
        for copy in client.copies(table).await.map_err(Failure::at("ask for the copies"))? {
            match copy.outcome {
                Ok(reply) if is_done(&reply, trigger_seconds) => {
                    files.copies += 1;
                    files.bytes += reply.file_bytes;
                    files.rows += reply.estimated_rows;
                }
                // A copy that does not answer is asked again.
                Ok(_) | Err(_) => waiting += 1,
            }
        }
        if waiting == 0 {
            return Ok(files);
        }
        if begin.elapsed() > COMPACTION_TIME {
            return Err(Failure::new(format!("{waiting} copies have not been compacted")));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn is_done(reply: &CopyReply, trigger_seconds: u64) -> bool {
    reply.compaction == CompactionState::Idle && reply.compaction_ended_seconds >= trigger_seconds
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether the rows that expired have left: what is wrong, if they have not. `lasting_rows` and `lasting_bytes` are
/// those of one copy of everything that stays.
pub fn judge(before: Files, after: Files, replicas: u64, lasting_rows: u64, lasting_bytes: u64) -> Vec<String> {
    let mut problems = Vec::new();
    let rows_most = replicas * lasting_rows + after.copies * OWN_ROWS;
    if after.rows > rows_most {
        problems
            .push(format!("after the compaction the files hold {} rows, and {rows_most} at most may stay", after.rows));
    }
    let bytes_most = replicas * lasting_bytes * 2 + after.copies * OWN_BYTES;
    if after.bytes > bytes_most {
        problems.push(format!("after the compaction the files have {} bytes of {bytes_most} at most", after.bytes));
    }
    if before.rows <= after.rows {
        problems.push(format!("the files had {} rows before, so this showed nothing", before.rows));
    }
    problems
}

/// Rows of the engine's own in each copy.
const OWN_ROWS: u64 = 8;
/// What the files of an empty copy may have: indexes, filters, properties.
const OWN_BYTES: u64 = 16 * 1024;
/// How long a compaction may take.
const COMPACTION_TIME: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_leave_must_have_left() {
        let before = Files { copies: 24, bytes: 5_000_000, rows: 6000 };
        let after = Files { copies: 24, bytes: 900_000, rows: 3100 };
        assert_eq!(judge(before, after, 3, 1000, 120_000), Vec::<String>::new());
        let kept = judge(before, Files { rows: 5000, bytes: 4_000_000, ..after }, 3, 1000, 120_000);
        assert!(kept[0].contains("5000 rows") && kept[1].contains("4000000 bytes"), "{kept:?}");
        let nothing = judge(after, after, 3, 1000, 120_000);
        assert!(nothing[0].contains("showed nothing"), "{nothing:?}");
    }
}
