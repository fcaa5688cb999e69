//! What the primary knows of one secondary: its stream, and how far it has come.

use pegasus_wire::{Decree, NodeId, Status};

use crate::effect::Effect;
use crate::event::Session;

/// Longest pause between two attempts to reach a member, in ticks.
const RETRY_TICKS_MAX: u32 = 8;

/// The stream to a member.
///
/// ```text
///   Closed --tick--> Opening --StreamOpened--> Open --Established--> Established
///     ^                 |                       |                        |
///     +--StreamFailed---+--- StreamClosed, refusal ----------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// None; tried again after this many ticks.
    Closed { ticks_left: u32 },
    /// Asked for.
    Opening,
    /// Open; the member has not answered `Establish` of the current ballot on it.
    Open { session: Session },
    /// The member has answered.
    Established { session: Session },
}

/// Why a member last refused.
#[derive(Clone, Debug)]
pub(crate) struct MemberRefusal {
    pub(crate) status: Status,
    pub(crate) message: String,
}

/// One secondary as its primary sees it.
///
/// Invariants: `acknowledged <= sent`; what is acknowledged is logged at the member under the primary's ballot, or
/// committed.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) node: NodeId,
    pub(crate) stream: Stream,
    /// The newest session seen; older ones are superseded.
    newest: Session,
    /// True once the member has established the current ballot, on whatever stream.
    pub(crate) joined: bool,
    /// Logged at the member.
    pub(crate) acknowledged: Decree,
    /// Sent on the current stream.
    pub(crate) sent: Decree,
    /// The commit point last sent on the current stream.
    pub(crate) told: Decree,
    pub(crate) refusal: Option<MemberRefusal>,
    failures: u32,
}

impl Progress {
    pub(crate) fn new(node: NodeId) -> Progress {
        Progress {
            node,
            stream: Stream::Closed { ticks_left: 0 },
            newest: Session(0),
            joined: false,
            acknowledged: Decree(0),
            sent: Decree(0),
            told: Decree(0),
            refusal: None,
            failures: 0,
        }
    }

    /// Forgets what belongs to a ballot; the stream stays.
    pub(crate) fn begin_ballot(&mut self) {
        self.joined = false;
        self.acknowledged = Decree(0);
        self.sent = Decree(0);
        self.refusal = None;
        if let Stream::Established { session } = self.stream {
            self.stream = Stream::Open { session };
        }
    }

    pub(crate) fn session(&self) -> Option<Session> {
        match self.stream {
            Stream::Open { session } | Stream::Established { session } => Some(session),
            Stream::Closed { .. } | Stream::Opening => None,
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        matches!(self.stream, Stream::Established { .. })
    }

    /// Asks for a stream if there is none and the pause is over.
    pub(crate) fn open(&mut self, effects: &mut Vec<Effect>) {
        if self.stream == (Stream::Closed { ticks_left: 0 }) {
            self.stream = Stream::Opening;
            effects.push(Effect::OpenStream { peer: self.node });
        }
    }

    /// A stream is there. False if a newer one is known: the new one is closed again.
    pub(crate) fn opened(&mut self, session: Session, effects: &mut Vec<Effect>) -> bool {
        if session <= self.newest {
            effects.push(Effect::CloseStream { peer: self.node, session });
            return false;
        }
        if let Some(old) = self.session() {
            effects.push(Effect::CloseStream { peer: self.node, session: old });
        }
        self.newest = session;
        self.stream = Stream::Open { session };
        true
    }

    /// The member has answered under the current ballot.
    pub(crate) fn establish(&mut self, session: Session) {
        self.stream = Stream::Established { session };
        self.joined = true;
        self.refusal = None;
        self.failures = 0;
    }

    /// There is no stream now. A stream that worked is opened again at once, others after a growing pause.
    pub(crate) fn lost(&mut self) {
        let worked = self.is_established();
        self.failures = if worked { 0 } else { self.failures.saturating_add(1) };
        let ticks_left = match self.failures {
            0 => 0,
            failures => RETRY_TICKS_MAX.min(1 << (failures - 1).min(8)),
        };
        self.stream = Stream::Closed { ticks_left };
    }

    /// Gives the stream up because of what the member said (or broke); tried again after a pause.
    pub(crate) fn give_up(&mut self, status: Status, message: String, effects: &mut Vec<Effect>) {
        self.close(effects);
        self.stream = Stream::Closed { ticks_left: 0 };
        self.lost();
        self.refusal = Some(MemberRefusal { status, message });
    }

    /// Closes the stream, if there is one.
    pub(crate) fn close(&mut self, effects: &mut Vec<Effect>) {
        if let Some(session) = self.session() {
            effects.push(Effect::CloseStream { peer: self.node, session });
        }
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, effects: &mut Vec<Effect>) {
        if let Stream::Closed { ticks_left } = &mut self.stream {
            *ticks_left = ticks_left.saturating_sub(1);
        }
        self.open(effects);
    }
}
