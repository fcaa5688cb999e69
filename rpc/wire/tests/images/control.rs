//! What nodes, clients and operators say to the meta service.

use pegasus_wire::messages::control::*;
use pegasus_wire::{
    Ballot, Configuration, Decree, Durability, FrameHeader, MessageKind, NodeId, PartitionId, Status, TableId,
    TableProperties,
};

use super::{
    CLUSTER, Image, REQUEST_ID, address, address_v6, answer, build, configuration, node, partition, read_owned,
    request, table,
};

pub(super) fn images(images: &mut Vec<Image>) {
    nodes(images);
    tables(images);
    life_of_a_table(images);
    cluster(images);
    partitions(images);
}

pub(crate) fn environment() -> Vec<EnvironmentEntry> {
    let entry = |key: &str, value: &str| EnvironmentEntry { key: key.into(), value: value.into() };
    vec![entry("default_ttl", "86400"), entry("replica.write_throttling", "2000*delay*100,3000*reject*200")]
}

pub(crate) fn available() -> TableDescription {
    TableDescription { properties: table(), environment: environment(), state: TableState::Available }
}

pub(crate) fn dropped() -> TableDescription {
    TableDescription {
        properties: TableProperties { table: TableId(3), name: "t".into(), ..table() },
        environment: vec![],
        state: TableState::Dropped { dropped_seconds: 1_700_000_000, purge_seconds: 1_700_604_800 },
    }
}

pub(crate) fn table_reply() -> TableReply {
    TableReply { table: table(), environment: environment(), partitions: vec![configuration()], nodes: vec![node()] }
}

fn report(partition: PartitionId, ballot: u64, state: ReplicaState) -> ReplicaReport {
    ReplicaReport { partition, ballot: Ballot(ballot), state, last: Decree(7 * ballot) }
}

fn nodes(images: &mut Vec<Image>) {
    let register = RegisterNode {
        cluster: None,
        node: NodeId(0xA1),
        address: address(34801),
        admin_address: address_v6(34901),
        cores: 2,
        replicas: vec![
            report(partition(), 3, ReplicaState::Whole),
            report(PartitionId::new(1, 0), 9, ReplicaState::Damaged),
            report(PartitionId::new(1, 1), 9, ReplicaState::Uncertain),
            report(PartitionId::new(1, 2), 9, ReplicaState::Learning),
            report(PartitionId::new(1, 3), 0, ReplicaState::Missing),
        ],
    };
    images.push(request("register_node", MessageKind::REGISTER_NODE, &register, read_owned::<RegisterNode>));
    let registered = Registered { cluster: CLUSTER };
    let kind = MessageKind::REGISTER_NODE;
    images.push(answer("register_node_answer", kind, &registered, read_owned::<Registered>));

    let watch = WatchAssignments { node: NodeId(0xA1), revision: 17, wait_ms: 10_000 };
    let kind = MessageKind::WATCH_ASSIGNMENTS;
    images.push(request("watch_assignments", kind, &watch, read_owned::<WatchAssignments>));
    let partitions = vec![PartitionConfiguration { partition: partition(), configuration: configuration() }];
    let assignments = Assignments {
        revision: 18,
        tables: vec![available(), dropped()],
        partitions,
        nodes: vec![node()],
        additions: vec![Addition { partition: partition(), ballot: Ballot(3), node: NodeId(0xD4) }],
        removals: vec![Removal { partition: PartitionId::new(1, 0), ballot: Ballot(10) }],
    };
    images.push(answer("watch_assignments_answer", kind, &assignments, read_owned::<Assignments>));

    let proposal = ProposeConfiguration {
        partition: partition(),
        proposer: NodeId(0xA1),
        expected_ballot: Ballot(2),
        configuration: configuration(),
    };
    let kind = MessageKind::PROPOSE_CONFIGURATION;
    images.push(request("propose_configuration", kind, &proposal, read_owned::<ProposeConfiguration>));
    let reply = ProposalReply { configuration: Configuration { primary: None, ..configuration() } };
    let header = FrameHeader::answer(kind, REQUEST_ID, Status::BallotConflict);
    images.push(build("propose_configuration_answer", header, &reply, read_owned::<ProposalReply>));
}

fn tables(images: &mut Vec<Image>) {
    let create = CreateTable {
        name: "temperatures".into(),
        partition_count: 8,
        replica_count: 3,
        durability: Durability::Synced,
        if_not_exists: true,
    };
    images.push(request("create_table", MessageKind::CREATE_TABLE, &create, read_owned::<CreateTable>));
    let reply = table_reply();
    images.push(answer("create_table_answer", MessageKind::CREATE_TABLE, &reply, read_owned::<TableReply>));
    images.push(request("list_tables", MessageKind::LIST_TABLES, &ListTables, read_owned::<ListTables>));
    let list = TableList { tables: vec![available(), dropped()] };
    images.push(answer("list_tables_answer", MessageKind::LIST_TABLES, &list, read_owned::<TableList>));
    let query = QueryTable { name: "temperatures".into() };
    images.push(request("query_table", MessageKind::QUERY_TABLE, &query, read_owned::<QueryTable>));
    images.push(answer("query_table_answer", MessageKind::QUERY_TABLE, &reply, read_owned::<TableReply>));
}

fn life_of_a_table(images: &mut Vec<Image>) {
    let reply = table_reply();
    let kind = MessageKind::DROP_TABLE;
    let drop = DropTable { name: "temperatures".into(), hold_seconds: Some(3600), if_exists: true };
    images.push(request("drop_table", kind, &drop, read_owned::<DropTable>));
    images.push(answer("drop_table_answer", kind, &reply, read_owned::<TableReply>));
    let kind = MessageKind::RECALL_TABLE;
    let recall = RecallTable { table: TableId(3), name: Some("temperatures.old".into()) };
    images.push(request("recall_table", kind, &recall, read_owned::<RecallTable>));
    images.push(answer("recall_table_answer", kind, &reply, read_owned::<TableReply>));
    let kind = MessageKind::RENAME_TABLE;
    let rename = RenameTable { name: "temperatures".into(), new_name: "t".into() };
    images.push(request("rename_table", kind, &rename, read_owned::<RenameTable>));
    images.push(answer("rename_table_answer", kind, &reply, read_owned::<TableReply>));
    let kind = MessageKind::PURGE_TABLE;
    images.push(request("purge_table", kind, &PurgeTable { table: TableId(3) }, read_owned::<PurgeTable>));
    let kind = MessageKind::CHANGE_ENVIRONMENT;
    let change = ChangeEnvironment {
        name: "temperatures".into(),
        clear: true,
        delete: vec!["business.info".into()],
        set: environment(),
    };
    images.push(request("change_environment", kind, &change, read_owned::<ChangeEnvironment>));
    images.push(answer("change_environment_answer", kind, &reply, read_owned::<TableReply>));
}

fn cluster(images: &mut Vec<Image>) {
    let kind = MessageKind::QUERY_CLUSTER;
    images.push(request("query_cluster", kind, &QueryCluster, read_owned::<QueryCluster>));
    let reply = ClusterReply {
        cluster: CLUSTER,
        meta_addresses: vec![address(34601), address_v6(34602)],
        nodes: vec![NodeSummary { info: node(), primaries: 4, secondaries: 8, damaged: 1 }],
        tables: vec![TableSummary {
            table: TableId(2),
            name: "temperatures".into(),
            healthy_partitions: 7,
            partition_count: 8,
        }],
    };
    images.push(answer("query_cluster_answer", kind, &reply, read_owned::<ClusterReply>));
}

fn partitions(images: &mut Vec<Image>) {
    let kind = MessageKind::DIAGNOSE_PARTITIONS;
    let diagnose = DiagnosePartitions { table: Some("temperatures".into()) };
    images.push(request("diagnose_partitions", kind, &diagnose, read_owned::<DiagnosePartitions>));
    let diagnosed = PartitionDiagnosis {
        partition: partition(),
        table: "temperatures".into(),
        configuration: configuration(),
        replica_count: 3,
        unavailable: false,
        problems: vec!["node c3 is down".into()],
        waits_for: "node c3 to return".into(),
    };
    let diagnosis = Diagnosis { examined: 8, partitions: vec![diagnosed] };
    images.push(answer("diagnose_partitions_answer", kind, &diagnosis, read_owned::<Diagnosis>));
    let kind = MessageKind::FORCE_CONFIGURATION;
    let force = ForceConfiguration {
        partition: partition(),
        expected_ballot: Ballot(3),
        primary: NodeId(0xC3),
        accept_loss: true,
    };
    images.push(request("force_configuration", kind, &force, read_owned::<ForceConfiguration>));
}
