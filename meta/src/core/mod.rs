//! What the meta service knows and how it changes.
//!
//! # Roles
//!
//! A *node* registers itself with its addresses and the copies it holds, and again whenever the state of a copy
//! changes. An *operator* creates tables; their partitions are placed over live nodes at once, under ballot 1. A
//! *member* asks for the next configuration of its partition by compare-and-swap. The *guardian* asks primaries to
//! teach nodes. Everybody else reads.
//!
//! # Rules
//!
//! 1. `apply` is the only thing that changes a [`State`], and it is deterministic: the same commands in the same
//!    order give the same bytes ([`State::encode`]). Which nodes are alive is an argument of the command that needs
//!    it, never part of the state.
//! 2. A configuration changes by compare-and-swap on its ballot, one ballot at a time, by the rules at the top of
//!    `propose`. The meta service itself makes the first assignment and nothing else: it never promotes and never
//!    removes because *it* hears nothing. The guardian only asks the primary.
//! 3. [`State::revision`] rises whenever something changed that an answer to a node's watch may show. What the guardian
//!    asks of a node depends on who is alive; [`query::watch_number`] changes with it.
//! 4. A node that reports a ballot above ours is refused: then this service has lost state, and every further
//!    answer could lose data.
//! 5. What a node reported of a copy counts until it registers again, or until the copy is decided to be good: its node
//!    was added, won among uncertain copies, or was forced.
//!
//! # What is not done
//!
//! Nobody evens out primaries or copies over the nodes. Tables are not dropped. Nodes are not forgotten on request.
//!
//! Reading order: [`State`], [`Command`], `apply`, `propose`, [`place`], [`guardian`], [`health_of`], [`diagnose`],
//! [`query`].

mod apply;
mod command;
mod diagnosis;
pub mod guardian;
mod health;
pub mod limits;
mod placement;
mod presence;
mod propose;
pub mod query;
mod state;

pub use apply::apply;
pub use command::{Command, CreateTable, Force, Outcome, Propose, Refusal, RegisterNode, Report, state_word};
pub use diagnosis::diagnose;
pub use guardian::{Decision, Limits, Plan, Tasks, Wait, plan};
pub use health::{Health, HealthCounts, health_counts, health_of};
pub use placement::{Candidate, place};
pub use presence::{Heard, Presence};
pub use state::{DecodeError, FORMER_MEMBERS_MAX, FormerMember, Node, NodeAddresses, State, Table};
