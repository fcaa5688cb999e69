//! The search for an order, as the package's documentation describes it. Its rules are numbered there.

use std::collections::BTreeSet;

use crate::operation::Step;
use crate::position::{Around, Kind, OpenTurns, Position};
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

/// A write or an exchange that may take effect next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Answered(ItemIndex),
    /// Any of the unanswered ones of this kind.
    Unanswered(Kind),
}

struct Search<'a> {
    items: &'a [Item],
    around: Vec<Around>,
    /// States with operations under way; ascending.
    live: Vec<StateIndex>,
    positions: Vec<Position>,
    /// Kinds given out so far; those below the number of states are of plain writes.
    kind_count: Kind,
    steps_left: u64,
}

impl Search<'_> {
    fn new(timeline: &Timeline, steps_max: u64) -> Search<'_> {
        let mut around = vec![Around::default(); timeline.state_count];
        for item in &timeline.items {
            match item.step {
                Step::Becomes(state) => around[state].writes_ahead += 1,
                Step::Sees(state) => around[state].reads_ahead += 1,
                Step::Turns(from, to) => {
                    around[from].turns_ahead += 1;
                    around[from].answered_turns_ahead += u32::from(item.returns.is_some());
                    around[to].writes_ahead += 1;
                }
            }
        }
        let start = Position { state: timeline.initial, taken: Vec::new(), used: Vec::new() };
        Search {
            items: &timeline.items,
            around,
            live: Vec::new(),
            positions: vec![start],
            kind_count: timeline.state_count,
            steps_left: steps_max,
        }
    }

    fn invoke(&mut self, item: ItemIndex) {
        let state = match self.item(item).step {
            Step::Becomes(state) | Step::Sees(state) => state,
            Step::Turns(from, to) => return self.invoke_turn(item, from, to),
        };
        if let Err(place) = self.live.binary_search(&state) {
            self.live.insert(place, state);
        }
        match self.item(item) {
            Item { step: Step::Sees(_) | Step::Turns(..), .. } => {
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

    fn invoke_turn(&mut self, item: ItemIndex, from: StateIndex, to: StateIndex) {
        self.around[from].turns_ahead -= 1;
        self.around[to].writes_ahead -= 1;
        if self.item(item).returns.is_some() {
            self.around[from].answered_turns_ahead -= 1;
            self.around[from].turns_open.push(item);
            self.around[to].turns_in_open.push(item);
            return;
        }
        let around = &mut self.around[from];
        let kind = match around.unanswered_turns.iter_mut().find(|turns| turns.to == to) {
            Some(turns) => {
                turns.count += 1;
                turns.kind
            }
            None => {
                let kind = self.kind_count;
                self.kind_count += 1;
                around.unanswered_turns.push(OpenTurns { kind, to, count: 1 });
                kind
            }
        };
        let turns_in = &mut self.around[to].unanswered_turns_in;
        match turns_in.iter_mut().find(|(of, _)| *of == kind) {
            Some((_, count)) => *count += 1,
            None => turns_in.push((kind, 1)),
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

    /// Collects the positions that follow from `start` when other operations under way take effect, in every order that
    /// may matter, and then `item`.
    fn explore(&mut self, start: Position, item: ItemIndex, out: &mut Vec<Position>) {
        let step = self.item(item).step;
        let mut seen = BTreeSet::new();
        let mut stack = vec![start];
        while let Some(position) = stack.pop() {
            let mut all = self.after_a_write(&position, item, step);
            self.after_a_turn(&position, &mut all);
            if self.steps_left == 0 {
                return;
            }
            for mut next in all {
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

    /// The positions after a plain write under way has taken effect.
    fn after_a_write(&mut self, position: &Position, item: ItemIndex, step: Step<StateIndex>) -> Vec<Position> {
        let mut all = Vec::new();
        for &state in &self.live {
            if self.steps_left == 0 {
                break;
            }
            let Some(write) = self.next_write(position, state) else { continue };
            let is_last = match step {
                Step::Becomes(_) => write == Next::Answered(item),
                Step::Sees(wanted) | Step::Turns(wanted, _) => state == wanted,
            };
            if !is_last && !self.is_worth_overwriting(position, state, write) {
                continue;
            }
            self.steps_left -= 1;
            let mut next = position.clone();
            self.hide(&mut next, state);
            all.extend(self.take_effect(next, state, write));
        }
        all
    }

    /// The positions after an exchange under way has taken effect. It needs the state as it is, so nothing hides before
    /// it.
    fn after_a_turn(&mut self, position: &Position, all: &mut Vec<Position>) {
        let around = &self.around[position.state];
        let answered = around.turns_open.iter().filter(|&&turn| !position.has(turn));
        let mut turns: Vec<(StateIndex, Next)> = Vec::new();
        for &turn in answered {
            if let Step::Turns(_, to) = self.item(turn).step {
                turns.push((to, Next::Answered(turn)));
            }
        }
        let left = around.unanswered_turns.iter().filter(|turns| turns.count > position.used(turns.kind));
        turns.extend(left.map(|turns| (turns.to, Next::Unanswered(turns.kind))));
        for (to, turn) in turns {
            self.steps_left = self.steps_left.saturating_sub(1);
            all.extend(self.take_effect(position.clone(), to, turn));
        }
    }

    /// Rule 2: of all writes of a state the one to take effect first.
    fn next_write(&self, position: &Position, state: StateIndex) -> Option<Next> {
        let around = &self.around[state];
        match around.writes_open.iter().find(|&&write| !position.has(write)) {
            Some(&write) => Some(Next::Answered(write)),
            None => (around.unanswered > position.used(state)).then_some(Next::Unanswered(state)),
        }
    }

    /// True if it may help that this write takes effect now although the next one follows at once: there are reads or
    /// exchanges under way for it to serve, or it is done with and those to come have another write to serve them. With
    /// none to come rule 3 does it anyway.
    fn is_worth_overwriting(&self, position: &Position, state: StateIndex, write: Next) -> bool {
        let around = &self.around[state];
        if around.may_turn(position) {
            return true;
        }
        let serves = || around.reads_open.iter().any(|&read| !position.has(read));
        around.is_wanted_later()
            && (matches!(write, Next::Answered(_)) || serves())
            && around.writes_left(position, state) > 1
    }

    /// The position after a write or an exchange took effect; `None` if nothing can come of it (rule 4).
    fn take_effect(&self, mut position: Position, state: StateIndex, next: Next) -> Option<Position> {
        match next {
            Next::Answered(item) => position.take(item),
            Next::Unanswered(kind) => position.use_one(kind),
        }
        let old = &self.around[position.state];
        let lost = position.state != state && old.writes_left(&position, position.state) == 0;
        if lost && old.is_needed(&position) {
            return None;
        }
        position.state = state;
        // Rule 1.
        self.around[state].reads_open.iter().for_each(|&read| position.take(read));
        Some(position)
    }

    /// Rule 3, right before a write of `next` takes effect.
    fn hide(&self, position: &mut Position, next: StateIndex) {
        for &state in &self.live {
            let around = &self.around[state];
            if around.is_wanted_later() || around.may_turn(position) {
                continue;
            }
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

    /// Takes an operation that returned off the lists.
    fn close(&mut self, item: ItemIndex) {
        let state = match self.item(item).step {
            Step::Becomes(state) | Step::Sees(state) => state,
            Step::Turns(from, to) => {
                self.around[from].turns_open.retain(|&other| other != item);
                self.around[to].turns_in_open.retain(|&other| other != item);
                from
            }
        };
        let around = &mut self.around[state];
        around.reads_open.retain(|&other| other != item);
        around.writes_open.retain(|&other| other != item);
        if !around.is_wanted() && around.unanswered > 0 {
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
