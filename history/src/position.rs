//! What the search keeps: possible courses of things, and what is under way around each state.

use crate::timeline::{ItemIndex, StateIndex};

/// What unanswered operations do: the number of a state for plain writes of it, a number above all states for exchanges
/// from one state to another. Those of one kind are alike.
pub(crate) type Kind = usize;

/// One possible course of things so far.
///
/// Invariant: every read under way of `state` is in `taken` (rule 1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// What the key holds.
    pub(crate) state: StateIndex,
    /// Answered operations under way that have taken effect; ascending.
    pub(crate) taken: Vec<ItemIndex>,
    /// By kind, how many unanswered operations have taken effect; ascending, none is zero.
    pub(crate) used: Vec<(Kind, u32)>,
}

impl Position {
    pub(crate) fn has(&self, item: ItemIndex) -> bool {
        self.taken.binary_search(&item).is_ok()
    }

    pub(crate) fn take(&mut self, item: ItemIndex) {
        if let Err(place) = self.taken.binary_search(&item) {
            self.taken.insert(place, item);
        }
    }

    pub(crate) fn forget(&mut self, item: ItemIndex) {
        if let Ok(place) = self.taken.binary_search(&item) {
            self.taken.remove(place);
        }
    }

    pub(crate) fn used(&self, kind: Kind) -> u32 {
        self.used.iter().find(|(of, _)| *of == kind).map_or(0, |(_, count)| *count)
    }

    pub(crate) fn use_one(&mut self, kind: Kind) {
        match self.used.binary_search_by_key(&kind, |(of, _)| *of) {
            Ok(place) => self.used[place].1 += 1,
            Err(place) => self.used.insert(place, (kind, 1)),
        }
    }

    /// True if it used up no more unanswered operations of any kind.
    pub(crate) fn is_as_thrifty_as(&self, other: &Position) -> bool {
        self.used.iter().all(|&(kind, count)| count <= other.used(kind))
    }
}

/// Exchanges without an answer from one state to another, those that begin alike and end alike together; they stay
/// open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenTurns {
    pub(crate) kind: Kind,
    pub(crate) to: StateIndex,
    pub(crate) count: u32,
}

/// All operations on one state: those to come, and those under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    pub(crate) reads_ahead: u32,
    /// Whatever ends in this state, exchanges too; answered or not.
    pub(crate) writes_ahead: u32,
    pub(crate) reads_open: Vec<ItemIndex>,
    /// Answered plain ones, by their return.
    pub(crate) writes_open: Vec<ItemIndex>,
    /// Unanswered plain ones; they stay open.
    pub(crate) unanswered: u32,
    /// Exchanges from this state; answered or not.
    pub(crate) turns_ahead: u32,
    /// Those of them that were answered.
    pub(crate) answered_turns_ahead: u32,
    /// Answered exchanges from this state.
    pub(crate) turns_open: Vec<ItemIndex>,
    /// Answered exchanges to this state.
    pub(crate) turns_in_open: Vec<ItemIndex>,
    /// Unanswered exchanges from this state.
    pub(crate) unanswered_turns: Vec<OpenTurns>,
    /// Kinds of unanswered exchanges to this state, and how many.
    pub(crate) unanswered_turns_in: Vec<(Kind, u32)>,
}

impl Around {
    /// Whatever can still take effect and end in this state.
    pub(crate) fn writes_left(&self, position: &Position, state: StateIndex) -> u32 {
        let open = |items: &[ItemIndex]| items.iter().filter(|&&item| !position.has(item)).count() as u32;
        let turns: u32 =
            self.unanswered_turns_in.iter().map(|&(kind, count)| count.saturating_sub(position.used(kind))).sum();
        let plain = self.unanswered.saturating_sub(position.used(state));
        self.writes_ahead + open(&self.writes_open) + open(&self.turns_in_open) + turns + plain
    }

    /// True if an exchange under way may start from this state.
    pub(crate) fn may_turn(&self, position: &Position) -> bool {
        let is_left = |turns: &OpenTurns| turns.count > position.used(turns.kind);
        self.turns_open.iter().any(|&turn| !position.has(turn)) || self.unanswered_turns.iter().any(is_left)
    }

    /// True if something that certainly took effect still needs this state, and has not yet begun or seen it.
    pub(crate) fn is_needed(&self, position: &Position) -> bool {
        self.reads_ahead > 0 || self.answered_turns_ahead > 0 || self.turns_open.iter().any(|&turn| !position.has(turn))
    }

    /// True if a read or an exchange to come may want this state.
    pub(crate) fn is_wanted_later(&self) -> bool {
        self.reads_ahead + self.turns_ahead > 0
    }

    /// True if a read or an exchange may want it, to come or under way, in whatever position.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted_later()
            || !(self.reads_open.is_empty() && self.turns_open.is_empty() && self.unanswered_turns.is_empty())
    }
}
