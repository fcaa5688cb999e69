//! Deletes dropped tables for good when their holding time is over.
//!
//! ```text
//! state -> which table is due first, and when -> wait for that moment, or for a change of the state -> PurgeTable
//! ```
//!
//! It must never decide from what it has read alone: the command says what time it is, and is refused by the state if
//! the table was recalled, or dropped anew, in between. Nothing is polled.

use std::time::Duration;

use tokio::sync::watch;

use super::clock::Clock;
use super::group::Group;
use super::service::stop_asked;
use crate::core::{Command, Outcome, PurgeTable, Refusal, State};

/// Purges what is due until the service stops.
pub async fn run(group: Group, clock: Clock, mut stopping: watch::Receiver<bool>) {
    let mut revisions = group.watch_revision();
    loop {
        revisions.borrow_and_update();
        let next = group.read(State::next_purge);
        let due = async {
            match next {
                Some((seconds, table)) => {
                    clock.reaches(seconds).await;
                    table
                }
                None => std::future::pending().await,
            }
        };
        let table = tokio::select! {
            table = due => table,
            changed = revisions.changed() => match changed {
                Ok(()) => continue,
                // The sender is gone, and with it the service.
                Err(_) => return,
            },
            () = stop_asked(&mut stopping) => return,
        };
        let command = PurgeTable { table, due_at_seconds: Some(clock.now_seconds()) };
        match group.propose(Command::PurgeTable(command)).await {
            Ok(Outcome::TablePurged { changed, .. }) => {
                if changed {
                    tracing::warn!(number = %table, "table purged: its holding time is over");
                }
                continue;
            }
            Ok(Outcome::Refused(refusal @ (Refusal::NotDropped { .. } | Refusal::StillHeld { .. }))) => {
                tracing::info!(number = %table, %refusal, "not purged");
                continue;
            }
            Ok(other) => tracing::error!(number = %table, ?other, "a table was not purged; tried again"),
            Err(error) => tracing::debug!(number = %table, %error, "a table was not purged; tried again"),
        }
        // Another member leads, or the disk is busy: whoever leads then will do it.
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop_asked(&mut stopping) => return,
        }
    }
}

/// Pause before a purge that did not come about is tried again.
const PAUSE: Duration = Duration::from_secs(5);
