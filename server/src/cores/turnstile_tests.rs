use super::*;

const SECOND: u64 = 1_000_000;
const NONE: &str = "";
/// Patience of a sender that waits for as long as it takes.
const PATIENT: u64 = u64::MAX;

fn setting(name: &'static str, throttle: &str) -> Setting {
    Setting { name, throttle: throttle.parse().unwrap() }
}

fn turnstile(requests: &str, bytes: &str, partitions: u32) -> Turnstile<u64> {
    Turnstile::new(setting("requests", requests), setting("bytes", bytes), partitions, Moment(0))
}

/// A load in simulated time: what came through, what was refused, and the longest anybody was held.
#[derive(Debug, Default)]
struct Course {
    through: u64,
    through_bytes: u64,
    refused: u64,
    longest_micros: u64,
    most_held: usize,
    last_through: Option<u64>,
}

impl Course {
    fn take(&mut self, item: u64, through: bool, bytes: u64, now: Moment) {
        self.longest_micros = self.longest_micros.max(now.since(Moment(item)));
        if through {
            assert!(self.last_through <= Some(item), "out of order");
            self.last_through = Some(item);
            self.through += 1;
            self.through_bytes += bytes;
        } else {
            self.refused += 1;
        }
    }
}

/// `per_second` requests of one size arrive evenly; the turnstile is woken when it says so.
fn load(turnstile: &mut Turnstile<u64>, per_second: u64, bytes: u64, seconds: u64) -> Course {
    let mut course = Course::default();
    let end = Moment(seconds * SECOND);
    let (mut now, mut arrival, mut count) = (Moment(0), Moment(0), 0);
    loop {
        now = turnstile.wakes_at(now).map_or(arrival, |wake| wake.min(arrival));
        if now >= end {
            return course;
        }
        while let Some(Released { item, outcome }) = turnstile.release(now) {
            course.take(item, outcome.is_ok(), bytes, now);
        }
        if now == arrival {
            match turnstile.arrive(now, bytes, PATIENT) {
                Arrival::Through => course.take(now.0, true, bytes, now),
                Arrival::Refused(_) => course.take(now.0, false, bytes, now),
                Arrival::Held(place) => turnstile.hold(place, now.0),
            }
            course.most_held = course.most_held.max(turnstile.held());
            count += 1;
            arrival = Moment(count * SECOND / per_second);
        }
    }
}

fn within(value: u64, wanted: f64, share: f64) {
    assert!((value as f64 - wanted).abs() <= wanted * share, "{value} instead of {wanted}");
}

#[test]
fn below_the_rate_nobody_waits() {
    let course = load(&mut turnstile("1000*delay*100,2000*reject*100", NONE, 1), 990, 10, 60);
    assert_eq!((course.through, course.refused, course.longest_micros), (60 * 990, 0, 0));
}

#[test]
fn delayed_ones_come_through_at_the_rate_in_order_and_in_time() {
    for (rate, partitions, arriving) in [("1000", 1, 1500), ("1000", 8, 2000), ("30", 4, 20), ("1K", 3, 10_000)] {
        let course = load(&mut turnstile(&format!("{rate}*delay*500"), NONE, partitions), arriving, 10, 300);
        let units = if rate == "1K" { 1000.0 } else { rate.parse().unwrap() };
        within(course.through, units / f64::from(partitions) * 300.0, 0.01);
        assert!(course.longest_micros <= SECOND / 2, "{course:?}");
        assert!(course.longest_micros > SECOND / 4, "they use the time they have: {course:?}");
        // What waits for half a second is half of what comes through in a second.
        assert!(course.most_held as f64 <= units / f64::from(partitions) / 2.0 + 1.0, "{course:?}");
        assert!(course.refused > 0);
    }
}

#[test]
fn above_the_second_rate_requests_are_refused_after_their_time() {
    let course = load(&mut turnstile("100*reject*200", NONE, 1), 300, 10, 100);
    within(course.through, 100.0 * 100.0, 0.01);
    within(course.refused, 200.0 * 100.0, 0.01);
    assert_eq!(course.longest_micros, SECOND / 5, "refused when 200 ms are over");
}

#[test]
fn both_rates_together() {
    // Half a second of the difference is queued; then what waits for too long is refused, at once.
    let course = load(&mut turnstile("100*delay*500,200*reject*0", NONE, 1), 150, 10, 100);
    within(course.through, 100.0 * 100.0, 0.01);
    assert!(course.longest_micros <= SECOND / 2);
    let mut turnstile = turnstile("100*delay*500,200*reject*300", NONE, 1);
    let course = load(&mut turnstile, 1000, 10, 100);
    within(course.through, 100.0 * 100.0, 0.01);
    assert!(course.longest_micros <= SECOND / 2);
}

#[test]
fn bytes_are_counted_by_their_own_setting() {
    let course = load(&mut turnstile(NONE, "1M*delay*1000", 2), 100, 20_000, 200);
    within(course.through_bytes, 500_000.0 * 200.0, 0.01);
    let course = load(&mut turnstile("10*delay*1000", "1M*delay*1000", 1), 100, 20_000, 200);
    within(course.through, 10.0 * 200.0, 0.01);
}

#[test]
fn a_write_larger_than_the_rate_goes_ahead_and_is_paid_for() {
    let mut turnstile = turnstile(NONE, "1000*delay*5000", 1);
    assert_eq!(turnstile.arrive(Moment(0), 3000, PATIENT), Arrival::Through);
    // 2900 are owed, and 10 are needed.
    let Arrival::Held(place) = turnstile.arrive(Moment(0), 10, PATIENT) else { panic!("it has to wait") };
    turnstile.hold(place, 1);
    assert_eq!(turnstile.wakes_at(Moment(0)), Some(Moment(2_910_000)));
}

#[test]
fn what_reads_cost_is_charged_afterwards() {
    let mut turnstile = turnstile(NONE, "1000*delay*1000", 1);
    assert!(turnstile.counts_bytes());
    assert_eq!(turnstile.arrive(Moment(0), 0, PATIENT), Arrival::Through);
    turnstile.charge_bytes(Moment(0), 600);
    let Arrival::Held(place) = turnstile.arrive(Moment(0), 0, PATIENT) else { panic!("there is debt") };
    turnstile.hold(place, 7);
    let wake = turnstile.wakes_at(Moment(0)).unwrap();
    assert_eq!(wake, Moment(501_000));
    // More is owed meanwhile: its turn would come too late now, so it does not wait for that.
    turnstile.charge_bytes(Moment(400_000), 5000);
    let wake = turnstile.wakes_at(Moment(400_000)).unwrap();
    assert_eq!(wake, Moment(400_000));
    let exceeded = Exceeded { setting: "bytes", units_per_second: 1000 };
    assert_eq!(turnstile.release(wake), Some(Released { item: 7, outcome: Err(exceeded) }));
    assert_eq!(turnstile.wakes_at(wake), None);
}

#[test]
fn nobody_is_held_for_longer_than_its_sender_waits() {
    let mut turnstile = turnstile("1*delay*60000,1000*reject*60000", NONE, 1);
    assert_eq!(turnstile.arrive(Moment(0), 1, PATIENT), Arrival::Through);
    let exceeded = Exceeded { setting: "requests", units_per_second: 1 };
    assert_eq!(turnstile.arrive(Moment(0), 1, SECOND / 2), Arrival::Refused(exceeded));
    assert!(matches!(turnstile.arrive(Moment(0), 1, 2 * SECOND), Arrival::Held(_)));
    let mut turnstile = self::turnstile("0*reject*60000", NONE, 1);
    let Arrival::Held(place) = turnstile.arrive(Moment(0), 1, SECOND) else { panic!("it is refused later") };
    turnstile.hold(place, 3);
    assert_eq!(turnstile.wakes_at(Moment(0)), Some(Moment(SECOND)));
    let Arrival::Held(place) = turnstile.arrive(Moment(0), 1, PATIENT) else { panic!("it is refused later") };
    assert_eq!(place.until, Moment(HOLD_MICROS_MAX));
}

#[test]
fn a_host_that_looks_late_makes_nobody_late() {
    let mut turnstile = turnstile("10*delay*150", NONE, 1);
    assert_eq!(turnstile.arrive(Moment(0), 1, PATIENT), Arrival::Through);
    let Arrival::Held(place) = turnstile.arrive(Moment(0), 1, PATIENT) else { panic!("it has to wait") };
    turnstile.hold(place, 1);
    assert_eq!(turnstile.release(Moment(99_999)), None);
    assert_eq!(turnstile.release(Moment(SECOND)), Some(Released { item: 1, outcome: Ok(()) }));
}

#[test]
fn a_change_of_the_settings_lets_go_whom_it_lets_go() {
    let mut turnstile = turnstile("10*delay*60000", NONE, 1);
    assert_eq!(turnstile.arrive(Moment(0), 1, PATIENT), Arrival::Through);
    for item in 0..5 {
        let Arrival::Held(place) = turnstile.arrive(Moment(0), 1, PATIENT) else { panic!("it has to wait") };
        turnstile.hold(place, item);
    }
    assert_eq!(turnstile.wakes_at(Moment(0)), Some(Moment(100_000)));
    // The same again changes nothing: no new burst.
    turnstile.change(setting("requests", "10*delay*60000"), setting("bytes", NONE), Moment(0));
    assert_eq!(turnstile.wakes_at(Moment(0)), Some(Moment(100_000)));
    turnstile.change(setting("requests", NONE), setting("bytes", NONE), Moment(0));
    assert_eq!(turnstile.held(), 5);
    let released: Vec<u64> = std::iter::from_fn(|| turnstile.release(Moment(0))).map(|one| one.item).collect();
    assert_eq!(released, [0, 1, 2, 3, 4]);
    assert!(turnstile.held() == 0 && turnstile.wakes_at(Moment(0)).is_none());
}

#[test]
fn who_waits_to_be_refused_is_refused_when_the_settings_change() {
    let mut turnstile = turnstile("0*reject*60000", NONE, 1);
    let Arrival::Held(place) = turnstile.arrive(Moment(0), 1, PATIENT) else { panic!("it is refused later") };
    turnstile.hold(place, 5);
    assert_eq!(turnstile.release(Moment(10)), None);
    turnstile.change(setting("requests", NONE), setting("bytes", NONE), Moment(20));
    assert_eq!(turnstile.wakes_at(Moment(20)), Some(Moment(20)));
    let released = turnstile.release(Moment(20)).unwrap();
    assert!(released.item == 5 && released.outcome.is_err());
}

#[test]
fn a_rate_of_nothing_refuses_everything() {
    let mut turnstile = turnstile("0*delay*1000", NONE, 4);
    let exceeded = Exceeded { setting: "requests", units_per_second: 0 };
    assert_eq!(turnstile.arrive(Moment(SECOND), 1, PATIENT), Arrival::Refused(exceeded));
}

#[test]
fn what_is_held_can_be_taken_back() {
    let mut turnstile = turnstile("1*delay*60000,1*reject*60000", NONE, 1);
    assert_eq!(turnstile.arrive(Moment(0), 1, PATIENT), Arrival::Through);
    let Arrival::Held(place) = turnstile.arrive(Moment(0), 1, PATIENT) else { panic!("it is above both rates") };
    turnstile.hold(place, 8);
    assert_eq!(turnstile.held(), 1);
    assert_eq!(turnstile.clear().collect::<Vec<_>>(), [8]);
    assert_eq!(turnstile.held(), 0);
}
