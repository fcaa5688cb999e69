//! PacificA as a pure state machine: events in, effects out.
//!
//! The protocol is that of "PacificA: Replication in Log-Based Distributed Storage Systems" (MSR-TR-2008-25). This
//! package decides; it must never see a socket, a file, a thread or a source of randomness, and it never reads a clock:
//! every event comes with the reading of one. A host feeds a [`Replica`] with [`Event`]s and performs the [`Effect`]s
//! it asks for. Both enums are closed: they are the whole surface, besides a few questions that change nothing.
//!
//! # Roles
//!
//! A partition has a *configuration*: a ballot, a primary, secondaries. The meta service owns it and changes it by
//! compare-and-swap on the ballot. All members hold the same history of mutations, numbered by *decree* from 1.
//!
//! - The **primary** ([`Role::Primary`]) gives every write the next decree, logs it, prepares it at every secondary,
//!   and commits it when *all* members have it in their logs. It applies it, and only then answers.
//! - A **secondary** logs what is prepared in decree order, acknowledges what is logged, applies what it is told is
//!   committed, and takes over when its primary is silent.
//! - A **learner** is taught by the primary what it lacks. It is no member, and claims nothing, until a configuration
//!   names it and its primary has established it under that.
//! - A replica is **inactive** until it hears what it is, or when it is no member; it is in **error** once something
//!   happened that must not.
//!
//! There is no majority. What a client was told is in the log of every member, so any one of them can carry on. The
//! price is that a member that is away holds up writes until it is removed.
//!
//! # Messages
//!
//! One ordered stream for each (partition, member or learner), opened by the primary; a new stream supersedes an older
//! one.
//!
//! | message | from, to | says |
//! |---|---|---|
//! | Establish | primary, member | I lead ballot b; when I took it, my last decree was L; my commit point is C |
//! | Establish | primary, learner | the same, with a configuration that does not name you |
//! | Established | member, primary | b is durable here, nothing of a lower ballot is left beyond L; n is needed next |
//! | Prepare | primary, member | log this mutation; my commit point is C |
//! | Acknowledge | member, primary | everything up to d is in my log under ballot b, or committed |
//! | CommitPoint | primary, member | C, when no prepare carried it (sent on a tick) |
//! | TakeCheckpoint | primary, learner | what you lack is in my log no more; fetch a checkpoint of C or later |
//! | Refuse | member, primary | I do not take that: stale ballot, gap (n is next), damaged, stopping, .. |
//!
//! Beacons are calls of their own, from core to core, and name all partitions one leads and the other follows. The
//! replica sees its part: [`Replica::beacons`], [`Event::BeaconHeard`] and [`Replica::grants_beacon`],
//! [`Event::BeaconAnswered`].
//!
//! # Watermarks
//!
//! ```text
//! applied <= committed <= confirmed <= prepared <= last        on each replica
//! ```
//!
//! *prepared*: appended under the current ballot. *confirmed*: that, and durable in the log. What lies between
//! *prepared* and *last* is inherited from lower ballots and means nothing until it is prepared again. The primary's
//! commit point is the least of its own confirmed decree and what every member acknowledged. A secondary's is what it
//! was told, but never beyond its own confirmed decree.
//!
//! # Invariants
//!
//! Asserted in debug builds after every event, and judged from outside by the simulator after every step:
//!
//! 1. What is committed anywhere is in the durable log of every member of the configuration.
//! 2. The chain of watermarks above, on each replica.
//! 3. A ballot has one primary, which announces one last decree L for it. At any instant at most one replica serves.
//! 4. A prepare of a lower ballot is refused; a committed decree has one payload on every replica for ever.
//! 5. No reply before the primary has applied; no acknowledgement before the acknowledger has logged; no `Established`
//!    before truncation and ballot are durable.
//! 6. A new primary serves nothing before its inherited window has committed and is applied.
//! 7. Between asking for a configuration and knowing what came of it, a replica acts as if either were in force: a
//!    learner whose addition is proposed counts, a member whose removal is proposed counts, who has offered its role
//!    does not serve, who has claimed the role grants nothing.
//!
//! # A new partition
//!
//! The first assignment has ballot 1 ([`pegasus_wire::Ballot::ASSIGNMENT`]). Each member makes an empty copy. At ballot
//! 1 nothing is prepared or served. The primary establishes with every member, which proves that each has its copy, and
//! then asks the meta service for ballot 2. Making copies may take long: members are given several leases, and nobody
//! claims the primary's place earlier. A node that is told of a ballot above 1 and has no copy has therefore *lost* it,
//! and must say so instead of making an empty one.
//!
//! # Taking a ballot (reconciliation)
//!
//! A primary never goes on under a ballot it did not ask for in this very run: another run may have used it, with
//! another L. So whenever it becomes primary by start or by assignment, it proposes the same members with the next
//! ballot, until it knows what came of it. (Its own takeover, removal or addition is such a ballot already.) An
//! unanswered proposal is made again unchanged, which the meta service takes for the same one. Any other answer tells
//! what is in force, and the replica becomes that. Once its ballot is in force, it
//!
//! 1. notes L, the last decree it holds, and stores the configuration durably;
//! 2. appends its inherited window (everything beyond its commit point up to L) to its own log again, under the new
//!    ballot, and establishes with every member; clients that wait for something in the window go on waiting;
//! 3. prepares the inherited window at every member from where that member says it needs it;
//! 4. serves when every member has established, everything up to L is committed and applied, and nobody can still
//!    believe to serve by a lease that this very copy granted (see below).
//!
//! A member that hears `Establish`:
//!
//! 1. refuses a lower ballot, a foreign sender, its own ballot while it claims the role, and everything if it is
//!    damaged;
//! 2. refuses with `Gap` if what the primary says is committed is not all in its log: it has to learn, and never
//!    pretends;
//! 3. *stops* if the primary lacks what is committed here: somewhere committed data was lost. It keeps what it has;
//! 4. drops what it prepared under lower ballots beyond L, by a truncation record, and waits until that is logged;
//! 5. stores the configuration, and waits until it is durable;
//! 6. answers. It needs next what follows max(its commit point, the primary's), or, under a ballot it already had, what
//!    follows the last prepare of this ballot. What it kept up to L is prepared again, decree by decree.
//!
//! Dropping beyond L loses nothing: the primary's own log gates every commit, so what it does not have was never
//! committed. Keeping up to L is needed: it may have been. A replica that is not a member of the configuration does the
//! same as a learner, with its own commit point in the place of L: it keeps what it knows to be committed, and nothing
//! else.
//!
//! # Leases
//!
//! The lease of a member runs, on the primary's clock, from the *sending* of the last beacon it granted, or of the
//! `Establish` that it answered under this ballot. The primary serves a read or admits a write only while it has the
//! lease of every member, by a reading of the clock that is taken after the request was received. A primary that could
//! not serve for a grace period sends no more beacons, so that others may take over.
//!
//! The member's grace period runs, on its own clock, from the *receipt* of the last thing it took from its primary. It
//! starts afresh after a restart and with every configuration it adopts. When it is over, the member may claim the
//! role.
//!
//! Readings of two clocks are never compared. All that is asked of a clock is that its rate is right to within `drift`.
//! A lease then lasts at most lease / (1 - drift) of real time, a grace period at least grace / (1 + drift), and
//!
//! ```text
//! lease x (1 + drift) < grace x (1 - drift)        checked by Timing::validate
//! ```
//!
//! says that the first is over before the second. Since a beacon is received after it was sent, the old primary has
//! stopped serving when a member claims. Why nobody else serves beside a primary P of ballot b:
//!
//! - P serves by the leases of *all* members of b, so one that withholds is enough.
//! - Whoever *claims* the role is a member of b, and withholds from its claim on until it knows the outcome.
//! - A *hand-over* is proposed by P itself, which serves nothing from then until it knows the outcome.
//! - A new primary that did neither in this run (an operator forced it; its claim of the run before was accepted after
//!   it followed P again) remembers what it granted: it does not serve before a grace period is over since, unless P
//!   has taken a later ballot as a member or refuses because it stopped. After a restart it takes it that the run
//!   before granted something just before it ended.
//! - P's own removals and additions keep P.
//!
//! Leases are about reads and admission only. A write is acknowledged when all members of a ballot have logged it,
//! which the members of a later ballot refuse, whatever the clocks do.
//!
//! # Who proposes what
//!
//! | who | asks for | when |
//! |---|---|---|
//! | a primary by start or assignment | the same members | at once |
//! | a primary | itself without a member | it has to be removed |
//! | a primary | itself with a learner | that has everything |
//! | a primary | a present secondary as primary, itself a secondary | asked to hand over, or its storage failed |
//! | a secondary | itself as primary, the old one gone | its grace period is over |
//!
//! An unanswered proposal is asked for again, unchanged, with growing pauses; it is never taken for refused. One kind
//! is given up, by asking beside it for the same members: an addition whose learner is gone, since the meta service may
//! never accept it. Whichever of the two comes into force decides both.
//!
//! **Takeover.** The claimant closes the old primary's stream. What it hears of that ballot from then on it refuses:
//! beacons, prepares, `Establish`. A higher ballot ends the claim. Of two claims one wins, and the loser learns so from
//! its answer.
//!
//! **Removal.** A member leaves when its lease lapsed (or it has not established within a lease of the ballot being
//! taken), when it leaves a prepare unacknowledged for longer than the prepare timeout, or when it refuses in a way
//! after which waiting is of no use: damaged, storage failed, stopping, gap, uncertain. Writes that wait for it commit
//! under the new configuration, never before. A removal that would leave fewer members than new writes need is put off
//! by a grace period: if it is this primary that is cut off, the others take over first. How few members there may be
//! gates the admission of new writes, never the commit of what is prepared.
//!
//! **Hand-over.** The primary admits nothing new, answers what it has, and proposes the first member that is present.
//! If it does not drain in time, or nobody is there, it goes on. A primary whose storage failed asks once and stops;
//! its refusals tell the new primary to remove it. A replica that stops as a secondary tells its primary.
//!
//! # Adding a member
//!
//! The meta service asks the primary again and again ([`Event::AddMember`]). The primary opens a stream to the learner,
//! whose host makes an empty copy if it has none, or a damaged one. The learner states its commit point, durably in
//! state learning, and gets what follows as ordinary prepares under the primary's ballot:
//!
//! 1. from memory: the window, and what was applied since somebody learns (a bounded number of bytes);
//! 2. else from the primary's log ([`Effect::ReadLog`]), at most two batches at a time;
//! 3. else it is told to take a checkpoint. Its host fetches one, puts it in the place of its table under a new
//!    incarnation, and makes a new replica from it, which begins at 1 or 2 again.
//!
//! [`Replica::learner_floor`] says what the log must keep meanwhile. A learner that has acknowledged the commit point
//! is proposed. Before that it counts for nothing; from then on, until the outcome is known, it counts as a member for
//! commits and for the lease. Under the next ballot it is established as a member, which makes its copy whole.
//!
//! Learners that cannot be reached are dropped; the meta service asks again. A ballot taken meanwhile is established
//! with learners too. What a learner says can disturb nobody.
//!
//! # Restart and recovery
//!
//! A replica is made from [`Recovered`]: the stored configuration, the applied decree, the highest commit point seen,
//! and the log beyond the applied decree. Of several records of one decree the one with the highest ballot counts. A
//! *truncation* of ballot b from decree d voids every record with a lower ballot and a decree >= d. A *mutation* voids
//! nothing but lower ballots of its own decree. It must not void what follows it: while an inherited window is logged
//! again, its first decrees are already there under the new ballot and its last ones only under the old one; a crash at
//! that moment must keep both, for all of them may be committed. (The simulator plants this mistake too.)
//!
//! A restarted replica confirms its configuration before anything else: by the meta service, or by a primary of at
//! least its own ballot. A secondary then keeps its ballot, waits for the primary's stream, and is sent what it lacks
//! from the window; a primary takes a new ballot as above; who was removed meanwhile is inactive, and learns. A copy in
//! state learning stays in it: a gap in its log is no damage, and what lies behind the gap is dropped.
//!
//! **Uncertain copies.** Under `written` durability a machine that loses power may lose what a copy acknowledged. A
//! copy that comes back under another boot id is *uncertain*. When it is established as a member it says so, takes
//! nothing and promises nothing, and keeps in its descriptor the ballot under which it was last whole; it is removed
//! and taught. It may ask for the role like any other, but the meta service accepts that only when every member has
//! reported itself uncertain, and then from the one of the highest (ballot, decree). The copy is whole from then on:
//! what it lacks, nobody can be shown to have had.
//!
//! # Streams, duplicates, gaps
//!
//! Of two streams with the same peer the higher session counts; messages of the other are dropped. On a new stream the
//! member states what it needs, so nothing is resumed by guessing. Records that were appended and not yet logged when
//! the stream broke are not asked for again; they are acknowledged on the new stream when they are logged. A duplicate
//! is acknowledged again. A prepare that leaves a gap is refused once, and the primary goes back to the missing decree.
//! What the log says about records that were truncated since means nothing.
//!
//! # Bounds
//!
//! A primary takes no write while its window (prepared and not applied) is full. It holds prepares back from a member
//! or learner with too many of them, or too many bytes, on the way. A member that applies slowly withholds
//! acknowledgements, which holds the primary back in turn. One batch of mutations is being applied at a time; the next
//! one is everything committed meanwhile.
//!
//! # What is not done
//!
//! - **A learner that is always behind.** It is proposed when it has acknowledged the commit point; under writes that
//!   never pause, one that is slower than every member may have to wait long for such a moment.
//! - **A primary whose own log hangs.** Members are timed, the primary's own log is not. The host has to say
//!   [`Event::Failed`]; until then reads go on and writes wait.
//! - **A copy that knows more than its primary.** It stops, keeps what it has, and waits for people, also when an
//!   operator has accepted the loss.
//! - **The best successor.** A hand-over names the first secondary that is present, not the least loaded.
//!
//! # Reading order
//!
//! `event.rs`, `effect.rs`, `timing.rs`, `window.rs`; `primary.rs` with `progress.rs` and `members.rs`; `secondary.rs`,
//! `reconcile.rs`; then what changes the members: `proposal.rs`, `changes.rs`, `learners.rs`; last `recovered.rs`,
//! `shared.rs`, `replica.rs`, which dispatches, and `questions.rs`. `describe.rs` and `text.rs` are for people,
//! `bugs.rs` is for the simulator. The transcripts in `tests/scripts` show the scenarios above, message by message.

mod bugs;
mod changes;
mod describe;
mod effect;
mod event;
mod learners;
mod members;
mod primary;
mod progress;
mod proposal;
mod questions;
mod reconcile;
mod recovered;
mod replica;
mod secondary;
mod shared;
mod text;
mod timing;
mod window;

pub use bugs::PlantedBug;
pub use changes::BeaconTarget;
pub use describe::{Counters, Description, MemberDescription, Phase};
pub use effect::{AppendRecord, Effect, RecordKind, Role};
pub use event::{AppendToken, Event, PeerMessage, RequestToken, Session};
pub use recovered::Recovered;
pub use replica::Replica;
pub use shared::{ReplicaIdentity, ReplicaLimits};
pub use timing::{Moment, Timing};
