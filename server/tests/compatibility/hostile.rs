//! Clients that break the protocol, that do not listen, and very many that say nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use pegasus_gateway::Rpc;
use pegasus_gateway::answer::Answer;
use pegasus_gateway::messages::read::{KeyValue, MultiGetRequest};
use pegasus_gateway::messages::write::{MultiPutRequest, MultiRemoveRequest, UpdateResponse};
use pegasus_gateway::thrift::Blob;
use pegasus_wire::{PartitionId, key};

use crate::Stage;
use crate::client::{Client, request, result};
use crate::support::{PATIENCE, contains_all, eventually};

/// Idle connections; the limit of open files of a test machine allows for as many on both sides.
const IDLE: usize = 400;

#[tokio::test]
async fn what_is_no_request_ends_its_connection_alone() {
    let stage = Stage::new(50, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut other = Client::of(&stage.scene);
    other.set(partition, b"h", b"s", b"value");
    let get = request(partition, Rpc::Get, 1, &Blob(&key::encode(b"h", b"s")));
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = get.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("the C++ client", b"RDSN\0\0\0\0".to_vec()),
        ("a version from the future", changed(4, &[0, 0, 0, 9])),
        ("another header length", changed(8, &[0, 0, 0, 49])),
        ("a body of 4 GiB", changed(16, &[0xff; 4])),
        ("not strict", changed(48, &[0, 0, 0, 1])),
        ("an answer as a request", changed(48, &[0x80, 1, 0, 2])),
        ("a name of negative length", changed(52, &[0xff; 4])),
        ("an argument of another type", changed(77, &[11])),
        ("a key of negative length", changed(80, &[0xff, 0xff, 0xff, 0xfe])),
        ("a key that is longer than the request", changed(80, &[0, 1, 0, 0])),
    ];
    let count = hostile.len();
    for (what, bytes) in hostile {
        let mut stream = TcpStream::connect(stage.scene.node_address()).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&bytes).expect("sent");
        let mut answer = Vec::new();
        // The end may come as a reset, as bytes may be left unread.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{what}");
        assert_eq!(other.get(partition, b"h", b"s"), (0, b"value".to_vec()), "{what} touches nobody else");
    }
    assert_eq!(stage.metric("compatibility_broken_total"), count as f64);
    contains_all(&stage.node.log(), &["closing a connection of a client of Pegasus", "HTTP is served at the admin"]);
}

#[tokio::test]
async fn a_request_that_is_cut_off_is_not_carried_out() {
    let stage = Stage::new(51, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    let stored = key::encode(b"h", b"s");
    let update = pegasus_gateway::messages::write::UpdateRequest {
        key: Blob(&stored),
        value: Blob(b"value"),
        expire_ts_seconds: 0,
    };
    let put = request(partition, Rpc::Put, 1, &update);
    for length in [1, 4, 20, 47, 48, 60, put.len() - 1] {
        let mut stream = TcpStream::connect(stage.scene.node_address()).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&put[..length]).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("ended");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server ends its side, too");
        assert_eq!(answer, b"", "cut at {length}");
        assert_eq!(client.get(partition, b"h", b"s").0, 1, "cut at {length}");
    }
    // A client that ends its side after a request still gets the answer.
    let mut stream = TcpStream::connect(stage.scene.node_address()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(&put).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("ended");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(!answer.is_empty());
    assert_eq!(client.get(partition, b"h", b"s"), (0, b"value".to_vec()));
}

#[tokio::test]
async fn a_client_that_does_not_listen_stops_only_itself() {
    let stage = Stage::new(52, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut other = Client::of(&stage.scene);
    let value = vec![b'x'; 300 * 1024];
    for sort_key in [b"a", b"b", b"c"] {
        other.set(partition, b"h", sort_key, &value);
    }
    let before = resident_bytes(stage.node.id());
    let all = MultiGetRequest { hash_key: Blob(b"h"), start_inclusive: true, ..MultiGetRequest::default() };
    let asked = request(partition, Rpc::MultiGet, 1, &all);
    // Each asks for 900 KiB a thousand times, and reads nothing: 9 GB in all.
    let deaf: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = TcpStream::connect(stage.scene.node_address()).expect("a connection");
            stream.set_nonblocking(true).expect("nonblocking");
            for _ in 0..1000 {
                // The server stops reading at some point; then the buffers of the kernel fill up.
                if stream.write_all(&asked).is_err() {
                    break;
                }
            }
            stream
        })
        .collect();
    for _ in 0..200 {
        assert_eq!(other.get(partition, b"h", b"missing").0, 1);
    }
    let grown = resident_bytes(stage.node.id()).saturating_sub(before);
    assert!(grown < 256 << 20, "the node has grown by {grown} bytes");
    drop(deaf);
    assert_eq!(other.get(partition, b"h", b"a"), (0, value));
}

#[tokio::test]
async fn what_is_read_in_a_pool_for_it_is_bounded_as_well() {
    let stage = Stage::new(61, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut other = Client::of(&stage.scene);
    let value = vec![b'x'; 4096];
    for first in (0..1000).step_by(200) {
        let keys: Vec<String> = (first..first + 200).map(|number| format!("{number:04}")).collect();
        let row = |key| KeyValue { key: Blob(key), value: Blob(&value), expire_ts_seconds: None };
        let kvs = keys.iter().map(|key| row(key.as_bytes()));
        let put = MultiPutRequest { hash_key: Blob(b"h"), kvs: kvs.collect(), expire_ts_seconds: 0 };
        assert_eq!(result::<UpdateResponse<'_>>(&other.call(partition, Rpc::MultiPut, &put)).error, 0);
    }
    let before = resident_bytes(stage.node.id());
    let all = MultiGetRequest { hash_key: Blob(b"h"), start_inclusive: true, ..MultiGetRequest::default() };
    // 500 answers of 4 MiB, none of which is read until all of them could have been given.
    let mut deaf = Client::of(&stage.scene);
    let mut asked = Vec::new();
    for sequence in 1000..1500 {
        asked.extend(request(partition, Rpc::MultiGet, sequence, &all));
    }
    deaf.send_bytes(&asked);
    let deadline = std::time::Instant::now() + PATIENCE;
    eventually("all of them taken", deadline, async || {
        let taken = stage.metric("compatibility_requests_total");
        if taken >= 505.0 { Ok(()) } else { Err(format!("{taken}")) }
    })
    .await;
    assert_eq!(other.get(partition, b"h", b"missing").0, 1);
    // The pool has its jobs in order: what is asked for now is read after all of those.
    assert_eq!(other.multi_get(partition, &all).1.len(), 1000);
    // Each is answered, with its rows or not.
    let mut errors = std::collections::BTreeMap::new();
    for _ in 0..500 {
        let (_, answer) = deaf.next_answer().expect("an answer");
        let answer = Answer::parse(&answer).expect("an answer");
        *errors.entry(answer.error.to_owned()).or_insert(0) += 1;
    }
    // 16 MiB that are unsent, and what the kernel has taken.
    assert!(errors.get("ERR_OK").is_some_and(|count| (1..=20).contains(count)), "{errors:?}");
    assert!(errors.get("ERR_BUSY").is_some_and(|count| *count >= 480), "{errors:?}");
    let grown = resident_bytes(stage.node.id()).saturating_sub(before);
    assert!(grown < 512 << 20, "the node has grown by {grown} bytes");
}

#[tokio::test]
async fn a_list_that_is_too_long_is_refused_and_no_more() {
    let stage = Stage::new(62, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    let sort_keys = vec![Blob(b"k"); 20_000];
    let remove = MultiRemoveRequest { hash_key: Blob(b"h"), sort_keys, max_count: 0 };
    assert_eq!(client.error_of(partition, Rpc::MultiRemove, &remove), "ERR_INVALID_DATA");
    client.set(partition, b"h", b"s", b"value");
    assert_eq!(client.get(partition, b"h", b"s"), (0, b"value".to_vec()));
}

#[tokio::test]
async fn idle_connections_cost_little() {
    let stage = Stage::new(53, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    client.set(partition, b"h", b"s", b"value");
    let before = resident_bytes(stage.node.id());
    let mut idle: Vec<Client> = (0..IDLE).map(|_| Client::of(&stage.scene)).collect();
    // All of them are served.
    for client in idle.iter_mut().step_by(7) {
        assert_eq!(client.get(partition, b"h", b"s"), (0, b"value".to_vec()));
    }
    assert_eq!(idle[IDLE - 1].get(partition, b"h", b"s").0, 0, "it was accepted last");
    let grown = resident_bytes(stage.node.id()).saturating_sub(before);
    assert!(grown < IDLE * 16 * 1024, "{} bytes for each", grown / IDLE);
    assert_eq!(stage.metric("compatibility_connections_total"), IDLE as f64 + 1.0);
}

#[tokio::test]
async fn a_node_whose_port_is_in_use_serves_others_until_it_is_free() {
    let mut stage = Stage::new(60, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    client.set(partition, b"h", b"s", b"value");
    stage.node.stop();
    // What a client that redials on loopback may come to: a connection with itself, from the node's port.
    // The socket of a process that has ended lives on until the kernel has taken down its ring.
    let holder = eventually("the port to be free", std::time::Instant::now() + PATIENCE, async || {
        std::net::TcpListener::bind(stage.scene.node_address()).map_err(|error| error.to_string())
    })
    .await;
    stage.node = stage.scene.start_node(&stage.config);
    let native = stage.scene.caller().await;
    native.wait_until_serving(partition).await;
    assert_eq!(native.get(partition, b"h", b"s").await.header.status, pegasus_wire::Status::Ok);
    contains_all(&stage.node.log(), &["clients of Pegasus cannot be served", "another process has the TCP port"]);
    drop(holder);
    let deadline = std::time::Instant::now() + PATIENCE;
    let found = eventually("the port of the node", deadline, async || {
        TcpStream::connect(stage.scene.node_address()).map_err(|error| error.to_string())
    });
    drop(found.await);
    assert_eq!(Client::of(&stage.scene).get(partition, b"h", b"s"), (0, b"value".to_vec()));
}

#[tokio::test]
async fn a_node_that_stops_ends_connections() {
    let stage = Stage::new(54, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    client.set(partition, b"h", b"s", b"value");
    stage.node.stop();
    assert_eq!(client.next_answer(), None);
}

fn resident_bytes(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its size");
    let kilobytes: usize = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kilobytes * 1024
}
