//! What the tests of the transport share: a CA, the two executors, and a server that answers in several manners.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pegasus_rpc::{
    Alpn, Authority, Channel, Connection, Endpoint, EndpointOptions, FrameReader, Identity, Outbox, Role, Runtime,
};
use pegasus_wire::{Frame, FrameBuilder, FrameHeader, MessageKind, Status};

/// Answered at once with the request's attachment.
pub const ECHO: MessageKind = MessageKind::GET;
/// Kept until `LAST` comes.
pub const HOLD: MessageKind = MessageKind::SCAN;
/// Answers itself, then everything that was kept, the latest first.
pub const LAST: MessageKind = MessageKind::MULTI_GET;
/// Never answered.
pub const IGNORE: MessageKind = MessageKind::WRITE;
/// The server closes the connection.
pub const CLOSE: MessageKind = MessageKind::REFUSE;
/// The server ends the stream in good order.
pub const FINISH: MessageKind = MessageKind::COMMIT_POINT;

/// A bound on everything that is awaited; far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A CA and identities of all roles.
pub struct Ca {
    authority: Authority,
}

impl Ca {
    pub fn new() -> Ca {
        Ca { authority: Authority::generate().unwrap() }
    }

    pub fn identity(&self, role: Role) -> Identity {
        let issued = self.authority.issue(role).unwrap();
        Identity::from_pem(&issued.certificate, &issued.key, self.authority.certificate()).unwrap()
    }

    pub fn server(&self, runtime: &Runtime) -> Endpoint {
        self.server_at(runtime, loopback())
    }

    pub fn server_at(&self, runtime: &Runtime, address: SocketAddr) -> Endpoint {
        let options = EndpointOptions { cluster: None, accepts: &[Alpn::Data, Alpn::Peer] };
        let endpoint = Endpoint::bind(runtime.clone(), address, self.identity(Role::Replica), options).unwrap();
        runtime.spawn(serve(runtime.clone(), endpoint.clone()));
        endpoint
    }

    pub fn client(&self, runtime: &Runtime) -> Endpoint {
        Endpoint::client(runtime.clone(), self.identity(Role::Client)).unwrap()
    }

    pub async fn connect(&self, runtime: &Runtime, address: SocketAddr) -> Connection {
        self.client(runtime).connect(address, Role::Replica, Alpn::Data).await.unwrap()
    }
}

/// A server, a client's connection to it and a channel, all on one executor.
pub struct Pair {
    pub ca: Ca,
    pub runtime: Runtime,
    pub server: Endpoint,
    pub client: Endpoint,
    pub connection: Connection,
    pub channel: Channel,
}

impl Pair {
    pub async fn new(runtime: Runtime) -> Pair {
        let ca = Ca::new();
        let server = ca.server(&runtime);
        let client = ca.client(&runtime);
        let connection = client.connect(server.local_address(), Role::Replica, Alpn::Data).await.unwrap();
        let channel = Channel::open(&runtime, &connection).await.unwrap();
        Pair { ca, runtime, server, client, connection, channel }
    }
}

pub fn request(payload: &[u8]) -> impl FnOnce(&mut Vec<u8>, FrameHeader) + '_ {
    move |out, header| FrameBuilder::append_empty(out, header, payload)
}

pub async fn echo(channel: &Channel, payload: &[u8]) {
    let answer = channel.call(ECHO, soon(), request(payload)).await.unwrap();
    assert_eq!(answer.header.status, Status::Ok);
    assert_eq!(answer.attachment, payload);
}

/// Answers every stream of every connection until the endpoint closes.
pub async fn serve(runtime: Runtime, endpoint: Endpoint) {
    while let Some(connection) = endpoint.accept().await {
        let runtime = runtime.clone();
        runtime.clone().spawn(async move {
            while let Some((writer, reader)) = connection.accept().await {
                let outbox = Outbox::start(&runtime, writer);
                runtime.spawn(answer_all(connection.clone(), outbox, reader));
            }
        });
    }
}

async fn answer_all(connection: Connection, outbox: Outbox, mut reader: FrameReader) {
    let mut held = Vec::new();
    while let Ok(Some(first)) = reader.next().await {
        let mut next = Some(first);
        while let Some(frame) = next {
            match frame.header.kind {
                HOLD => held.push(frame),
                LAST => {
                    answer(&outbox, frame);
                    held.drain(..).rev().for_each(|frame| answer(&outbox, frame));
                }
                IGNORE => {}
                CLOSE => return connection.close("asked to"),
                FINISH => return outbox.finish(),
                _ => answer(&outbox, frame),
            }
            next = reader.try_next().unwrap_or(None);
        }
        if outbox.ready().await.is_err() {
            return;
        }
    }
}

fn answer(outbox: &Outbox, frame: Frame) {
    let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
    // The client may have gone already.
    let _ = outbox.push_with_attachment(|out| head(out, header, frame.attachment.len()), frame.attachment.clone());
}

/// A head without a body, for an attachment that follows.
pub fn head(out: &mut Vec<u8>, header: FrameHeader, attachment_bytes: usize) {
    let start = out.len();
    FrameBuilder::append_empty(out, header, &[]);
    let length = (out.len() - start - 4 + attachment_bytes) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 20..start + 24].copy_from_slice(&(attachment_bytes as u32).to_le_bytes());
}

pub fn payload(bytes: usize, seed: u8) -> Bytes {
    (0..bytes).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}

pub fn on_tokio<F: Future<Output = ()>>(test: impl FnOnce(Runtime) -> F) {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    executor.block_on(async {
        tokio::time::timeout(4 * PATIENCE, test(Runtime::tokio())).await.expect("the test hangs");
    });
}

pub fn on_glommio<F: Future<Output = ()> + 'static>(test: impl FnOnce(Runtime) -> F + Send + 'static) {
    glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
        .spawn(move || async move {
            let runtime = Runtime::glommio();
            let done = runtime.timeout_at(Instant::now() + 4 * PATIENCE, test(runtime.clone())).await;
            done.expect("the test hangs");
        })
        .unwrap()
        .join()
        .unwrap();
}

/// Runs each listed test on both executors.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod tokio_executor {
            $(#[test] fn $name() { $crate::common::on_tokio(super::$name); })*
        }
        mod glommio_executor {
            $(#[test] fn $name() { $crate::common::on_glommio(super::$name); })*
        }
    };
}
