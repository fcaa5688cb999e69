//! What may happen to a table after its creation.
//!
//! ```text
//!              rename, change environment
//!                        |
//!   create --> available +--> drop --> dropped --> purge --> gone; its number is never used again
//!                  ^                      |
//!                  +------- recall -------+
//! ```
//!
//! A dropped table keeps its configurations, and its members go on agreeing on them: what is recalled has every row,
//! and as many copies as before. It has no name that anybody else could not take.
//!
//! Whoever did not hear the answer asks again. What is as asked already is a success that changes nothing: a table that
//! has the new name, or got it when it was last renamed; one that serves and was to be recalled; one that is gone and
//! was to be purged. A drop cannot tell; it says when the table was dropped, or succeeds with `if_exists`.

use std::collections::BTreeMap;

use pegasus_wire::TableId;
use pegasus_wire::config::check_table_name;
use pegasus_wire::environment::Environment;
use pegasus_wire::messages::control::TableState;

use super::command::{ChangeEnvironment, DropTable, Outcome, PurgeTable, RecallTable, RenameTable};
use super::limits::{ENVIRONMENTS_BYTES_MAX, HOLD_SECONDS_MAX};
use super::refusal::Refusal;
use super::state::State;
use super::table::{Table, entries, environment_bytes};

/// Drops a table that serves.
pub(super) fn drop_table(state: &mut State, command: DropTable) -> Result<Outcome, Refusal> {
    let DropTable { name, hold_seconds, if_exists, now_seconds } = command;
    if hold_seconds > HOLD_SECONDS_MAX {
        return Err(Refusal::InvalidTable(format!(
            "a dropped table is held for at most {HOLD_SECONDS_MAX} seconds (hold_seconds_max), got {hold_seconds}"
        )));
    }
    let table = match state.find_table(&name) {
        Ok(found) => found.properties.table,
        Err(_) if if_exists => return Ok(Outcome::NothingToDrop),
        Err(refusal) => return Err(refusal),
    };
    let purge_seconds = now_seconds.saturating_add(hold_seconds);
    state.table_mut(table).state = TableState::Dropped { dropped_seconds: now_seconds, purge_seconds };
    state.revision += 1;
    Ok(Outcome::TableChanged { table, changed: true })
}

/// Takes a dropped table back.
pub(super) fn recall_table(state: &mut State, command: RecallTable) -> Result<Outcome, Refusal> {
    let RecallTable { table, name } = command;
    let found = held(state, table)?.ok_or(Refusal::Purged(table))?;
    let name = name.unwrap_or_else(|| found.properties.name.clone());
    if found.is_available() {
        return match found.properties.name == name {
            true => Ok(Outcome::TableChanged { table, changed: false }),
            false => Err(not_dropped(found)),
        };
    }
    check_table_name(&name).map_err(Refusal::InvalidTable)?;
    check_free(state, &name)?;
    let found = state.table_mut(table);
    found.state = TableState::Available;
    if found.properties.name != name {
        found.renamed_from = None;
    }
    state.give_name(table, name);
    state.revision += 1;
    Ok(Outcome::TableChanged { table, changed: true })
}

/// Gives a table that serves another name.
pub(super) fn rename_table(state: &mut State, command: RenameTable) -> Result<Outcome, Refusal> {
    let RenameTable { name, new_name } = command;
    check_table_name(&new_name).map_err(Refusal::InvalidTable)?;
    let table = match state.find_table(&name) {
        Ok(found) => found.properties.table,
        Err(refusal) => {
            let done = state.table_named(&new_name).filter(|found| found.renamed_from.as_ref() == Some(&name));
            let unchanged = |found: &Table| Outcome::TableChanged { table: found.properties.table, changed: false };
            return done.map(unchanged).ok_or(refusal);
        }
    };
    if name == new_name {
        return Ok(Outcome::TableChanged { table, changed: false });
    }
    check_free(state, &new_name)?;
    state.give_name(table, new_name);
    state.table_mut(table).renamed_from = Some(name);
    state.revision += 1;
    Ok(Outcome::TableChanged { table, changed: true })
}

/// Forgets a dropped table. Its number stays used, so that copies of it are known for what they are.
pub(super) fn purge_table(state: &mut State, command: PurgeTable) -> Result<Outcome, Refusal> {
    let PurgeTable { table, due_at_seconds } = command;
    let Some(found) = held(state, table)? else { return Ok(Outcome::TablePurged { table, changed: false }) };
    let purge_seconds = found.purge_seconds().ok_or_else(|| not_dropped(found))?;
    if due_at_seconds.is_some_and(|now_seconds| now_seconds < purge_seconds) {
        return Err(Refusal::StillHeld { table, purge_seconds });
    }
    state.purge(table);
    Ok(Outcome::TablePurged { table, changed: true })
}

/// Changes the settings of a table that serves.
pub(super) fn change_environment(state: &mut State, command: ChangeEnvironment) -> Result<Outcome, Refusal> {
    let ChangeEnvironment { name, clear, delete, set } = command;
    let found = state.find_table(&name)?;
    let (table, before) = (found.properties.table, &found.environment);
    let mut wanted = if clear { BTreeMap::new() } else { before.clone() };
    for key in &delete {
        wanted.remove(key);
    }
    let mut named = BTreeMap::new();
    for (key, value) in set {
        if named.insert(key.clone(), value).is_some() {
            return Err(Refusal::InvalidEnvironment(format!("the setting {key:?} is set twice by one change")));
        }
    }
    wanted.append(&mut named);
    check_environment(state, before, &wanted)?;
    if wanted == *before {
        return Ok(Outcome::TableChanged { table, changed: false });
    }
    state.table_mut(table).environment = wanted;
    state.revision += 1;
    Ok(Outcome::TableChanged { table, changed: true })
}

/// Checks an environment that is to take the place of another: each setting, and the room for it.
pub(super) fn check_environment(
    state: &State,
    before: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    Environment::parse(&entries(wanted)).map_err(|error| Refusal::InvalidEnvironment(error.to_string()))?;
    let (old_bytes, new_bytes) = (environment_bytes(before), environment_bytes(wanted));
    let total = state.environments_bytes() - old_bytes + new_bytes;
    if new_bytes > old_bytes && total > ENVIRONMENTS_BYTES_MAX {
        return Err(Refusal::EnvironmentsTooLarge { wanted: total });
    }
    Ok(())
}

/// The table of this number, `None` if it was purged.
fn held(state: &State, table: TableId) -> Result<Option<&Table>, Refusal> {
    match state.tables.get(&table) {
        Some(found) => Ok(Some(found)),
        None if state.is_purged(table) => Ok(None),
        None => Err(Refusal::NeverMade(table)),
    }
}

fn not_dropped(found: &Table) -> Refusal {
    Refusal::NotDropped { table: found.properties.table, name: found.properties.name.clone() }
}

fn check_free(state: &State, name: &str) -> Result<(), Refusal> {
    match state.table_named(name) {
        Some(holder) => Err(Refusal::NameInUse { name: name.to_owned(), table: holder.properties.table }),
        None => Ok(()),
    }
}
