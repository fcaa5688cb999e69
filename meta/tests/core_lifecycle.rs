//! The life of a table, command by command, with exact outcomes.
#![allow(clippy::unwrap_used)]

mod cluster;

use cluster::{Cluster, alive, drop_table, purge_table, recall_table, rename_table};
use pegasus_meta::core::limits::{HOLD_SECONDS_MAX, PARTITIONS_MAX, TABLES_MAX};
use pegasus_meta::core::{Command, CreateTable, DropTable, DroppedTable, Outcome, Refusal, State, apply, query};
use pegasus_wire::messages::control::ReplicaState::{Missing, Whole};
use pegasus_wire::messages::control::TableState;
use pegasus_wire::{Ballot, Durability, NodeId, PartitionId, Status, TableId};

const FIRST: TableId = TableId(1);

fn create(name: &str, partition_count: u32, if_not_exists: bool) -> Command {
    Command::CreateTable(CreateTable {
        name: name.to_owned(),
        partition_count,
        replica_count: 1,
        durability: Durability::Written,
        if_not_exists,
        live: [NodeId(1), NodeId(2)].into(),
    })
}

fn changed(table: TableId) -> Outcome {
    Outcome::TableChanged { table, changed: true }
}

fn unchanged(table: TableId) -> Outcome {
    Outcome::TableChanged { table, changed: false }
}

fn no_such(name: &str) -> Refusal {
    Refusal::NoSuchTable { name: name.to_owned(), dropped: None }
}

/// What is said of a table dropped by `cluster::drop_table`.
fn dropped(name: &str, table: TableId) -> Refusal {
    let dropped = DroppedTable { table, dropped_seconds: 1000, purge_seconds: 1100 };
    Refusal::NoSuchTable { name: name.to_owned(), dropped: Some(dropped) }
}

/// Two nodes and a table `t` of two partitions.
fn with_table() -> Cluster {
    let mut cluster = Cluster::new(2);
    cluster.run(create("t", 2, false));
    cluster
}

#[test]
fn a_dropped_table_is_held_without_its_name() {
    let mut cluster = with_table();
    let (revision, configurations) = (cluster.state.revision(), cluster.state.tables()[&FIRST].partitions.clone());
    assert_eq!(cluster.run(drop_table("t", false)), changed(FIRST));
    let table = &cluster.state.tables()[&FIRST];
    assert_eq!(table.state, TableState::Dropped { dropped_seconds: 1000, purge_seconds: 1100 });
    assert_eq!((&table.partitions, cluster.state.revision()), (&configurations, revision + 1));
    assert!(cluster.state.table_named("t").is_none());

    let refused = cluster.refused(drop_table("t", false));
    assert_eq!((refused.status(), refused.clone()), (Status::NoSuchTable, dropped("t", FIRST)));
    let expected = "table \"t\" was dropped at 1970-01-01 00:16:40 UTC; its rows are held until 1970-01-01 00:18:20 \
                    UTC: recall table number 1 to have them back";
    assert_eq!(refused.to_string(), expected);
    assert_eq!(cluster.state.find_table("t").unwrap_err(), refused);
    assert_eq!(cluster.run(drop_table("t", true)), Outcome::NothingToDrop);
    assert_eq!(cluster.run(drop_table("nope", true)), Outcome::NothingToDrop);
    let refused = cluster.refused(drop_table("nope", false));
    assert_eq!((refused.to_string().as_str(), refused), ("there is no table named \"nope\"", no_such("nope")));
}

#[test]
fn the_name_of_a_dropped_table_is_free_for_another_table() {
    let mut cluster = with_table();
    cluster.drop_table("t");
    let other = TableId(2);
    assert_eq!(cluster.run(create("t", 4, false)), Outcome::TableReady { table: other, created: true });
    assert_eq!(cluster.state.table_named("t").unwrap().properties.table, other);
    // Both bear it now, and a third one will; of several the one dropped last is named.
    let later = DropTable { name: "t".to_owned(), hold_seconds: 50, if_exists: false, now_seconds: 2000 };
    assert_eq!(cluster.run(Command::DropTable(later.clone())), changed(other));
    cluster.run(create("t", 1, false));
    cluster.run(Command::DropTable(DropTable { now_seconds: 1500, ..later }));
    let newest = DroppedTable { table: other, dropped_seconds: 2000, purge_seconds: 2050 };
    let refused = cluster.state.find_table("t").unwrap_err();
    assert_eq!(refused, Refusal::NoSuchTable { name: "t".to_owned(), dropped: Some(newest) });
    assert_eq!(cluster.state.dropped_count(), 3);
}

#[test]
fn holding_times_are_bounded() {
    let mut cluster = with_table();
    let drop = |hold_seconds, now_seconds| {
        Command::DropTable(DropTable { name: "t".to_owned(), hold_seconds, if_exists: true, now_seconds })
    };
    let refused = cluster.refused(drop(HOLD_SECONDS_MAX + 1, 0));
    assert_eq!(refused.status(), Status::InvalidArgument);
    assert!(refused.to_string().contains("at most 315360000 seconds (hold_seconds_max), got 315360001"), "{refused}");
    cluster.run(drop(HOLD_SECONDS_MAX, u64::MAX));
    let state = TableState::Dropped { dropped_seconds: u64::MAX, purge_seconds: u64::MAX };
    assert_eq!(cluster.state.tables()[&FIRST].state, state);
    assert!(cluster.refused(drop_table("t", false)).to_string().contains("held until"), "any moment can be shown");
}

#[test]
fn a_recalled_table_is_as_it_was() {
    let mut cluster = with_table();
    cluster.accept(PartitionId::new(1, 0), 1, &[1]);
    let before = cluster.state.tables().clone();
    cluster.drop_table("t");
    let revision = cluster.state.revision();
    assert_eq!(cluster.run(recall_table(FIRST, None)), changed(FIRST));
    assert_eq!((cluster.state.tables(), cluster.state.revision()), (&before, revision + 1));
    // A lost answer is asked for again.
    for name in [None, Some("t")] {
        let state = cluster.state.clone();
        assert_eq!(cluster.run(recall_table(FIRST, name)), unchanged(FIRST));
        assert_eq!(cluster.state, state);
    }
    let refused = cluster.refused(recall_table(FIRST, Some("u")));
    assert_eq!(refused, Refusal::NotDropped { table: FIRST, name: "t".to_owned() });
    assert_eq!(refused.status(), Status::NotDropped);
    assert_eq!(refused.to_string(), "table number 1 is not dropped: it serves under the name \"t\"");
}

#[test]
fn a_recall_never_takes_a_name_in_use() {
    let mut cluster = with_table();
    cluster.drop_table("t");
    cluster.run(create("t", 1, false));
    let in_use = Refusal::NameInUse { name: "t".to_owned(), table: TableId(2) };
    assert_eq!(cluster.refused(recall_table(FIRST, None)), in_use);
    assert_eq!(cluster.refused(recall_table(FIRST, Some("t"))), in_use);
    assert_eq!(in_use.status(), Status::TableExists);
    assert_eq!(in_use.to_string(), "the name \"t\" belongs to table number 2; choose another name");
    let refused = cluster.refused(recall_table(FIRST, Some("a b")));
    assert_eq!(refused.status(), Status::InvalidArgument);
    assert!(refused.to_string().contains("a table name has"), "{refused}");
    assert_eq!(cluster.run(recall_table(FIRST, Some("back"))), changed(FIRST));
    assert_eq!(cluster.state.table_named("back").unwrap().properties.partition_count, 2);
    assert_eq!(cluster.run(recall_table(FIRST, Some("back"))), unchanged(FIRST));
    // Somebody else's dropped table of the same name is no obstacle.
    cluster.drop_table("t");
    cluster.drop_table("back");
    assert_eq!(cluster.run(recall_table(FIRST, Some("t"))), changed(FIRST));
}

#[test]
fn what_is_gone_or_never_was_cannot_be_recalled() {
    let mut cluster = with_table();
    cluster.drop_table("t");
    cluster.purge(FIRST);
    let refused = cluster.refused(recall_table(FIRST, None));
    assert_eq!((refused.status(), refused.clone()), (Status::NotDropped, Refusal::Purged(FIRST)));
    assert_eq!(refused.to_string(), "table number 1 was purged: its rows are gone");
    for number in [0, 2, u32::MAX] {
        let refused = cluster.refused(recall_table(TableId(number), None));
        assert_eq!((refused.status(), &refused), (Status::NotDropped, &Refusal::NeverMade(TableId(number))));
        assert_eq!(refused.to_string(), format!("there never was a table number {number}"));
        assert_eq!(cluster.refused(purge_table(TableId(number), None)), refused);
    }
}

#[test]
fn a_renamed_table_keeps_everything_but_its_name() {
    let mut cluster = with_table();
    let (before, revision) = (cluster.state.tables()[&FIRST].clone(), cluster.state.revision());
    assert_eq!(cluster.run(rename_table("t", "u")), changed(FIRST));
    let after = &cluster.state.tables()[&FIRST];
    assert_eq!((after.properties.name.as_str(), &after.partitions), ("u", &before.partitions));
    assert_eq!((cluster.state.revision(), after.renamed_from.as_deref()), (revision + 1, Some("t")));
    assert_eq!(cluster.state.find_table("t").unwrap_err(), no_such("t"));

    // A lost answer is asked for again; so is a name that it has already.
    for (name, new_name) in [("t", "u"), ("u", "u")] {
        let state = cluster.state.clone();
        assert_eq!(cluster.run(rename_table(name, new_name)), unchanged(FIRST));
        assert_eq!(cluster.state, state);
    }
    // Only for the very change: from there to here.
    assert_eq!(cluster.refused(rename_table("t", "v")), no_such("t"));
    assert_eq!(cluster.refused(rename_table("x", "u")), no_such("x"));
    cluster.run(rename_table("u", "v"));
    assert_eq!(cluster.refused(rename_table("t", "v")), no_such("t"));
}

#[test]
fn a_rename_never_takes_a_name_in_use() {
    let mut cluster = with_table();
    cluster.run(create("u", 1, false));
    let in_use = |name: &str, table| Refusal::NameInUse { name: name.to_owned(), table: TableId(table) };
    assert_eq!(cluster.refused(rename_table("t", "u")), in_use("u", 2));
    let refused = cluster.refused(rename_table("t", "a/b"));
    assert_eq!(refused.status(), Status::InvalidArgument);
    // Two tables change names: the retry of the first step is not taken for done once the name is taken again.
    cluster.run(rename_table("t", "old"));
    cluster.run(rename_table("u", "t"));
    assert_eq!(cluster.refused(rename_table("t", "old")), in_use("old", 1));
    cluster.drop_table("t");
    assert_eq!(
        cluster.refused(rename_table("t", "old")),
        dropped("t", TableId(2)),
        "another table had that name since"
    );
    // The name of a dropped table may be given.
    assert_eq!(cluster.run(rename_table("old", "t")), changed(FIRST));
}

#[test]
fn a_new_table_or_a_recall_ends_what_a_rename_remembers() {
    for recall in [false, true] {
        let mut cluster = with_table();
        cluster.run(create("u", 1, false));
        cluster.drop_table("u");
        cluster.run(rename_table("t", "v"));
        match recall {
            true => cluster.run(recall_table(TableId(2), Some("t"))),
            false => cluster.run(create("t", 1, false)),
        };
        assert_eq!(cluster.state.tables()[&FIRST].renamed_from, None);
    }
    let mut cluster = with_table();
    cluster.run(rename_table("t", "u"));
    cluster.drop_table("u");
    assert_eq!(cluster.refused(rename_table("t", "u")), no_such("t"), "it does not serve");
    cluster.recall(FIRST);
    assert_eq!(cluster.run(rename_table("t", "u")), unchanged(FIRST));
    cluster.drop_table("u");
    cluster.run(recall_table(FIRST, Some("w")));
    assert_eq!(cluster.refused(rename_table("t", "w")), no_such("t"), "a recall gave it this name");
}

#[test]
fn a_purged_table_is_gone_and_its_number_used() {
    let mut cluster = with_table();
    let refused = cluster.refused(purge_table(FIRST, None));
    assert_eq!(refused, Refusal::NotDropped { table: FIRST, name: "t".to_owned() });
    cluster.drop_table("t");
    let revision = cluster.state.revision();
    assert_eq!(cluster.run(purge_table(FIRST, None)), Outcome::TablePurged { table: FIRST, changed: true });
    assert_eq!((cluster.state.tables().len(), cluster.state.revision()), (0, revision + 1));
    assert!(cluster.state.is_purged(FIRST));
    assert!(![0, 2, u32::MAX].into_iter().any(|number| cluster.state.is_purged(TableId(number))));
    assert_eq!(cluster.run(purge_table(FIRST, None)), Outcome::TablePurged { table: FIRST, changed: false });
    assert_eq!(cluster.run(purge_table(FIRST, Some(0))), Outcome::TablePurged { table: FIRST, changed: false });
    assert_eq!(cluster.state.find_table("t").unwrap_err(), no_such("t"));
    assert_eq!(cluster.run(create("t", 2, false)), Outcome::TableReady { table: TableId(2), created: true });
    let partition = PartitionId::new(1, 0);
    let proposal = pegasus_meta::core::Propose {
        partition,
        proposer: NodeId(1),
        expected_ballot: Ballot(1),
        configuration: cluster::configuration(2, &[1]),
    };
    assert_eq!(cluster.refused(Command::Propose(proposal)), Refusal::NoSuchPartition(partition));
}

#[test]
fn time_purges_only_what_is_due() {
    let mut cluster = with_table();
    assert_eq!(cluster.state.next_purge(), None);
    cluster.run(create("u", 1, false));
    cluster.drop_table("t");
    let later = DropTable { name: "u".to_owned(), hold_seconds: 10, if_exists: false, now_seconds: 1089 };
    cluster.run(Command::DropTable(later));
    assert_eq!(cluster.state.next_purge(), Some((1099, TableId(2))));
    let refused = cluster.refused(purge_table(FIRST, Some(1099)));
    assert_eq!(refused, Refusal::StillHeld { table: FIRST, purge_seconds: 1100 });
    assert_eq!(refused.to_string(), "table number 1 is held until 1970-01-01 00:18:20 UTC");
    assert_eq!(cluster.run(purge_table(TableId(2), Some(1099))).clone(), {
        Outcome::TablePurged { table: TableId(2), changed: true }
    });
    assert_eq!(cluster.state.next_purge(), Some((1100, FIRST)));
    // Recalled, and dropped again, since the host looked: the new time counts.
    cluster.recall(FIRST);
    let refused = cluster.refused(purge_table(FIRST, Some(u64::MAX)));
    assert_eq!(refused, Refusal::NotDropped { table: FIRST, name: "t".to_owned() });
    let again = DropTable { name: "t".to_owned(), hold_seconds: 500, if_exists: false, now_seconds: 1090 };
    cluster.run(Command::DropTable(again));
    assert_eq!(
        cluster.refused(purge_table(FIRST, Some(1100))),
        Refusal::StillHeld { table: FIRST, purge_seconds: 1590 }
    );
    assert_eq!(cluster.run(purge_table(FIRST, Some(1590))), Outcome::TablePurged { table: FIRST, changed: true });
}

#[test]
fn dropped_tables_count_for_the_limits_until_they_are_purged() {
    let mut cluster = Cluster::new(2);
    for number in 0..4 {
        cluster.run(create(&format!("t{number}"), PARTITIONS_MAX / 4, false));
    }
    cluster.drop_table("t1");
    let refused = cluster.refused(create("t1", 1, false));
    let dropped = PARTITIONS_MAX / 4;
    assert_eq!(refused, Refusal::TooManyPartitions { wanted: 1, existing: PARTITIONS_MAX, dropped });
    assert!(refused.to_string().contains("4096 of them belong to dropped tables"), "{refused}");
    cluster.recall(TableId(2));
    cluster.drop_table("t1");
    cluster.purge(TableId(2));
    cluster.run(create("t1", PARTITIONS_MAX / 4, false));

    let mut cluster = Cluster::new(2);
    for number in 0..TABLES_MAX {
        cluster.run(create(&format!("t{number}"), 1, false));
    }
    cluster.drop_table("t7");
    cluster.drop_table("t8");
    let refused = cluster.refused(create("more", 1, false));
    assert_eq!((refused.status(), refused.clone()), (Status::TooLarge, Refusal::TooManyTables { dropped: 2 }));
    assert!(refused.to_string().contains("2 of them are dropped and held"), "{refused}");
    cluster.purge(TableId(9));
    let made = Outcome::TableReady { table: TableId(TABLES_MAX as u32 + 1), created: true };
    assert_eq!(cluster.run(create("more", 1, false)), made);
}

#[test]
fn if_not_exists_looks_at_tables_that_serve() {
    let mut cluster = with_table();
    assert_eq!(cluster.run(create("t", 2, true)), Outcome::TableReady { table: FIRST, created: false });
    cluster.drop_table("t");
    assert_eq!(cluster.run(create("t", 2, true)), Outcome::TableReady { table: TableId(2), created: true });
}

#[test]
fn copies_of_purged_tables_are_no_sign_of_lost_state() {
    let mut cluster = with_table();
    let (held, other) = (PartitionId::new(1, 0), PartitionId::new(2, 0));
    cluster.drop_table("t");
    cluster.purge(FIRST);
    // It was away, under whatever ballot; it may report copies that it holds, and some that it misses.
    cluster.report(1, &[(held, 9, Whole, 4), (PartitionId::new(1, 1), 0, Missing, 0)]);
    assert_eq!(cluster.state.report(NodeId(1), held).unwrap().ballot, Ballot(9));
    // A table that this service never made is another matter.
    let command = Command::RegisterNode(cluster::registration(1, &[(other, 1, Whole, 4)]));
    let lost = Refusal::NewerBallot { partition: other, reported: Ballot(1), known: Ballot(0) };
    assert_eq!(cluster.refused(command.clone()), lost);
    cluster.run(create("u", 1, false));
    cluster.run(command);
}

#[test]
fn nodes_that_lost_their_address_are_forgotten_with_the_table() {
    let mut cluster = Cluster::new(3);
    cluster.create("t", 1, 1, [2]);
    cluster.create("u", 1, 1, [3]);
    cluster.displace(2, 12);
    cluster.displace(3, 13);
    assert!(cluster.state.nodes().contains_key(&NodeId(2)), "a member");
    cluster.drop_table("t");
    assert!(cluster.state.nodes().contains_key(&NodeId(2)), "a member still");
    cluster.purge(FIRST);
    assert!(!cluster.state.nodes().contains_key(&NodeId(2)));
    assert!(cluster.state.nodes().contains_key(&NodeId(3)), "a member of another table");
}

#[test]
fn answers_tell_dropped_tables_apart() {
    let mut cluster = with_table();
    cluster.create("u", 4, 1, [1]);
    cluster.drop_table("t");
    let state = &cluster.state;
    let listed: Vec<_> = query::table_list(state).tables;
    assert_eq!(listed.iter().map(|table| table.properties.name.as_str()).collect::<Vec<_>>(), ["t", "u"]);
    assert_eq!(listed[0].state, TableState::Dropped { dropped_seconds: 1000, purge_seconds: 1100 });
    assert_eq!(listed[1].state, TableState::Available);

    let shown = query::cluster_reply(state, vec![], &alive(1..=2)).unwrap();
    assert_eq!(shown.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["u"]);
    assert_eq!(shown.nodes.iter().map(|node| node.primaries).collect::<Vec<_>>(), [4, 0]);
    // Its members go on holding it, and are told what has become of it.
    let tasks = pegasus_meta::core::Tasks::default();
    let assigned = query::assignments(state, NodeId(2), &alive(1..=2), &tasks);
    assert_eq!((assigned.tables.as_slice(), assigned.partitions.len()), (&listed[..1], 1));
}

#[test]
fn a_dropped_table_s_members_stay_members() {
    let (mut cluster, partition) = Cluster::with_partition(4, 3);
    cluster.drop_table("t");
    cluster.accept(partition, 1, &[1, 2]);
    cluster.accept(partition, 2, &[2]);
    cluster.recall(FIRST);
    assert_eq!(cluster.members(partition), [2]);
    assert_eq!(cluster.former(partition), [(3, 2), (1, 3)]);
}

#[test]
fn nothing_of_this_works_before_the_cluster_is_founded() {
    let mut state = State::default();
    assert_eq!(apply(&mut state, drop_table("t", false)), Outcome::Refused(no_such("t")));
    assert_eq!(apply(&mut state, recall_table(FIRST, None)), Outcome::Refused(Refusal::NeverMade(FIRST)));
    assert_eq!(state, State::default());
}
