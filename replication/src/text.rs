//! Events, effects and messages as one line each, for logs, transcripts and the simulator's event log.

use std::fmt;

use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::{Configuration, Mutation, NodeId};

use crate::effect::{Effect, RecordKind};
use crate::event::{Event, PeerMessage};

/// A node as people write it.
pub(crate) struct Node(pub(crate) NodeId);

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "n{:x}", self.0.0)
    }
}

/// A configuration as people write it.
struct Members<'a>(&'a Configuration);

impl fmt::Display for Members<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ballot {}", self.0.ballot)?;
        for (index, member) in self.0.members().enumerate() {
            write!(out, "{}{}", if index == 0 { " of " } else { "+" }, Node(member))?;
        }
        Ok(())
    }
}

/// What a copy claims, if it is not the usual.
struct Claim(ReplicaState);

impl fmt::Display for Claim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ReplicaState::Whole => Ok(()),
            state => write!(out, " as {state:?}"),
        }
    }
}

impl fmt::Display for PeerMessage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerMessage::Establish(establish) => {
                let members = Members(&establish.configuration);
                write!(out, "Establish {members}, last {} committed {}", establish.last_decree, establish.committed)
            }
            PeerMessage::Established(answer) => {
                let (ballot, next) = (answer.ballot, answer.next_decree);
                write!(out, "Established ballot {ballot}, next {next} committed {}", answer.committed)?;
                if answer.uncertain { out.write_str(", uncertain") } else { Ok(()) }
            }
            PeerMessage::Prepare { prepare, .. } => {
                write!(out, "Prepare {}@{} committed {}", prepare.decree, prepare.ballot, prepare.committed)
            }
            PeerMessage::Acknowledge(answer) => write!(out, "Acknowledge {}@{}", answer.logged, answer.ballot),
            PeerMessage::CommitPoint(point) => write!(out, "CommitPoint {}@{}", point.committed, point.ballot),
            PeerMessage::TakeCheckpoint(take) => write!(out, "TakeCheckpoint {}@{}", take.committed, take.ballot),
            PeerMessage::Refuse { status, refuse } => {
                write!(out, "Refuse {status:?} ballot {} next {}: ", refuse.ballot, refuse.next_decree)?;
                out.write_str(&refuse.message)
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Assigned(configuration) => write!(out, "assigned {}", Members(configuration)),
            Event::ProposalDecided { configuration } => write!(out, "decided {}", Members(configuration)),
            Event::ProposalFailed => out.write_str("proposal unanswered"),
            Event::Propose { request, payload, .. } => write!(out, "propose r{} ({} bytes)", request.0, payload.len()),
            Event::StreamOpened { peer, session } => write!(out, "stream {session} to {} is open", Node(*peer)),
            Event::StreamFailed { peer } => write!(out, "no stream to {}", Node(*peer)),
            Event::StreamClosed { peer, session } => write!(out, "stream {session} with {} is closed", Node(*peer)),
            Event::Received { peer, session, message } => write!(out, "{} on {session}: {message}", Node(*peer)),
            Event::Logged { through } => write!(out, "logged #{}", through.0),
            Event::DescriptorStored { ballot, state } => write!(out, "stored ballot {ballot}{}", Claim(*state)),
            Event::Applied { through } => write!(out, "applied {through}"),
            Event::Await { request, through } => write!(out, "await {through} for r{}", request.0),
            Event::BeaconHeard { peer, ballot, committed } => {
                write!(out, "beacon of {} ballot {ballot} committed {committed}", Node(*peer))
            }
            Event::BeaconAnswered { peer, ballot, sent_at, granted } => {
                let answer = if *granted { "granted" } else { "refused" };
                write!(out, "beacon of {sent_at} {answer} by {} for ballot {ballot}", Node(*peer))
            }
            Event::AddMember { ballot, node } => write!(out, "add {} at ballot {ballot}", Node(*node)),
            Event::HandOver => out.write_str("hand over"),
            Event::LogRead { peer, mutations: None, .. } => write!(out, "no log for {}", Node(*peer)),
            Event::LogRead { peer, mutations: Some(mutations), .. } => {
                let decree = |mutation: Option<&Mutation>| mutation.map_or(0, |mutation| mutation.decree.0);
                let (first, last) = (decree(mutations.first()), decree(mutations.last()));
                write!(out, "log {first}..={last} for {}", Node(*peer))
            }
            Event::CheckpointFailed => out.write_str("no checkpoint"),
            Event::Tick => out.write_str("tick"),
            Event::Failed { status, reason } => write!(out, "failed ({status:?}): {reason}"),
            Event::Shutdown => out.write_str("shutdown"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Append { token, record } => {
                let kind = match record.kind {
                    RecordKind::Mutation(_) => "append",
                    RecordKind::Truncate => "append truncation from",
                };
                let (decree, ballot, committed) = (record.decree, record.ballot, record.committed);
                write!(out, "{kind} {decree}@{ballot} committed {committed} as #{}", token.0)
            }
            Effect::StoreDescriptor { configuration, state } => {
                write!(out, "store {}{}", Members(configuration), Claim(*state))
            }
            Effect::OpenStream { peer } => write!(out, "open stream to {}", Node(*peer)),
            Effect::CloseStream { peer, session } => write!(out, "close stream {session} with {}", Node(*peer)),
            Effect::Send { peer, session, message } => write!(out, "to {} on {session}: {message}", Node(*peer)),
            Effect::Apply { mutations } => {
                let decree = |mutation: Option<&Mutation>| mutation.map_or(0, |mutation| mutation.decree.0);
                write!(out, "apply {}..={}", decree(mutations.first()), decree(mutations.last()))
            }
            Effect::Reply { request, outcome: Ok(decree) } => write!(out, "reply r{}: done at {decree}", request.0),
            Effect::Reply { request, outcome: Err(status) } => write!(out, "reply r{}: {status:?}", request.0),
            Effect::ProposeConfiguration { expected_ballot, configuration } => {
                write!(out, "propose {} after ballot {expected_ballot}", Members(configuration))
            }
            Effect::ReadLog { peer, from, through, .. } => {
                write!(out, "read log {from}..={through} for {}", Node(*peer))
            }
            Effect::FetchCheckpoint { from, committed, .. } => {
                write!(out, "fetch a checkpoint of {committed} or later from {}", Node(*from))
            }
            Effect::RoleChanged { role, ballot, serving } => {
                write!(out, "now {role:?} at ballot {ballot}{}", if *serving { ", serving" } else { "" })
            }
            Effect::Faulted { status, reason } => write!(out, "FAULT {status:?}: {reason}"),
        }
    }
}
