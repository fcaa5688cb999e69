//! QUIC echo on this stack: the least a request can cost.
//!
//! The server is a storage node's transport without the storage: one executor in a thread of this process, an
//! endpoint, and for each stream a reader and an outbox. It takes frames in batches and answers each with its own
//! bytes. The client is the tokio side as real clients use it: one channel, many calls in flight.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use glommio::{LocalExecutorBuilder, Placement};
use pegasus_rpc::{
    Alpn, Authority, Channel, Connection, Endpoint, EndpointOptions, FrameReader, Identity, Outbox, Role, Runtime,
};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, Status};
use tokio::sync::oneshot;

use crate::failure::Failure;
use crate::measure::{Measurement, ThreadClock, process_cpu};
use crate::workload::{Outcome, Pace, Phases, drive};

/// Measures echoes of `payload_bytes` at each depth, for `seconds` each. Call it inside a tokio runtime.
pub async fn measure(payload_bytes: usize, depths: &[usize], seconds: Duration) -> Result<Vec<Measurement>, Failure> {
    let authority = Authority::generate().map_err(Failure::at("make a CA"))?;
    let server = EchoServer::start(identity(&authority, Role::Replica)?)?;
    let measured = measure_against(&server, identity(&authority, Role::Client)?, payload_bytes, depths, seconds).await;
    server.stop();
    measured
}

async fn measure_against(
    server: &EchoServer,
    identity: Identity,
    payload_bytes: usize,
    depths: &[usize],
    seconds: Duration,
) -> Result<Vec<Measurement>, Failure> {
    let runtime = Runtime::tokio();
    let endpoint = Endpoint::client(runtime.clone(), identity).map_err(Failure::at("open a client socket"))?;
    let connection = endpoint.connect(server.address, Role::Replica, Alpn::Data).await;
    let connection = connection.map_err(Failure::at("connect to the echo server"))?;
    let channel = Channel::open(&runtime, &connection).await.map_err(Failure::at("open a channel"))?;
    let payload = Bytes::from(vec![0x5A; payload_bytes]);

    let mut measurements = Vec::new();
    for &depth in depths {
        measurements.push(measure_depth(server.clock, &channel, &payload, depth, seconds).await?);
    }
    endpoint.close().await;
    Ok(measurements)
}

async fn measure_depth(
    server: ThreadClock,
    channel: &Channel,
    payload: &Bytes,
    depth: usize,
    seconds: Duration,
) -> Result<Measurement, Failure> {
    let workers = (0..depth).map(|_| {
        let (channel, payload) = (channel.clone(), payload.clone());
        move || {
            let (channel, payload) = (channel.clone(), payload.clone());
            async move { call(&channel, payload).await }
        }
    });
    let phases = Phases { warmup: WARMUP, measured: seconds, drain: CALL_TIMEOUT };
    let clocks = || match server.read() {
        Some(server) => Ok((process_cpu(), server)),
        None => Err(Failure::new("the echo server has ended")),
    };
    let driven = drive(workers.collect(), Pace::Closed, phases, clocks).await?;
    let (process, server) = (driven.after.0 - driven.before.0, driven.after.1 - driven.before.1);
    let name = format!("quic echo {} B", payload.len());
    let mut measurement = Measurement::new(name, depth, &driven.record.latency(), driven.wall)
        .with_client_cpu(process.saturating_sub(server))
        .with_server_cpu(server);
    measurement.errors = driven.record.error_count();
    Ok(measurement)
}

async fn call(channel: &Channel, payload: Bytes) -> Outcome {
    let deadline = Instant::now() + CALL_TIMEOUT;
    let sent = payload.clone();
    let answer =
        channel.call(MessageKind::GET, deadline, move |out, header| FrameBuilder::append_empty(out, header, &sent));
    match answer.await {
        Ok(frame) if frame.attachment.len() == payload.len() => Outcome::done("echo"),
        Ok(_) => Outcome::failed("echo", "another answer"),
        Err(_) => Outcome::failed("echo", "no answer"),
    }
}

fn identity(authority: &Authority, role: Role) -> Result<Identity, Failure> {
    let issued = authority.issue(role).map_err(Failure::at("issue a certificate"))?;
    Identity::from_pem(&issued.certificate, &issued.key, authority.certificate())
        .map_err(Failure::at("use a certificate"))
}

/// The server: an executor in a thread of its own, which ends with [`EchoServer::stop`].
struct EchoServer {
    address: SocketAddr,
    clock: ThreadClock,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// What the server's thread says once it listens.
type Ready = Result<(SocketAddr, ThreadClock), String>;

impl EchoServer {
    fn start(identity: Identity) -> Result<EchoServer, Failure> {
        let (stop, stopped) = oneshot::channel();
        let (ready, wait_ready) = std::sync::mpsc::channel::<Ready>();
        let thread = thread::Builder::new()
            .name("echo-server".to_owned())
            .spawn(move || run_server(identity, stopped, &ready))
            .map_err(Failure::at("start the echo server"))?;
        let answer = wait_ready.recv().map_err(Failure::at("wait for the echo server"))?;
        let (address, clock) = answer.map_err(Failure::at("start the echo server"))?;
        Ok(EchoServer { address, clock, stop, thread })
    }

    fn stop(self) {
        // An error on either line means that the thread has ended already.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// The server's thread: an executor that is not pinned and does not spin, like those of a storage node on a machine
/// with fewer CPUs than executors.
fn run_server(identity: Identity, stopped: oneshot::Receiver<()>, ready: &std::sync::mpsc::Sender<Ready>) {
    let executor = match LocalExecutorBuilder::new(Placement::Unbound).name("echo").make() {
        Ok(executor) => executor,
        Err(error) => return report(ready, Err(format!("make an executor: {error}"))),
    };
    executor.run(async move {
        let runtime = Runtime::glommio();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = EndpointOptions { cluster: None, accepts: &[Alpn::Data] };
        let endpoint = match Endpoint::bind(runtime.clone(), address, identity, options) {
            Ok(endpoint) => endpoint,
            Err(error) => return report(ready, Err(error.to_string())),
        };
        report(ready, Ok((endpoint.local_address(), ThreadClock::current())));
        let mut stopped = stopped.fuse();
        loop {
            let connection = futures_util::select_biased! {
                _ = stopped => break,
                connection = endpoint.accept().fuse() => connection,
            };
            let Some(connection) = connection else { break };
            glommio::spawn_local(serve(runtime.clone(), connection)).detach();
        }
        endpoint.close().await;
    });
}

fn report(ready: &std::sync::mpsc::Sender<Ready>, state: Ready) {
    // The starter waits for exactly one message; if it has gone, nobody needs it.
    let _ = ready.send(state);
}

async fn serve(runtime: Runtime, connection: Connection) {
    while let Some((writer, reader)) = connection.accept().await {
        let outbox = Outbox::start(&runtime, writer);
        glommio::spawn_local(echo(reader, outbox)).detach();
    }
}

/// Answers the frames of one stream until its end. What has arrived is taken as a batch.
async fn echo(mut reader: FrameReader, outbox: Outbox) {
    while let Ok(Some(first)) = reader.next().await {
        let mut next = Some(first);
        while let Some(frame) = next {
            if answer(&outbox, &frame).is_err() {
                return;
            }
            next = reader.try_next().unwrap_or(None);
        }
        if outbox.ready().await.is_err() {
            return;
        }
    }
    outbox.finish();
}

fn answer(outbox: &Outbox, frame: &Frame) -> Result<(), pegasus_rpc::Closed> {
    let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
    outbox.push(|out| FrameBuilder::append_empty(out, header, &frame.attachment))
}

/// Before each depth is measured.
const WARMUP: Duration = Duration::from_millis(200);
/// On loopback nothing takes this long unless it is lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn echoes_come_back_at_every_depth() {
        let measurements = measure(100, &[1, 8], Duration::from_millis(100)).await.unwrap();
        assert_eq!(measurements.len(), 2);
        for (measurement, depth) in measurements.iter().zip([1, 8]) {
            assert_eq!((measurement.depth, measurement.errors), (depth, 0));
            assert!(measurement.operations > 0, "{measurement:?}");
            assert!(measurement.server_cpu_us.unwrap() > 0.0 && measurement.client_cpu_us.unwrap() > 0.0);
        }
    }
}
