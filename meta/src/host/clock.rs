//! The time of day, as the host reads it: for the moments that commands carry, and for what is due at one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// Where the time of day comes from. Clones tell the same time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The clock of this machine.
    System,
    /// Whoever holds the sender says what time it is, in Unix seconds.
    Given(watch::Receiver<u64>),
}

impl Clock {
    /// The current Unix second. A clock before 1970 is taken as 1970.
    pub fn now_seconds(&self) -> u64 {
        match self {
            Clock::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            Clock::Given(told) => *told.borrow(),
        }
    }

    /// Resolves when this Unix second has come.
    pub async fn reaches(&self, seconds: u64) {
        match self {
            Clock::System => loop {
                let left = seconds.saturating_sub(self.now_seconds());
                if left == 0 {
                    return;
                }
                // The clock may be set, and does not run on while a machine sleeps: the rest is counted afresh.
                tokio::time::sleep(Duration::from_secs(left).min(LOOK_AGAIN)).await;
            },
            Clock::Given(told) => {
                let mut told = told.clone();
                if told.wait_for(|&now| now >= seconds).await.is_err() {
                    // Nobody is left who could say that it has come.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// How long a wait trusts that the time of day moves with the time that passes.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machine_s_clock_is_waited_for() {
        let clock = Clock::System;
        let now = clock.now_seconds();
        clock.reaches(now - 1).await;
        clock.reaches(now + 1).await;
        assert!((now + 1..now + 10).contains(&clock.now_seconds()));
    }

    #[tokio::test]
    async fn a_given_time_comes_when_it_is_told() {
        let (tell, told) = watch::channel(100);
        let clock = Clock::Given(told);
        assert_eq!(clock.now_seconds(), 100);
        clock.reaches(100).await;
        let later = async {
            tell.send_replace(149);
            tokio::task::yield_now().await;
            tell.send_replace(151);
        };
        tokio::join!(clock.reaches(150), later);
        assert_eq!(clock.now_seconds(), 151);
    }
}
