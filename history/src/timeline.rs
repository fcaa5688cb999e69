//! The operations of one key, prepared for the search: what cannot matter is left out, states are numbered from zero,
//! and invocations and returns stand in the order of time.

use std::collections::BTreeMap;

use crate::operation::{Operation, Outcome, State, Step};

/// The number of a state within one timeline.
pub(crate) type StateIndex = usize;
/// The number of an operation within one timeline.
pub(crate) type ItemIndex = u32;

/// An operation as the search sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// What it means.
    pub(crate) step: Step<StateIndex>,
    /// The event at which it returns; `None` for one of unknown outcome, which need not take effect and never returns.
    pub(crate) returns: Option<usize>,
}

/// An invocation or a return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// From now on the operation may take effect.
    Invoked(ItemIndex),
    /// By now it has.
    Returned(ItemIndex),
}

/// Events in the order of time; in one moment invocations first, so that operations which touch are concurrent.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// The operations that matter.
    pub(crate) items: Vec<Item>,
    /// Two for each answered one, one for each of the others.
    pub(crate) events: Vec<Event>,
    /// What the key held at first.
    pub(crate) initial: StateIndex,
    /// How many states there are.
    pub(crate) state_count: usize,
}

impl Timeline {
    /// Prepares operations given in any order.
    pub(crate) fn new(operations: &[Operation], initial: State) -> Timeline {
        let last_needed = last_needed_us(operations);
        let mut numbers = BTreeMap::from([(initial, 0)]);
        let (mut items, mut marks) = (Vec::new(), Vec::new());
        for operation in operations {
            let Some(step) = operation.step() else { continue };
            let answered = operation.outcome != Outcome::Unknown;
            if !answered && is_superfluous(operation, step, &last_needed) {
                continue;
            }
            let mut number = |state: State| {
                let next = numbers.len();
                *numbers.entry(state).or_insert(next)
            };
            let step = match step {
                Step::Becomes(state) => Step::Becomes(number(state)),
                Step::Sees(state) => Step::Sees(number(state)),
                Step::Turns(from, to) => Step::Turns(number(from), number(to)),
            };
            let item = ItemIndex::try_from(items.len()).expect("a history of one key is shorter than that");
            items.push(Item { step, returns: None });
            marks.push((operation.invoked_us, false, item));
            if answered {
                marks.push((operation.returned_us.max(operation.invoked_us), true, item));
            }
        }
        marks.sort_unstable();
        let mut events = Vec::with_capacity(marks.len());
        for (_, returned, item) in marks {
            if returned {
                items[item as usize].returns = Some(events.len());
            }
            events.push(if returned { Event::Returned(item) } else { Event::Invoked(item) });
        }
        Timeline { items, events, initial: 0, state_count: numbers.len() }
    }
}

/// The last moment at which something needs each state: a read or an exchange that was answered, or an exchange of
/// unknown outcome whose own result is needed later than that.
fn last_needed_us(operations: &[Operation]) -> BTreeMap<State, u64> {
    let mut last: BTreeMap<State, u64> = BTreeMap::new();
    let mut unknown = Vec::new();
    for operation in operations {
        match (operation.step(), operation.outcome) {
            (Some(Step::Turns(from, to)), Outcome::Unknown) => unknown.push((operation.invoked_us, from, to)),
            (Some(step), _) => {
                if let Some(state) = step.needs() {
                    let at = last.entry(state).or_insert(0);
                    *at = operation.returned_us.max(operation.invoked_us).max(*at);
                }
            }
            (None, _) => {}
        }
    }
    let mut changed = true;
    while changed {
        changed = false;
        for &(invoked_us, from, to) in &unknown {
            let Some(&needed) = last.get(&to).filter(|needed| **needed >= invoked_us) else { continue };
            let at = last.entry(from).or_insert(0);
            changed |= needed > *at;
            *at = needed.max(*at);
        }
    }
    last
}

/// True if nothing needs what a write without an answer may have written, so that it may as well never take effect.
fn is_superfluous(operation: &Operation, step: Step<State>, last_needed_us: &BTreeMap<State, u64>) -> bool {
    match step {
        Step::Becomes(state) | Step::Turns(_, state) => {
            last_needed_us.get(&state).is_none_or(|&last| last < operation.invoked_us)
        }
        Step::Sees(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Action, Answer};

    fn operation(invoked_us: u64, returned_us: u64, action: Action, outcome: Outcome) -> Operation {
        Operation { client: 0, invoked_us, returned_us, action, outcome }
    }

    #[test]
    fn what_cannot_matter_is_left_out() {
        let read = |at, state| operation(at, at + 1, Action::Read, Outcome::Ok(Answer::Row(state)));
        let operations = [
            operation(0, 1, Action::Write(1), Outcome::Failed),
            operation(0, 1, Action::Read, Outcome::Unknown),
            operation(0, 1, Action::Read, Outcome::Failed),
            operation(2, 3, Action::Write(2), Outcome::Unknown),
            operation(2, 3, Action::Write(3), Outcome::Unknown),
            operation(9, 9, Action::Write(3), Outcome::Unknown),
            read(4, Some(3)),
        ];
        let timeline = Timeline::new(&operations, None);
        assert_eq!(timeline.items.len(), 2, "the one unknown write that may have been read, and the read");
        assert_eq!(timeline.events, [Event::Invoked(0), Event::Invoked(1), Event::Returned(1)]);
        assert_eq!(timeline.state_count, 2);
    }

    #[test]
    fn exchanges_are_needed_as_far_as_their_result_is() {
        let unknown = |from, to| operation(2, 3, Action::Exchange(Some(from), Some(to)), Outcome::Unknown);
        let write = operation(0, 1, Action::Write(1), Outcome::Unknown);
        let read = operation(4, 5, Action::Read, Outcome::Ok(Answer::Row(Some(3))));
        let kept = |operations: &[Operation]| Timeline::new(operations, None).items.len();
        assert_eq!(kept(&[write, unknown(2, 3), unknown(1, 2), read]), 4, "all of them lead to what was read");
        assert_eq!(kept(&[write, unknown(1, 2), unknown(2, 4), read]), 1, "none of them does");
    }

    #[test]
    fn operations_that_touch_are_concurrent() {
        let done = Outcome::Ok(Answer::Done);
        let operations = [operation(5, 7, Action::Delete, done), operation(7, 6, Action::Write(1), done)];
        let timeline = Timeline::new(&operations, None);
        let expected = [Event::Invoked(0), Event::Invoked(1), Event::Returned(0), Event::Returned(1)];
        assert_eq!(timeline.events, expected);
    }
}
