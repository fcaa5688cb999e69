//! Commands about tables for the replay test, and what must hold of them whatever came before.

use std::collections::BTreeSet;

use pegasus_meta::core::{
    ChangeEnvironment, Command, DropTable, Outcome, PurgeTable, RecallTable, Refusal, RenameTable, State, Table, apply,
};
use pegasus_wire::TableId;
use pegasus_wire::environment::Environment;
use pegasus_wire::messages::control::TableState;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![9 => (0u8..4).prop_map(|number| format!("table{number}")), 1 => Just("no name".to_owned())]
}

fn number() -> impl Strategy<Value = TableId> {
    (0u32..6).prop_map(TableId)
}

fn setting() -> impl Strategy<Value = (String, String)> {
    let keys = prop_oneof![3 => Just("default_ttl"), 2 => Just("business.info"), 1 => Just("no.such")];
    let values = prop_oneof![4 => Just("1"), 4 => Just("2"), 1 => Just("-1")];
    (keys, values).prop_map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// A command about tables, often one that can be carried out.
pub(super) fn step() -> impl Strategy<Value = Command> {
    let drop = (name(), 0u64..20, any::<bool>(), 0u64..20).prop_map(|(name, hold_seconds, if_exists, now_seconds)| {
        Command::DropTable(DropTable { name, hold_seconds, if_exists, now_seconds })
    });
    let recall = (number(), prop::option::weighted(0.4, name()))
        .prop_map(|(table, name)| Command::RecallTable(RecallTable { table, name }));
    let rename = (name(), name()).prop_map(|(name, new_name)| Command::RenameTable(RenameTable { name, new_name }));
    let purge = (number(), prop::option::of(0u64..40))
        .prop_map(|(table, due_at_seconds)| Command::PurgeTable(PurgeTable { table, due_at_seconds }));
    let keys = prop::collection::vec(setting().prop_map(|(key, _)| key), 0..2);
    let environment = (name(), prop::bool::weighted(0.2), keys, prop::collection::vec(setting(), 0..3)).prop_map(
        |(name, clear, delete, set)| Command::ChangeEnvironment(ChangeEnvironment { name, clear, delete, set }),
    );
    prop_oneof![4 => drop, 3 => recall, 3 => rename, 2 => purge, 3 => environment]
}

/// What must be reached often enough for the properties to say something.
pub(super) const KINDS: [&str; 12] = [
    "created",
    "dropped",
    "nothing to drop",
    "recalled",
    "recalled before",
    "renamed",
    "renamed before",
    "environment changed",
    "purged by an operator",
    "purged by time",
    "purged before",
    "name in use",
];

/// What a command came to.
pub(super) fn kind(command: &Command, outcome: &Outcome) -> &'static str {
    match (command, outcome) {
        (_, Outcome::TableReady { created: true, .. }) => "created",
        (Command::DropTable(_), Outcome::TableChanged { .. }) => "dropped",
        (_, Outcome::NothingToDrop) => "nothing to drop",
        (Command::RecallTable(_), Outcome::TableChanged { changed: true, .. }) => "recalled",
        (Command::RecallTable(_), Outcome::TableChanged { .. }) => "recalled before",
        (Command::RenameTable(_), Outcome::TableChanged { changed: true, .. }) => "renamed",
        (Command::RenameTable(rename), Outcome::TableChanged { .. }) if rename.name != rename.new_name => {
            "renamed before"
        }
        (Command::ChangeEnvironment(_), Outcome::TableChanged { changed: true, .. }) => "environment changed",
        (Command::PurgeTable(purge), Outcome::TablePurged { changed: true, .. }) => match purge.due_at_seconds {
            None => "purged by an operator",
            Some(_) => "purged by time",
        },
        (_, Outcome::TablePurged { .. }) => "purged before",
        (_, Outcome::Refused(Refusal::NameInUse { .. })) => "name in use",
        _ => "else",
    }
}

/// What must hold of every state.
pub(super) fn check_invariants(state: &State) {
    let mut names = BTreeSet::new();
    for (number, table) in state.tables() {
        assert_eq!(table.properties.table, *number);
        assert_eq!(table.partitions.len() as u32, table.properties.partition_count);
        assert!(!table.is_available() || names.insert(&table.properties.name), "{names:?} twice");
        Environment::parse(&table.environment_entries()).unwrap();
        let former = table.renamed_from.as_deref();
        assert!(former != Some(&table.properties.name) && former.is_none_or(|name| state.table_named(name).is_none()));
        assert!(!state.is_purged(*number) && number.0 != 0);
    }
    let due = state.tables().values().filter_map(Table::purge_seconds).min();
    assert_eq!(state.next_purge().map(|(seconds, _)| seconds), due);
}

/// What one command may do to tables.
pub(super) fn check_step(before: &State, after: &State, command: &Command, outcome: &Outcome) {
    match outcome {
        Outcome::TableChanged { changed, .. } | Outcome::TablePurged { changed, .. } => {
            assert_eq!(*changed, before != after, "{command:?}");
        }
        Outcome::NothingToDrop => assert_eq!(before, after),
        _ => {}
    }
    if before.tables() != after.tables() {
        assert!(after.revision() > before.revision(), "watchers are woken by {command:?}");
    }
    for (number, was) in before.tables() {
        match after.tables().get(number) {
            Some(now) => check_table(was, now, command),
            None => {
                let Command::PurgeTable(purge) = command else { panic!("{command:?} deleted a table") };
                let due = was.purge_seconds().expect("it had been dropped");
                assert!(purge.table == *number && purge.due_at_seconds.is_none_or(|now| now >= due));
                assert!(after.is_purged(*number));
            }
        }
    }
    let known = |table: &TableId| before.tables().contains_key(table) || before.is_purged(*table);
    for new in after.tables().keys().filter(|table| !before.tables().contains_key(table)) {
        assert!(matches!(command, Command::CreateTable(_)) && !known(new), "numbers are never used again");
    }
    if let Command::CreateTable(create) = command
        && let Outcome::TableReady { table, .. } = outcome
    {
        assert_eq!(after.table_named(&create.name).map(|found| found.properties.table), Some(*table));
    }
}

fn check_table(was: &Table, now: &Table, command: &Command) {
    let mut renamed = was.properties.clone();
    renamed.name.clone_from(&now.properties.name);
    assert_eq!(renamed, now.properties, "only the name ever changes");
    if was.properties.name != now.properties.name {
        let wanted = match command {
            Command::RecallTable(recall) => recall.name.as_ref(),
            Command::RenameTable(rename) => Some(&rename.new_name),
            _ => None,
        };
        assert_eq!(Some(&now.properties.name), wanted);
    }
    if was.environment != now.environment {
        let Command::ChangeEnvironment(change) = command else { panic!("{command:?} changed an environment") };
        assert!(change.set.iter().all(|(key, value)| now.environment.get(key) == Some(value)));
        let is_set = |key: &String| change.set.iter().any(|(set, _)| set == key);
        let is_kept = |key: &String| !change.clear && !change.delete.contains(key) && !is_set(key);
        assert!(was.environment.iter().all(|(key, value)| !is_kept(key) || now.environment.get(key) == Some(value)));
        assert!(now.environment.keys().all(|key| is_set(key) || (is_kept(key) && was.environment.contains_key(key))));
    }
    match (was.state, now.state) {
        (TableState::Available, TableState::Dropped { dropped_seconds, purge_seconds }) => {
            let Command::DropTable(drop) = command else { panic!("{command:?} dropped a table") };
            assert_eq!((dropped_seconds, purge_seconds), (drop.now_seconds, drop.now_seconds + drop.hold_seconds));
            assert_eq!(drop.name, was.properties.name);
        }
        (TableState::Dropped { .. }, TableState::Available) => {
            assert!(matches!(command, Command::RecallTable(recall) if recall.table == was.properties.table));
        }
        (one, other) => assert_eq!(one, other),
    }
}

/// A lost answer is asked for again: what was done is a success that changes nothing.
pub(super) fn check_again(state: &State, command: &Command, outcome: &Outcome) {
    let expected = match (command, outcome) {
        (Command::DropTable(drop), Outcome::TableChanged { .. }) if drop.if_exists => Outcome::NothingToDrop,
        (Command::DropTable(_), _) => return,
        (_, Outcome::TableChanged { table, .. }) => Outcome::TableChanged { table: *table, changed: false },
        (_, Outcome::TablePurged { table, .. }) => Outcome::TablePurged { table: *table, changed: false },
        _ => return,
    };
    let mut again = state.clone();
    assert_eq!(apply(&mut again, command.clone()), expected, "{command:?}");
    assert_eq!(again, *state);
}
