//! What a primary says to one member or learner, and what it makes of the answers.

use bytes::Bytes;
use pegasus_wire::messages::peer::{CommitPoint, Establish, Established, Prepare};
use pegasus_wire::{Decree, Mutation, Status};

use crate::effect::Effect;
use crate::event::{PeerMessage, Session};
use crate::learners::ask_log;
use crate::progress::{CatchUp, Progress, Stream};
use crate::shared::Core;

pub(crate) fn send_establish(member: &mut Progress, core: &Core, last_decree: Decree, effects: &mut Vec<Effect>) {
    let Some(session) = member.session() else { return };
    member.told = core.window.committed();
    member.establish_sent = core.now;
    let establish = Establish {
        cluster: core.identity.cluster,
        partition: core.identity.partition,
        sender: core.node(),
        receiver: member.node,
        table: core.identity.table.clone(),
        configuration: core.configuration.clone(),
        last_decree,
        committed: core.window.committed(),
    };
    let message = PeerMessage::Establish(Box::new(establish));
    effects.push(Effect::Send { peer: member.node, session, message });
}

/// Sends what the member has not been sent, as far as what is on the way to it allows. What a learner needs and memory
/// does not hold any more is read from the log.
pub(crate) fn send_prepares(member: &mut Progress, core: &mut Core, effects: &mut Vec<Effect>) {
    let Stream::Established { session } = member.stream else { return };
    while member.sent < core.window.prepared() && member.catch_up == CatchUp::None {
        let Some(mutation) = core.window.find(member.sent.next()) else {
            return ask_log(member, core, session, effects);
        };
        let (bytes_max, mutations_max) = (core.limits.flight_bytes_max, core.limits.window_mutations_max);
        if !member.may_send(mutation.payload.len(), bytes_max, mutations_max) {
            return;
        }
        let mutation = mutation.clone();
        send_prepare(member, core, session, mutation, effects);
    }
}

/// Sends one mutation under the current ballot.
pub(crate) fn send_prepare(
    member: &mut Progress,
    core: &Core,
    session: Session,
    mutation: Mutation,
    effects: &mut Vec<Effect>,
) {
    let prepare = Prepare {
        ballot: core.ballot(),
        decree: mutation.decree,
        committed: core.window.committed(),
        timestamp_micros: mutation.timestamp_micros,
        mutation_kind: mutation.kind as u8,
    };
    let payload: Bytes = mutation.payload;
    member.note_sent(mutation.decree, payload.len());
    member.told = prepare.committed;
    effects.push(Effect::Send { peer: member.node, session, message: PeerMessage::Prepare { prepare, payload } });
}

/// On a tick only: under load prepares carry the commit point, and a member that is told late loses nothing.
pub(crate) fn send_commit_point(member: &mut Progress, core: &Core, effects: &mut Vec<Effect>) {
    let committed = core.window.committed();
    if let Stream::Established { session } = member.stream
        && member.told < committed
    {
        member.told = committed;
        let message = PeerMessage::CommitPoint(CommitPoint { ballot: core.ballot(), committed });
        effects.push(Effect::Send { peer: member.node, session, message });
    }
}

pub(crate) fn on_acknowledge(member: &mut Progress, core: &mut Core, logged: Decree, effects: &mut Vec<Effect>) {
    if !member.is_established() {
        core.counters.unexpected_messages += 1;
        return;
    }
    if logged > member.sent {
        let message = format!("acknowledged {logged}, but only {} was sent", member.sent);
        member.give_up(Status::Internal, message, effects);
        return;
    }
    member.acknowledge(logged);
    send_prepares(member, core, effects);
}

/// The member is on this ballot, and says from where on it needs mutations.
pub(crate) fn on_established(
    member: &mut Progress,
    core: &mut Core,
    session: Session,
    answer: Established,
    learner: bool,
    effects: &mut Vec<Effect>,
) {
    if member.is_established() {
        core.counters.unexpected_messages += 1;
        return;
    }
    if let Err((status, message)) = check_established(member, core, &answer, learner) {
        member.give_up(status, message, effects);
        return;
    }
    let has = answer.next_decree.previous();
    if learner && has < member.acknowledged {
        // Its copy was made anew since: what the one before had logged is gone.
        member.acknowledged = Decree(0);
    }
    member.establish(session, has);
    member.acknowledge(answer.committed);
    core.release(member.node);
    core.counters.resent += core.window.prepared().0.saturating_sub(has.0);
    send_prepares(member, core, effects);
}

fn check_established(
    member: &Progress,
    core: &Core,
    answer: &Established,
    learner: bool,
) -> Result<(), (Status, String)> {
    let Established { next_decree, committed, uncertain, .. } = *answer;
    let window = &core.window;
    let has = next_decree.previous();
    if next_decree == Decree(0) || committed > has {
        return Err((Status::Internal, format!("committed {committed}, but needs {next_decree}")));
    }
    if has > window.last() {
        return Err((Status::Internal, format!("has up to {has}, but this primary only up to {}", window.last())));
    }
    if learner {
        return Ok(());
    }
    if uncertain {
        let message = "its machine restarted, and it may have lost what it acknowledged; it has to learn";
        return Err((Status::Damaged, message.to_owned()));
    }
    if has < window.committed() || has < member.acknowledged {
        let message = format!("needs {next_decree}, which was committed at it or here; it has to learn");
        return Err((Status::Gap, message));
    }
    if committed < member.told {
        return Err((Status::Internal, format!("committed {committed}, but was told {}", member.told)));
    }
    Ok(())
}

/// The member misses what was sent before: it is sent again from there.
pub(crate) fn on_gap(member: &mut Progress, core: &mut Core, next_decree: Decree, effects: &mut Vec<Effect>) {
    core.counters.refusals_received += 1;
    let has = next_decree.previous();
    if next_decree == Decree(0) || has < member.acknowledged || has > member.sent {
        let message = format!("needs {next_decree} after it acknowledged {}; it has to learn", member.acknowledged);
        member.give_up(Status::Gap, message, effects);
        return;
    }
    core.counters.resent += member.sent.0 - has.0;
    member.go_back(has);
    send_prepares(member, core, effects);
}
