//! The port for Pegasus's own clients: where tables are.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;
mod thrift;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use common::{Caller, Place, call, registration, table};
use pegasus_gateway::thrift::{Gpid, RpcAddress};
use pegasus_gateway::{ErrorName, Rpc};
use pegasus_meta::host::Server;
use pegasus_rpc::Role;
use pegasus_wire::messages::control::{DropTable, RegisterNode, TableReply};
use pegasus_wire::{NodeId, PartitionId, Status};
use thrift::{Client, start};

/// Three nodes of two cores each, and a table of four partitions with three members.
async fn with_table(place: &Place, server: &Server) -> (Caller, TableReply) {
    let node = place.caller(Role::Replica, server.address()).await;
    for id in 1..=3 {
        register(&node, id, SocketAddr::from((Ipv4Addr::LOCALHOST, 5000 + 10 * id as u16))).await;
    }
    let created = call!(node, CREATE_TABLE, table("temp", 3));
    assert_eq!(created.header.status, Status::Ok, "{:?}", created.error());
    let reply = created.decode().unwrap();
    (node, reply)
}

async fn register(node: &Caller, id: u64, address: SocketAddr) {
    let message = RegisterNode { address, cores: 2, ..registration(id, 5000) };
    assert_eq!(call!(node, REGISTER_NODE, message).header.status, Status::Ok);
}

fn localhost(port: u16) -> RpcAddress {
    RpcAddress(Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))
}

#[tokio::test]
async fn a_route_names_the_cores_that_own_the_partitions() {
    let place = Place::new();
    let server = start(&place).await;
    assert_eq!(server.compatibility_address(), Some(server.address()), "the number of the QUIC port");
    let (_node, created) = with_table(&place, &server).await;
    let mut client = Client::connect(&server).await;

    let reply = client.query("temp", vec![]).await;
    let (error, route) = reply.route();
    assert_eq!(error, ErrorName::Ok);
    assert_eq!((route.app_id, route.partition_count, route.is_stateful), (1, 4, true));
    assert_eq!(route.partitions.len(), 4);
    for (index, partition) in route.partitions.iter().enumerate() {
        let id = PartitionId::new(1, index as u32);
        let configuration = &created.partitions[index];
        let endpoint = |node: NodeId| {
            let info = created.nodes.iter().find(|info| info.node == node).unwrap();
            RpcAddress::from(info.endpoint(id))
        };
        assert_eq!(partition.pid, Gpid { app_id: 1, partition_index: index as i32 });
        assert_eq!((partition.ballot, partition.max_replica_count), (1, 3));
        assert_eq!(partition.primary, endpoint(configuration.primary.unwrap()));
        let secondaries: Vec<RpcAddress> = configuration.secondaries.iter().copied().map(endpoint).collect();
        assert_eq!(partition.secondaries, secondaries);
        assert!(partition.last_drops.is_empty() && partition.hp_primary.is_none());
        assert!(partition.hp_secondaries.is_none() && partition.hp_last_drops.is_none());
    }
    let ports: std::collections::BTreeSet<u16> =
        route.partitions.iter().map(|one| one.primary.0.unwrap().port() % 10).collect();
    assert_eq!(ports, [0, 1].into(), "both cores own partitions");
    server.shutdown().await;
}

#[tokio::test]
async fn the_bytes_are_those_of_the_protocol() {
    let place = Place::new();
    let server = start(&place).await;
    let node = place.caller(Role::Replica, server.address()).await;
    node.register(1, 34801).await;
    let single = pegasus_wire::messages::control::CreateTable { partition_count: 1, ..table("temp", 1) };
    assert_eq!(call!(node, CREATE_TABLE, single).header.status, Status::Ok);

    // The question is that of the facts, for table "temp".
    let question = [
        "54484654 00000000 00000030 00000000 0000004a 00000000 00000000 00000000 00000000 00000000 0000000000000000",
        "80010001 00000026 5250435f434d5f51554552595f504152544954494f4e5f434f4e4649475f42595f494e444558 00000001",
        "0c0001 0b0001 00000004 74656d70 0f0002 08 00000000 00 00",
    ];
    let mut client = Client::connect(&server).await;
    client.send(&bytes(&question.concat())).await;
    let answer = client.next().await.unwrap();
    let expected = [
        "000000bb 00000006 4552525f4f4b 80010002",
        "0000002a 5250435f434d5f51554552595f504152544954494f4e5f434f4e4649475f42595f494e444558 5f41434b 00000001",
        // The response: ERR_OK, app 1, one partition, stateful, a list of one structure.
        "0c0000 0c0001 00000006 4552525f4f4b 080002 00000001 080003 00000001 020004 01 0f0005 0c 00000001",
        // The partition: gpid 1.0, ballot 1, one replica, at 127.0.0.1:34801.
        "0c0001 0000000000000001 0a0002 0000000000000001 080003 00000001 0c0004 7f00000187f10001",
        // No secondaries, no drops, decree 0, flags 0; the ends of three structures.
        "0f0005 0c 00000000 0f0006 0c 00000000 0a0007 0000000000000000 080008 00000000 00 00 00",
    ];
    assert_eq!(answer, bytes(&expected.concat()));
    server.shutdown().await;
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[tokio::test]
async fn some_partitions_can_be_asked_for() {
    let place = Place::new();
    let server = start(&place).await;
    with_table(&place, &server).await;
    let mut client = Client::connect(&server).await;
    let reply = client.query("temp", vec![3, 1]).await;
    let (error, route) = reply.route();
    let indices: Vec<i32> = route.partitions.iter().map(|one| one.pid.partition_index).collect();
    assert_eq!((error, route.partition_count, indices), (ErrorName::Ok, 4, vec![3, 1]));
    for bad in [vec![4], vec![-1], vec![0, i32::MAX], vec![0; 5]] {
        let reply = client.query("temp", bad).await;
        let (error, route) = reply.route();
        assert_eq!((error, route.partitions.len()), (ErrorName::InvalidParameters, 0));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn tables_that_do_not_serve_are_not_found() {
    let place = Place::new();
    let server = start(&place).await;
    let (node, _) = with_table(&place, &server).await;
    let mut client = Client::connect(&server).await;
    let missing = client.query("nope", vec![]).await;
    let (error, route) = missing.route();
    assert_eq!((error, route.partitions.len(), route.is_stateful), (ErrorName::ObjectNotFound, 0, false));
    let drop = DropTable { name: "temp".to_owned(), hold_seconds: None, if_exists: false };
    assert_eq!(call!(node, DROP_TABLE, drop).header.status, Status::Ok);
    assert_eq!(client.query("temp", vec![]).await.route().0, ErrorName::ObjectNotFound);
    server.shutdown().await;
}

#[tokio::test]
async fn a_node_without_a_sayable_address_is_stood_in_for() {
    let place = Place::new();
    let server = start(&place).await;
    let (node, created) = with_table(&place, &server).await;
    let mut client = Client::connect(&server).await;

    // Node 4 takes node 1's address, as a new disk at an old place would.
    register(&node, 4, localhost(5010).0.unwrap().into()).await;
    // Node 2 comes back at an address that the protocol cannot say.
    register(&node, 2, "[::1]:5020".parse().unwrap()).await;
    let reply = client.query("temp", vec![]).await;
    let (error, route) = reply.route();
    assert_eq!(error, ErrorName::Ok);
    for (index, partition) in route.partitions.iter().enumerate() {
        // Node 3 is the only member that can be named, whether it is the primary or stands in for it.
        let port = partition.primary.0.unwrap().port();
        assert!(port == 5030 || port == 5031, "partition {index} at {port}");
        let is_primary = created.partitions[index].primary == Some(NodeId(3));
        assert_eq!(partition.secondaries.len(), usize::from(!is_primary));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn without_the_setting_nobody_listens() {
    let place = Place::new();
    let server = place.start().await;
    assert_eq!(server.compatibility_address(), None);
    assert!(tokio::net::TcpStream::connect(server.address()).await.is_err());
    server.shutdown().await;
}

#[tokio::test]
async fn methods_that_are_not_served_are_said_to_be_unknown() {
    let place = Place::new();
    let server = start(&place).await;
    let mut client = Client::connect(&server).await;
    let reply = client.call(Rpc::Get, &pegasus_gateway::thrift::Blob(b"\x00\x01k")).await;
    assert_eq!(reply.parse().error, ErrorName::HandlerNotFound.text());
    // The connection goes on.
    assert_eq!(client.query("nope", vec![]).await.route().0, ErrorName::ObjectNotFound);
    server.shutdown().await;
}
