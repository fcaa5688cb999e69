//! What the meta servers know: tables and their lives, decided as the real ones do.

use std::sync::Arc;

use pegasus_wire::messages::control::{
    ChangeEnvironment, ClusterReply, CreateTable, DiagnosePartitions, Diagnosis, DropTable, EnvironmentEntry,
    ForceConfiguration, PartitionDiagnosis, ProposalReply, PurgeTable, QueryTable, RecallTable, RenameTable,
    TableDescription, TableList, TableReply, TableState,
};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Environment, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, NodeInfo,
    PartitionId, Status, TableId, TableProperties,
};

use super::store::{Store, refuse};

/// All meta servers share it.
pub struct MetaState {
    pub tables: Vec<(TableReply, TableState)>,
    /// The nodes hear of drops and recalls at once.
    pub nodes_hear: bool,
    store: Arc<Store>,
    last_table: u32,
}

type Answer<T> = Result<T, (Status, String)>;

impl MetaState {
    /// With one table, temp.
    pub fn new(partition_count: u32, nodes: Vec<NodeInfo>, store: Arc<Store>) -> MetaState {
        let properties = TableProperties {
            table: TableId(1),
            name: "temp".into(),
            partition_count,
            replica_count: 2,
            durability: pegasus_wire::Durability::Synced,
        };
        let temp = reply_of(properties, nodes);
        MetaState { tables: vec![(temp, TableState::Available)], nodes_hear: true, store, last_table: 1 }
    }

    /// The table that every test has.
    pub fn temp(&mut self) -> &mut TableReply {
        &mut self.tables[0].0
    }

    /// Makes the node with this number the primary of all partitions.
    pub fn appoint(&mut self, node: u64) {
        for configuration in self.tables.iter_mut().flat_map(|(table, _)| &mut table.partitions) {
            configuration.ballot = configuration.ballot.next();
            configuration.primary = Some(NodeId(node));
        }
    }

    pub fn answer(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
        let reply = match frame.header.kind {
            MessageKind::DIAGNOSE_PARTITIONS => {
                return FrameBuilder::append(out, header, &self.diagnose(&frame.decode().unwrap()), &[]);
            }
            MessageKind::FORCE_CONFIGURATION => {
                let (status, reply) = self.force(&frame.decode().unwrap());
                return FrameBuilder::append(out, FrameHeader { status, ..header }, &reply, &[]);
            }
            MessageKind::QUERY_CLUSTER => {
                let reply =
                    ClusterReply { cluster: ClusterId(1), meta_addresses: vec![], nodes: vec![], tables: vec![] };
                return FrameBuilder::append(out, header, &reply, &[]);
            }
            MessageKind::LIST_TABLES => return FrameBuilder::append(out, header, &self.list(), &[]),
            MessageKind::QUERY_TABLE => self.find(&frame.decode::<QueryTable>().unwrap().name).map(Some),
            MessageKind::CREATE_TABLE => self.create(frame.decode().unwrap()).map(Some),
            MessageKind::DROP_TABLE => self.drop_table(&frame.decode().unwrap()),
            MessageKind::RECALL_TABLE => self.recall(frame.decode().unwrap()).map(Some),
            MessageKind::RENAME_TABLE => self.rename(&frame.decode().unwrap()).map(Some),
            MessageKind::PURGE_TABLE => self.purge(frame.decode().unwrap()),
            MessageKind::CHANGE_ENVIRONMENT => self.change_environment(frame.decode().unwrap()).map(Some),
            other => panic!("a meta server was asked {other}"),
        };
        match reply {
            Ok(Some(index)) => FrameBuilder::append(out, header, &self.tables[index].0, &[]),
            Ok(None) => FrameBuilder::append_empty(out, header, &[]),
            Err((status, reason)) => refuse(header, status, &reason, out),
        }
    }

    fn list(&self) -> TableList {
        let describe = |(table, state): &(TableReply, TableState)| TableDescription {
            properties: table.table.clone(),
            environment: table.environment.clone(),
            state: *state,
        };
        TableList { tables: self.tables.iter().map(describe).collect() }
    }

    /// The place of a table that serves.
    fn find(&self, name: &str) -> Answer<usize> {
        let serves =
            |(table, state): &(TableReply, TableState)| table.table.name == name && *state == TableState::Available;
        let found = self.tables.iter().position(serves);
        found.ok_or_else(|| {
            let dropped = self.tables.iter().rev().find(|(table, _)| table.table.name == name);
            let reason = match dropped {
                Some((table, _)) => format!("table {name:?} was dropped; recall number {}", table.table.table),
                None => format!("there is no table {name:?}"),
            };
            (Status::NoSuchTable, reason)
        })
    }

    fn free(&self, name: &str) -> Answer<()> {
        match self.find(name) {
            Ok(_) => Err((Status::TableExists, format!("there is a table {name:?}"))),
            Err(_) => Ok(()),
        }
    }

    fn create(&mut self, asked: CreateTable) -> Answer<usize> {
        let CreateTable { name, partition_count, replica_count, durability, if_not_exists } = asked;
        if let Ok(index) = self.find(&name) {
            let known = &self.tables[index].0.table;
            let same = (known.partition_count, known.replica_count) == (partition_count, replica_count);
            return if if_not_exists && same { Ok(index) } else { self.free(&name).map(|()| index) };
        }
        self.last_table += 1;
        let table = TableId(self.last_table);
        let nodes = self.tables[0].0.nodes.clone();
        let properties = TableProperties { table, name, partition_count, replica_count, durability };
        self.tables.push((reply_of(properties, nodes), TableState::Available));
        Ok(self.tables.len() - 1)
    }

    fn drop_table(&mut self, asked: &DropTable) -> Answer<Option<usize>> {
        let index = match self.find(&asked.name) {
            Err(_) if asked.if_exists => return Ok(None),
            found => found?,
        };
        let purge_seconds = 1000 + asked.hold_seconds.unwrap_or(500);
        self.tables[index].1 = TableState::Dropped { dropped_seconds: 1000, purge_seconds };
        if self.nodes_hear {
            self.store.set_dropped(self.tables[index].0.table.table, true);
        }
        Ok(Some(index))
    }

    fn recall(&mut self, asked: RecallTable) -> Answer<usize> {
        let dropped = |(table, state): &(TableReply, TableState)| {
            table.table.table == asked.table && *state != TableState::Available
        };
        let index = self.tables.iter().position(dropped).ok_or_else(|| not_dropped(asked.table))?;
        let name = asked.name.unwrap_or_else(|| self.tables[index].0.table.name.clone());
        self.free(&name)?;
        self.tables[index].0.table.name = name;
        self.tables[index].1 = TableState::Available;
        if self.nodes_hear {
            self.store.set_dropped(asked.table, false);
        }
        Ok(index)
    }

    fn rename(&mut self, asked: &RenameTable) -> Answer<usize> {
        let index = self.find(&asked.name)?;
        self.free(&asked.new_name)?;
        self.tables[index].0.table.name.clone_from(&asked.new_name);
        Ok(index)
    }

    fn purge(&mut self, asked: PurgeTable) -> Answer<Option<usize>> {
        let of_number = |(table, _): &(TableReply, TableState)| table.table.table == asked.table;
        match self.tables.iter().position(of_number) {
            Some(index) if self.tables[index].1 == TableState::Available => Err(not_dropped(asked.table)),
            Some(index) => {
                self.tables.remove(index);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn change_environment(&mut self, asked: ChangeEnvironment) -> Answer<usize> {
        let index = self.find(&asked.name)?;
        let mut wanted = if asked.clear { Vec::new() } else { self.tables[index].0.environment.clone() };
        let touched = |entry: &EnvironmentEntry| {
            asked.delete.contains(&entry.key) || asked.set.iter().any(|set| set.key == entry.key)
        };
        wanted.retain(|entry| !touched(entry));
        wanted.extend(asked.set.iter().cloned());
        Environment::parse(&wanted).map_err(|error| (Status::InvalidArgument, error.to_string()))?;
        wanted.sort();
        self.tables[index].0.environment = wanted;
        Ok(index)
    }

    /// Says that partition 0 is not whole.
    fn diagnose(&self, asked: &DiagnosePartitions) -> Diagnosis {
        let temp = &self.tables[0].0;
        let case = PartitionDiagnosis {
            partition: PartitionId { table: temp.table.table, index: 0 },
            table: asked.table.clone().unwrap_or_else(|| "all".into()),
            configuration: temp.partitions[0].clone(),
            replica_count: 2,
            unavailable: true,
            problems: vec!["it is a test".into()],
            waits_for: "nothing".into(),
        };
        Diagnosis { examined: temp.table.partition_count, partitions: vec![case] }
    }

    fn force(&mut self, asked: &ForceConfiguration) -> (Status, ProposalReply) {
        let in_force = &mut self.tables[0].0.partitions[asked.partition.index as usize];
        let ballot = asked.expected_ballot.next();
        let wanted = Configuration { ballot, primary: Some(asked.primary), secondaries: vec![] };
        let allowed = asked.accept_loss && asked.expected_ballot == in_force.ballot;
        if allowed {
            *in_force = wanted.clone();
        }
        let status = if *in_force == wanted { Status::Ok } else { Status::BallotConflict };
        (status, ProposalReply { configuration: in_force.clone() })
    }
}

fn not_dropped(table: TableId) -> (Status, String) {
    (Status::NotDropped, format!("no dropped table of the number {table} is held"))
}

/// Node 1 is the primary of all partitions, node 2 their secondary.
fn reply_of(table: TableProperties, nodes: Vec<NodeInfo>) -> TableReply {
    let configuration = Configuration { ballot: Ballot(2), primary: Some(NodeId(1)), secondaries: vec![NodeId(2)] };
    let partitions = vec![configuration; table.partition_count as usize];
    TableReply { table, environment: vec![], partitions, nodes }
}
