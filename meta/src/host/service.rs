//! Connections and streams: reads requests, answers them in any order, within bounds.
//!
//! ```text
//! accept -> connection -> stream -> request (a task each, at most REQUESTS_PER_CONNECTION_MAX)
//!                                      \-> Outbox -> answer
//! ```
//!
//! Reading a stream stops while its answers are not taken or the connection has its share of requests in flight.
//! When a stream or its connection is lost its requests are dropped; commands already handed to the group go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pegasus_rpc::{Connection, Endpoint, FrameReader, Outbox, Runtime};
use pegasus_wire::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::handlers::{Caller, Service};
use super::liveness::ConnectionNumber;

/// Serves an endpoint until the service is told to stop, then lets the requests in flight finish.
pub async fn serve(service: Service, endpoint: Endpoint) {
    let mut connections = JoinSet::new();
    let mut stopping = service.stopping.clone();
    let mut number = 0;
    loop {
        let connection = tokio::select! {
            connection = endpoint.accept() => connection,
            () = stop_asked(&mut stopping) => None,
            _ = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Some(connection) = connection else { break };
        number += 1;
        let caller = Caller {
            role: connection.peer_role(),
            connection: ConnectionNumber(number),
            peer: connection.remote_address(),
        };
        let runtime = endpoint.runtime().clone();
        connections.spawn(serve_connection(service.clone(), runtime, connection, caller));
    }
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(service: Service, runtime: Runtime, connection: Connection, caller: Caller) {
    tracing::debug!(peer = %connection.remote_address(), role = %caller.role, "connected");
    let permits = Arc::new(Semaphore::new(REQUESTS_PER_CONNECTION_MAX));
    let mut streams = JoinSet::new();
    let mut stopping = service.stopping.clone();
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            () = stop_asked(&mut stopping) => None,
            _ = streams.join_next(), if !streams.is_empty() => continue,
        };
        let Some((writer, reader)) = stream else { break };
        let outbox = Outbox::start(&runtime, writer);
        streams.spawn(serve_stream(service.clone(), caller, reader, outbox, Arc::clone(&permits)));
    }
    if connection.is_closed() {
        streams.abort_all();
    }
    while streams.join_next().await.is_some() {}
    service.liveness.lost(caller.connection, Instant::now());
    if !connection.is_closed() {
        // The service stops. The last answers are on their way; the peer closes once it has them.
        tokio::time::timeout(LINGER, connection.closed()).await.ok();
        connection.close("the meta server is stopping");
    }
}

async fn serve_stream(
    service: Service,
    caller: Caller,
    mut reader: FrameReader,
    outbox: Outbox,
    permits: Arc<Semaphore>,
) {
    let mut requests = JoinSet::new();
    let mut stopping = service.stopping.clone();
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = stop_asked(&mut stopping) => break,
            _ = requests.join_next(), if !requests.is_empty() => continue,
        };
        let frame = match next {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                // The requests in flight are dropped with their set: nobody would read the answers.
                tracing::debug!("stream ended: {error}");
                return;
            }
        };
        let Some(permit) = room(&outbox, &permits).await else { return };
        requests.spawn(serve_request(service.clone(), caller, frame, outbox.clone(), permit));
    }
    while requests.join_next().await.is_some() {}
    outbox.finish();
}

/// Waits until the stream has taken its answers and the connection has room for one more request; `None` if the
/// stream is gone.
async fn room(outbox: &Outbox, permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    outbox.ready().await.ok()?;
    Arc::clone(permits).acquire_owned().await.ok()
}

async fn serve_request(service: Service, caller: Caller, frame: Frame, outbox: Outbox, permit: OwnedSemaphorePermit) {
    let answer = service.answer(caller, &frame).await;
    // An error means that the peer is gone; there is nobody to tell.
    outbox.push(|out| out.extend_from_slice(&answer)).ok();
    drop(permit);
}

/// Resolves when the service is told to stop.
pub async fn stop_asked(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the process's main task.
    stopping.wait_for(|&stopping| stopping).await.ok();
}

/// Requests of one connection in flight; a node needs a watch and a proposal or two.
const REQUESTS_PER_CONNECTION_MAX: usize = 256;
/// How long a stopping server waits for a peer to take its last answers.
const LINGER: Duration = Duration::from_millis(300);
