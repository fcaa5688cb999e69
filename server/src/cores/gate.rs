//! What stands before the requests of a partition because of its table: it was dropped, it refuses such requests, it is
//! throttled. In that order, before every other reason to refuse (those are in `admit`).
//!
//! Most partitions have no gate, and a core without any never looks for one. A request that a throttle holds waits
//! here, with what is to be done when its turn comes; one timer per partition wakes them. Nothing else waits for them:
//! a stream, a partition and a core hold only so much, and what is more than that is refused.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::select;
use glommio::timer::sleep;
use pegasus_replication::{Moment, Role};
use pegasus_wire::Status;
use pegasus_wire::environment::{Environment, Throttle};
use pegasus_wire::limits::REQUESTS_PER_STREAM_MAX;
use pegasus_wire::messages::control::TableState;

use super::outcome::Refusal;
use super::partition::CopyId;
use super::request::{Request, Session};
use super::turnstile::{Arrival, Exceeded, Place, Released, Setting, Turnstile};
use super::visit::{Access, Visit};
use super::{Core, State, clock};
use crate::tables::TableSettings;
use crate::utc::Utc;

/// Requests of one stream that may be held: the others of that stream go on. A client lets more calls in when half of
/// what may be unanswered is answered.
const HELD_PER_STREAM_MAX: usize = REQUESTS_PER_STREAM_MAX / 4;
/// Requests of one partition that may be held.
const HELD_PER_PARTITION_MAX: usize = 4096;
/// Bytes of requests that one core may hold.
const HELD_BYTES_MAX: usize = 64 << 20;
/// Requests let through before other tasks of the core get their turn.
const BATCH: usize = 64;

/// The gate of one copy.
pub(crate) struct Gate {
    /// What the meta service says of the table; `None` until it has said something.
    settings: Option<Arc<TableSettings>>,
    reads: Turnstile<Held>,
    writes: Turnstile<Held>,
    /// Bytes of answers that the turnstile of reads has not been charged with.
    answered_bytes: Rc<Cell<u64>>,
    /// Names the task that wakes those that are held, while there is one.
    minder: Option<Rc<()>>,
    /// When it wakes. It wakes at once when the sender is dropped.
    alarm: Option<(Moment, oneshot::Sender<()>)>,
}

/// A request that waits for its turn.
pub(crate) struct Held {
    request: Request,
    access: Access,
    resume: Resume,
    _holding: Holding,
}

/// What is to be done with a request that was held.
pub(crate) type Resume = Box<dyn FnOnce(&Core, Request, Moment)>;

/// Counts what is held, for as long as it lives.
struct Holding {
    session: Rc<Session>,
    total_bytes: Rc<Cell<usize>>,
    bytes: usize,
}

/// How a request comes to the gate and leaves it.
pub(crate) enum Entry {
    /// It goes ahead now.
    Through,
    /// It does not.
    Refused(Refusal),
    /// It is to be held: see [`Core::hold`].
    Held(Place),
}

impl Gate {
    /// The gate of a copy whose table is as the meta service says; `None` if it would let everything through and holds
    /// nothing. What the one before holds goes on waiting, unless its time is over now.
    pub(crate) fn of(
        before: Option<Box<Gate>>,
        settings: Option<&Arc<TableSettings>>,
        now: Moment,
    ) -> Option<Box<Gate>> {
        if settings.is_some_and(|settings| is_open(settings)) && before.as_ref().is_none_or(|gate| gate.held() == 0) {
            return None;
        }
        let none = Environment::default();
        let environment = settings.map_or(&none, |settings| &settings.environment);
        let partitions = settings.map_or(1, |settings| settings.properties.partition_count);
        let [writes, write_bytes, reads, read_bytes] = throttles(environment);
        let mut gate = match before {
            // One that was made before the table was known does not know how many partitions share the rates.
            Some(gate) if gate.settings.is_some() => gate,
            _ => Box::new(Gate {
                settings: None,
                reads: Turnstile::new(reads, read_bytes, partitions, now),
                writes: Turnstile::new(writes, write_bytes, partitions, now),
                answered_bytes: Rc::default(),
                minder: None,
                alarm: None,
            }),
        };
        gate.settings = settings.cloned();
        gate.reads.change(reads, read_bytes, now);
        gate.writes.change(writes, write_bytes, now);
        gate.send_away();
        gate.alarm = None;
        Some(gate)
    }

    /// Refuses those held whose kind does not come through any more.
    fn send_away(&mut self) {
        for access in [Access::Read, Access::Write] {
            let Some(refusal) = self.refusal(access) else { continue };
            for Held { request, .. } in self.turnstile(access).clear() {
                request.refuse(refusal.clone());
            }
        }
    }

    /// Refuses all that are held: the copy goes out of service.
    pub(crate) fn empty(&mut self) {
        for Held { request, .. } in self.reads.clear().chain(self.writes.clear()) {
            request.refuse(Refusal::new(Status::NotServing, "the copy goes out of service; nothing was done"));
        }
    }

    /// Why nothing of this kind comes through, whoever leads the partition.
    fn refusal(&self, access: Access) -> Option<Refusal> {
        let Some(settings) = &self.settings else {
            return Some(Refusal::new(Status::NotServing, "the meta service has not said yet how the table is set up"));
        };
        let name = &settings.properties.name;
        if let TableState::Dropped { purge_seconds, .. } = settings.state {
            let until = Utc(purge_seconds);
            let message = format!("table {name} was dropped; it can be recalled until {until}");
            return Some(Refusal::new(Status::NoSuchTable, message));
        }
        let denial = &settings.environment.denial;
        let (denied, what) = match access {
            Access::Read => (denial.reads, "reads"),
            Access::Write => (denial.writes, "writes"),
        };
        let message = || format!("table {name} refuses {what} (replica.deny_client_request)");
        denied.then(|| Refusal { is_silent: denial.silent, ..Refusal::new(Status::Denied, message()) })
    }

    fn exceeded(&self, exceeded: Exceeded) -> Refusal {
        let Exceeded { setting, units_per_second } = exceeded;
        let name = self.settings.as_ref().map_or("", |settings| &settings.properties.name);
        let units = if setting.ends_with("by_size") { "bytes" } else { "requests" };
        let message = format!("table {name} is over its rate of {units_per_second} {units} a second ({setting})");
        Refusal::new(Status::Busy, message)
    }

    fn turnstile(&mut self, access: Access) -> &mut Turnstile<Held> {
        match access {
            Access::Read => &mut self.reads,
            Access::Write => &mut self.writes,
        }
    }

    /// How many are held.
    pub(crate) fn held(&self) -> usize {
        self.reads.held() + self.writes.held()
    }

    /// Sees to it that a request which goes ahead is charged with what its answer turns out to cost.
    fn follow(&self, request: &mut Request, access: Access) {
        if access == Access::Read && self.reads.counts_bytes() {
            request.charge = Some(self.answered_bytes.clone());
        }
    }

    /// Charges what was answered since.
    fn charge_answered(&mut self, now: Moment) {
        match self.answered_bytes.take() {
            0 => {}
            bytes => self.reads.charge_bytes(now, bytes),
        }
    }

    fn wakes_at(&mut self, now: Moment) -> Option<Moment> {
        self.charge_answered(now);
        self.reads.wakes_at(now).into_iter().chain(self.writes.wakes_at(now)).min()
    }

    fn release(&mut self, now: Moment) -> Option<Released<Held>> {
        self.charge_answered(now);
        self.writes.release(now).or_else(|| self.reads.release(now))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.empty();
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.session.held.set(self.session.held.get() - 1);
        self.total_bytes.set(self.total_bytes.get() - self.bytes);
    }
}

impl Core {
    /// Looks whether a request may go ahead.
    pub(crate) fn enter(&self, request: &mut Request, visit: &Visit, now: Moment) -> Entry {
        let mut guard = self.state.borrow_mut();
        let state: &mut State = &mut guard;
        let Some(partition) = state.partitions.get_mut(&visit.partition) else { return Entry::Through };
        let Some(gate) = &mut partition.gate else { return Entry::Through };
        if let Some(refusal) = gate.refusal(visit.access) {
            state.counters.requests_denied += 1;
            return Entry::Refused(refusal);
        }
        // Others send it away, whatever the rates.
        if partition.replica.role() != Role::Primary {
            return Entry::Through;
        }
        gate.charge_answered(now);
        let bytes = if visit.access == Access::Write { visit.bytes } else { 0 };
        let patience_micros = match request.time_left_ms {
            0 => u64::MAX,
            time_left_ms => u64::from(time_left_ms) * 1000,
        };
        let refused = match gate.turnstile(visit.access).arrive(now, bytes, patience_micros) {
            Arrival::Through => {
                gate.follow(request, visit.access);
                return Entry::Through;
            }
            Arrival::Held(place) if self.may_hold(gate, request, visit) => {
                state.counters.requests_held += 1;
                return Entry::Held(place);
            }
            Arrival::Held(_) => {
                let name = gate.settings.as_ref().map_or("", |settings| &settings.properties.name);
                let message = format!("table {name} is over its rate, and too many requests wait already");
                Refusal::new(Status::Busy, message)
            }
            Arrival::Refused(exceeded) => gate.exceeded(exceeded),
        };
        state.counters.requests_throttled += 1;
        Entry::Refused(refused)
    }

    fn may_hold(&self, gate: &Gate, request: &Request, visit: &Visit) -> bool {
        request.session.held.get() < HELD_PER_STREAM_MAX
            && gate.held() < HELD_PER_PARTITION_MAX
            && self.held_bytes.get() + visit.bytes as usize <= HELD_BYTES_MAX
    }

    /// Keeps a request in its place until its turn comes.
    pub(crate) fn hold(&self, request: Request, visit: &Visit, place: Place, resume: Resume) {
        let holding = {
            let (session, bytes) = (request.session.clone(), visit.bytes as usize);
            session.held.set(session.held.get() + 1);
            self.held_bytes.set(self.held_bytes.get() + bytes);
            Holding { session, total_bytes: self.held_bytes.clone(), bytes }
        };
        let held = Held { request, access: visit.access, resume, _holding: holding };
        let copy = {
            let mut state = self.state.borrow_mut();
            let partition = state.partitions.get_mut(&visit.partition);
            let Some((copy, gate)) = partition.and_then(|partition| Some((partition.copy(), partition.gate.as_mut()?)))
            else {
                return held.request.refuse(Refusal::plain(Status::NotServing));
            };
            gate.turnstile(visit.access).hold(place, held);
            copy
        };
        self.mind_gate(copy);
    }

    /// Sees to it that those held at a copy's gate are woken in time.
    pub(crate) fn mind_gate(&self, copy: CopyId) {
        let minder = {
            let mut state = self.state.borrow_mut();
            let Some(gate) = state.copy(copy).and_then(|partition| partition.gate.as_mut()) else { return };
            let Some(wakes_at) = gate.wakes_at(clock::now()) else { return };
            gate.alarm.take_if(|(at, _)| wakes_at < *at);
            if gate.minder.is_some() {
                return;
            }
            gate.minder.insert(Rc::new(())).clone()
        };
        self.later(self.clone().let_through(copy, minder));
    }

    /// Lets through, or refuses, those held at a gate when it is time, until nobody is held.
    async fn let_through(self, copy: CopyId, minder: Rc<()>) {
        while let Some((at, earlier)) = self.set_alarm(copy, &minder) {
            let pause_micros = at.since(clock::now());
            if pause_micros > 0 {
                select(Box::pin(sleep(Duration::from_micros(pause_micros))), earlier).await;
            }
            let started = self.begin_run();
            let now = clock::now();
            for (Held { mut request, resume, .. }, outcome) in self.take_released(copy, now) {
                if let Some(trace) = &mut request.trace {
                    trace.begin_again(now);
                }
                match outcome {
                    Ok(()) => resume(&self, request, now),
                    Err(refusal) => request.refuse(refusal),
                }
            }
            self.settle();
            self.end_run(started);
            glommio::executor().yield_task_queue_now().await;
        }
    }

    /// When those held have to be looked at, and what tells that it has to be earlier; `None` if nobody is held, or
    /// somebody else minds the gate.
    fn set_alarm(&self, copy: CopyId, minder: &Rc<()>) -> Option<(Moment, oneshot::Receiver<()>)> {
        let mut state = self.state.borrow_mut();
        let gate = state.copy(copy)?.gate.as_mut()?;
        if !gate.minder.as_ref().is_some_and(|known| Rc::ptr_eq(known, minder)) {
            return None;
        }
        let Some(at) = gate.wakes_at(clock::now()) else {
            gate.minder = None;
            return None;
        };
        let (wake, earlier) = oneshot::channel();
        gate.alarm = Some((at, wake));
        Some((at, earlier))
    }

    /// Takes out those whose time has come, a bounded number.
    fn take_released(&self, copy: CopyId, now: Moment) -> Vec<(Held, Result<(), Refusal>)> {
        let mut guard = self.state.borrow_mut();
        let state: &mut State = &mut guard;
        let partition = state.partitions.get_mut(&copy.partition).filter(|partition| partition.copy() == copy);
        let Some(gate) = partition.and_then(|partition| partition.gate.as_mut()) else { return Vec::new() };
        let mut released = Vec::new();
        while released.len() < BATCH
            && let Some(Released { item: mut held, outcome }) = gate.release(now)
        {
            let outcome = outcome.map_err(|exceeded| gate.exceeded(exceeded));
            match outcome {
                Ok(()) => gate.follow(&mut held.request, held.access),
                Err(_) => state.counters.requests_throttled += 1,
            }
            released.push((held, outcome));
        }
        released
    }
}

/// True if a table's settings hold nobody back.
fn is_open(settings: &TableSettings) -> bool {
    let denial = &settings.environment.denial;
    let unlimited = throttles(&settings.environment).iter().all(|setting| setting.throttle.is_off());
    settings.state == TableState::Available && !denial.reads && !denial.writes && unlimited
}

/// The rates of a table: writes, bytes written, reads, bytes read.
fn throttles(environment: &Environment) -> [Setting; 4] {
    let setting = |name, throttle: &Throttle| Setting { name, throttle: *throttle };
    [
        setting("replica.write_throttling", &environment.write_throttle),
        setting("replica.write_throttling_by_size", &environment.write_bytes_throttle),
        setting("replica.read_throttling", &environment.read_throttle),
        setting("replica.read_throttling_by_size", &environment.read_bytes_throttle),
    ]
}

#[cfg(test)]
mod tests {
    use pegasus_wire::messages::control::{Assignments, EnvironmentEntry, TableDescription};
    use pegasus_wire::{Durability, TableId, TableProperties};

    use super::*;
    use crate::tables::KnownTables;

    fn settings(environment: &[(&str, &str)], state: TableState) -> Arc<TableSettings> {
        let entry = |(key, value): &(&str, &str)| EnvironmentEntry { key: (*key).into(), value: (*value).into() };
        let properties = TableProperties {
            table: TableId(1),
            name: "temp".to_owned(),
            partition_count: 4,
            replica_count: 3,
            durability: Durability::Synced,
        };
        let table = TableDescription { properties, environment: environment.iter().map(entry).collect(), state };
        let assignments = Assignments {
            revision: 1,
            tables: vec![table],
            partitions: Vec::new(),
            nodes: Vec::new(),
            additions: Vec::new(),
            removals: Vec::new(),
        };
        KnownTables::default().take(assignments).tables[&TableId(1)].clone()
    }

    fn gate(environment: &[(&str, &str)], state: TableState) -> Option<Box<Gate>> {
        Gate::of(None, Some(&settings(environment, state)), Moment(0))
    }

    fn says(gate: &Gate, access: Access) -> Option<(Status, String)> {
        gate.refusal(access).map(|refusal| (refusal.status, refusal.message))
    }

    #[test]
    fn a_table_that_holds_nobody_back_has_no_gate() {
        assert!(gate(&[], TableState::Available).is_none());
        assert!(gate(&[("default_ttl", "1"), ("replica.write_throttling", "")], TableState::Available).is_none());
        for (key, value) in [
            ("replica.write_throttling", "1*delay*1"),
            ("replica.read_throttling", "1*reject*1"),
            ("replica.write_throttling_by_size", "1*delay*1"),
            ("replica.read_throttling_by_size", "1*delay*1"),
            ("replica.deny_client_request", "reconfig*read"),
        ] {
            let gate = gate(&[(key, value)], TableState::Available).unwrap();
            assert!(Gate::of(Some(gate), Some(&settings(&[], TableState::Available)), Moment(1)).is_none(), "{key}");
        }
    }

    #[test]
    fn the_gate_says_why() {
        let unheard = Gate::of(None, None, Moment(0)).unwrap();
        assert_eq!(says(&unheard, Access::Read).unwrap().0, Status::NotServing);
        let dropped = TableState::Dropped { dropped_seconds: 1, purge_seconds: 951_782_400 };
        let denial = [("replica.deny_client_request", "timeout*all")];
        let (status, message) = says(&gate(&denial, dropped).unwrap(), Access::Read).unwrap();
        assert_eq!(status, Status::NoSuchTable);
        assert_eq!(message, "table temp was dropped; it can be recalled until 2000-02-29 00:00:00 UTC");
        let denied = gate(&[("replica.deny_client_request", "reconfig*write")], TableState::Available).unwrap();
        assert_eq!(says(&denied, Access::Read), None);
        let (status, message) = says(&denied, Access::Write).unwrap();
        assert_eq!((status, &*message), (Status::Denied, "table temp refuses writes (replica.deny_client_request)"));
        let exceeded = Exceeded { setting: "replica.read_throttling_by_size", units_per_second: 7 };
        let message = denied.exceeded(exceeded).message;
        assert_eq!(message, "table temp is over its rate of 7 bytes a second (replica.read_throttling_by_size)");
    }
}
