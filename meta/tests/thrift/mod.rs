//! A client of the compatibility port, over a bare socket.
// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;

use pegasus_gateway::answer::{self, Answer};
use pegasus_gateway::frame::{RequestHeader, append_request};
use pegasus_gateway::messages::meta::{QueryCfgRequest, QueryCfgResponse};
use pegasus_gateway::thrift::Value;
use pegasus_gateway::{ErrorName, Rpc};
use pegasus_meta::host::config::CompatibilityConfig;
use pegasus_meta::host::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{PATIENCE, Place};

/// A configuration with the port, and administration over it.
pub fn config(place: &Place) -> Config {
    let compatibility = CompatibilityConfig { enabled: true, administration: true, ..CompatibilityConfig::default() };
    Config { compatibility, ..place.config() }
}

/// A server with the port.
pub async fn start(place: &Place) -> Server {
    Server::start(&config(place)).await.unwrap()
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    received: Vec<u8>,
    sequence: i32,
}

impl Client {
    pub async fn connect(server: &Server) -> Client {
        Client::connect_to(server.compatibility_address().unwrap()).await
    }

    pub async fn connect_to(address: SocketAddr) -> Client {
        Client { stream: TcpStream::connect(address).await.unwrap(), received: Vec::new(), sequence: 0 }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer; `None` if the server closed the connection first.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        tokio::time::timeout(PATIENCE, self.read_answer()).await.expect("an answer or an end")
    }

    async fn read_answer(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) =
                answer::length(&self.received).unwrap().filter(|&length| length <= self.received.len())
            {
                let rest = self.received.split_off(length);
                return Some(std::mem::replace(&mut self.received, rest));
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => {
                    assert!(self.received.is_empty(), "the connection ends in the middle of an answer");
                    return None;
                }
                Ok(_) => {}
            }
        }
    }

    /// Asks and waits for the answer.
    pub async fn call<'a, T: Value<'a>>(&mut self, rpc: Rpc, argument: &T) -> Reply {
        self.sequence += 1;
        self.send(&request(rpc, self.sequence, argument)).await;
        let reply = Reply(self.next().await.expect("an answer"));
        assert_eq!(reply.parse().sequence, self.sequence);
        reply
    }

    /// Asks where a table is.
    pub async fn query(&mut self, app_name: &str, partition_indices: Vec<i32>) -> Reply {
        self.call(Rpc::QueryCfg, &QueryCfgRequest { app_name, partition_indices }).await
    }
}

/// A request as the Go client sends it.
pub fn request<'a, T: Value<'a>>(rpc: Rpc, sequence: i32, argument: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_request(&mut bytes, &RequestHeader::default(), rpc, sequence, argument);
    bytes
}

/// The bytes of an answer.
pub struct Reply(pub Vec<u8>);

impl Reply {
    pub fn parse(&self) -> Answer<'_> {
        Answer::parse(&self.0).unwrap()
    }

    /// The result, which every answer of a method that exists has.
    pub fn result<'a, T: Value<'a>>(&'a self) -> T {
        let answer = self.parse();
        assert!(answer.is_ok(), "{}", answer.error);
        answer.result().unwrap()
    }

    /// The answer to a question for a table, and its error.
    pub fn route(&self) -> (ErrorName, QueryCfgResponse<'_>) {
        let response: QueryCfgResponse<'_> = self.result();
        (ErrorName::from_text(response.err.0).unwrap(), response)
    }
}
