//! A token bucket: how much may be done in a second, counted exactly.
//!
//! It knows no clock: every question brings the time. Levels are whole numbers of a unit so small that no refill is
//! ever rounded: a millionth of a unit (a refill of `rate` units a second adds `rate` of them each microsecond), and
//! of that the share of one partition. So over a long time exactly the rate comes through, and never more than the
//! rate and one burst.
//!
//! Who may go ahead is charged at once, also with more than there is: the debt is paid off before the next one. That
//! is how something larger than a burst comes through at all, and what is charged when it is done.

use pegasus_replication::Moment;

/// What may be done at once after a pause, as time at the full rate.
const BURST_MICROS: i128 = 100_000;
/// Smallest steps in one unit, before they are shared.
const STEPS: i128 = 1_000_000;

/// A bucket of one partition. Invariant: `level <= full`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Units a second that all partitions of the table share.
    rate: u64,
    /// Steps in one unit: `STEPS` for each of the partitions.
    unit: i128,
    /// What there is, in steps; negative while there is debt.
    level: i128,
    /// The most that gathers.
    full: i128,
    /// When `level` was right.
    at: Moment,
}

impl Bucket {
    /// A full bucket with an even share of `rate` units a second. A rate of 0 lets nothing through.
    pub(crate) fn new(rate: u64, partitions: u32, now: Moment) -> Bucket {
        let unit = STEPS * i128::from(partitions.max(1));
        // At least one unit, or a small rate would never let anything through.
        let full = if rate == 0 { 0 } else { (i128::from(rate) * BURST_MICROS).max(unit) };
        Bucket { rate, unit, level: full, full, at: now }
    }

    /// When something of this cost may go ahead, after all that is `ahead` of it: a moment that has passed if it may
    /// already. `None` for never.
    pub(crate) fn ready_at(&mut self, now: Moment, ahead: u64, cost: u64) -> Option<Moment> {
        self.refill(now);
        if self.rate == 0 {
            return None;
        }
        // What costs more than ever gathers waits until the bucket is full; what costs nothing yet, until there is no
        // debt.
        let needed = self.steps(cost.max(1)).min(self.full).saturating_add(self.steps(ahead));
        let missing = needed - self.level;
        if missing <= 0 {
            return Some(self.at);
        }
        let rate = i128::from(self.rate);
        let micros = missing.saturating_add(rate - 1) / rate;
        Some(Moment(self.at.0.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX))))
    }

    /// Takes what something costs that goes ahead, or has done so.
    pub(crate) fn charge(&mut self, now: Moment, cost: u64) {
        self.refill(now);
        self.level = self.level.saturating_sub(self.steps(cost));
    }

    fn refill(&mut self, now: Moment) {
        let gained = i128::from(now.since(self.at)).saturating_mul(i128::from(self.rate));
        self.level = self.level.saturating_add(gained).min(self.full);
        self.at = self.at.max(now);
    }

    fn steps(&self, units: u64) -> i128 {
        i128::from(units).saturating_mul(self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Lets through whatever may go ahead, looking every `step` microseconds; gives how much in the time.
    fn saturate(bucket: &mut Bucket, cost: u64, step: u64, micros: u64) -> u64 {
        let mut through = 0;
        for now in (0..=micros).step_by(step as usize).map(Moment) {
            while bucket.ready_at(now, 0, cost) <= Some(now) {
                bucket.charge(now, cost);
                through += cost;
            }
        }
        through
    }

    #[test]
    fn the_rate_is_exact_over_a_long_time() {
        for (rate, partitions, step) in [(1000, 1, 1000), (1000, 8, 700), (7, 3, 1013), (100, 64, 9_973)] {
            let share = rate as f64 / f64::from(partitions);
            let mut bucket = Bucket::new(rate, partitions, Moment(0));
            let through = saturate(&mut bucket, 1, step, 1000 * SECOND) as f64;
            let burst = (share / 10.0).max(1.0);
            let wanted = share * 1000.0;
            // A bucket that holds no more than one unit gathers nothing while somebody is late to take that.
            let late = if burst > 1.0 { 0.0 } else { wanted * share * step as f64 / 1e6 };
            assert!(through >= wanted - late - 1.0, "{through} of {wanted}");
            assert!(through <= wanted + burst + 1.0, "{through} of {wanted}");
        }
    }

    #[test]
    fn what_is_larger_than_a_burst_comes_through_at_the_same_rate() {
        let mut bucket = Bucket::new(1_000_000, 4, Moment(0));
        let through = saturate(&mut bucket, 1_000_000, 10_000, 1000 * SECOND) as f64;
        assert!((through - 250e6).abs() <= 2e6, "{through}");
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second_however_long_the_pause() {
        let mut bucket = Bucket::new(100, 1, Moment(0));
        let now = Moment(3600 * SECOND);
        for _ in 0..10 {
            assert_eq!(bucket.ready_at(now, 0, 1), Some(now));
            bucket.charge(now, 1);
        }
        assert_eq!(bucket.ready_at(now, 0, 1), Some(Moment(now.0 + 10_000)));
    }

    #[test]
    fn parts_of_a_unit_gather() {
        // A third of a unit a second.
        let mut bucket = Bucket::new(1, 3, Moment(0));
        bucket.charge(Moment(0), 1);
        for now in 1..3000 {
            assert_eq!(bucket.ready_at(Moment(now * 1000), 0, 1), Some(Moment(3 * SECOND)));
        }
        assert_eq!(bucket.ready_at(Moment(3 * SECOND), 0, 1), Some(Moment(3 * SECOND)));
    }

    #[test]
    fn those_ahead_are_waited_for() {
        let mut bucket = Bucket::new(10, 1, Moment(0));
        assert_eq!(bucket.ready_at(Moment(0), 0, 1), Some(Moment(0)));
        assert_eq!(bucket.ready_at(Moment(0), 1, 1), Some(Moment(100_000)));
        assert_eq!(bucket.ready_at(Moment(0), 10, 5), Some(Moment(SECOND)));
    }

    #[test]
    fn debt_is_paid_off_first() {
        let mut bucket = Bucket::new(1000, 1, Moment(0));
        bucket.charge(Moment(0), 600);
        // Of 100 gathered units 500 are missing now, and one more for whatever comes next.
        assert_eq!(bucket.ready_at(Moment(0), 0, 0), Some(Moment(501_000)));
        assert_eq!(bucket.ready_at(Moment(501_000), 0, 0), Some(Moment(501_000)));
    }

    #[test]
    fn nothing_comes_through_at_no_rate_and_a_clock_that_stands_gives_nothing() {
        let mut none = Bucket::new(0, 1, Moment(0));
        assert_eq!(none.ready_at(Moment(u64::MAX), 0, 1), None);
        let mut bucket = Bucket::new(1, 1, Moment(SECOND));
        bucket.charge(Moment(SECOND), 1);
        assert_eq!(bucket.ready_at(Moment(0), 0, 1), Some(Moment(2 * SECOND)));
        let mut fast = Bucket::new(u64::MAX, u32::MAX, Moment(0));
        fast.charge(Moment(u64::MAX), u64::MAX);
        assert!(fast.ready_at(Moment(u64::MAX), u64::MAX, u64::MAX).is_some());
    }
}
