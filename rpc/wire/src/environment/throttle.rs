//! How much a table may do in a second, and what happens to what is more than that.

use std::str::FromStr;

/// Rates of the whole table, each split evenly over its partitions. What is above the first rate is delayed until its
/// turn comes; what would wait for longer than the delay says, and what is above the second rate, is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// What is above it waits for its turn, at most that long.
    pub delay: Option<Allowance>,
    /// What is above it waits that long and is refused.
    pub reject: Option<Allowance>,
}

/// A rate and a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Units a second of the whole table.
    pub units_per_second: u64,
    /// How long a request above the rate waits.
    pub wait_ms: u32,
}

impl Throttle {
    /// True if nothing is held back.
    pub fn is_off(&self) -> bool {
        self.delay.is_none() && self.reject.is_none()
    }
}

impl FromStr for Throttle {
    type Err = String;

    /// `2000*delay*100,3000*reject*200`; a number may end with K or M (1,000 and 1,000,000); empty: off.
    fn from_str(text: &str) -> Result<Throttle, String> {
        let mut throttle = Throttle::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split('*').map(str::trim);
            let (units, what, wait) = (fields.next(), fields.next(), fields.next());
            let allowance = match (units.and_then(units_of), wait.and_then(|wait| wait.parse().ok()), fields.next()) {
                (Some(units_per_second), Some(wait_ms), None) => Allowance { units_per_second, wait_ms },
                _ => return Err(format!("{part:?} is not of the form {FORM}")),
            };
            let slot = match what {
                Some("delay") => &mut throttle.delay,
                Some("reject") => &mut throttle.reject,
                _ => return Err(format!("{part:?} neither delays nor rejects; the form is {FORM}")),
            };
            if slot.replace(allowance).is_some() {
                return Err(format!("{text:?} says the same thing twice; the form is {FORM}"));
            }
        }
        if let (Some(delay), Some(reject)) = (throttle.delay, throttle.reject)
            && delay.units_per_second > reject.units_per_second
        {
            return Err("what is rejected is below what is delayed".to_owned());
        }
        Ok(throttle)
    }
}

/// For people.
const FORM: &str = "<n[K|M]>*delay*<ms>,<n[K|M]>*reject*<ms>, one or both";

fn units_of(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1000),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_are_read() {
        let throttle: Throttle = "2K*delay*100, 3M*reject*200".parse().unwrap();
        assert_eq!(throttle.delay, Some(Allowance { units_per_second: 2000, wait_ms: 100 }));
        assert_eq!(throttle.reject, Some(Allowance { units_per_second: 3_000_000, wait_ms: 200 }));
        assert_eq!("".parse(), Ok(Throttle::default()));
        assert!(Throttle::default().is_off() && !throttle.is_off());
    }

    #[test]
    fn what_is_no_throttle_is_refused() {
        let wrong = [
            "100",
            "100*delay",
            "100*stop*1",
            "x*delay*1",
            "1*delay*1*1",
            "1*delay*1,2*delay*1",
            "9*delay*1,8*reject*1",
        ];
        for text in wrong {
            assert!(text.parse::<Throttle>().is_err(), "{text}");
        }
        assert!("99999999999999999999M*delay*1".parse::<Throttle>().is_err());
    }
}
