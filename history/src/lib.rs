//! Is a history of operations on keys linearizable? That is: is there one order of all operations, in which each takes
//! effect at one moment between its invocation and its return, so that every read sees the latest write before it?
//!
//! Clients record what they did and what they were told; [`check`] judges the operations of one key, [`History`] those
//! of many. Keys are independent of each other, so each is judged alone.
//!
//! ```
//! use pegasus_history::{Action, Answer, Operation, Outcome, Verdict, check};
//!
//! let write = Operation {
//!     client: 1,
//!     invoked_us: 10,
//!     returned_us: 20,
//!     action: Action::Write(7),
//!     outcome: Outcome::Ok(Answer::Done),
//! };
//! let stale = Operation {
//!     client: 2,
//!     invoked_us: 30,
//!     returned_us: 40,
//!     action: Action::Read,
//!     outcome: Outcome::Ok(Answer::Row(None)),
//! };
//! assert!(matches!(check(&[write, stale], None, 1_000), Verdict::Violation(_)));
//! ```
//!
//! # The search
//!
//! It walks through the invocations and returns in the order of time and keeps every *position* that is possible so
//! far: what the key holds, and which of the operations under way have taken effect already. Equal positions are kept
//! once. At a return the operation must have taken effect: where it has not, other operations under way may take effect
//! first, in any order, and it takes effect last. No position left means that no order explains the history. (Wing
//! and Gong's search in the form of Lowe: positions, memorised, and effects as late as possible.)
//!
//! Histories of tens of concurrent clients stay fast because of rules which drop only positions that another one
//! makes superfluous:
//!
//! 1. A read that may take effect does so at once: it changes nothing.
//! 2. Of writes of one value the one that must return first goes first. Of those without an answer only the number
//!    that took effect is kept.
//! 3. A write that nobody read, without an answer, is left out. One with an answer whose reads are all under way takes
//!    effect with them just before the next write, unless an exchange may start from it.
//! 4. A position which lost the value of a read or of an exchange that is still to come, and has no other write of it,
//!    is dropped.
//! 5. Of positions that differ only in how many unanswered writes they used up, those that used fewer are kept.
//!
//! An exchange (compare-and-set) that was carried out needs one state and leaves another: it takes effect only where
//! its state is there, and any order that leads to that is tried. One that changed nothing is a read.
//!
//! With values that are written once each, hardly more than one position remains. With many equal ones (deletes, above
//! all) there are more, and the search may end as [`Verdict::Undecided`] when its steps are used up.
//!
//! This package must never see a clock, a thread, a file, or randomness: it is used on recorded histories of real
//! clusters and inside the simulator alike.

mod history;
mod operation;
mod position;
mod search;
mod timeline;
mod witness;

pub use history::{Checked, History};
pub use operation::{Action, Answer, Operation, Outcome, State, Value};
pub use witness::Witness;

use crate::search::{Found, search};
use crate::timeline::Timeline;

/// What a check of the operations of one key found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    Violation(Box<Witness>),
    /// The steps were used up before either was known.
    Undecided,
}

/// Checks the operations of one key, given in any order, that held `initial` before all of them. Takes at most about
/// `steps_max` steps, each of the order of a microsecond, and twenty times as many to find the witness of a violation.
pub fn check(operations: &[Operation], initial: State, steps_max: u64) -> Verdict {
    match search(&Timeline::new(operations, initial), steps_max) {
        Found::Order => Verdict::Linearizable,
        Found::NoOrder => Verdict::Violation(Box::new(Witness::find(operations, initial, steps_max))),
        Found::NotEnoughSteps => Verdict::Undecided,
    }
}
