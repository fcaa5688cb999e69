//! Tables, where their partitions are, and what goes wrong; and the answers of the meta servers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use pegasus_gateway::messages::admin::{CreateAppRequest, CreateAppResponse};
use pegasus_gateway::messages::meta::{PartitionConfiguration, QueryCfgRequest, QueryCfgResponse};
use pegasus_gateway::thrift::{ErrorCode, Gpid, RpcAddress};
use pegasus_gateway::{Rpc, answer};

use crate::Fault;
use crate::scans::Scan;

/// Rows by stored key: value and second of expiry.
pub(crate) type Rows = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

/// Everything.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) nodes: Vec<SocketAddr>,
    pub(crate) tables: HashMap<String, Table>,
    pub(crate) scans: HashMap<i64, Scan>,
    pub(crate) faults: VecDeque<(Rpc, Fault)>,
    pub(crate) received: Vec<Rpc>,
    pub(crate) reverse: usize,
    pub(crate) old: bool,
    pub(crate) tables_forbidden: bool,
    pub(crate) next_scan: i64,
    leader: Option<SocketAddr>,
    next_table: i32,
}

pub(crate) struct Table {
    pub(crate) id: i32,
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Default)]
pub(crate) struct Partition {
    /// Who serves it.
    pub(crate) node: Option<usize>,
    pub(crate) rows: Rows,
}

impl State {
    pub(crate) fn begin(&mut self, leader: SocketAddr, nodes: Vec<SocketAddr>) {
        (self.leader, self.nodes, self.reverse) = (Some(leader), nodes, 1);
    }

    pub(crate) fn create(&mut self, name: &str, partition_count: u32) -> i32 {
        self.next_table += 1;
        let nodes = self.nodes.len();
        let partition = |index: u32| Partition { node: Some(index as usize % nodes), rows: Rows::new() };
        let partitions = (0..partition_count).map(partition).collect();
        self.tables.insert(name.to_owned(), Table { id: self.next_table, partitions });
        self.next_table
    }

    /// What goes wrong with a request of this kind.
    pub(crate) fn next_fault(&mut self, rpc: Rpc) -> Option<Fault> {
        self.received.push(rpc);
        let place = self.faults.iter().position(|(known, _)| *known == rpc)?;
        self.faults.remove(place).map(|(_, fault)| fault)
    }

    /// The partition of a request, if this node serves it.
    pub(crate) fn partition(&mut self, node: usize, app_id: i32, index: i32) -> Option<&mut Partition> {
        let table = self.tables.values_mut().find(|table| table.id == app_id)?;
        let partition = table.partitions.get_mut(usize::try_from(index).ok()?)?;
        (partition.node == Some(node)).then_some(partition)
    }

    pub(crate) fn configuration(&self, request: &QueryCfgRequest<'_>, leads: bool, out: &mut Vec<u8>, sequence: i32) {
        let name = Rpc::QueryCfg.name().as_bytes();
        let table = match self.tables.get(request.app_name) {
            _ if !leads => {
                let primary = self.leader.map(RpcAddress::from).unwrap_or_default();
                let hint = PartitionConfiguration { primary, ..PartitionConfiguration::default() };
                let response = QueryCfgResponse {
                    err: ErrorCode("ERR_FORWARD_TO_OTHERS"),
                    partitions: vec![hint],
                    ..QueryCfgResponse::default()
                };
                return answer::append_result(out, name, sequence, &response);
            }
            None => {
                let err = ErrorCode("ERR_OBJECT_NOT_FOUND");
                let response = QueryCfgResponse { err, ..QueryCfgResponse::default() };
                return answer::append_result(out, name, sequence, &response);
            }
            Some(table) => table,
        };
        let partition = |(index, partition): (usize, &Partition)| PartitionConfiguration {
            pid: Gpid { app_id: table.id, partition_index: index as i32 },
            ballot: 1,
            max_replica_count: 3,
            primary: partition.node.map(|node| RpcAddress::from(self.nodes[node])).unwrap_or_default(),
            ..PartitionConfiguration::default()
        };
        let response = QueryCfgResponse {
            err: ErrorCode("ERR_OK"),
            app_id: table.id,
            partition_count: table.partitions.len() as i32,
            is_stateful: true,
            partitions: table.partitions.iter().enumerate().map(partition).collect(),
        };
        answer::append_result(out, name, sequence, &response);
    }

    pub(crate) fn create_app(&mut self, request: &CreateAppRequest<'_>, leads: bool, out: &mut Vec<u8>, sequence: i32) {
        let known = self.tables.get(request.app_name).map(|table| table.id);
        let (err, appid) = match (known, u32::try_from(request.options.partition_count)) {
            _ if !leads => ("ERR_FORWARD_TO_OTHERS", 0),
            _ if self.tables_forbidden => ("ERR_STATE_FREEZED", 0),
            (Some(id), _) if request.options.success_if_exist => ("ERR_OK", id),
            (Some(_), _) => ("ERR_APP_EXIST", 0),
            (None, Ok(count @ 1..)) => ("ERR_OK", self.create(request.app_name, count)),
            _ => ("ERR_INVALID_PARAMETERS", 0),
        };
        let response = CreateAppResponse { err: ErrorCode(err), appid };
        answer::append_result(out, Rpc::CreateApp.name().as_bytes(), sequence, &response);
    }
}
