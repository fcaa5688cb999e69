//! How long a partition answered nobody although somebody asked. Pure.

use pegasus_history::{Operation, Outcome};

/// The longest time in which operations were under way and none succeeded, in microseconds. The operations are those
/// of one partition; times in which nobody asked do not count.
pub fn longest_outage_us(operations: &[Operation]) -> u64 {
    let mut asked: Vec<(u64, u64)> =
        operations.iter().map(|operation| (operation.invoked_us, operation.returned_us)).collect();
    asked.sort_unstable();
    let succeeded = |operation: &&Operation| matches!(operation.outcome, Outcome::Ok(_));
    let mut successes: Vec<u64> = operations.iter().filter(succeeded).map(|operation| operation.returned_us).collect();
    successes.push(u64::MAX);
    successes.sort_unstable();
    let spans = merged(&asked);
    let (mut longest, mut since, mut first) = (0, 0, 0);
    for until in successes {
        // Spans that ended before this gap began are never looked at again.
        while first < spans.len() && spans[first].1 <= since {
            first += 1;
        }
        let overlaps = spans[first..].iter().take_while(|span| span.0 < until);
        let covered = overlaps.map(|&(begin, end)| end.min(until) - begin.max(since)).sum();
        longest = longest.max(covered);
        since = until;
    }
    longest
}

/// Intervals that touch, as one; ascending.
fn merged(sorted: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for &(begin, end) in sorted {
        match spans.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => spans.push((begin, end)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use pegasus_history::{Action, Answer};

    use super::*;

    fn operation(invoked_us: u64, returned_us: u64, outcome: Outcome) -> Operation {
        Operation { client: 1, invoked_us, returned_us, action: Action::Delete, outcome }
    }

    #[test]
    fn only_time_in_which_somebody_asked_counts() {
        let ok = Outcome::Ok(Answer::Done);
        assert_eq!(longest_outage_us(&[]), 0);
        assert_eq!(longest_outage_us(&[operation(10, 30, ok), operation(100, 110, ok)]), 20);
        let failing = [
            operation(0, 10, ok),
            operation(20, 60, Outcome::Failed),
            operation(50, 90, Outcome::Unknown),
            operation(95, 100, ok),
            operation(200, 201, ok),
        ];
        assert_eq!(longest_outage_us(&failing), 70 + 5);
        let never_again = [operation(0, 10, ok), operation(20, 60, Outcome::Failed)];
        assert_eq!(longest_outage_us(&never_again), 40);
        // A success in the middle ends it; the rest of the long one counts for the next gap.
        let crossing = [operation(0, 100, Outcome::Failed), operation(40, 70, ok)];
        assert_eq!(longest_outage_us(&crossing), 70);
    }
}
