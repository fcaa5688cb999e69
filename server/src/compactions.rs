//! When manual compactions begin: which copies are due, and how many of them a node compacts at a time.
//!
//! Nothing here compacts. The settings are a table's, the moment of the last compaction is a copy's, the time is an
//! argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pegasus_wire::TableId;
use pegasus_wire::environment::ManualCompaction;

use crate::utc::DAY_SECONDS;

/// A compaction at a time of the day begins at most this long after it: a node that was down at night does not make up
/// for it at noon.
const LATE_SECONDS: u64 = 3600;

/// A copy is to be compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Also what is in the last level already.
    pub bottommost: bool,
}

/// Whether a copy is due whose last manual compaction began at `last_seconds` (0: never). Both are Unix seconds.
pub fn due(settings: &ManualCompaction, last_seconds: u64, now_seconds: u64) -> Option<Due> {
    if settings.disabled {
        return None;
    }
    let once = settings.once_trigger_seconds;
    if once > 0 && once <= now_seconds && last_seconds < once {
        return Some(Due { bottommost: settings.once_bottommost });
    }
    let midnight = now_seconds - now_seconds % DAY_SECONDS;
    let of_days = [midnight, midnight.saturating_sub(DAY_SECONDS)];
    let mut moments = settings.periodic_trigger_minutes.iter().flat_map(|minute| {
        let second = u64::from(*minute) * 60;
        of_days.map(|midnight| midnight + second)
    });
    let begins = |moment: u64| last_seconds < moment && moment <= now_seconds && now_seconds - moment < LATE_SECONDS;
    moments.any(begins).then_some(Due { bottommost: settings.periodic_bottommost })
}

/// The compactions that a node runs.
pub struct Turns {
    most: usize,
    running: Mutex<HashMap<TableId, usize>>,
}

/// The right to compact one copy, for as long as it lives.
pub struct Turn {
    turns: Arc<Turns>,
    table: TableId,
}

impl Turns {
    /// At most so many at a time.
    pub fn new(most: usize) -> Arc<Turns> {
        Arc::new(Turns { most, running: Mutex::default() })
    }

    /// A turn for a copy of this table, of which the node may compact `of_table_max` at a time (0: no limit of its
    /// own); `None` if it has to wait.
    pub fn take(self: &Arc<Turns>, table: TableId, of_table_max: u32) -> Option<Turn> {
        let mut running = self.lock();
        let of_table = running.get(&table).copied().unwrap_or(0);
        let all: usize = running.values().sum();
        if all >= self.most || (of_table_max > 0 && of_table >= of_table_max as usize) {
            return None;
        }
        running.insert(table, of_table + 1);
        Some(Turn { turns: self.clone(), table })
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.lock().values().sum()
    }

    /// No code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<TableId, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = self.turns.lock();
        if let Some(of_table) = running.get_mut(&self.table) {
            *of_table -= 1;
            if *of_table == 0 {
                running.remove(&self.table);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A midnight.
    const DAY: u64 = 20_000 * DAY_SECONDS;
    const ONCE: Option<Due> = Some(Due { bottommost: true });
    const PERIODIC: Option<Due> = Some(Due { bottommost: false });

    fn once(trigger: u64) -> ManualCompaction {
        ManualCompaction { once_trigger_seconds: trigger, once_bottommost: true, ..ManualCompaction::default() }
    }

    fn at(minutes: &[u16]) -> ManualCompaction {
        ManualCompaction { periodic_trigger_minutes: minutes.to_vec(), ..once(0) }
    }

    #[test]
    fn once_means_once_and_not_before_its_time() {
        assert_eq!(due(&ManualCompaction::default(), 0, DAY), None);
        assert_eq!(due(&once(DAY), 0, DAY - 1), None);
        assert_eq!(due(&once(DAY), 0, DAY), ONCE);
        assert_eq!(due(&once(DAY), DAY - 1, DAY + 1_000_000), ONCE, "however long the node was away");
        assert_eq!(due(&once(DAY), DAY, DAY + 1), None);
        assert_eq!(due(&once(DAY + 10), DAY, DAY + 10), ONCE, "and again when it is asked for again");
    }

    #[test]
    fn times_of_the_day_come_every_day() {
        let three = DAY + 3 * 3600;
        let settings = at(&[180, 1290]);
        assert_eq!(due(&settings, 0, three - 1), None);
        assert_eq!(due(&settings, three - 1, three), PERIODIC);
        assert_eq!(due(&settings, three, three + 1), None);
        assert_eq!(due(&settings, three - 1, three + LATE_SECONDS - 1), PERIODIC);
        assert_eq!(due(&settings, three - 1, three + LATE_SECONDS), None, "too late for today");
        let half_past_nine = DAY + 21 * 3600 + 1800;
        assert_eq!(due(&settings, three, half_past_nine), PERIODIC);
        assert_eq!(due(&settings, half_past_nine, three + DAY_SECONDS), PERIODIC);
    }

    #[test]
    fn the_last_minutes_of_a_day_reach_into_the_next() {
        let settings = at(&[1439]);
        assert_eq!(due(&settings, 0, DAY + 60), PERIODIC);
        assert_eq!(due(&settings, DAY - 60, DAY + 60), None);
        assert_eq!(due(&settings, 0, DAY + LATE_SECONDS), None);
        assert_eq!(due(&settings, 0, 30), None, "there is no day before the first");
    }

    #[test]
    fn a_table_that_disables_them_has_none() {
        let settings = ManualCompaction { disabled: true, ..once(DAY) };
        assert_eq!(due(&settings, 0, DAY + 1), None);
        assert_eq!(due(&ManualCompaction { disabled: true, ..at(&[0]) }, 0, DAY + 1), None);
    }

    #[test]
    fn turns_are_bounded_for_the_node_and_for_a_table() {
        let turns = Turns::new(3);
        let first = turns.take(TableId(1), 2).unwrap();
        let second = turns.take(TableId(1), 2).unwrap();
        assert!(turns.take(TableId(1), 2).is_none(), "the table has its two");
        let other = turns.take(TableId(2), 0).unwrap();
        assert!(turns.take(TableId(3), 0).is_none(), "the node has its three");
        drop(first);
        assert!(turns.take(TableId(1), 1).is_none());
        assert!(turns.take(TableId(1), 2).is_some());
        drop((second, other));
        assert_eq!(turns.running(), 0);
        assert!(turns.lock().is_empty());
    }
}
