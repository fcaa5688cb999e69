//! What the meta service says of tables: properties, settings, whether they serve. Settings are text there; here they
//! are read, once for the whole node whenever they change.

use std::collections::HashMap;
use std::sync::Arc;

use pegasus_wire::environment::Environment;
use pegasus_wire::messages::control::{Assignments, EnvironmentEntry, TableDescription, TableState};
use pegasus_wire::{Durability, TableId, TableProperties};

/// A table as it is now. Never changed: what changes is told as another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSettings {
    /// What its partitions share, as the table was made (and named).
    pub properties: TableProperties,
    /// Its environment.
    pub environment: Arc<Environment>,
    /// Whether it serves.
    pub state: TableState,
    /// What the environment was read from.
    entries: Vec<EnvironmentEntry>,
}

impl TableSettings {
    /// When its writes may be acknowledged: as its environment says, else as it was made.
    pub fn durability(&self) -> Durability {
        self.environment.durability.unwrap_or(self.properties.durability)
    }

    /// The properties with the durability that is in force.
    pub fn properties_in_force(&self) -> TableProperties {
        TableProperties { durability: self.durability(), ..self.properties.clone() }
    }

    /// Reads a description. What cannot be read of its environment is logged and keeps its default.
    fn read(description: &TableDescription) -> TableSettings {
        let TableDescription { properties, environment: entries, state } = description;
        let (environment, wrong) = Environment::parse_kept(entries);
        for error in wrong {
            tracing::error!(table = %properties.name, %error, "a setting of a table is left out");
        }
        TableSettings {
            properties: properties.clone(),
            environment: Arc::new(environment),
            state: *state,
            entries: entries.clone(),
        }
    }

    fn is_read_from(&self, description: &TableDescription) -> bool {
        let TableDescription { properties, environment, state } = description;
        self.properties == *properties && self.entries == *environment && self.state == *state
    }
}

/// An answer of the meta service as the cores get it.
#[derive(Debug)]
pub struct Told {
    /// The answer.
    pub assignments: Assignments,
    /// Its tables, read.
    pub tables: HashMap<TableId, Arc<TableSettings>>,
}

/// The tables last told, so that what has not changed is not read again.
#[derive(Debug, Default)]
pub struct KnownTables(HashMap<TableId, Arc<TableSettings>>);

impl KnownTables {
    /// Takes an answer of the meta service.
    pub fn take(&mut self, assignments: Assignments) -> Told {
        let before = std::mem::take(&mut self.0);
        let tables = assignments.tables.iter().map(|description| {
            let known = before.get(&description.properties.table).filter(|known| known.is_read_from(description));
            let settings = known.cloned().unwrap_or_else(|| Arc::new(TableSettings::read(description)));
            (description.properties.table, settings)
        });
        self.0 = tables.collect();
        Told { tables: self.0.clone(), assignments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(environment: &[(&str, &str)]) -> TableDescription {
        let entry = |(key, value): &(&str, &str)| EnvironmentEntry { key: (*key).into(), value: (*value).into() };
        TableDescription {
            properties: TableProperties {
                table: TableId(3),
                name: "temp".to_owned(),
                partition_count: 8,
                replica_count: 3,
                durability: Durability::Synced,
            },
            environment: environment.iter().map(entry).collect(),
            state: TableState::Available,
        }
    }

    fn told(known: &mut KnownTables, tables: Vec<TableDescription>) -> HashMap<TableId, Arc<TableSettings>> {
        let assignments = Assignments {
            revision: 1,
            tables,
            partitions: Vec::new(),
            nodes: Vec::new(),
            additions: Vec::new(),
            removals: Vec::new(),
        };
        known.take(assignments).tables
    }

    #[test]
    fn only_what_has_changed_is_read_again() {
        let mut known = KnownTables::default();
        let first = told(&mut known, vec![description(&[("default_ttl", "60")])])[&TableId(3)].clone();
        assert_eq!(first.environment.default_ttl_seconds, 60);
        let same = told(&mut known, vec![description(&[("default_ttl", "60")])])[&TableId(3)].clone();
        assert!(Arc::ptr_eq(&first, &same));
        let other = told(&mut known, vec![description(&[("default_ttl", "61")])])[&TableId(3)].clone();
        assert_eq!(other.environment.default_ttl_seconds, 61);
        let dropped = TableState::Dropped { dropped_seconds: 1, purge_seconds: 2 };
        let gone = told(&mut known, vec![TableDescription { state: dropped, ..description(&[("default_ttl", "61")]) }]);
        assert_eq!(gone[&TableId(3)].state, dropped);
        assert!(told(&mut known, Vec::new()).is_empty());
    }

    #[test]
    fn what_cannot_be_read_keeps_its_default() {
        let mut known = KnownTables::default();
        let strange = [("default_ttl", "soon"), ("of.a.later.release", "1"), ("durability", "written")];
        let settings = told(&mut known, vec![description(&strange)])[&TableId(3)].clone();
        assert_eq!(settings.environment.default_ttl_seconds, 0);
        assert_eq!(settings.durability(), Durability::Written);
        assert_eq!(settings.properties_in_force().durability, Durability::Written);
        assert_eq!(settings.properties.durability, Durability::Synced);
    }
}
