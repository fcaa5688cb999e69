//! The search for an order, as the package's documentation describes it. Its rules are numbered there.

use std::collections::BTreeSet;

use crate::operation::Step;
use crate::timeline::{Event, Item, ItemIndex, StateIndex, Timeline};

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An order that explains everything.
    Order,
    /// That there is none.
    NoOrder,
    /// Nothing before its steps were used up.
    NotEnoughSteps,
}

/// Looks for an order in at most about `steps_max` steps.
pub(crate) fn search(timeline: &Timeline, steps_max: u64) -> Found {
    let mut search = Search::new(timeline, steps_max);
    for &event in &timeline.events {
        match event {
            Event::Invoked(item) => search.invoke(item),
            Event::Returned(item) => search.give_back(item),
        }
        if search.steps_left == 0 {
            return Found::NotEnoughSteps;
        }
        if search.positions.is_empty() {
            return Found::NoOrder;
        }
    }
    Found::Order
}

/// One possible course of things so far.
///
/// Invariant: every read under way of `state` is in `taken` (rule 1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    /// What the key holds.
    state: StateIndex,
    /// Answered operations under way that have taken effect; ascending.
    taken: Vec<ItemIndex>,
    /// By state, how many unanswered writes of it have taken effect; ascending, none is zero.
    used: Vec<(StateIndex, u32)>,
}

impl Position {
    fn has(&self, item: ItemIndex) -> bool {
        self.taken.binary_search(&item).is_ok()
    }

    fn take(&mut self, item: ItemIndex) {
        if let Err(place) = self.taken.binary_search(&item) {
            self.taken.insert(place, item);
        }
    }

    fn forget(&mut self, item: ItemIndex) {
        if let Ok(place) = self.taken.binary_search(&item) {
            self.taken.remove(place);
        }
    }

    fn used(&self, state: StateIndex) -> u32 {
        self.used.iter().find(|(of, _)| *of == state).map_or(0, |(_, count)| *count)
    }

    fn use_one(&mut self, state: StateIndex) {
        match self.used.binary_search_by_key(&state, |(of, _)| *of) {
            Ok(place) => self.used[place].1 += 1,
            Err(place) => self.used.insert(place, (state, 1)),
        }
    }

    /// True if it used up no more unanswered writes of any state.
    fn is_as_thrifty_as(&self, other: &Position) -> bool {
        self.used.iter().all(|&(state, count)| count <= other.used(state))
    }
}

/// All operations on one state: those to come, and those under way.
#[derive(Clone, Debug, Default)]
struct Around {
    reads_ahead: u32,
    /// Answered or not.
    writes_ahead: u32,
    reads_open: Vec<ItemIndex>,
    /// Answered ones, by their return.
    writes_open: Vec<ItemIndex>,
    /// Unanswered ones; they stay open.
    unanswered: u32,
}

/// A write that may take effect next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Answered(ItemIndex),
    /// Any of the unanswered ones.
    Unanswered,
}

struct Search<'a> {
    items: &'a [Item],
    around: Vec<Around>,
    /// States with operations under way; ascending.
    live: Vec<StateIndex>,
    positions: Vec<Position>,
    steps_left: u64,
}

impl Search<'_> {
    fn new(timeline: &Timeline, steps_max: u64) -> Search<'_> {
        let mut around = vec![Around::default(); timeline.state_count];
        for item in &timeline.items {
            match item.step {
                Step::Becomes(state) => around[state].writes_ahead += 1,
                Step::Sees(state) => around[state].reads_ahead += 1,
            }
        }
        let start = Position { state: timeline.initial, taken: Vec::new(), used: Vec::new() };
        Search { items: &timeline.items, around, live: Vec::new(), positions: vec![start], steps_left: steps_max }
    }

    fn invoke(&mut self, item: ItemIndex) {
        let (Step::Becomes(state) | Step::Sees(state)) = self.item(item).step;
        if let Err(place) = self.live.binary_search(&state) {
            self.live.insert(place, state);
        }
        match self.item(item) {
            Item { step: Step::Sees(_), .. } => {
                self.around[state].reads_ahead -= 1;
                self.around[state].reads_open.push(item);
                // Rule 1.
                for position in self.positions.iter_mut().filter(|position| position.state == state) {
                    position.take(item);
                }
            }
            Item { step: Step::Becomes(_), returns: None } => {
                self.around[state].writes_ahead -= 1;
                self.around[state].unanswered += 1;
            }
            Item { step: Step::Becomes(_), returns } => {
                let items = self.items;
                let around = &mut self.around[state];
                around.writes_ahead -= 1;
                let place = around.writes_open.partition_point(|&other| items[other as usize].returns < returns);
                around.writes_open.insert(place, item);
            }
        }
    }

    /// The operation returns: drops the positions in which it cannot have taken effect.
    fn give_back(&mut self, item: ItemIndex) {
        let mut next = Vec::with_capacity(self.positions.len());
        for mut position in std::mem::take(&mut self.positions) {
            self.steps_left = self.steps_left.saturating_sub(1);
            if position.has(item) {
                position.forget(item);
                next.push(position);
            } else {
                self.explore(position, item, &mut next);
            }
        }
        self.positions = next;
        self.close(item);
        self.drop_superfluous();
    }

    /// Collects the positions that follow from `start` when other writes under way take effect, in every order that
    /// may matter, and then `item`.
    fn explore(&mut self, start: Position, item: ItemIndex, out: &mut Vec<Position>) {
        let step = self.item(item).step;
        let mut seen = BTreeSet::new();
        let mut stack = vec![start];
        while let Some(position) = stack.pop() {
            for &state in &self.live {
                if self.steps_left == 0 {
                    return;
                }
                let Some(write) = self.next_write(&position, state) else { continue };
                let is_last = match step {
                    Step::Becomes(_) => write == Next::Answered(item),
                    Step::Sees(wanted) => state == wanted,
                };
                if !is_last && !self.is_worth_overwriting(&position, state, write) {
                    continue;
                }
                self.steps_left -= 1;
                let Some(mut next) = self.take_effect(&position, state, write) else { continue };
                if next.has(item) {
                    next.forget(item);
                    out.push(next);
                } else if !seen.contains(&next) {
                    seen.insert(next.clone());
                    stack.push(next);
                }
            }
        }
    }

    /// Rule 2: of all writes of a state the one to take effect first.
    fn next_write(&self, position: &Position, state: StateIndex) -> Option<Next> {
        let around = &self.around[state];
        match around.writes_open.iter().find(|&&write| !position.has(write)) {
            Some(&write) => Some(Next::Answered(write)),
            None => (around.unanswered > position.used(state)).then_some(Next::Unanswered),
        }
    }

    /// True if it may help that this write takes effect now although the next one follows at once: there are reads
    /// under way for it to serve, or it is done with and reads to come have another write to serve them. With no
    /// reads to come rule 3 does it anyway.
    fn is_worth_overwriting(&self, position: &Position, state: StateIndex, write: Next) -> bool {
        let around = &self.around[state];
        let serves = || around.reads_open.iter().any(|&read| !position.has(read));
        around.reads_ahead > 0 && (write != Next::Unanswered || serves()) && self.writes_left(position, state) > 1
    }

    /// The position after a write took effect; `None` if nothing can come of it (rule 4).
    fn take_effect(&self, position: &Position, state: StateIndex, write: Next) -> Option<Position> {
        let mut next = position.clone();
        self.hide(&mut next, state);
        let old = position.state;
        if old != state && self.around[old].reads_ahead > 0 && self.writes_left(&next, old) == 0 {
            return None;
        }
        match write {
            Next::Answered(item) => next.take(item),
            Next::Unanswered => next.use_one(state),
        }
        next.state = state;
        // Rule 1.
        self.around[state].reads_open.iter().for_each(|&read| next.take(read));
        Some(next)
    }

    /// Rule 3, right before a write of `next` takes effect.
    fn hide(&self, position: &mut Position, next: StateIndex) {
        for &state in self.live.iter().filter(|&&state| self.around[state].reads_ahead == 0) {
            let around = &self.around[state];
            let mut passed = false;
            for &write in &around.writes_open {
                passed |= !position.has(write);
                position.take(write);
            }
            let waiting = around.reads_open.iter().any(|&read| !position.has(read));
            if waiting && !passed && state != next && around.unanswered > position.used(state) {
                position.use_one(state);
                passed = true;
            }
            if waiting && passed {
                around.reads_open.iter().for_each(|&read| position.take(read));
            }
        }
    }

    /// Writes of a state that can still take effect.
    fn writes_left(&self, position: &Position, state: StateIndex) -> u32 {
        let around = &self.around[state];
        let open = around.writes_open.iter().filter(|&&write| !position.has(write)).count();
        around.writes_ahead + open as u32 + around.unanswered.saturating_sub(position.used(state))
    }

    /// Takes an operation that returned off the lists.
    fn close(&mut self, item: ItemIndex) {
        let (Step::Becomes(state) | Step::Sees(state)) = self.item(item).step;
        let around = &mut self.around[state];
        around.reads_open.retain(|&other| other != item);
        around.writes_open.retain(|&other| other != item);
        if around.reads_ahead == 0 && around.reads_open.is_empty() && around.unanswered > 0 {
            // Nobody will see the unanswered ones any more.
            around.unanswered = 0;
            self.positions.iter_mut().for_each(|position| position.used.retain(|(of, _)| *of != state));
        }
        let around = &self.around[state];
        if around.reads_open.is_empty() && around.writes_open.is_empty() && around.unanswered == 0 {
            self.live.retain(|&other| other != state);
        }
    }

    /// Keeps equal positions once, and of those that differ only in what they used up the thriftiest (rule 5).
    fn drop_superfluous(&mut self) {
        if self.positions.len() < 2 {
            return;
        }
        self.positions.sort_unstable();
        self.positions.dedup();
        let mut kept: Vec<Position> = Vec::with_capacity(self.positions.len());
        for group in self.positions.chunk_by(|left, right| left.state == right.state && left.taken == right.taken) {
            let is_beaten = |position: &&Position| {
                !group.iter().any(|other| other != *position && other.is_as_thrifty_as(position))
            };
            kept.extend(group.iter().filter(is_beaten).cloned());
        }
        self.positions = kept;
    }

    fn item(&self, item: ItemIndex) -> Item {
        self.items[item as usize]
    }
}
