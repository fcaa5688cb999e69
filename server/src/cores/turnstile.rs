//! Requests of one kind (reads or writes) of one partition, held to the rates of its table.
//!
//! ```text
//!              above the second rate                            refused when their time is over
//!            +-----------------------> [ condemned, in order ] --------------------------------->
//!   arrive --+
//!            |  above the first rate, and the turn comes in time
//!            +-----------------------> [ queue, in order ] --------> through, or refused after all
//!            |  within all rates, and nobody waits
//!            +---------------------------------------------------> through
//! ```
//!
//! It knows no clock and no request: every call brings the time, and what is held is a `T` that its host gives and
//! gets back. It keeps whatever it is told to; the host bounds how much ([`Turnstile::held`]).
//!
//! What a read costs in bytes is known only when it is answered: it goes ahead when there is no debt, and
//! [`Turnstile::charge_bytes`] adds to that.

use std::collections::VecDeque;

use pegasus_replication::Moment;
use pegasus_wire::environment::{Allowance, Throttle};

use super::bucket::Bucket;

/// Nothing is held for longer than this, whatever the setting says.
pub(crate) const HOLD_MICROS_MAX: u64 = 60_000_000;

/// One rate and the setting it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its name in the environment.
    pub(crate) name: &'static str,
    /// What it says.
    pub(crate) throttle: Throttle,
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// The setting.
    pub(crate) setting: &'static str,
    /// Its rate, of the whole table.
    pub(crate) units_per_second: u64,
}

/// What becomes of something that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It goes ahead, and is charged.
    Through,
    /// It is refused now.
    Refused(Exceeded),
    /// It is to be held: see [`Turnstile::hold`].
    Held(Place),
}

/// A place among what is held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    arrived: Moment,
    /// When it has waited for as long as it may.
    until: Moment,
    bytes: u64,
    /// Set if it will be refused in the end.
    condemned: Option<Exceeded>,
}

/// What is not held any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Released<T> {
    /// What was held.
    pub(crate) item: T,
    /// It goes ahead, or is refused.
    pub(crate) outcome: Result<(), Exceeded>,
}

struct Waiting<T> {
    place: Place,
    item: T,
}

/// A bucket and how long one waits for it.
struct Gauge {
    exceeded: Exceeded,
    bucket: Bucket,
    wait_micros: u64,
}

/// Requests and bytes: the same in both, but for what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Requests,
    Bytes,
}

impl Counted {
    fn cost(self, bytes: u64) -> u64 {
        match self {
            Counted::Requests => 1,
            Counted::Bytes => bytes,
        }
    }
}

/// See the module.
pub(crate) struct Turnstile<T> {
    settings: [Setting; 2],
    partitions: u32,
    /// What is above them waits.
    delays: Vec<(Counted, Gauge)>,
    /// What is above them is condemned.
    rejects: Vec<(Counted, Gauge)>,
    queue: VecDeque<Waiting<T>>,
    queued_bytes: u64,
    condemned: VecDeque<Waiting<T>>,
}

impl<T> Turnstile<T> {
    /// With the table's settings for requests and for bytes, each shared evenly by this many partitions.
    pub(crate) fn new(requests: Setting, bytes: Setting, partitions: u32, now: Moment) -> Turnstile<T> {
        let mut turnstile = Turnstile {
            settings: [requests, bytes],
            partitions,
            delays: Vec::new(),
            rejects: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            condemned: VecDeque::new(),
        };
        turnstile.fill(now);
        turnstile
    }

    /// Takes the settings as they are now. Those that wait for their turn stay in their order, those that wait to be
    /// refused need not wait any longer; the host asks for who may go.
    pub(crate) fn change(&mut self, requests: Setting, bytes: Setting, now: Moment) {
        if self.settings != [requests, bytes] {
            self.settings = [requests, bytes];
            self.fill(now);
            self.condemned.iter_mut().for_each(|waiting| waiting.place.until = now);
        }
    }

    /// True if bytes are limited.
    pub(crate) fn counts_bytes(&self) -> bool {
        self.delays.iter().chain(&self.rejects).any(|(counted, _)| *counted == Counted::Bytes)
    }

    /// How many are held.
    pub(crate) fn held(&self) -> usize {
        self.queue.len() + self.condemned.len()
    }

    /// Something of this size arrives, whose sender waits for at most `patience_micros`.
    pub(crate) fn arrive(&mut self, now: Moment, bytes: u64, patience_micros: u64) -> Arrival {
        for (counted, gauge) in &mut self.rejects {
            let ready = gauge.bucket.ready_at(now, 0, counted.cost(bytes));
            if ready.is_none_or(|ready| ready > now) {
                let until = later(now, gauge.wait_micros.min(patience_micros));
                let condemned = Some(gauge.exceeded);
                if until == now {
                    return Arrival::Refused(gauge.exceeded);
                }
                return Arrival::Held(Place { arrived: now, until, bytes, condemned });
            }
        }
        for (counted, gauge) in &mut self.rejects {
            gauge.bucket.charge(now, counted.cost(bytes));
        }
        let place = Place { arrived: now, until: later(now, patience_micros), bytes, condemned: None };
        let ahead = (self.queue.len() as u64, self.queued_bytes);
        match turn(&mut self.delays, now, ahead, &place) {
            Err(exceeded) => Arrival::Refused(exceeded),
            Ok(ready) if ready <= now && self.queue.is_empty() => {
                charge(&mut self.delays, now, bytes);
                Arrival::Through
            }
            Ok(_) => Arrival::Held(place),
        }
    }

    /// Keeps what [`Turnstile::arrive`] said is to be held.
    pub(crate) fn hold(&mut self, place: Place, item: T) {
        if place.condemned.is_some() {
            self.condemned.push_back(Waiting { place, item });
        } else {
            self.queued_bytes += place.bytes;
            self.queue.push_back(Waiting { place, item });
        }
    }

    /// Charges bytes whose number was not known before.
    pub(crate) fn charge_bytes(&mut self, now: Moment, bytes: u64) {
        for (counted, gauge) in self.delays.iter_mut().chain(&mut self.rejects) {
            if *counted == Counted::Bytes {
                gauge.bucket.charge(now, bytes);
            }
        }
    }

    /// Gives back the next one that is not held any longer, if there is one.
    pub(crate) fn release(&mut self, now: Moment) -> Option<Released<T>> {
        if let Some(Waiting { place, item }) = self.condemned.pop_front_if(|waiting| waiting.place.until <= now) {
            return Some(Released { item, outcome: place.condemned.map_or(Ok(()), Err) });
        }
        let outcome = match turn(&mut self.delays, now, (0, 0), &self.queue.front()?.place) {
            Ok(ready) if ready > now => return None,
            other => other.map(|_| ()),
        };
        let Waiting { place, item } = self.queue.pop_front()?;
        self.queued_bytes -= place.bytes;
        if outcome.is_ok() {
            charge(&mut self.delays, now, place.bytes);
        }
        Some(Released { item, outcome })
    }

    /// When [`Turnstile::release`] may have something; `None` while nothing is held.
    pub(crate) fn wakes_at(&mut self, now: Moment) -> Option<Moment> {
        let condemned = self.condemned.front().map(|waiting| waiting.place.until);
        let first = self.queue.front();
        // One that will not have its turn in time need not wait for that.
        let turn = first.map(|waiting| turn(&mut self.delays, now, (0, 0), &waiting.place).unwrap_or(now));
        condemned.into_iter().chain(turn).min()
    }

    /// Gives back everything that is held.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.queued_bytes = 0;
        let held = std::mem::take(&mut self.queue).into_iter().chain(std::mem::take(&mut self.condemned));
        held.map(|waiting| waiting.item)
    }

    fn fill(&mut self, now: Moment) {
        self.delays.clear();
        self.rejects.clear();
        for (counted, setting) in [Counted::Requests, Counted::Bytes].into_iter().zip(self.settings) {
            let gauge = |Allowance { units_per_second, wait_ms }| {
                let exceeded = Exceeded { setting: setting.name, units_per_second };
                let bucket = Bucket::new(units_per_second, self.partitions, now);
                let wait_micros = (u64::from(wait_ms) * 1000).min(HOLD_MICROS_MAX);
                (counted, Gauge { exceeded, bucket, wait_micros })
            };
            self.delays.extend(setting.throttle.delay.map(gauge));
            self.rejects.extend(setting.throttle.reject.map(gauge));
        }
    }
}

/// When it is the turn of something with this much before it; an error if it would wait for too long.
fn turn(
    delays: &mut [(Counted, Gauge)],
    now: Moment,
    (requests, bytes): (u64, u64),
    place: &Place,
) -> Result<Moment, Exceeded> {
    let mut turn = now;
    for (counted, gauge) in delays {
        let ahead = if *counted == Counted::Requests { requests } else { bytes };
        let until = later(place.arrived, gauge.wait_micros).min(place.until);
        match gauge.bucket.ready_at(now, ahead, counted.cost(place.bytes)) {
            // A host that looks late does not make anybody late.
            Some(ready) if ready <= until.max(now) => turn = turn.max(ready),
            _ => return Err(gauge.exceeded),
        }
    }
    Ok(turn)
}

fn charge(delays: &mut [(Counted, Gauge)], now: Moment, bytes: u64) {
    for (counted, gauge) in delays {
        gauge.bucket.charge(now, counted.cost(bytes));
    }
}

fn later(moment: Moment, micros: u64) -> Moment {
    Moment(moment.0.saturating_add(micros.min(HOLD_MICROS_MAX)))
}

#[cfg(test)]
#[path = "turnstile_tests.rs"]
mod tests;
