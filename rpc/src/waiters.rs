//! Tasks that wait for room.

use std::task::Waker;

/// Wakers of tasks that wait for one condition. All are woken when it may have come true; those that find it false
/// register again. Kept under the lock that guards the condition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    wakers: Vec<Waker>,
}

impl Waiters {
    /// Remembers a task; once, if it is among the last that came.
    pub(crate) fn register(&mut self, waker: &Waker) {
        if !self.wakers.iter().rev().take(LOOKED_BACK).any(|known| known.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    /// Takes all wakers, to be woken after the lock is released.
    pub(crate) fn take(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }
}

/// How far back a task is looked for: enough for a few that poll again and again, cheap when thousands wait.
const LOOKED_BACK: usize = 64;

/// Wakes what [`Waiters::take`] returned.
pub(crate) fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
