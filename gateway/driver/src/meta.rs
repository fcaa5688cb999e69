//! Asking the meta servers: all at once, or the one that answered last; the first good answer counts.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pegasus_gateway::Rpc;
use pegasus_gateway::answer::Answer;
use pegasus_gateway::frame::RequestHeader;
use pegasus_gateway::messages::admin::{CreateAppRequest, CreateAppResponse};
use pegasus_gateway::messages::meta::{QueryCfgRequest, QueryCfgResponse};
use pegasus_gateway::thrift::Value;
use tokio::time::Instant;

use crate::connection::Request;
use crate::error::Error;
use crate::judge::{CallError, Pauses};
use crate::node::Node;
use crate::route::Configuration;

/// How long one meta server may take for an answer, before all are asked again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Most servers asked in one round, those that others named as the leader included.
const SERVERS_MAX: usize = 16;

/// The meta servers of a cluster.
pub(crate) struct MetaServers {
    nodes: Vec<Arc<Node>>,
    /// Who gave the last good answer.
    leader: Mutex<Option<Arc<Node>>>,
}

/// What one server's answer comes to.
#[derive(Debug, PartialEq)]
enum Said<T> {
    /// This is it.
    Good(T),
    /// Another leads, at this address if it was told.
    Elsewhere(Option<SocketAddr>, String),
    /// Later perhaps.
    Later(String),
    /// No.
    No(Error),
}

impl MetaServers {
    /// Servers at these addresses; nothing is opened yet.
    pub(crate) fn new(addresses: &[SocketAddr]) -> MetaServers {
        let nodes = addresses.iter().map(|&address| Arc::new(Node::new(address, 1))).collect();
        MetaServers { nodes, leader: Mutex::new(None) }
    }

    /// Finds out whether any can be reached.
    pub(crate) async fn reach(&self, deadline: Instant) -> Result<(), Error> {
        let reach = |node: &Arc<Node>| {
            let node = node.clone();
            async move { node.reach(deadline).await.map_err(|error| explain(&node, &error)) }
        };
        let mut under_way: FuturesUnordered<_> = self.nodes.iter().map(reach).collect();
        let mut why = Vec::new();
        while let Some(outcome) = under_way.next().await {
            match outcome {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(reason),
            }
        }
        Err(Error::Timeout(format!("no meta server can be reached: {}", why.join("; "))))
    }

    /// Where a table's partitions are. Errors: [`Error::NoSuchTable`], [`Error::Refused`], [`Error::Timeout`].
    pub(crate) async fn configuration(&self, table: &str, deadline: Instant) -> Result<Configuration, Error> {
        let argument = QueryCfgRequest { app_name: table, partition_indices: Vec::new() };
        let request = Request { rpc: Rpc::QueryCfg, argument, bytes: table.len() };
        self.ask(&request, deadline, |answer| read_configuration(answer, table)).await
    }

    /// Makes a table; returns its number. Errors: [`Error::Refused`], [`Error::Timeout`].
    pub(crate) async fn create(&self, argument: CreateAppRequest<'_>, deadline: Instant) -> Result<i32, Error> {
        let request = Request { rpc: Rpc::CreateApp, bytes: argument.app_name.len(), argument };
        self.ask(&request, deadline, read_created).await
    }

    async fn ask<'a, A: Value<'a>, T>(
        &self,
        request: &Request<A>,
        deadline: Instant,
        read: impl Fn(&Answer<'_>) -> Said<T>,
    ) -> Result<T, Error> {
        let mut pauses = Pauses::until(deadline);
        loop {
            let reason = match self.round(request, deadline, &read).await {
                Said::Good(result) => return Ok(result),
                Said::No(error) => return Err(error),
                Said::Later(reason) | Said::Elsewhere(_, reason) => reason,
            };
            pauses.pause(reason).await?;
        }
    }

    /// Asks every server once, and those they name.
    async fn round<'a, A: Value<'a>, T>(
        &self,
        request: &Request<A>,
        deadline: Instant,
        read: &impl Fn(&Answer<'_>) -> Said<T>,
    ) -> Said<T> {
        let attempt = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
        let one = |node: Arc<Node>| async move {
            let said = match node.call(&header(attempt), request, attempt).await {
                Ok(frame) => said(&frame, read),
                Err(error) => Said::Later(explain(&node, &error)),
            };
            (node, said)
        };
        let leader = self.leader.lock().expect("no holder of the leader panics").clone();
        let first = leader.map_or_else(|| self.nodes.clone(), |leader| vec![leader]);
        let mut asked: HashSet<SocketAddr> = first.iter().map(|node| node.address()).collect();
        let mut under_way: FuturesUnordered<_> = first.into_iter().map(one).collect();
        let mut rest = Said::Later("there is no meta server".to_owned());
        while let Some((node, said)) = under_way.next().await {
            match said {
                Said::Good(_) => {
                    self.set_leader(Some(node));
                    return said;
                }
                Said::No(_) => rest = said,
                Said::Elsewhere(hint, reason) => {
                    let hint = hint.filter(|&hint| asked.len() < SERVERS_MAX && asked.insert(hint));
                    if let Some(hint) = hint {
                        under_way.push(one(self.node(hint)));
                    } else if !matches!(rest, Said::No(_)) {
                        rest = Said::Later(reason);
                    }
                }
                Said::Later(_) if !matches!(rest, Said::No(_)) => rest = said,
                Said::Later(_) => {}
            }
        }
        self.set_leader(None);
        rest
    }

    fn set_leader(&self, leader: Option<Arc<Node>>) {
        *self.leader.lock().expect("no holder of the leader panics") = leader;
    }

    fn node(&self, address: SocketAddr) -> Arc<Node> {
        let known = self.nodes.iter().find(|node| node.address() == address);
        known.cloned().unwrap_or_else(|| Arc::new(Node::new(address, 1)))
    }
}

fn header(deadline: Instant) -> RequestHeader {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    RequestHeader { timeout_ms: i32::try_from(left).unwrap_or(i32::MAX), ..RequestHeader::default() }
}

fn explain(node: &Node, error: &CallError) -> String {
    let address = node.address();
    match error {
        CallError::NotSent(reason) | CallError::Lost(reason) => format!("meta server {address}: {reason}"),
        CallError::Late { .. } => format!("meta server {address} does not answer"),
    }
}

fn said<T>(frame: &[u8], read: &impl Fn(&Answer<'_>) -> Said<T>) -> Said<T> {
    match Answer::parse(frame) {
        Ok(answer) if answer.is_ok() => read(&answer),
        Ok(answer) => judge(answer.error, None),
        Err(error) => Said::No(Error::Protocol(error.to_string())),
    }
}

/// What an error name says, in place of an answer or inside it.
fn judge<T>(name: &str, leader: Option<SocketAddr>) -> Said<T> {
    let reason = format!("the meta server says {name}");
    match name {
        "ERR_FORWARD_TO_OTHERS" => Said::Elsewhere(leader, reason),
        "ERR_BUSY_CREATING"
        | "ERR_BUSY_DROPPING"
        | "ERR_SERVICE_NOT_ACTIVE"
        | "ERR_UNDER_RECOVERY"
        | "ERR_TIMEOUT"
        | "ERR_BUSY"
        | "ERR_INVALID_STATE"
        | "ERR_INACTIVE_STATE"
        | "ERR_TRY_AGAIN" => Said::Later(reason),
        _ => Said::No(Error::refused(name)),
    }
}

fn read_configuration(answer: &Answer<'_>, table: &str) -> Said<Configuration> {
    let response: QueryCfgResponse<'_> = match answer.result() {
        Ok(response) => response,
        Err(error) => return Said::No(Error::Protocol(format!("where the partitions are: {error}"))),
    };
    match response.err.0 {
        "ERR_OK" => match Configuration::read(&response) {
            Ok(configuration) => Said::Good(configuration),
            Err(error) => Said::No(Error::Protocol(format!("where the partitions are: {error}"))),
        },
        "ERR_OBJECT_NOT_FOUND" => Said::No(Error::NoSuchTable(format!("there is no table {table}"))),
        name => {
            let leader = response.partitions.first().and_then(|partition| partition.primary.0);
            judge(name, leader.map(SocketAddr::V4))
        }
    }
}

fn read_created(answer: &Answer<'_>) -> Said<i32> {
    match answer.result::<CreateAppResponse<'_>>() {
        Ok(response) if response.err.0 == "ERR_OK" => Said::Good(response.appid),
        Ok(response) => judge(response.err.0, None),
        Err(error) => Said::No(Error::Protocol(format!("whether the table was made: {error}"))),
    }
}
