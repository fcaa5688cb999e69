//! What the meta service knows and how it changes.
//!
//! # Roles
//!
//! A *node* registers itself with its addresses and the copies it holds, and again whenever the state of a copy
//! changes. An *operator* creates tables; their partitions are placed over live nodes at once, under ballot 1. An
//! operator also drops, recalls, renames and purges them, and changes their environment (see `lifecycle`). A *member*
//! asks for the next configuration of its partition by compare-and-swap. The *guardian* asks primaries to teach nodes.
//! Everybody else reads.
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
//!    answer could lose data. A copy of a table that was purged is another matter: its number was given out, and there
//!    is no such table. A number that was never given out means that state was lost.
//! 5. What a node reported of a copy counts until it registers again, or until the copy is decided to be good: its node
//!    was added, won among uncertain copies, or was forced.
//! 6. A dropped table serves nothing and counts for nothing that operators look at, but its members stay members and
//!    its partitions are healed, so that a recall brings back every row. Whether its time has come is an argument too:
//!    the host, which has a clock, asks for the purge.
//!
//! # What is not done
//!
//! Nobody evens out primaries or copies over the nodes. Nodes are not forgotten on request.
//!
//! Reading order: [`State`], [`Table`], [`Command`], `apply`, `lifecycle`, `propose`, [`place`], [`guardian`],
//! [`health_of`], [`diagnose`], [`query`].

mod apply;
mod command;
mod diagnosis;
pub mod guardian;
mod health;
mod lifecycle;
pub mod limits;
mod placement;
mod presence;
mod propose;
pub mod query;
mod refusal;
mod state;
mod table;

pub use apply::apply;
pub use command::{
    ChangeEnvironment, Command, CreateTable, DropTable, Force, Outcome, Propose, PurgeTable, RecallTable, RegisterNode,
    RenameTable, Report,
};
pub use diagnosis::diagnose;
pub use guardian::{Decision, Limits, Plan, Tasks, Wait, plan};
pub use health::{Health, HealthCounts, health_counts, health_of};
pub use placement::{Candidate, place};
pub use presence::{Heard, Presence};
pub use refusal::{DroppedTable, Refusal, state_word};
pub use state::{DecodeError, FORMER_MEMBERS_MAX, Node, NodeAddresses, State};
pub use table::{FormerMember, Table};
