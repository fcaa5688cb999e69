//! The life of a table over real QUIC: every message, the watches of nodes, the passing of time, restarts.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{Caller, PATIENCE, Place, call, explanation, registration, table};
use pegasus_meta::core::State;
use pegasus_meta::host::{Clock, Config, Server};
use pegasus_rpc::Role;
use pegasus_wire::messages::control::{
    Assignments, ChangeEnvironment, DiagnosePartitions, DropTable, EnvironmentEntry, ListTables, PurgeTable,
    QueryTable, RecallTable, Removal, RenameTable, ReplicaReport, ReplicaState, TableDescription, TableList,
    TableReply, TableState,
};
use pegasus_wire::{Ballot, Decree, Durability, Frame, PartitionId, Status, TableId};
use tokio::sync::watch;

/// A server whose time of day is told, one node, and an operator.
struct Tables {
    place: Place,
    server: Server,
    time: watch::Sender<u64>,
    node: Caller,
    operator: Caller,
}

const NOW: u64 = 1_000_000;
const WEEK: u64 = 604_800;

async fn start(place: &Place, config: &Config, now: u64) -> (Server, watch::Sender<u64>, Caller, Caller) {
    let (time, told) = watch::channel(now);
    let server = Server::start_at(config, Clock::Given(told)).await.unwrap();
    let node = place.caller(Role::Replica, server.address()).await;
    let operator = place.caller(Role::Client, server.address()).await;
    node.register(1, 5001).await;
    (server, time, node, operator)
}

impl Tables {
    async fn start() -> Tables {
        let place = Place::new();
        let (server, time, node, operator) = start(&place, &place.config(), NOW).await;
        Tables { place, server, time, node, operator }
    }

    /// Stops the server and starts it again at another time.
    async fn restart(self, now: u64) -> Tables {
        let Tables { place, server, node, operator, .. } = self;
        drop((node, operator));
        server.shutdown().await;
        let (server, time, node, operator) = start(&place, &place.config(), now).await;
        Tables { place, server, time, node, operator }
    }

    async fn create(&self, name: &str) -> TableReply {
        reply(&call!(self.operator, CREATE_TABLE, table(name, 1)))
    }

    async fn drop_table(&self, name: &str, hold_seconds: Option<u64>, if_exists: bool) -> Frame {
        call!(self.operator, DROP_TABLE, DropTable { name: name.to_owned(), hold_seconds, if_exists })
    }

    async fn recall(&self, number: u32, name: Option<&str>) -> Frame {
        call!(self.operator, RECALL_TABLE, RecallTable { table: TableId(number), name: name.map(str::to_owned) })
    }

    async fn rename(&self, name: &str, new_name: &str) -> Frame {
        let message = RenameTable { name: name.to_owned(), new_name: new_name.to_owned() };
        call!(self.operator, RENAME_TABLE, message)
    }

    async fn purge(&self, number: u32) -> Frame {
        call!(self.operator, PURGE_TABLE, PurgeTable { table: TableId(number) })
    }

    async fn change(&self, name: &str, delete: &[&str], set: &[(&str, &str)]) -> Frame {
        let delete = delete.iter().map(|&key| key.to_owned()).collect();
        let message = ChangeEnvironment { name: name.to_owned(), clear: false, delete, set: entries(set) };
        call!(self.operator, CHANGE_ENVIRONMENT, message)
    }

    async fn query(&self, name: &str) -> Frame {
        call!(self.operator, QUERY_TABLE, QueryTable { name: name.to_owned() })
    }

    async fn list(&self) -> Vec<TableDescription> {
        call!(self.operator, LIST_TABLES, ListTables).decode::<TableList>().unwrap().tables
    }

    /// Number and name of every table, and whether it serves.
    async fn listed(&self) -> Vec<(u32, String, bool)> {
        let shown = |table: TableDescription| {
            (table.properties.table.0, table.properties.name, table.state == TableState::Available)
        };
        self.list().await.into_iter().map(shown).collect()
    }

    /// Waits until the state is like that.
    async fn until(&self, holds: impl Fn(&State) -> bool) {
        let group = &self.server.service().group;
        let mut changes = group.watch_changes();
        let reached = async {
            while !group.read(&holds) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }

    /// A watch of the node that must be answered because of what is done meanwhile.
    async fn woken_by(&self, seen: u64, change: impl Future<Output = Frame>) -> Assignments {
        let waiting = self.node.watch(1, seen, 10_000);
        let changing = async {
            let service = self.server.service();
            while service.liveness.pending_watches() != 1 {
                tokio::task::yield_now().await;
            }
            change.await
        };
        let begin = std::time::Instant::now();
        let (woken, changed) = tokio::join!(waiting, changing);
        assert_eq!(changed.header.status, Status::Ok, "{:?}", changed.error());
        assert!(woken.revision != seen && begin.elapsed().as_secs() < 5);
        woken
    }
}

fn entries(pairs: &[(&str, &str)]) -> Vec<EnvironmentEntry> {
    pairs.iter().map(|&(key, value)| EnvironmentEntry { key: key.to_owned(), value: value.to_owned() }).collect()
}

fn reply(frame: &Frame) -> TableReply {
    assert_eq!(frame.header.status, Status::Ok, "{:?}", frame.error());
    frame.decode().unwrap()
}

/// An answer that is only its status.
fn is_empty(frame: &Frame) -> bool {
    frame.header.status == Status::Ok && frame.decode::<TableReply>().is_err()
}

fn refused(frame: &Frame, status: Status, says: &str) {
    assert_eq!(frame.header.status, status, "{:?}", frame.error());
    assert!(explanation(frame).contains(says), "{}", explanation(frame));
}

fn described(assignments: &Assignments) -> (&str, TableState) {
    (&assignments.tables[0].properties.name, assignments.tables[0].state)
}

#[tokio::test]
async fn a_table_is_dropped_and_recalled() {
    let tables = Tables::start().await;
    let created = tables.create("t").await;
    let dropped = tables.drop_table("t", None, false).await;
    assert_eq!(reply(&dropped), created, "the answer shows what was dropped");
    let says = "table \"t\" was dropped at 1970-01-12 13:46:40 UTC; its rows are held until 1970-01-19 13:46:40 UTC: \
                recall table number 1";
    refused(&tables.query("t").await, Status::NoSuchTable, says);
    refused(&tables.drop_table("t", None, false).await, Status::NoSuchTable, says);
    refused(&tables.rename("t", "u").await, Status::NoSuchTable, says);
    refused(&tables.change("t", &[], &[]).await, Status::NoSuchTable, says);
    let diagnosis = call!(tables.operator, DIAGNOSE_PARTITIONS, DiagnosePartitions { table: Some("t".to_owned()) });
    refused(&diagnosis, Status::NoSuchTable, says);
    assert!(is_empty(&tables.drop_table("t", None, true).await));
    assert!(is_empty(&tables.drop_table("nope", Some(5), true).await));
    refused(&tables.drop_table("nope", None, false).await, Status::NoSuchTable, "there is no table named \"nope\"");
    let state = TableState::Dropped { dropped_seconds: NOW, purge_seconds: NOW + WEEK };
    let properties = created.table.clone();
    assert_eq!(tables.list().await, [TableDescription { properties, environment: vec![], state }]);
    assert!(tables.operator.cluster().await.tables.is_empty());

    // The name is free; the rows of the dropped one are another table's.
    assert_eq!(tables.create("t").await.table.table, TableId(2));
    refused(&tables.recall(1, None).await, Status::TableExists, "the name \"t\" belongs to table number 2");
    let recalled = reply(&tables.recall(1, Some("back")).await);
    assert_eq!((recalled.table.table, recalled.table.name.as_str()), (TableId(1), "back"));
    assert_eq!(recalled.partitions, created.partitions);
    assert_eq!(reply(&tables.recall(1, Some("back")).await), recalled, "asked for again");
    assert_eq!(reply(&tables.query("back").await), recalled);
    refused(&tables.recall(1, Some("else")).await, Status::NotDropped, "it serves under the name \"back\"");
    refused(&tables.recall(9, None).await, Status::NotDropped, "there never was a table number 9");
    tables.server.shutdown().await;
}

#[tokio::test]
async fn a_table_is_renamed() {
    let tables = Tables::start().await;
    let created = tables.create("t").await;
    tables.create("other").await;
    let renamed = reply(&tables.rename("t", "u").await);
    assert_eq!((renamed.table.table, renamed.table.name.as_str()), (created.table.table, "u"));
    assert_eq!(reply(&tables.rename("t", "u").await), renamed, "asked for again");
    assert_eq!(reply(&tables.query("u").await), renamed);
    refused(&tables.query("t").await, Status::NoSuchTable, "no table named \"t\"");
    refused(&tables.rename("u", "other").await, Status::TableExists, "belongs to table number 2");
    refused(&tables.rename("u", "no name").await, Status::InvalidArgument, "a table name has");
    refused(&tables.rename("nope", "x").await, Status::NoSuchTable, "no table named \"nope\"");
    tables.server.shutdown().await;
}

#[tokio::test]
async fn a_table_is_purged_by_an_operator() {
    let tables = Tables::start().await;
    tables.create("t").await;
    refused(&tables.purge(1).await, Status::NotDropped, "it serves under the name \"t\"");
    refused(&tables.purge(2).await, Status::NotDropped, "there never was a table number 2");
    reply(&tables.drop_table("t", None, false).await);
    assert!(is_empty(&tables.purge(1).await));
    assert!(is_empty(&tables.purge(1).await), "asked for again");
    assert_eq!(tables.list().await, []);
    refused(&tables.query("t").await, Status::NoSuchTable, "there is no table named \"t\"");
    refused(&tables.recall(1, None).await, Status::NotDropped, "table number 1 was purged: its rows are gone");
    assert_eq!(tables.create("t").await.table.table, TableId(2), "numbers are never used again");
    tables.server.shutdown().await;
}

#[tokio::test]
async fn an_environment_is_set_and_seen_everywhere() {
    let tables = Tables::start().await;
    assert_eq!(tables.create("t").await.environment, []);
    let set = [("default_ttl", "60"), ("durability", "written")];
    let changed = reply(&tables.change("t", &[], &set).await);
    assert_eq!((changed.environment.as_slice(), changed.table.durability), (&*entries(&set), Durability::Synced));
    assert_eq!(reply(&tables.query("t").await), changed);
    assert_eq!(tables.list().await[0].environment, changed.environment);
    let watched = tables.node.watch(1, 0, 0).await;
    assert_eq!((&watched.tables[0].properties, &watched.tables[0].environment), (&changed.table, &changed.environment));

    refused(&tables.change("t", &[], &[("default_ttl", "x")]).await, Status::InvalidArgument, "default_ttl cannot be");
    let says = "there is no setting \"no.such\"; the settings are business.info, default_ttl";
    refused(&tables.change("t", &["durability"], &[("no.such", "1")]).await, Status::InvalidArgument, says);
    assert_eq!(reply(&tables.query("t").await), changed, "all or nothing");
    let same = tables.node.watch(1, watched.revision, 0).await;
    reply(&tables.change("t", &["no.such"], &set[..1]).await);
    assert_eq!(tables.node.watch(1, watched.revision, 0).await.revision, same.revision, "nothing changed");
    assert_eq!(reply(&tables.change("t", &["durability"], &[]).await).environment, entries(&set[..1]));
    tables.server.shutdown().await;
}

#[tokio::test]
async fn watches_wake_with_every_change_of_a_table() {
    let tables = Tables::start().await;
    let seen = tables.node.watch(1, 0, 0).await.revision;
    let woken = tables.woken_by(seen, async { call!(tables.operator, CREATE_TABLE, table("t", 1)) }).await;
    assert_eq!(described(&woken), ("t", TableState::Available));
    let woken = tables.woken_by(woken.revision, tables.change("t", &[], &[("default_ttl", "9")])).await;
    assert_eq!(woken.tables[0].environment, entries(&[("default_ttl", "9")]));
    let woken = tables.woken_by(woken.revision, tables.rename("t", "u")).await;
    assert_eq!(described(&woken), ("u", TableState::Available));
    let woken = tables.woken_by(woken.revision, tables.drop_table("u", Some(5), false)).await;
    let state = TableState::Dropped { dropped_seconds: NOW, purge_seconds: NOW + 5 };
    assert_eq!((described(&woken), woken.partitions.len()), (("u", state), 4), "the copies are kept");
    let woken = tables.woken_by(woken.revision, tables.recall(1, Some("v"))).await;
    assert_eq!(described(&woken), ("v", TableState::Available));

    // After the purge every copy that was reported goes, and only then.
    let copy = |index| ReplicaReport {
        partition: PartitionId::new(1, index),
        ballot: Ballot(1),
        state: ReplicaState::Whole,
        last: Decree(7),
    };
    tables.node.register_with(1, 5001, &[copy(0), copy(3)]).await;
    let dropped = tables.woken_by(woken.revision, tables.drop_table("v", None, false)).await;
    assert_eq!(dropped.removals, []);
    let purged = tables.woken_by(dropped.revision, tables.purge(1)).await;
    assert_eq!((purged.tables.len(), purged.partitions.len()), (0, 0));
    let gone = |index| Removal { partition: PartitionId::new(1, index), ballot: Ballot(u64::MAX) };
    assert_eq!(purged.removals, [gone(0), gone(3)]);
    tables.node.register_with(1, 5001, &[copy(3)]).await;
    assert_eq!(tables.node.watch(1, purged.revision, 10_000).await.removals, [gone(3)]);
    tables.node.register_with(1, 5001, &[]).await;
    assert_eq!(tables.node.watch(1, 0, 0).await.removals, []);

    // A node that was away all the time is not refused, whatever ballot it has seen; one from another world is.
    let late = ReplicaReport { ballot: Ballot(12), ..copy(1) };
    tables.node.register_with(1, 5001, &[late]).await;
    assert_eq!(tables.node.watch(1, 0, 0).await.removals, [gone(1)]);
    let mut stranger = registration(1, 5001);
    stranger.replicas.push(ReplicaReport { partition: PartitionId::new(2, 0), ..late });
    refused(&call!(tables.node, REGISTER_NODE, stranger), Status::Internal, "lost state");
    tables.server.shutdown().await;
}

#[tokio::test]
async fn time_purges_what_is_due_and_nothing_else() {
    let tables = Tables::start().await;
    for name in ["first", "second", "third", "kept"] {
        tables.create(name).await;
    }
    reply(&tables.drop_table("first", None, false).await);
    reply(&tables.drop_table("second", Some(100), false).await);
    reply(&tables.drop_table("third", Some(100), false).await);
    tables.time.send_replace(NOW + 99);
    assert_eq!(tables.list().await.len(), 4);
    // What is recalled in time stays, also when it is dropped anew.
    reply(&tables.recall(3, None).await);
    reply(&tables.drop_table("third", Some(50), false).await);
    tables.time.send_replace(NOW + 100);
    tables.until(|state| state.is_purged(TableId(2))).await;
    let left = [(1, "first".to_owned(), false), (3, "third".to_owned(), false), (4, "kept".to_owned(), true)];
    assert_eq!(tables.listed().await, left);
    refused(&tables.recall(2, None).await, Status::NotDropped, "was purged");
    // A recall, and a week in which nothing else is due but the other two.
    reply(&tables.recall(3, Some("back")).await);
    tables.time.send_replace(NOW + 10 * WEEK);
    tables.until(|state| state.is_purged(TableId(1))).await;
    assert_eq!(tables.listed().await, [(3, "back".to_owned(), true), (4, "kept".to_owned(), true)]);
    // No holding time at all.
    assert_eq!(reply(&tables.drop_table("back", Some(0), false).await).table.name, "back");
    tables.until(|state| state.is_purged(TableId(3))).await;
    tables.server.shutdown().await;
}

#[tokio::test]
async fn holding_times_outlast_a_restart() {
    let tables = Tables::start().await;
    for name in ["soon", "late", "renamed"] {
        tables.create(name).await;
    }
    reply(&tables.drop_table("soon", Some(1000), false).await);
    reply(&tables.drop_table("late", Some(5000), false).await);
    reply(&tables.change("renamed", &[], &[("default_ttl", "60")]).await);
    reply(&tables.rename("renamed", "new").await);
    let before = tables.list().await;
    let tables = tables.restart(NOW + 999).await;
    assert_eq!(tables.list().await, before);
    // Its time comes while the server is down.
    let tables = tables.restart(NOW + 1001).await;
    tables.until(|state| state.is_purged(TableId(1))).await;
    assert_eq!(tables.list().await, before[1..]);
    // And after all that a recall brings back what was dropped, and a name asked for again is known.
    assert_eq!(reply(&tables.recall(2, None).await).table.name, "late");
    assert_eq!(reply(&tables.rename("renamed", "new").await).environment, entries(&[("default_ttl", "60")]));
    tables.server.shutdown().await;
}

#[tokio::test]
async fn the_configuration_says_how_long_tables_are_held() {
    let place = Place::new();
    let config = Config { dropped_table_hold_seconds: 30, ..place.config() };
    let (server, time, node, operator) = start(&place, &config, NOW).await;
    let tables = Tables { place, server, time, node, operator };
    tables.create("t").await;
    reply(&tables.drop_table("t", None, false).await);
    assert_eq!(tables.list().await[0].state, TableState::Dropped { dropped_seconds: NOW, purge_seconds: NOW + 30 });
    refused(&tables.drop_table("t", Some(u64::MAX), true).await, Status::InvalidArgument, "hold_seconds_max");

    let metrics = tables.server.service().metrics.render(tables.server.service().gauges());
    for line in ["pegasus_meta_tables 0", "pegasus_meta_dropped_tables 1", "pegasus_meta_partitions 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    tables.server.shutdown().await;
}
