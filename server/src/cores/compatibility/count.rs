//! sortkey_count: how many rows a hash key has, however many.
//!
//! Most hash keys have few rows, which one look counts. If a limit stops that, all is counted again from a snapshot, so
//! that the number is of one moment.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use pegasus_engine::table::hash_key_range;
use pegasus_replication::Moment;
use pegasus_wire::messages::data::{Filter, MultiGet, Rows, Scan, SortKeys};
use pegasus_wire::{PartitionId, Status};

use super::super::outcome::{Outcome, Refusal};
use super::super::request::{Form, Part, Request};
use super::super::{Core, clock};

/// How long rows are counted; Pegasus's default.
const COUNTING: Duration = Duration::from_secs(30);

impl Core {
    /// Counts the rows of a hash key and answers.
    pub(super) fn count_sort_keys(&self, request: Request, partition: PartitionId, hash_key: &[u8], now: Moment) {
        let (part, answer) = part(&request);
        let get = MultiGet {
            partition,
            hash_key,
            sort_keys: &[],
            range: SortKeys::ALL,
            filter: Filter::default(),
            reverse: false,
            no_value: true,
            count_only: true,
            rows_max: 0,
            bytes_max: 0,
        };
        self.multi_get(part, &get, now);
        let (core, hash_key) = (self.clone(), hash_key.to_vec());
        self.later(async move {
            match received(answer.await) {
                Ok(part) if part.complete => answer_count(&request, part.count, true),
                Ok(_) => core.count_snapshot(request, partition, &hash_key).await,
                Err(refusal) => request.refuse(refusal),
            }
        });
    }

    async fn count_snapshot(&self, request: Request, partition: PartitionId, hash_key: &[u8]) {
        let (mut start, stop) = hash_key_range(hash_key, b"", b"", true);
        let (mut count, mut context, mut start_inclusive) = (0, 0, true);
        let began = Instant::now();
        loop {
            let (part, answer) = part(&request);
            let scan = Scan {
                partition,
                context,
                keep_context: true,
                start: &start,
                start_inclusive,
                stop: &stop,
                reverse: false,
                sort_keys: SortKeys::ALL,
                hash_key_filter: Filter::default(),
                sort_key_filter: Filter::default(),
                no_value: true,
                count_only: true,
                rows_max: 0,
            };
            self.scan(part, &scan, clock::now());
            let part = match received(answer.await) {
                Ok(part) => part,
                Err(refusal) => {
                    self.end_scan(partition, context);
                    return request.refuse(refusal);
                }
            };
            if context != 0 && part.context != context {
                // The snapshot is gone; what was counted is of another moment.
                self.end_scan(partition, part.context);
                (count, context) = (0, 0);
                (start, start_inclusive) = (hash_key_range(hash_key, b"", b"", true).0, true);
            } else {
                count += part.count;
                if part.complete {
                    return answer_count(&request, count, true);
                }
                (context, start, start_inclusive) = (part.context, part.resume_after, false);
            }
            if began.elapsed() >= COUNTING {
                self.end_scan(partition, context);
                return answer_count(&request, count, false);
            }
        }
    }
}

/// A request of the core to itself, in the place of a client's.
fn part(request: &Request) -> (Request, oneshot::Receiver<Result<Part, Refusal>>) {
    let (asker, answer) = oneshot::channel();
    (request.session.begin(Form::Part(Cell::new(Some(asker))), request.time_left_ms), answer)
}

fn received(answer: Result<Result<Part, Refusal>, oneshot::Canceled>) -> Result<Part, Refusal> {
    answer.unwrap_or_else(|_| Err(Refusal::new(Status::Busy, "the rows could not be counted now")))
}

fn answer_count(request: &Request, count: u64, complete: bool) {
    request.answer(&Outcome::Rows(Rows { rows: &[], count, complete, resume_after: &[], context: 0 }));
}
