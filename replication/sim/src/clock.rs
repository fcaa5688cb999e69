//! A node's clock: it runs on while the process is frozen or down, a little too fast or too slow, and begins anew when
//! the machine restarts. Clocks of different nodes have nothing in common.

use pegasus_replication::Moment;

/// CLOCK_BOOTTIME of one machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeClock {
    /// Real time of the last change of rate.
    since: u64,
    /// What the clock showed then.
    reading: u64,
    /// Microseconds it runs in a thousand microseconds of real time.
    rate: u64,
}

impl NodeClock {
    /// The clock of a machine that has been running for `reading` microseconds.
    pub(crate) fn new(now: u64, reading: u64, rate: u64) -> NodeClock {
        NodeClock { since: now, reading, rate }
    }

    /// What it shows.
    pub(crate) fn read(&self, now: u64) -> Moment {
        Moment(self.reading + (now - self.since) * self.rate / 1000)
    }

    /// Runs at another rate from now on.
    pub(crate) fn turn(&mut self, now: u64, rate: u64) {
        *self = NodeClock { since: now, reading: self.read(now).0, rate };
    }

    /// The machine starts again.
    pub(crate) fn reboot(&mut self, now: u64, reading: u64) {
        *self = NodeClock { since: now, reading, rate: self.rate };
    }

    /// Real time that passes while the clock runs on by `micros`.
    pub(crate) fn real(&self, micros: u64) -> u64 {
        micros * 1000 / self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_jumps_when_its_rate_changes() {
        let mut clock = NodeClock::new(1_000, 50, 950);
        assert_eq!(clock.read(1_000), Moment(50));
        assert_eq!(clock.read(2_001_000), Moment(1_900_050));
        clock.turn(2_001_000, 1_050);
        assert_eq!(clock.read(2_001_000), Moment(1_900_050));
        assert_eq!(clock.read(2_002_000), Moment(1_901_100));
        assert_eq!(clock.real(1_050), 1_000);
    }
}
