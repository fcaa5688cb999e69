//! What the meta service knows and how it changes.
//!
//! # Roles
//!
//! A *node* registers itself with its addresses and the copies it holds. An *operator* creates tables; their
//! partitions are placed over live nodes at once, under ballot 1. A *primary* asks for the next ballot of its
//! partition by compare-and-swap. Everybody else reads.
//!
//! # Rules
//!
//! 1. `apply` is the only thing that changes a [`State`], and it is deterministic: the same commands in the same
//!    order give the same bytes ([`State::encode`]). Which nodes are alive is an argument of the command that needs
//!    it, never part of the state.
//! 2. A configuration changes by compare-and-swap on its ballot, one ballot at a time. The meta service itself
//!    makes the first assignment and nothing else: it never promotes because *it* hears nothing.
//! 3. [`State::revision`] rises whenever something changed that an answer to a node's watch may show.
//! 4. A node that reports a ballot above ours is refused: then this service has lost state, and every further
//!    answer could lose data.
//!
//! # What is not done
//!
//! Members of a partition never change (no removal, no learner, no takeover): only the primary proposes, and only
//! the same members under the next ballot. Tables are not dropped. Nodes are not forgotten on request.
//!
//! Reading order: [`State`], [`Command`], `apply`, [`place`], [`query`].

mod apply;
mod command;
pub mod limits;
mod placement;
pub mod query;
mod state;

pub use apply::apply;
pub use command::{Command, CreateTable, Outcome, Propose, Refusal, RegisterNode, Report};
pub use placement::{Candidate, place};
pub use state::{DecodeError, Node, NodeAddresses, State, Table};
