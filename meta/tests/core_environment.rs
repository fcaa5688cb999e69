//! The environment of a table: all or nothing, bounded, told to nodes.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, alive};
use pegasus_meta::core::limits::{ENVIRONMENTS_BYTES_MAX, PARTITIONS_MAX, TABLES_MAX};
use pegasus_meta::core::{ChangeEnvironment, Command, CreateTable, Outcome, Refusal, Tasks, query};
use pegasus_wire::limits::{ENVIRONMENT_VALUE_BYTES_MAX, FRAME_BYTES_MAX, TABLE_NAME_BYTES_MAX};
use pegasus_wire::messages::control::EnvironmentEntry;
use pegasus_wire::{Durability, FrameBuilder, FrameHeader, MessageKind, NodeId, Status, TableId};

const FIRST: TableId = TableId(1);

fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn change(name: &str, clear: bool, delete: &[&str], set: &[(&str, &str)]) -> Command {
    Command::ChangeEnvironment(ChangeEnvironment {
        name: name.to_owned(),
        clear,
        delete: delete.iter().map(|&key| key.to_owned()).collect(),
        set: pairs(set),
    })
}

fn kept(cluster: &Cluster) -> Vec<(String, String)> {
    cluster.state.tables()[&FIRST].environment.clone().into_iter().collect()
}

fn with_table() -> Cluster {
    let mut cluster = Cluster::new(2);
    cluster.create("t", 2, 1, 1..=2);
    cluster
}

#[test]
fn a_change_clears_then_deletes_then_sets() {
    let mut cluster = with_table();
    let changed = Outcome::TableChanged { table: FIRST, changed: true };
    let steps: [(Command, &[(&str, &str)]); 5] = [
        (
            change("t", false, &[], &[("default_ttl", " 60 "), ("business.info", "x")]),
            &[("business.info", "x"), ("default_ttl", " 60 ")],
        ),
        (change("t", false, &["business.info"], &[("default_ttl", "7")]), &[("default_ttl", "7")]),
        // What is deleted and set by one change is set; what is not there is deleted without a word.
        (
            change("t", false, &["default_ttl", "durability", "no.such"], &[("default_ttl", "8")]),
            &[("default_ttl", "8")],
        ),
        (change("t", true, &[], &[("durability", "synced")]), &[("durability", "synced")]),
        (change("t", true, &[], &[]), &[]),
    ];
    for (command, expected) in steps {
        let revision = cluster.state.revision();
        assert_eq!(cluster.run(command.clone()), changed, "{command:?}");
        assert_eq!(kept(&cluster), pairs(expected));
        assert_eq!(cluster.state.revision(), revision + 1, "nodes are told");
        // Once more: nothing to change, and nobody is woken.
        let before = cluster.state.clone();
        assert_eq!(cluster.run(command), Outcome::TableChanged { table: FIRST, changed: false });
        assert_eq!(cluster.state, before);
    }
}

#[test]
fn a_table_may_have_its_environment_from_the_first_moment_on() {
    let mut cluster = Cluster::new(2);
    let table = CreateTable {
        name: "t".to_owned(),
        partition_count: 2,
        replica_count: 1,
        durability: Durability::Synced,
        if_not_exists: false,
        live: [NodeId(1), NodeId(2)].into(),
    };
    let with = |table: &CreateTable, entries: &[(&str, &str)]| Command::CreateTableWith {
        table: table.clone(),
        environment: pairs(entries).into_iter().collect(),
    };
    let refusal = cluster.refused(with(&table, &[("default_ttl", "soon")]));
    assert!(matches!(refusal, Refusal::InvalidEnvironment(_)), "{refusal}");
    let made = Outcome::TableReady { table: FIRST, created: true };
    assert_eq!(cluster.run(with(&table, &[("default_ttl", "60")])), made);
    assert_eq!(kept(&cluster), pairs(&[("default_ttl", "60")]));

    // Once more: it is there, and as asked only if its environment is. Who says nothing of it takes any.
    assert!(matches!(cluster.refused(with(&table, &[("default_ttl", "60")])), Refusal::TableExists { .. }));
    let table = CreateTable { if_not_exists: true, ..table };
    let there = Outcome::TableReady { table: FIRST, created: false };
    assert_eq!(cluster.run(with(&table, &[("default_ttl", "60")])), there);
    assert_eq!(cluster.run(Command::CreateTable(table.clone())), there);
    for other in [&[][..], &[("default_ttl", "61")], &[("default_ttl", "60"), ("business.info", "x")]] {
        let refusal = cluster.refused(with(&table, other));
        assert_eq!(refusal, Refusal::EnvironmentDiffers { name: "t".to_owned() });
        assert_eq!(refusal.status(), Status::TableExists);
    }
}

#[test]
fn all_of_a_change_or_nothing() {
    let mut cluster = with_table();
    cluster.run(change("t", false, &[], &[("default_ttl", "60")]));
    let cases: [(Command, &str); 5] = [
        (change("t", true, &[], &[("business.info", "x"), ("default_ttl", "-1")]), "default_ttl cannot be \"-1\""),
        (change("t", false, &["default_ttl"], &[("no.such", "1")]), "there is no setting \"no.such\""),
        (change("t", false, &[], &[("replica.slow_query_threshold", "19")]), "20 to"),
        (change("t", false, &[], &[("default_ttl", "1"), ("default_ttl", "2")]), "\"default_ttl\" is set twice"),
        (change("t", false, &[], &[("", "")]), "there is no setting \"\""),
    ];
    for (command, expected) in cases {
        let refused = cluster.refused(command);
        assert_eq!(refused.status(), Status::InvalidArgument);
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    assert_eq!(kept(&cluster), pairs(&[("default_ttl", "60")]));
    let refused = cluster.refused(change("nope", false, &[], &[]));
    assert_eq!(refused, Refusal::NoSuchTable { name: "nope".to_owned(), dropped: None });
    cluster.drop_table("t");
    let refused = cluster.refused(change("t", false, &[], &[("default_ttl", "1")]));
    assert!(refused.to_string().contains("was dropped at"), "{refused}");
}

#[test]
fn the_environment_goes_with_the_table() {
    let mut cluster = with_table();
    cluster.run(change("t", false, &[], &[("durability", "synced"), ("default_ttl", "60")]));
    let entry = |key: &str, value: &str| EnvironmentEntry { key: key.to_owned(), value: value.to_owned() };
    let expected = [entry("default_ttl", "60"), entry("durability", "synced")];
    let table = cluster.state.table_named("t").unwrap();
    assert_eq!(table.properties.durability, Durability::Written, "what it was made with");
    assert_eq!(query::table_reply(&cluster.state, table, &alive([])).environment, expected);
    assert_eq!(query::table_list(&cluster.state).tables[0].environment, expected);
    let assigned = query::assignments(&cluster.state, NodeId(1), &alive([]), &Tasks::default());
    assert_eq!(assigned.tables[0].environment, expected);
    assert_eq!(assigned.tables[0].properties.durability, Durability::Written);

    cluster.run(cluster::rename_table("t", "u"));
    cluster.drop_table("u");
    assert_eq!(query::table_list(&cluster.state).tables[0].environment, expected);
    cluster.recall(FIRST);
    assert_eq!(kept(&cluster).len(), 2);
    // Another table of an old name has none of it.
    cluster.create("t", 1, 1, [1]);
    assert_eq!(cluster.state.table_named("t").unwrap().environment, BTreeMap::new());
}

#[test]
fn environments_are_bounded_together_and_everything_fits_into_a_frame() {
    let mut cluster = Cluster::new(5);
    let name = |number: usize| format!("{number:04}{}", "x".repeat(TABLE_NAME_BYTES_MAX - 4));
    for number in 0..TABLES_MAX {
        cluster.create(&name(number), PARTITIONS_MAX / TABLES_MAX as u32, 5, 1..=5);
    }
    let long = "x".repeat(ENVIRONMENT_VALUE_BYTES_MAX);
    let mut filled = 0;
    let refused = loop {
        let command = change(&name(filled), false, &[], &[("business.info", &long)]);
        let mut next = Cluster { state: cluster.state.clone() };
        match pegasus_meta::core::apply(&mut next.state, command.clone()) {
            Outcome::Refused(_) => break cluster.refused(command),
            outcome => assert!(matches!(outcome, Outcome::TableChanged { changed: true, .. })),
        }
        cluster = next;
        filled += 1;
    };
    let each = ENVIRONMENT_VALUE_BYTES_MAX + "business.info".len() + 32;
    assert_eq!((filled, cluster.state.environments_bytes()), (ENVIRONMENTS_BYTES_MAX / each, filled * each));
    assert_eq!(refused, Refusal::EnvironmentsTooLarge { wanted: (filled + 1) * each });
    assert_eq!(refused.status(), Status::TooLarge);
    assert!(refused.to_string().contains("environments_bytes_max"), "{refused}");
    // The largest answer to a watch.
    let everything = query::assignments(&cluster.state, NodeId(1), &alive([]), &Tasks::default());
    assert_eq!((everything.tables.len(), everything.partitions.len()), (TABLES_MAX, PARTITIONS_MAX as usize));
    let mut frame = Vec::new();
    let header = FrameHeader::answer(MessageKind::WATCH_ASSIGNMENTS, 1, Status::Ok);
    FrameBuilder::append(&mut frame, header, &everything, &[]);
    assert!(frame.len() < FRAME_BYTES_MAX * 3 / 4, "{} bytes", frame.len());

    // What makes it smaller is allowed, and what was dropped counts until it is purged.
    cluster.run(change(&name(0), false, &[], &[("business.info", &long[1..])]));
    cluster.drop_table(&name(0));
    cluster.refused(change(&name(filled), false, &[], &[("business.info", &long)]));
    cluster.purge(FIRST);
    cluster.run(change(&name(filled), false, &[], &[("business.info", &long)]));
}
