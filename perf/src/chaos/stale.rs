//! Counting reads that are wrong for certain, so that a figure can be told besides the verdict. Pure.
//!
//! The check for linearizability finds everything that is wrong and then stops at a key; this finds only what one write
//! proves, and counts it.

use std::collections::BTreeMap;

use pegasus_history::{Action, Answer, Operation, Outcome, State};

/// The reads of one key, by client, which found what had been overwritten for certain before they began. Values are
/// written once each; the key began without a row.
pub fn stale_reads(operations: &[Operation]) -> Vec<Operation> {
    // When each state was written for the last time, if that is known of every write of it.
    let mut last_return_us: BTreeMap<State, Option<u64>> = BTreeMap::from([(None, Some(0))]);
    // Acknowledged writes by their return, with the latest invocation up to there.
    let mut acknowledged: Vec<(u64, u64)> = Vec::new();
    for operation in operations {
        let Some(state) = operation.written() else { continue };
        match operation.outcome {
            Outcome::Failed => {}
            Outcome::Unknown => {
                last_return_us.insert(state, None);
            }
            Outcome::Ok(_) => {
                let last = last_return_us.entry(state).or_insert(Some(0));
                *last = last.map(|last| last.max(operation.returned_us));
                acknowledged.push((operation.returned_us, operation.invoked_us));
            }
        }
    }
    acknowledged.sort_unstable();
    let mut latest = 0;
    for (_, invoked_us) in &mut acknowledged {
        latest = latest.max(*invoked_us);
        *invoked_us = latest;
    }
    let is_stale = |operation: &&Operation| {
        let (Action::Read, Outcome::Ok(Answer::Row(state))) = (operation.action, operation.outcome) else {
            return false;
        };
        let before = acknowledged.partition_point(|(returned_us, _)| *returned_us < operation.invoked_us);
        let overwritten_us = before.checked_sub(1).map(|last| acknowledged[last].1);
        let ended_us = last_return_us.get(&state).copied().flatten();
        overwritten_us.zip(ended_us).is_some_and(|(overwritten_us, ended_us)| ended_us < overwritten_us)
    };
    operations.iter().filter(is_stale).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(invoked_us: u64, returned_us: u64, value: u64, outcome: Outcome) -> Operation {
        Operation { client: 1, invoked_us, returned_us, action: Action::Write(value), outcome }
    }

    fn read(invoked_us: u64, found: State) -> Operation {
        let outcome = Outcome::Ok(Answer::Row(found));
        Operation { client: 2, invoked_us, returned_us: invoked_us + 1, action: Action::Read, outcome }
    }

    #[test]
    fn reads_of_what_was_overwritten_are_counted() {
        let done = Outcome::Ok(Answer::Done);
        let writes = [write(1, 10, 1, done), write(20, 30, 2, done), write(5, 6, 3, Outcome::Unknown)];
        let judge = |read: Operation| stale_reads(&[&writes[..], &[read]].concat()).len();
        assert_eq!(judge(read(40, Some(1))), 1);
        assert_eq!(judge(read(40, None)), 1, "an acknowledged write is lost");
        assert_eq!(judge(read(40, Some(2))), 0);
        assert_eq!(judge(read(25, Some(1))), 0, "the second write was still under way");
        assert_eq!(judge(read(40, Some(3))), 0, "it may have taken effect at any time");
        assert_eq!(judge(read(0, None)), 0);
    }
}
