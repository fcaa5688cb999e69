//! Connections that come back.
#![cfg(all(feature = "glommio", feature = "tokio"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::*;
use futures_util::future::{join, join_all};
use pegasus_rpc::{Alpn, CallError, Channel, Endpoint, Reconnecting, Role, RpcError, Runtime};

on_both!(
    callers_share_one_connection,
    comes_back_after_a_restart,
    a_killed_server_is_noticed_when_it_is_back,
    nobody_there_is_not_sent,
    a_caller_that_gives_up_does_not_end_the_attempt,
    a_refused_connection_is_reported_at_once,
);

fn link(ca: &Ca, runtime: &Runtime, address: SocketAddr) -> Reconnecting {
    Reconnecting::new(ca.client(runtime), address, Role::Replica, Alpn::Data)
}

async fn callers_share_one_connection(runtime: Runtime) {
    let ca = Ca::new();
    let options = pegasus_rpc::EndpointOptions { cluster: None, accepts: &[Alpn::Data] };
    let server = Endpoint::bind(runtime.clone(), loopback(), ca.identity(Role::Replica), options).unwrap();
    let link = link(&ca, &runtime, server.local_address());
    assert!(!link.is_connected());
    assert!(!link.notify(IGNORE, |_, _| panic!("no connection is made for it")));
    let connections = join_all((0..20).map(|_| link.connection(soon())));
    let (connections, served) = join(connections, server.accept()).await;
    assert!(connections.into_iter().all(|connection| connection.is_ok()));
    assert!(served.is_some() && link.is_connected());
    assert!(link.notify(IGNORE, request(b"now there is one")));
    let another = runtime.timeout_at(Instant::now() + Duration::from_millis(100), server.accept()).await;
    assert!(another.is_none(), "there is only one");
}

async fn comes_back_after_a_restart(runtime: Runtime) {
    let ca = Ca::new();
    let server = ca.server(&runtime);
    let address = server.local_address();
    let link = link(&ca, &runtime, address);
    link.call(ECHO, soon(), request(b"first")).await.unwrap();
    let pending = link.call(IGNORE, soon(), request(b"x"));
    let (pending, ()) = join(pending, async {
        link.call(ECHO, soon(), request(b"behind it")).await.unwrap();
        server.close().await;
    })
    .await;
    assert!(matches!(pending, Err(CallError::Lost { .. })), "{pending:?}");
    drop(server);

    let _server = rebind(&ca, &runtime, address).await;
    retry_until_answered(&link).await;
    assert!(link.is_connected());
}

/// The port is free a moment after the last task of the old endpoint has ended.
async fn rebind(ca: &Ca, runtime: &Runtime, address: SocketAddr) -> Endpoint {
    let options = pegasus_rpc::EndpointOptions { cluster: None, accepts: &[Alpn::Data] };
    let end = soon();
    loop {
        match Endpoint::bind(runtime.clone(), address, ca.identity(Role::Replica), options) {
            Ok(endpoint) => {
                runtime.spawn(serve(runtime.clone(), endpoint.clone()));
                return endpoint;
            }
            Err(error) => assert!(Instant::now() < end && error == RpcError::AddressInUse { address }, "{error}"),
        }
        runtime.sleep_until(Instant::now() + Duration::from_millis(5)).await;
    }
}

/// Only what was not sent is tried again.
async fn retry_until_answered(link: &Reconnecting) {
    let end = soon();
    loop {
        match link.call(ECHO, end, request(b"again")).await {
            Ok(answer) => return assert_eq!(answer.attachment[..], b"again"[..]),
            Err(CallError::NotSent { .. }) => assert!(Instant::now() < end),
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// A server that dies without a word and is started again on its port tells old connections that they are gone, long
/// before their idle timeout.
async fn a_killed_server_is_noticed_when_it_is_back(runtime: Runtime) {
    let ca = Ca::new();
    let identity = ca.identity(Role::Replica);
    let options = pegasus_rpc::EndpointOptions { cluster: None, accepts: &[Alpn::Data] };
    let start = |address: SocketAddr| {
        // An executor of its own: dropping it stops everything at once, nothing is closed.
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = executor.enter();
        let endpoint = Endpoint::bind(Runtime::tokio(), address, identity.clone(), options).unwrap();
        let address = endpoint.local_address();
        executor.spawn(serve(Runtime::tokio(), endpoint));
        drop(guard);
        (executor, address)
    };
    let (executor, address) = start(loopback());
    let link = link(&ca, &runtime, address);
    link.call(ECHO, soon(), request(b"alive")).await.unwrap();
    executor.shutdown_background();
    let killed = Instant::now();
    let (executor, _) = loop {
        // The threads of the first executor may take a moment to let go of the port.
        match std::net::UdpSocket::bind(address) {
            Ok(socket) => {
                drop(socket);
                break start(address);
            }
            Err(_) => runtime.sleep_until(Instant::now() + Duration::from_millis(2)).await,
        }
    };
    let lost = link.call(ECHO, soon(), request(b"to the dead")).await;
    assert!(matches!(lost, Err(CallError::Lost { .. })), "{lost:?}");
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    retry_until_answered(&link).await;
    executor.shutdown_background();
}

async fn nobody_there_is_not_sent(runtime: Runtime) {
    let ca = Ca::new();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let link = link(&ca, &runtime, silent.local_addr().unwrap());
    let soon = || Instant::now() + Duration::from_millis(100);
    let result = link.call(ECHO, soon(), |_, _| panic!("it must not be built")).await;
    assert_eq!(result.unwrap_err(), CallError::Deadline { sent: false });
    let result = link.connection(soon()).await;
    assert!(matches!(result, Err(RpcError::ConnectTimeout { .. })), "{result:?}");
}

async fn a_caller_that_gives_up_does_not_end_the_attempt(runtime: Runtime) {
    let ca = Ca::new();
    let server = ca.server(&runtime);
    let link = link(&ca, &runtime, server.local_address());
    let hasty = link.call(ECHO, Instant::now() + Duration::from_micros(1), request(b"x")).await;
    assert_eq!(hasty.unwrap_err(), CallError::Deadline { sent: false });
    let connection = link.connection(soon()).await.unwrap();
    let channel = Channel::open(&runtime, &connection).await.unwrap();
    echo(&channel, b"also beside the shared channel").await;
}

async fn a_refused_connection_is_reported_at_once(runtime: Runtime) {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let server = theirs.server(&runtime);
    let link = link(&ours, &runtime, server.local_address());
    let start = Instant::now();
    for _ in 0..3 {
        let result = link.call(ECHO, soon(), request(b"x")).await;
        let Err(CallError::NotSent { reason }) = result else { panic!("{result:?}") };
        assert!(reason.contains("certificate"), "{reason}");
    }
    assert!(start.elapsed() < Duration::from_secs(3));
    // While it backs off, a deadline that comes first reports the last failure.
    // (A busy machine may let the backoff pass; then the next attempt runs into the deadline.)
    let end = soon();
    loop {
        match link.connection(Instant::now() + Duration::from_millis(1)).await {
            Err(RpcError::Untrusted { .. }) => break,
            Err(RpcError::ConnectTimeout { .. }) => assert!(Instant::now() < end),
            other => panic!("{other:?}"),
        }
    }
}
