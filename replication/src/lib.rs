//! PacificA as a pure state machine: events in, effects out.
//!
//! The protocol is that of "PacificA: Replication in Log-Based Distributed Storage Systems" (MSR-TR-2008-25). This
//! package decides; it must never see a socket, a file, a clock, a thread or a source of randomness. A host feeds a
//! [`Replica`] with [`Event`]s and performs the [`Effect`]s it asks for. Both enums are closed: they are the whole
//! surface.
//!
//! # Roles
//!
//! A partition has a *configuration*: a ballot, a primary, secondaries. The meta service owns it and changes it by
//! compare-and-swap on the ballot. All members hold the same history of mutations, numbered by *decree* from 1.
//!
//! - The **primary** ([`Role::Primary`]) gives every write the next decree, logs it, prepares it at every secondary,
//!   and commits it when *all* members have it in their logs. It applies it, and only then answers.
//! - A **secondary** logs what is prepared in decree order, acknowledges what is logged, and applies what it is told
//!   is committed.
//! - A replica is **inactive** until it hears what it is, and in **error** once something happened that must not.
//!
//! There is no majority. What a client was told is in the log of every member, so any one of them can carry on; the
//! price is that a member that is away stops new writes (until members can be removed, see below).
//!
//! # Messages
//!
//! One ordered stream for each (partition, member), opened by the primary; a new stream supersedes an older one.
//!
//! | message | from, to | says |
//! |---|---|---|
//! | Establish | primary, member | I lead ballot b; when I took it, my last decree was L; my commit point is C |
//! | Established | member, primary | b is durable here, nothing of a lower ballot is left beyond L; n is needed next |
//! | Prepare | primary, member | log this mutation; my commit point is C |
//! | Acknowledge | member, primary | everything up to d is in my log under ballot b, or committed |
//! | CommitPoint | primary, member | C, when no prepare carried it (sent on a tick) |
//! | Refuse | member, primary | I do not take that: stale ballot, gap (n is next), damaged, .. |
//!
//! # Watermarks
//!
//! ```text
//! applied <= committed <= confirmed <= prepared <= last        on each replica
//! ```
//!
//! *prepared*: appended under the current ballot. *confirmed*: that, and durable in the log. What lies between
//! *prepared* and *last* is inherited from lower ballots and means nothing until it is prepared again. The primary's
//! commit point is the least of its own confirmed decree and what every secondary acknowledged. A secondary's is what
//! it was told, but never beyond its own confirmed decree.
//!
//! # Invariants
//!
//! Asserted in debug builds after every event, and judged from outside by the simulator after every step:
//!
//! 1. What is committed anywhere is in the durable log of every member of the configuration.
//! 2. The chain of watermarks above, on each replica.
//! 3. A ballot has one primary, which announces one last decree L for it.
//! 4. A prepare of a lower ballot is refused; a committed decree has one payload on every replica for ever.
//! 5. No reply before the primary has applied; no acknowledgement before the acknowledger has logged; no
//!    `Established` before truncation and ballot are durable.
//! 6. A new primary serves nothing before its inherited window has committed and is applied.
//!
//! # A new partition
//!
//! The first assignment has ballot 1 ([`pegasus_wire::Ballot::ASSIGNMENT`]). Each member makes an empty copy. At
//! ballot 1 nothing is prepared or served. The primary establishes with every member, which proves that each has its
//! copy, and then asks the meta service for ballot 2. A node that is told of a ballot above 1 and has no copy has
//! therefore *lost* it, and must say so instead of making an empty one.
//!
//! # Taking a ballot (reconciliation)
//!
//! A primary never goes on under a ballot it did not ask for in this very run: another run may have used it, with
//! another L. So whenever it becomes primary, by start or by change, it
//!
//! 1. proposes the same members with the next ballot, until it knows what came of it. An unanswered proposal is made
//!    again unchanged, which the meta service takes for the same one. Any other answer tells what is in force, and the
//!    replica becomes that;
//! 2. notes L, the last decree it holds, and stores the configuration durably;
//! 3. appends its inherited window (everything beyond its commit point up to L) to its own log again, under the new
//!    ballot, and establishes with every member;
//! 4. prepares the inherited window at every member from where that member says it needs it;
//! 5. serves when every member has established and everything up to L is committed and applied.
//!
//! A member that hears `Establish`:
//!
//! 1. refuses a lower ballot, a foreign sender, a configuration without itself, and everything if it is damaged;
//! 2. refuses with `Gap` if what the primary says is committed is not all in its log: it has to learn, and never
//!    pretends;
//! 3. *stops* if the primary lacks what is committed here: somewhere committed data was lost. It keeps what it has;
//! 4. drops what it prepared under lower ballots beyond L, by a truncation record, and waits until that is logged;
//! 5. stores the configuration, and waits until it is durable;
//! 6. answers. It needs next what follows max(its commit point, the primary's), or, under a ballot it already had,
//!    what follows the last prepare of this ballot. What it kept up to L is prepared again, decree by decree.
//!
//! Dropping beyond L loses nothing: the primary's own log gates every commit, so what it does not have was never
//! committed. Keeping up to L is needed: it may have been.
//!
//! # Restart and recovery
//!
//! A replica is made from [`Recovered`]: the stored configuration, the applied decree, the highest commit point seen,
//! and the log beyond the applied decree. Of several records of one decree the one with the highest ballot counts. A
//! *truncation* of ballot b from decree d voids every record with a lower ballot and a decree >= d. A *mutation* voids
//! nothing but lower ballots of its own decree. It must not void what follows it: while an inherited window is logged
//! again, its first decrees are already there under the new ballot and its last ones only under the old one; a crash
//! at that moment must keep both, for all of them may be committed. (The simulator plants this mistake too.)
//!
//! A restarted secondary keeps its ballot, waits for the primary's stream, and is sent what it lacks from the window.
//! A restarted primary takes a new ballot as above. A restarted replica confirms its configuration before anything
//! else: by the meta service, or by a primary of at least its own ballot.
//!
//! # Streams, duplicates, gaps
//!
//! Of two streams with the same peer the higher session counts; messages of the other are dropped. On a new stream
//! the member states what it needs, so nothing is resumed by guessing. Records that were appended and not yet logged
//! when the stream broke are not asked for again; they are acknowledged on the new stream when they are logged. A
//! duplicate is acknowledged again. A prepare that leaves a gap is refused once, and the primary goes back to the
//! missing decree. What the log says about records that were truncated since means nothing.
//!
//! # Bounds
//!
//! A primary takes no write while its window (prepared and not applied) is full. It holds prepares back from a member
//! with too many bytes in flight. A member that applies slowly withholds acknowledgements, which holds the primary
//! back in turn. One batch of mutations is being applied at a time; the next one is everything committed meanwhile.
//!
//! # What is not done yet
//!
//! - **Leases.** A primary that was replaced by force serves stale reads until it hears of it. Nobody but the operator
//!   replaces it yet.
//! - **Takeover, removal and addition of members, learning.** A member that is away or has to learn stops new writes.
//! - **`written` durability across a machine failure.** A member that lost what it acknowledged is noticed only if it
//!   shows: by a commit point beyond its log. A *primary* that lost the end of its log takes a new ballot with a lower
//!   L. If no member knows the lost decrees to be committed, they are dropped. The boot id that will prevent it
//!   belongs to the same work as takeover.
//! - **Hand-over and graceful stop** beyond draining: the host stops admitting, waits for [`Replica::is_drained`], and
//!   shuts down.
//!
//! # Reading order
//!
//! `event.rs`, `effect.rs`, `window.rs`, `primary.rs` (with `progress.rs`), `secondary.rs`, `reconcile.rs`,
//! `replica.rs`. The transcripts in `tests/scripts` show every scenario above, message by message.

mod bugs;
mod describe;
mod effect;
mod event;
mod primary;
mod progress;
mod reconcile;
mod recovered;
mod replica;
mod secondary;
mod shared;
mod text;
mod window;

pub use bugs::PlantedBug;
pub use describe::{Counters, Description, MemberDescription, Phase};
pub use effect::{AppendRecord, Effect, RecordKind, Role};
pub use event::{AppendToken, Event, PeerMessage, RequestToken, Session};
pub use recovered::Recovered;
pub use replica::Replica;
pub use shared::{ReplicaIdentity, ReplicaLimits};
