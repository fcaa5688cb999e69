//! The port for Pegasus's own clients: what connections may do to the server, and to each other.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;
mod thrift;

use std::collections::BTreeSet;

use common::{Place, call, table};
use pegasus_gateway::answer::Answer;
use pegasus_gateway::frame::Message;
use pegasus_gateway::messages::meta::QueryCfgRequest;
use pegasus_gateway::{ErrorName, Rpc};
use pegasus_meta::host::config::CompatibilityConfig;
use pegasus_meta::host::{Config, Server};
use pegasus_rpc::Role;
use pegasus_wire::Status;
use pegasus_wire::messages::control::CreateTable;
use thrift::{Client, config, request, start};

/// A request for a table.
fn question(app_name: &str, sequence: i32) -> Vec<u8> {
    request(Rpc::QueryCfg, sequence, &QueryCfgRequest { app_name, partition_indices: vec![] })
}

/// A server with one node and a table of so many partitions on it.
async fn with_table(place: &Place, partition_count: u32) -> Server {
    let server = start(place).await;
    let node = place.caller(Role::Replica, server.address()).await;
    node.register(1, 5001).await;
    let message = CreateTable { partition_count, ..table("temp", 1) };
    assert_eq!(call!(node, CREATE_TABLE, message).header.status, Status::Ok);
    server
}

fn metric(server: &Server, name: &str) -> u64 {
    let service = server.service();
    let text = service.metrics.render(service.gauges());
    let prefix = format!("pegasus_meta_compatibility_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

/// Lets the server go on until a metric is as it should be.
async fn until(server: &Server, name: &str, mut wanted: impl FnMut(u64) -> bool) -> u64 {
    let reached = async {
        loop {
            let value = metric(server, name);
            if wanted(value) {
                return value;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(common::PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} {}", metric(server, name)))
}

#[tokio::test]
async fn many_requests_may_come_at_once() {
    let place = Place::new();
    let server = with_table(&place, 4).await;
    let mut client = Client::connect(&server).await;
    let burst: Vec<u8> = (1..=200).flat_map(|sequence| question("temp", sequence)).collect();
    client.send(&burst).await;
    let mut answered = BTreeSet::new();
    for _ in 1..=200 {
        let bytes = client.next().await.unwrap();
        let answer = Answer::parse(&bytes).unwrap();
        assert!(answer.is_ok() && answered.insert(answer.sequence));
    }
    assert_eq!(answered, (1..=200).collect());
    server.shutdown().await;
}

#[tokio::test]
async fn a_request_may_come_in_pieces() {
    let place = Place::new();
    let server = with_table(&place, 4).await;
    let mut client = Client::connect(&server).await;
    client.stream.set_nodelay(true).unwrap();
    for byte in question("temp", 7) {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(Answer::parse(&client.next().await.unwrap()).unwrap().sequence, 7);

    // A header of version 1, as the Java client sends it; the fields of its structure may be missing.
    let body = &question("temp", 8)[48..];
    let mut second = [b"THFT".as_slice(), &1u32.to_be_bytes(), &1u32.to_be_bytes()].concat();
    second.extend((body.len() as u32).to_be_bytes());
    second.push(0);
    second.extend(body);
    client.send(&second).await;
    assert_eq!(Answer::parse(&client.next().await.unwrap()).unwrap().sequence, 8);
    server.shutdown().await;
}

#[tokio::test]
async fn who_says_goodbye_gets_the_answers_still() {
    use tokio::io::AsyncWriteExt;
    let place = Place::new();
    let server = with_table(&place, 4).await;
    let mut client = Client::connect(&server).await;
    client.send(&[question("temp", 1), question("temp", 2)].concat()).await;
    client.stream.shutdown().await.unwrap();
    assert!(client.next().await.is_some() && client.next().await.is_some());
    assert!(client.next().await.is_none());
    until(&server, "connections", |connections| connections == 0).await;
    assert_eq!(metric(&server, "broken_total"), 0);
    server.shutdown().await;
}

#[tokio::test]
async fn who_wants_no_answer_gets_none() {
    let place = Place::new();
    let server = with_table(&place, 4).await;
    let mut client = Client::connect(&server).await;
    let mut one_way = question("temp", 1);
    assert!(!Message::parse(&one_way[48..]).unwrap().is_one_way);
    one_way[51] = 4;
    assert!(Message::parse(&one_way[48..]).unwrap().is_one_way);
    client.send(&[one_way, question("temp", 2)].concat()).await;
    assert_eq!(Answer::parse(&client.next().await.unwrap()).unwrap().sequence, 2);
    until(&server, "answers_total{method=\"RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX\",outcome=\"ERR_OK\"}", |n| n == 2)
        .await;
    server.shutdown().await;
}

/// A frame of version 0 around a body.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = question("temp", 1);
    bytes.truncate(48);
    bytes[16..20].copy_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The body of a request with this argument.
fn body(kind: u8, arguments: &[u8]) -> Vec<u8> {
    let name = Rpc::QueryCfg.name().as_bytes();
    let begin = [&[0x80, 1, 0, kind][..], &(name.len() as u32).to_be_bytes(), name, &1u32.to_be_bytes()].concat();
    [begin.as_slice(), arguments].concat()
}

fn announced(at: usize, word: u32) -> Vec<u8> {
    let mut bytes = question("temp", 1);
    bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
    bytes.truncate(48);
    bytes
}

fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let name_of = |length: i32, text: &[u8]| [&[12, 0, 1, 11, 0, 1], &length.to_be_bytes()[..], text].concat();
    vec![
        ("HTTP", b"GET /metrics HTTP/1.1\r\n\r\n".to_vec()),
        ("the C++ client", b"RDSN".to_vec()),
        ("half a magic", b"THX".to_vec()),
        ("a version from the future", announced(4, 2)),
        ("another header length", announced(8, 64)),
        ("a negative body", announced(16, u32::MAX)),
        ("a body over everything", announced(16, 1 << 30)),
        ("a body over the limit of the meta service", announced(16, 512 * 1024)),
        ("a body over everybody's limit, with its begin", [announced(16, 3 << 20), vec![0; 59]].concat()),
        (
            "a huge structure in a header of version 1",
            [b"THFT".as_slice(), &[0, 0, 0, 1, 127, 0, 0, 0, 0, 0, 0, 0]].concat(),
        ),
        ("no message", framed(b"")),
        ("not the strict protocol", framed(b"\0\0\0\x05hello\x01\0\0\0\x01\0")),
        ("an answer", framed(&body(2, b"\x0c\0\x01\0\0"))),
        ("an exception", framed(&body(3, b"\x0c\0\x01\0\0"))),
        ("no argument", framed(&body(1, b"\0"))),
        ("an argument that ends", framed(&body(1, &name_of(4, b"te")))),
        ("a negative length", framed(&body(1, &name_of(-1, b"temp\0\0")))),
        ("a length over everything", framed(&body(1, &name_of(i32::MAX, b"temp\0\0")))),
        ("a name that is no text", framed(&body(1, &name_of(4, b"\xff\xfe\xfd\xfc\0\0")))),
        ("a list of two thousand million", framed(&body(1, b"\x0c\0\x01\x0f\0\x02\x08\x7f\xff\xff\xff\0\0\0\0"))),
        ("a list of less than nothing", framed(&body(1, b"\x0c\0\x01\x0f\0\x02\x08\xff\xff\xff\xff\0\0"))),
        ("structures without end", framed(&body(1, &[12, 0, 9].repeat(50_000)))),
        ("a type that does not exist", framed(&body(1, b"\x63\0\x01\0\0"))),
    ]
}

#[tokio::test]
async fn bytes_that_are_not_the_protocol_end_their_connection_and_nothing_else() {
    let place = Place::new();
    let server = with_table(&place, 4).await;
    let mut bystander = Client::connect(&server).await;
    for (count, (what, bytes)) in (1..).zip(hostile()) {
        let mut client = Client::connect(&server).await;
        // A request before them is answered or not; what is answered is whole.
        client.send(&bytes).await;
        assert!(client.next().await.is_none(), "{what}");
        until(&server, "connections", |connections| connections == 1).await;
        assert_eq!(metric(&server, "broken_total"), count, "{what}");
        assert_eq!(bystander.query("temp", vec![]).await.route().0, ErrorName::Ok, "{what}");
    }
    // A good request before them may be answered; nothing after them is.
    let mut client = Client::connect(&server).await;
    let (_, bad) = hostile().pop().unwrap();
    client.send(&[question("temp", 1), bad, question("temp", 2)].concat()).await;
    while let Some(bytes) = client.next().await {
        assert_eq!(Answer::parse(&bytes).unwrap().sequence, 1);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn who_never_reads_is_not_read_either() {
    let place = Place::new();
    let server = with_table(&place, 1024).await;
    let mut bystander = Client::connect(&server).await;
    let answer_bytes = bystander.query("temp", vec![]).await.0.len() as u64;
    assert!(answer_bytes > 64 * 1024, "{answer_bytes}");

    let silent = Client::connect(&server).await;
    let (one, questions) = (question("temp", 1), 2000);
    let all = one.repeat(questions);
    let mut sent = 0;
    until(&server, "unsent_bytes", |unsent| {
        // Whatever the socket takes is sent, until the server has stopped reading.
        sent += silent.stream.try_write(&all[sent..]).unwrap_or(0);
        unsent >= 256 * 1024
    })
    .await;
    for _ in 0..50 {
        assert_eq!(bystander.query("temp", vec![]).await.route().0, ErrorName::Ok);
        let unsent = metric(&server, "unsent_bytes");
        // The answers of the requests that were in flight when the bound was reached come on top of it.
        assert!(unsent <= 256 * 1024 + 17 * answer_bytes, "{unsent}");
    }
    // Once it reads, it gets everything it has asked for.
    let (mut received, mut answers) = (Vec::new(), 0);
    while answers < questions {
        silent.stream.readable().await.unwrap();
        sent += silent.stream.try_write(&all[sent..]).unwrap_or(0);
        silent.stream.try_read_buf(&mut received).ok();
        while received.len() as u64 >= answer_bytes {
            assert!(Answer::parse(&received[..answer_bytes as usize]).unwrap().is_ok());
            received.drain(..answer_bytes as usize);
            answers += 1;
        }
    }
    until(&server, "unsent_bytes", |unsent| unsent == 0).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_stopping_server_answers_and_hangs_up() {
    let place = Place::new();
    let server = with_table(&place, 1024).await;
    let address = server.compatibility_address().unwrap();
    let mut idle = Client::connect(&server).await;
    let mut busy = Client::connect(&server).await;
    let silent = Client::connect(&server).await;
    assert_eq!(idle.query("temp", vec![]).await.route().0, ErrorName::Ok);
    // One that never reads does not keep the server.
    let all = question("temp", 1).repeat(2000);
    let mut sent = 0;
    until(&server, "unsent_bytes", |unsent| {
        sent += silent.stream.try_write(&all[sent..]).unwrap_or(0);
        unsent >= 256 * 1024
    })
    .await;
    busy.send(&(1..=8).flat_map(|sequence| question("temp", sequence)).collect::<Vec<u8>>()).await;
    assert!(busy.next().await.is_some());
    let answers = async {
        // Whatever comes is whole, and then the connection ends.
        while let Some(bytes) = busy.next().await {
            assert!(Answer::parse(&bytes).unwrap().is_ok());
        }
        assert!(idle.next().await.is_none());
        drop((busy, idle));
    };
    tokio::join!(server.shutdown(), answers);
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    drop(silent);
    // The port is free for the next one.
    let again = Config { listen: address, ..config(&place) };
    let server = Server::start(&again).await.unwrap();
    assert_eq!(server.compatibility_address(), Some(address));
    let mut client = Client::connect(&server).await;
    assert_eq!(client.query("temp", vec![]).await.route().0, ErrorName::Ok);
    server.shutdown().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away() {
    let place = Place::new();
    let compatibility = CompatibilityConfig { enabled: true, connections_max: 2, ..CompatibilityConfig::default() };
    let server = Server::start(&Config { compatibility, ..config(&place) }).await.unwrap();
    let mut clients = [Client::connect(&server).await, Client::connect(&server).await];
    until(&server, "connections", |connections| connections == 2).await;
    let mut third = Client::connect(&server).await;
    assert!(third.next().await.is_none());
    assert_eq!(metric(&server, "refused_total"), 1);
    for client in &mut clients {
        assert_eq!(client.query("temp", vec![]).await.route().0, ErrorName::ObjectNotFound);
    }
    drop(clients);
    until(&server, "connections", |connections| connections == 0).await;
    let mut fourth = Client::connect(&server).await;
    assert_eq!(fourth.query("temp", vec![]).await.route().0, ErrorName::ObjectNotFound);
    server.shutdown().await;
}

#[tokio::test]
async fn two_thousand_idle_connections_do_no_harm() {
    let place = Place::new();
    let server = with_table(&place, 4).await;
    let mut clients = Vec::new();
    for _ in 0..2000 {
        clients.push(Client::connect(&server).await);
    }
    until(&server, "connections", |connections| connections == 2000).await;
    let mut another = Client::connect(&server).await;
    assert_eq!(another.query("temp", vec![]).await.route().0, ErrorName::Ok);
    for client in &mut clients {
        assert_eq!(client.query("temp", vec![]).await.route().0, ErrorName::Ok);
    }
    drop(clients);
    until(&server, "connections", |connections| connections == 1).await;
    assert_eq!((metric(&server, "broken_total"), metric(&server, "refused_total")), (0, 0));
    server.shutdown().await;
}
