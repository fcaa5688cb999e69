//! A picture of a replica for status pages and transcripts. Nothing decides by it.

use std::fmt;

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Ballot, Configuration, Decree, NodeId, PartitionId, Status};

use crate::effect::Role;
use crate::event::Session;
use crate::progress::Progress;
use crate::replica::{Replica, RoleState};
use crate::secondary::Secondary;
use crate::text::Node;

/// What a replica is doing within its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waits to hear its configuration.
    Unconfirmed,
    /// Primary at the assignment ballot: waits until every member has its empty copy.
    Creating,
    /// Primary: waits for the meta service's answer.
    Proposing,
    /// Waits for its descriptor.
    Storing,
    /// Primary: waits for members and for the inherited window.
    Reconciling,
    /// Primary: serves.
    Serving,
    /// Secondary: waits for the primary's stream.
    Waiting,
    /// Secondary: waits for its truncation to be logged.
    Truncating,
    /// Secondary or learner: follows the primary.
    Following,
    /// Secondary: asked to take the primary's place, and waits for the answer.
    Claiming,
    /// Learner: fetches a checkpoint.
    Fetching,
    /// Refuses everything.
    Stopped,
}

/// Things counted since the start; plain numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Configurations from the meta service that were older than what is known, or contradicted it.
    pub suspicious_configurations: u64,
    /// Messages of streams or ballots left behind.
    pub superseded_messages: u64,
    /// Messages that make no sense for the role; a sign of a bug at the other end.
    pub unexpected_messages: u64,
    /// Prepares that were already known.
    pub duplicates: u64,
    /// Mutations dropped because a new primary did not have them.
    pub truncated: u64,
    /// Mutations sent again after a reconnect or a gap.
    pub resent: u64,
    /// Refusals sent to a primary.
    pub refusals_sent: u64,
    /// Refusals received from members.
    pub refusals_received: u64,
    /// Beacons that members refused.
    pub beacons_refused: u64,
    /// Takeovers that succeeded.
    pub takeovers: u64,
    /// Members whose removal was proposed.
    pub removals: u64,
    /// Learners whose addition was proposed.
    pub additions: u64,
    /// Times the role was offered to another member.
    pub hand_overs: u64,
    /// Mutations read from the log for learners.
    pub sent_from_log: u64,
    /// Times a learner was told to take a checkpoint.
    pub checkpoints_told: u64,
}

/// A secondary as its primary sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// The member.
    pub node: NodeId,
    /// The stream to it, if it is open.
    pub session: Option<Session>,
    /// True if it has established the current ballot on that stream.
    pub established: bool,
    /// Logged there.
    pub acknowledged: Decree,
    /// Sent there.
    pub sent: Decree,
    /// Why it last refused, if it has not been established since.
    pub refusal: Option<(Status, String)>,
}

/// A replica at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The partition.
    pub partition: PartitionId,
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// What it is doing.
    pub phase: Phase,
    /// The newest configuration known.
    pub configuration: Configuration,
    /// The ballot that is durable here.
    pub stored_ballot: Ballot,
    /// What the copy may claim to be.
    pub state: ReplicaState,
    /// In the table.
    pub applied: Decree,
    /// Committed.
    pub committed: Decree,
    /// Logged under the current ballot, or committed.
    pub confirmed: Decree,
    /// Appended under the current ballot, or committed.
    pub prepared: Decree,
    /// The last mutation known, of whatever ballot.
    pub last: Decree,
    /// Payload bytes prepared and not applied.
    pub window_bytes: u64,
    /// Secondaries, on a primary.
    pub members: Vec<MemberDescription>,
    /// Learners, on a primary.
    pub learners: Vec<MemberDescription>,
    /// The configuration asked for, if the answer is not known.
    pub proposal: Option<Configuration>,
    /// What it waits for, for people; empty if for nothing.
    pub waits_for: String,
    /// Counters.
    pub counters: Counters,
}

impl fmt::Display for Description {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { partition, role, phase, configuration, stored_ballot, .. } = self;
        write!(out, "{partition} {role:?}/{phase:?} ballot {} (stored {stored_ballot})", configuration.ballot)?;
        write!(out, " applied {} committed {} confirmed {}", self.applied, self.committed, self.confirmed)?;
        write!(out, " prepared {} last {}", self.prepared, self.last)?;
        for member in self.members.iter().chain(&self.learners) {
            let state = match (&member.refusal, member.established) {
                (Some((_, message)), _) => message.as_str(),
                (None, true) => "established",
                (None, false) => "away",
            };
            write!(out, " [{} {state} acknowledged {} sent {}]", Node(member.node), member.acknowledged, member.sent)?;
        }
        if self.waits_for.is_empty() { Ok(()) } else { write!(out, "; waits for {}", self.waits_for) }
    }
}

impl Replica {
    /// A picture for status pages.
    pub fn describe(&self) -> Description {
        let core = &self.core;
        Description {
            partition: core.identity.partition,
            node: core.node(),
            role: self.role(),
            phase: self.phase(),
            configuration: core.configuration.clone(),
            stored_ballot: core.stored.0,
            state: core.state,
            applied: core.window.applied(),
            committed: core.window.committed(),
            confirmed: core.window.confirmed(),
            prepared: core.window.prepared(),
            last: core.window.last(),
            window_bytes: core.window.bytes(),
            members: self.members().iter().map(describe_member).collect(),
            learners: self.learners().iter().map(describe_member).collect(),
            proposal: core.proposal.as_ref().map(|proposal| proposal.configuration.clone()),
            waits_for: self.waits_for(),
            counters: core.counters,
        }
    }

    fn phase(&self) -> Phase {
        match &self.role {
            RoleState::Inactive => Phase::Unconfirmed,
            RoleState::Primary(primary) => primary.phase(),
            RoleState::Secondary(secondary) => secondary.phase(&self.core),
            RoleState::Stopped { .. } => Phase::Stopped,
        }
    }

    fn members(&self) -> &[Progress] {
        match &self.role {
            RoleState::Primary(primary) => &primary.members,
            _ => &[],
        }
    }

    fn learners(&self) -> &[Progress] {
        match &self.role {
            RoleState::Primary(primary) => &primary.learners,
            _ => &[],
        }
    }

    fn waits_for(&self) -> String {
        let away = self.members().iter().filter(|member| !member.is_established());
        let away: Vec<String> = away.map(|member| Node(member.node).to_string()).collect();
        match self.phase() {
            Phase::Unconfirmed => "its configuration from the meta service, or a primary".to_owned(),
            Phase::Proposing | Phase::Claiming => "the meta service's answer".to_owned(),
            Phase::Fetching => "its checkpoint".to_owned(),
            Phase::Storing => "its descriptor".to_owned(),
            Phase::Waiting => match &self.role {
                RoleState::Secondary(Secondary { missing: Some(missing), .. }) => {
                    format!("learning: it lacks {missing}, which is committed")
                }
                _ => "the primary's stream".to_owned(),
            },
            Phase::Truncating => "its truncation in the log".to_owned(),
            Phase::Creating | Phase::Reconciling | Phase::Serving if !away.is_empty() => {
                format!("members {}", away.join(" "))
            }
            Phase::Reconciling => "its inherited window".to_owned(),
            Phase::Stopped => match &self.role {
                RoleState::Stopped { reason, .. } if !reason.is_empty() => format!("repair: {reason}"),
                _ => String::new(),
            },
            Phase::Creating | Phase::Serving | Phase::Following => String::new(),
        }
    }
}

fn describe_member(member: &Progress) -> MemberDescription {
    let refusal = member.refusal.as_ref().map(|refusal| (refusal.status, refusal.message.clone()));
    MemberDescription {
        node: member.node,
        session: member.session(),
        established: member.is_established(),
        acknowledged: member.acknowledged,
        sent: member.sent,
        refusal,
    }
}
