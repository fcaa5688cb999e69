//! A client of Pegasus as a test writes it: one socket, requests as they are, answers as they come.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use pegasus_gateway::Rpc;
use pegasus_gateway::answer::{Answer, length};
use pegasus_gateway::frame::{RequestHeader, append_request};
use pegasus_gateway::messages::read::{
    CountResponse, GetScannerRequest, MultiGetRequest, MultiGetResponse, ReadResponse, ScanRequest, ScanResponse,
    TtlResponse,
};
use pegasus_gateway::messages::write::{UpdateRequest, UpdateResponse};
use pegasus_gateway::thrift::{Blob, Value};
use pegasus_wire::hash::partition_index;
use pegasus_wire::{PartitionId, key};

use crate::support::{PATIENCE, Scene};

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// Whole answers that were not asked for yet, by sequence.
    answers: HashMap<i32, Vec<u8>>,
    sequence: i32,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client { stream, received: Vec::new(), answers: HashMap::new(), sequence: 0 }
    }

    /// To the only core of a scene's node.
    pub(crate) fn of(scene: &Scene) -> Client {
        Client::connect(scene.node_address())
    }

    /// Sends a request and gives its sequence.
    pub(crate) fn send<'a, T: Value<'a>>(&mut self, partition: PartitionId, rpc: Rpc, argument: &T) -> i32 {
        self.sequence += 1;
        let bytes = request(partition, rpc, self.sequence, argument);
        self.send_bytes(&bytes);
        self.sequence
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// The answer with this sequence, whatever comes before it.
    pub(crate) fn receive(&mut self, sequence: i32) -> Vec<u8> {
        loop {
            if let Some(answer) = self.answers.remove(&sequence) {
                return answer;
            }
            let (found, answer) = self.next_answer().expect("an answer, not the end of the connection");
            self.answers.insert(found, answer);
        }
    }

    /// True if the answer with this sequence came before one that was received.
    pub(crate) fn has_answer(&self, sequence: i32) -> bool {
        self.answers.contains_key(&sequence)
    }

    /// The next answer; `None` at the end of the connection.
    pub(crate) fn next_answer(&mut self) -> Option<(i32, Vec<u8>)> {
        let mut chunk = [0; 1 << 16];
        loop {
            if let Some(bytes) = length(&self.received).expect("a length")
                && self.received.len() >= bytes
            {
                let answer: Vec<u8> = self.received.drain(..bytes).collect();
                let sequence = Answer::parse(&answer).expect("an answer").sequence;
                return Some((sequence, answer));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(bytes) => self.received.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// The bytes of the answer to a request.
    pub(crate) fn call<'a, T: Value<'a>>(&mut self, partition: PartitionId, rpc: Rpc, argument: &T) -> Vec<u8> {
        let sequence = self.send(partition, rpc, argument);
        self.receive(sequence)
    }

    /// The error name of the answer.
    pub(crate) fn error_of<'a, T: Value<'a>>(&mut self, partition: PartitionId, rpc: Rpc, argument: &T) -> String {
        let answer = self.call(partition, rpc, argument);
        Answer::parse(&answer).expect("an answer").error.to_owned()
    }

    pub(crate) fn set(&mut self, partition: PartitionId, hash_key: &[u8], sort_key: &[u8], value: &[u8]) {
        let stored = key::encode(hash_key, sort_key);
        let update = UpdateRequest { key: Blob(&stored), value: Blob(value), expire_ts_seconds: 0 };
        let answer = self.call(partition, Rpc::Put, &update);
        assert_eq!(result::<UpdateResponse<'_>>(&answer).error, 0);
    }

    /// Code and value.
    pub(crate) fn get(&mut self, partition: PartitionId, hash_key: &[u8], sort_key: &[u8]) -> (i32, Vec<u8>) {
        let answer = self.call(partition, Rpc::Get, &Blob(&key::encode(hash_key, sort_key)));
        let read: ReadResponse<'_> = result(&answer);
        (read.error, read.value.0.to_vec())
    }

    /// Code and seconds.
    pub(crate) fn ttl(&mut self, partition: PartitionId, hash_key: &[u8], sort_key: &[u8]) -> (i32, i32) {
        let answer = self.call(partition, Rpc::Ttl, &Blob(&key::encode(hash_key, sort_key)));
        let ttl: TtlResponse<'_> = result(&answer);
        (ttl.error, ttl.ttl_seconds)
    }

    /// Code and rows, as text.
    pub(crate) fn multi_get(
        &mut self,
        partition: PartitionId,
        request: &MultiGetRequest<'_>,
    ) -> (i32, Vec<(String, String)>) {
        let answer = self.call(partition, Rpc::MultiGet, request);
        let found: MultiGetResponse<'_> = result(&answer);
        (found.error, found.kvs.iter().map(|kv| (text(kv.key.0), text(kv.value.0))).collect())
    }

    /// Code and number.
    pub(crate) fn count(&mut self, partition: PartitionId, hash_key: &[u8]) -> (i32, i64) {
        let answer = self.call(partition, Rpc::SortkeyCount, &Blob(hash_key));
        let count: CountResponse<'_> = result(&answer);
        (count.error, count.count)
    }

    pub(crate) fn begin_scan(&mut self, partition: PartitionId, request: &GetScannerRequest<'_>) -> Slice {
        let answer = self.call(partition, Rpc::GetScanner, request);
        Slice::of(&result(&answer))
    }

    pub(crate) fn continue_scan(&mut self, partition: PartitionId, context_id: i64) -> Slice {
        let answer = self.call(partition, Rpc::Scan, &ScanRequest { context_id });
        Slice::of(&result(&answer))
    }
}

/// One answer of a scan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) error: i32,
    /// Stored key, value, expiry if that was asked for.
    pub(crate) rows: Vec<(Vec<u8>, Vec<u8>, Option<i32>)>,
    pub(crate) context_id: i64,
    pub(crate) count: Option<i32>,
}

impl Slice {
    fn of(scan: &ScanResponse<'_>) -> Slice {
        let row = |kv: &pegasus_gateway::messages::read::KeyValue<'_>| {
            (kv.key.0.to_vec(), kv.value.0.to_vec(), kv.expire_ts_seconds)
        };
        let rows = scan.kvs.iter().map(row).collect();
        Slice { error: scan.error, rows, context_id: scan.context_id, count: scan.kv_count }
    }
}

/// The bytes of a request.
pub(crate) fn request<'a, T: Value<'a>>(partition: PartitionId, rpc: Rpc, sequence: i32, argument: &T) -> Vec<u8> {
    let header = RequestHeader {
        app_id: partition.table.0.cast_signed(),
        partition_index: partition.index.cast_signed(),
        timeout_ms: 1000,
        ..RequestHeader::default()
    };
    let mut bytes = Vec::new();
    append_request(&mut bytes, &header, rpc, sequence, argument);
    bytes
}

/// What an answer without an error says.
pub(crate) fn result<'a, T: Value<'a>>(answer: &'a [u8]) -> T {
    let answer = Answer::parse(answer).expect("an answer");
    assert_eq!(answer.error, "ERR_OK");
    answer.result().expect("a result")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The partition of a table of so many that a hash key belongs to.
pub(crate) fn partition_of(table: u32, partitions: u32, hash_key: &[u8]) -> PartitionId {
    PartitionId::new(table, partition_index(hash_key, b"", partitions))
}
