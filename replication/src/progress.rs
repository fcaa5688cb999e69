//! What the primary knows of one member or learner: its stream, its lease, and how far it has come.

use std::collections::VecDeque;

use pegasus_wire::{Decree, NodeId, Status};

use crate::effect::Effect;
use crate::event::Session;
use crate::timing::Moment;

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

/// How a learner is being brought up to the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CatchUp {
    /// What it needs next is in memory, or nothing is asked for yet.
    #[default]
    None,
    /// The log was asked for what it needs next.
    ReadingLog,
    /// It was told to take a checkpoint; a new stream follows.
    Checkpoint,
}

/// What was sent on the current stream and is not acknowledged: decree and payload bytes, oldest first. Bounded by what
/// [`send_prepares`](crate::members::send_prepares) holds back.
#[derive(Clone, Debug, Default)]
struct Flight {
    prepares: VecDeque<(Decree, u64)>,
    bytes: u64,
}

/// One secondary or learner as its primary sees it.
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
    /// True if it said something after which waiting is of no use: it has to leave.
    pub(crate) unfit: bool,
    /// When the last `Establish` was sent on the current stream.
    pub(crate) establish_sent: Moment,
    /// From when the member's last grant counts; `None` under a ballot it has not answered.
    pub(crate) lease_from: Option<Moment>,
    flight: Flight,
    /// What was prepared and not acknowledged at past ticks, oldest first.
    marks: VecDeque<(Decree, Moment)>,
    pub(crate) catch_up: CatchUp,
    /// What had been sent before the last batch from the log.
    pub(crate) batch: Decree,
    /// Since when commits wait for this learner; once for each stream.
    pub(crate) gating_since: Option<Moment>,
    /// The lowest decree this learner may still need from the log; 0 while nothing is known.
    pub(crate) floor: Decree,
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
            unfit: false,
            establish_sent: Moment(0),
            lease_from: None,
            flight: Flight::default(),
            marks: VecDeque::new(),
            catch_up: CatchUp::None,
            batch: Decree(0),
            gating_since: None,
            floor: Decree(0),
            failures: 0,
        }
    }

    /// Forgets what belongs to a ballot; the stream stays.
    pub(crate) fn begin_ballot(&mut self) {
        self.joined = false;
        self.acknowledged = Decree(0);
        self.sent = Decree(0);
        self.refusal = None;
        self.unfit = false;
        self.lease_from = None;
        self.flight = Flight::default();
        self.marks.clear();
        self.catch_up = CatchUp::None;
        self.gating_since = None;
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

    /// Attempts since the last stream that worked.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
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

    /// The member has answered under the current ballot, and needs what follows `has`. Its lease counts from the
    /// question.
    pub(crate) fn establish(&mut self, session: Session, has: Decree) {
        self.stream = Stream::Established { session };
        self.sent = has;
        self.batch = has;
        self.floor = has.next();
        self.flight = Flight::default();
        self.joined = true;
        self.refusal = None;
        self.unfit = false;
        self.failures = 0;
        self.catch_up = CatchUp::None;
        self.gating_since = None;
        self.marks.clear();
        self.grant(self.establish_sent);
    }

    /// The member granted what was sent at this moment.
    pub(crate) fn grant(&mut self, sent_at: Moment) {
        self.lease_from = self.lease_from.max(Some(sent_at));
    }

    /// A prepare was handed to the stream.
    pub(crate) fn note_sent(&mut self, decree: Decree, bytes: usize) {
        self.sent = decree;
        self.flight.prepares.push_back((decree, bytes as u64));
        self.flight.bytes += bytes as u64;
    }

    /// What was sent beyond a decree did not arrive.
    pub(crate) fn go_back(&mut self, has: Decree) {
        self.sent = has;
        while self.flight.prepares.back().is_some_and(|(decree, _)| *decree > has) {
            self.flight.bytes -= self.flight.prepares.pop_back().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// True if so many more bytes may be sent before something is acknowledged. One prepare is always allowed.
    pub(crate) fn may_send(&self, bytes: usize, bytes_max: u64, mutations_max: usize) -> bool {
        let Flight { prepares, bytes: on_the_way } = &self.flight;
        prepares.is_empty() || prepares.len() < mutations_max && on_the_way + bytes as u64 <= bytes_max
    }

    /// The member has logged up to a decree.
    pub(crate) fn acknowledge(&mut self, logged: Decree) {
        self.acknowledged = self.acknowledged.max(logged);
        while self.flight.prepares.front().is_some_and(|(decree, _)| *decree <= self.acknowledged) {
            self.flight.bytes -= self.flight.prepares.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        while self.marks.front().is_some_and(|(decree, _)| *decree <= self.acknowledged) {
            self.marks.pop_front();
        }
    }

    /// Notes what is prepared now, so that its age can be told.
    pub(crate) fn mark(&mut self, prepared: Decree, now: Moment) {
        let noted = self.marks.back().map_or(self.acknowledged, |(decree, _)| *decree);
        if prepared > noted {
            self.marks.push_back((prepared, now));
        }
    }

    /// Since when something prepared waits for this member's acknowledgement; to the tick, never too early.
    pub(crate) fn waits_since(&self) -> Option<Moment> {
        self.marks.front().map(|(_, moment)| *moment)
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
        self.catch_up = CatchUp::None;
    }

    /// Gives the stream up because of what the member said (or broke); tried again after a pause.
    pub(crate) fn give_up(&mut self, status: Status, message: String, effects: &mut Vec<Effect>) {
        self.close(effects);
        self.stream = Stream::Closed { ticks_left: 0 };
        self.lost();
        self.refusal = Some(MemberRefusal { status, message });
        self.unfit = is_unfit(status);
    }

    /// True if the member said that it stops: it may be back soon, and lead.
    pub(crate) fn stops(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.status == Status::ShuttingDown)
    }

    /// True if commits wait for this learner, so that it can become a member however fast the others are.
    pub(crate) fn gates(&self, now: Moment, patience_micros: u64) -> bool {
        self.is_established() && self.gating_since.is_some_and(|since| now < since.after(patience_micros))
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

/// After these a member does not become better by being asked again.
fn is_unfit(status: Status) -> bool {
    matches!(status, Status::Damaged | Status::StorageFailed | Status::ShuttingDown | Status::Gap)
}
