//! Judges increments by one of one counter: what every client was told, and what is there at the end. Pure.
//!
//! A counter that nothing but such increments touch counts them: each that took effect was told its own number, from 1
//! on without gaps. Numbers that nobody was told belong to increments of unknown outcome. So the history can be judged
//! exactly, and without a search.

/// How an increment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It gave this number.
    Number(i64),
    /// Nobody knows whether it took effect.
    Unknown,
}

/// One increment by one that may have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Increment {
    /// When it began, in microseconds of the one clock of all clients.
    pub invoked_us: u64,
    /// When its outcome was known.
    pub returned_us: u64,
    /// How it ended.
    pub ended: Ended,
}

/// How a counter came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sum {
    /// Increments that were answered.
    pub acknowledged: u64,
    /// Increments of unknown outcome.
    pub unknown: u64,
    /// What the counter shows at the end.
    pub last: i64,
}

/// Judges the increments of one counter that shows `last` at the end. Gives what is wrong, at most a few sentences.
pub fn judge(increments: &[Increment], last: i64) -> (Sum, Vec<String>) {
    let mut told: Vec<(i64, &Increment)> = increments
        .iter()
        .filter_map(|increment| match increment.ended {
            Ended::Number(number) => Some((number, increment)),
            Ended::Unknown => None,
        })
        .collect();
    told.sort_unstable_by_key(|(number, _)| *number);
    let mut unknown: Vec<u64> = increments
        .iter()
        .filter(|increment| increment.ended == Ended::Unknown)
        .map(|increment| increment.invoked_us)
        .collect();
    unknown.sort_unstable();
    let sum = Sum { acknowledged: told.len() as u64, unknown: unknown.len() as u64, last };
    let mut problems = Vec::new();
    let (least, most) = (sum.acknowledged as i64, (sum.acknowledged + sum.unknown) as i64);
    if !(least..=most).contains(&last) {
        problems.push(format!(
            "the counter shows {last}: {least} increments were acknowledged and {} are unknown",
            sum.unknown
        ));
    }
    problems.extend(wrong_number(&told, last));
    problems.extend(unexplained_gap(&told, &unknown));
    problems.extend(disorder(&told));
    (sum, problems)
}

/// A number that was told twice, or never was the counter's.
fn wrong_number(told: &[(i64, &Increment)], last: i64) -> Option<String> {
    if let Some(pair) = told.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Some(format!("{} was told twice: one of the increments is lost", pair[0].0));
    }
    let (number, _) = told.iter().find(|(number, _)| !(1..=last).contains(number))?;
    Some(format!("{number} was told, and the counter shows {last}"))
}

/// A number below which more are missing than increments of unknown outcome had begun by then.
fn unexplained_gap(told: &[(i64, &Increment)], unknown_invoked_us: &[u64]) -> Option<String> {
    told.iter().enumerate().find_map(|(before, (number, increment))| {
        let missing = number - 1 - before as i64;
        let begun = unknown_invoked_us.partition_point(|invoked_us| *invoked_us <= increment.returned_us) as i64;
        (missing > begun).then(|| {
            format!("{number} was told, with {missing} numbers below it that nobody was told, and {begun} unknown")
        })
    })
}

/// Two increments of which the one that ended before the other began was told the greater number.
fn disorder(told: &[(i64, &Increment)]) -> Option<String> {
    let mut by_return: Vec<(u64, i64)> =
        told.iter().map(|(number, increment)| (increment.returned_us, *number)).collect();
    by_return.sort_unstable();
    let mut by_invocation: Vec<(u64, i64)> =
        told.iter().map(|(number, increment)| (increment.invoked_us, *number)).collect();
    by_invocation.sort_unstable();
    let (mut returned, mut greatest) = (by_return.into_iter().peekable(), i64::MIN);
    for (invoked_us, number) in by_invocation {
        while let Some((_, before)) = returned.next_if(|(returned_us, _)| *returned_us < invoked_us) {
            greatest = greatest.max(before);
        }
        if greatest >= number {
            return Some(format!("{number} was told to an increment that began after {greatest} had been told"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(invoked_us: u64, returned_us: u64, number: i64) -> Increment {
        Increment { invoked_us, returned_us, ended: Ended::Number(number) }
    }

    fn unknown(invoked_us: u64) -> Increment {
        Increment { invoked_us, returned_us: invoked_us + 5, ended: Ended::Unknown }
    }

    fn problems(increments: &[Increment], last: i64) -> Vec<String> {
        judge(increments, last).1
    }

    #[test]
    fn a_counter_counts() {
        assert_eq!(judge(&[], 0), (Sum::default(), vec![]));
        let increments = [told(0, 10, 2), told(1, 9, 1), told(20, 30, 3)];
        assert_eq!(judge(&increments, 3), (Sum { acknowledged: 3, unknown: 0, last: 3 }, vec![]));
        for last in [2, 4] {
            assert!(!problems(&increments, last).is_empty(), "{last}");
        }
    }

    #[test]
    fn a_lost_increment_is_found() {
        let text = problems(&[told(0, 10, 1), told(0, 10, 1)], 1).join("; ");
        assert!(text.contains("shows 1: 2 increments") && text.contains("1 was told twice"), "{text}");
    }

    #[test]
    fn unknown_ones_count_or_do_not() {
        let increments = [told(0, 10, 1), unknown(12), told(20, 30, 3), unknown(40)];
        assert_eq!(problems(&increments, 3), Vec::<String>::new());
        assert_eq!(problems(&increments, 4), Vec::<String>::new(), "the second one happened at the end");
        assert!(problems(&increments, 5)[0].contains("shows 5"));
        let early = [told(0, 10, 1), told(20, 30, 3), unknown(40)];
        assert!(problems(&early, 3)[0].contains("1 numbers below it"), "it had not begun");
    }

    #[test]
    fn numbers_come_in_the_order_of_time() {
        let text = problems(&[told(0, 10, 2), told(20, 30, 1)], 2).join("; ");
        assert!(text.contains("1 was told to an increment that began after 2"), "{text}");
        assert!(problems(&[told(0, 20, 2), told(20, 30, 1)], 2).is_empty(), "they touch, so they are concurrent");
    }

    #[test]
    fn numbers_that_never_were_are_found() {
        assert!(problems(&[told(0, 1, 0)], 1).iter().any(|problem| problem.starts_with("0 was told")));
        assert!(problems(&[told(0, 1, 7), unknown(0)], 2).iter().any(|problem| problem.starts_with("7 was told")));
    }
}
