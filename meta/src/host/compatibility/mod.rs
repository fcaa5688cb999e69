//! The port for Pegasus's own clients: their Thrift protocol over TCP, at the address and number of the QUIC port.
//!
//! ```text
//! listener -> connection -> request (a task each) -> query_cfg | administration -> the service's own functions
//!                 \<------- answer, in any order <------------------/
//! ```
//!
//! What tables are and who leads is known to the service alone: nothing here decides. The protocol has neither
//! encryption nor certificates, so whoever reaches the port is served; that is why it has to be asked for, and the
//! administration once more.
//!
//! It must never let one peer harm another: what a connection may hold is bounded, one that does not move is ended, and
//! bytes that are not the protocol end their connection and nothing else.
//!
//! Reading order: this file, [`connection`], [`query_cfg`], [`administration`], [`listing`],
//! [`names`].

mod administration;
mod connection;
mod listing;
mod metrics;
mod names;
mod query_cfg;
mod quiet;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pegasus_gateway::frame::Message;
use pegasus_gateway::thrift::{ThriftError, Value};
use pegasus_gateway::{ErrorName, Rpc, answer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub(super) use metrics::Metrics;
use quiet::Quiet;

use super::config::CompatibilityConfig;
use super::handlers::{Asker, Service};
use super::service::stop_asked;

/// What every connection needs.
pub(super) struct Front {
    service: Service,
    config: CompatibilityConfig,
    /// What is logged at a limited rate, so that a peer cannot fill the log.
    quiet: Quiet,
}

/// Serves the port until the service is told to stop, then lets the requests in flight finish.
pub(super) async fn serve(service: Service, config: CompatibilityConfig, listener: TcpListener) {
    let mut stopping = service.stopping.clone();
    let front = Arc::new(Front { service, config, quiet: Quiet::default() });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop_asked(&mut stopping) => break,
            _ = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, peer)) => front.admit(stream, peer, &mut connections),
            Err(error) => {
                // Out of descriptors, most likely. It does not pass by asking again at once.
                front.quiet.accept.warn(|| format!("no connection of the compatibility port is taken: {error}"));
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = stop_asked(&mut stopping) => break,
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Lets this process open as many files as it may; every connection takes one.
pub(super) fn raise_file_limit(connections_max: u32) {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, maximum: limits.maximum };
    let set = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let in_force = if set.is_ok() { limits.maximum } else { limits.current };
    if in_force.is_some_and(|files| files < u64::from(connections_max) + FILES_BESIDE_CONNECTIONS) {
        tracing::warn!(
            open_files_max = in_force,
            connections_max,
            "this process may not open as many files as it may have connections: raise its limit (ulimit -n), or \
             lower compatibility.connections_max"
        );
    }
}

impl Front {
    fn admit(self: &Arc<Front>, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        while connections.try_join_next().is_some() {}
        let most = self.config.connections_max as usize;
        if connections.len() >= most {
            self.service.metrics.compatibility.refused();
            let text =
                || format!("{peer} is turned away: there are {most} connections (compatibility.connections_max)");
            self.quiet.full.warn(text);
            return;
        }
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        // Neither is needed to serve: a peer that is gone without a word is then noticed later, an answer is slower.
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).ok();
        stream.set_nodelay(true).ok();
        connections.spawn(connection::run(Arc::clone(self), stream, peer));
    }

    /// Carries out one request: the bytes of its answer, none for a request that wants none.
    async fn carry_out(&self, peer: SocketAddr, body: &[u8]) -> Result<Vec<u8>, ThriftError> {
        let message = Message::parse(body)?;
        let mut call = Call { message, asker: Asker { peer, role: ASKER_ROLE }, answer: Vec::new() };
        let rpc = Rpc::from_name(message.name);
        let outcome = match rpc {
            Some(Rpc::QueryCfg) => self.query_cfg(&mut call).await?,
            Some(rpc) => match self.administer(rpc, &mut call).await? {
                Some(outcome) => outcome,
                None => call.refuse(ErrorName::HandlerNotFound),
            },
            None => call.refuse(ErrorName::HandlerNotFound),
        };
        let method = if outcome == ErrorName::HandlerNotFound { None } else { rpc };
        self.service.metrics.compatibility.answered(method, outcome);
        Ok(if message.is_one_way { Vec::new() } else { call.answer })
    }
}

/// A request and the answer it gets.
struct Call<'a> {
    message: Message<'a>,
    asker: Asker,
    answer: Vec<u8>,
}

impl<'a> Call<'a> {
    fn argument<T: Value<'a>>(&self) -> Result<T, ThriftError> {
        self.message.argument()
    }

    /// The answer of a method that was carried out, or says in its own answer why it was not.
    fn reply<'r, T: Value<'r>>(&mut self, outcome: ErrorName, result: &T) -> ErrorName {
        answer::append_result(&mut self.answer, self.message.name, self.message.sequence, result);
        outcome
    }

    /// The answer of a method that there is not.
    fn refuse(&mut self, error: ErrorName) -> ErrorName {
        answer::append_error(&mut self.answer, self.message.name, self.message.sequence, error);
        error
    }
}

/// How the log names those who have no certificate.
const ASKER_ROLE: &str = "none (compatibility port)";
/// How long nothing is accepted after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After this silence, and every so often from then on, the kernel asks whether the peer is there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Files of the database, QUIC, administration.
const FILES_BESIDE_CONNECTIONS: u64 = 64;
