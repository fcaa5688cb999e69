//! Pipelined calls: order, size, number, deadlines, cancellation, loss.
#![cfg(all(feature = "glommio", feature = "tokio"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::future::Future;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::*;
use futures_util::future::{join, join_all};
use pegasus_rpc::{Alpn, CallError, Channel, Endpoint, Role, RpcError, Runtime};
use pegasus_wire::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, REQUESTS_PER_STREAM_MAX};

on_both!(
    echo_in_order,
    many_in_flight,
    out_of_order,
    largest_frames,
    deadline_after_sending,
    deadline_before_sending,
    given_up_calls_free_their_slots,
    connection_closed_by_the_server,
    stream_finished_by_the_server,
    dropped_channel_ends_its_stream,
    closing_the_endpoint_ends_calls,
    one_way_messages_are_not_waited_for,
);

async fn echo_in_order(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    for length in [0, 1, 100, 1_000, 20_000, 70_000] {
        echo(&pair.channel, &payload(length, 1)).await;
    }
    assert_eq!(pair.connection.peer_role(), Role::Replica);
    assert_eq!(pair.connection.alpn(), Alpn::Data);
    assert_eq!(pair.connection.version(), 1);
    assert_eq!(pair.connection.remote_address(), pair.server.local_address());
}

/// More than the table holds: the rest waits for room.
async fn many_in_flight(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    let calls = (0..3 * REQUESTS_PER_STREAM_MAX).map(|index| {
        let channel = pair.channel.clone();
        async move { echo(&channel, &payload(100 + index % 50, index as u8)).await }
    });
    join_all(calls).await;
    assert_eq!(pair.channel.in_flight(), 0);
}

async fn out_of_order(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    let order = std::sync::Mutex::new(Vec::new());
    let held = (0..10u8).map(|index| {
        let (channel, order) = (&pair.channel, &order);
        async move {
            let answer = channel.call(HOLD, soon(), request(&[index])).await.unwrap();
            assert_eq!(answer.attachment[..], [index]);
            order.lock().unwrap().push(index);
        }
    });
    join(join_all(held), async {
        pair.channel.call(LAST, soon(), request(b"now")).await.unwrap();
    })
    .await;
    assert_eq!(order.into_inner().unwrap().len(), 10);
}

/// As large as allowed; they arrive in hundreds of packets and are gathered.
async fn largest_frames(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    let large = payload(FRAME_BYTES_MAX - FRAME_HEADER_BYTES, 3);
    join_all((0..4).map(|_| echo(&pair.channel, &large))).await;
    join(echo(&pair.channel, &large), echo(&pair.channel, b"small")).await;
    // Datagrams have grown, and long trains of large ones are not lost.
    let seen = pair.connection.statistics();
    assert!(seen.datagram_bytes > 1452 && seen.black_holes == 0 && seen.packets_sent > 0, "{seen:?}");
}

async fn deadline_after_sending(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    // A later deadline first: the channel has to move its timer forward.
    let later = pair.channel.call(IGNORE, Instant::now() + Duration::from_secs(1), request(b"x"));
    let earlier = pair.channel.call(IGNORE, Instant::now() + Duration::from_millis(30), request(b"x"));
    let start = Instant::now();
    let (later, earlier) = join(later, async {
        let result = earlier.await;
        assert!(start.elapsed() >= Duration::from_millis(25) && start.elapsed() < Duration::from_millis(900));
        result
    })
    .await;
    assert_eq!(later.unwrap_err(), CallError::Deadline { sent: true });
    assert_eq!(earlier.unwrap_err(), CallError::Deadline { sent: true });
    echo(&pair.channel, b"the channel lives on").await;
}

async fn deadline_before_sending(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    let passed = pair.channel.call(ECHO, Instant::now(), |_, _| panic!("it must not be built")).await;
    assert_eq!(passed.unwrap_err(), CallError::Deadline { sent: false });
    // The table is full of calls that are never answered; the next one finds no room in time.
    let end = Instant::now() + Duration::from_secs(1);
    let unanswered = join_all((0..REQUESTS_PER_STREAM_MAX).map(|_| pair.channel.call(IGNORE, end, request(b"x"))));
    let crowded_out = async {
        let deadline = Instant::now() + Duration::from_millis(100);
        pair.channel.call(ECHO, deadline, |_, _| panic!("it must not be built")).await
    };
    let (unanswered, crowded_out) = join(unanswered, crowded_out).await;
    assert_eq!(crowded_out.unwrap_err(), CallError::Deadline { sent: false });
    assert!(unanswered.into_iter().all(|result| result.unwrap_err() == CallError::Deadline { sent: true }));
    echo(&pair.channel, b"and there is room again").await;
}

async fn given_up_calls_free_their_slots(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    for _ in 0..2 * REQUESTS_PER_STREAM_MAX {
        let mut call = Box::pin(pair.channel.call(ECHO, soon(), request(b"nobody waits for this")));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(pair.channel.in_flight(), 1);
        drop(call);
        assert_eq!(pair.channel.in_flight(), 0);
    }
    echo(&pair.channel, b"this one is waited for").await;
}

async fn connection_closed_by_the_server(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    let pending = pair.channel.call(IGNORE, soon(), request(b"x"));
    let (pending, closing) = join(pending, pair.channel.call(CLOSE, soon(), request(b"x"))).await;
    for result in [pending, closing] {
        let Err(CallError::Lost { reason }) = result else { panic!("{result:?}") };
        assert!(reason.contains("asked to"), "{reason}");
    }
    assert!(matches!(pair.connection.closed().await, RpcError::ClosedByPeer { .. }));
    assert!(pair.connection.is_closed() && pair.channel.is_closed());
    let after = pair.channel.call(ECHO, soon(), request(b"x")).await.unwrap_err();
    assert!(matches!(after, CallError::NotSent { .. }), "{after:?}");
    assert!(Channel::open(&pair.runtime, &pair.connection).await.is_err());
}

async fn stream_finished_by_the_server(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    let result = pair.channel.call(FINISH, soon(), request(b"x")).await;
    assert!(matches!(result, Err(CallError::Lost { .. })), "{result:?}");
    // The connection and other streams on it live on.
    let other = Channel::open(&pair.runtime, &pair.connection).await.unwrap();
    echo(&other, b"still here").await;
}

async fn dropped_channel_ends_its_stream(runtime: Runtime) {
    let ca = Ca::new();
    let options = pegasus_rpc::EndpointOptions { cluster: None, accepts: &[Alpn::Data] };
    let server = Endpoint::bind(runtime.clone(), loopback(), ca.identity(Role::Replica), options).unwrap();
    let address = server.local_address();
    let (served, client) = join(server.accept(), ca.connect(&runtime, address)).await;
    let served = served.unwrap();
    assert_eq!(served.peer_role(), Role::Client);
    let channel = Channel::open(&runtime, &client).await.unwrap();
    let mut call = Box::pin(channel.call(ECHO, soon(), request(b"hello")));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let (_writer, mut reader) = served.accept().await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().attachment[..], b"hello"[..]);
    drop(call);
    drop(channel);
    assert!(reader.next().await.unwrap().is_none(), "the stream is finished");
    assert!(!client.is_closed());
}

async fn closing_the_endpoint_ends_calls(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    let pending = pair.channel.call(IGNORE, soon(), request(b"x"));
    let (result, ()) = join(pending, async {
        echo(&pair.channel, b"x").await;
        pair.server.close().await;
    })
    .await;
    let Err(CallError::Lost { reason }) = result else { panic!("{result:?}") };
    assert!(reason.contains("shutting down"), "{reason}");
    assert!(pair.server.accept().await.is_none());
    let refused = pair.server.connect(pair.client.local_address(), Role::Client, Alpn::Data).await;
    assert_eq!(refused.unwrap_err(), RpcError::Closed);
}

async fn one_way_messages_are_not_waited_for(runtime: Runtime) {
    let ca = Ca::new();
    let options = pegasus_rpc::EndpointOptions { cluster: None, accepts: &[Alpn::Data] };
    let server = Endpoint::bind(runtime.clone(), loopback(), ca.identity(Role::Replica), options).unwrap();
    let (served, client) = join(server.accept(), ca.connect(&runtime, server.local_address())).await;
    let channel = Channel::open(&runtime, &client).await.unwrap();
    assert!(channel.notify(IGNORE, request(b"first")) && channel.notify(IGNORE, request(b"second")));
    assert_eq!(channel.in_flight(), 0);
    let (_writer, mut reader) = served.unwrap().accept().await.unwrap();
    for expected in [&b"first"[..], b"second"] {
        let frame = reader.next().await.unwrap().unwrap();
        assert_eq!((frame.header.request_id, frame.header.kind, &frame.attachment[..]), (0, IGNORE, expected));
    }
    client.close("told to");
    let lost = channel.call(ECHO, soon(), request(b"x")).await;
    assert!(lost.is_err(), "{lost:?}");
    assert!(!channel.notify(IGNORE, |_, _| panic!("it must not be built")));
}

/// A storage node's executor serves, a client's tokio runtime calls, on different threads.
#[test]
fn tokio_client_and_glommio_server() {
    let ca = Ca::new();
    let server_identity = ca.identity(Role::Replica);
    let (tell_address, address) = std::sync::mpsc::channel();
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
        .spawn(move || async move {
            let runtime = Runtime::glommio();
            let options = pegasus_rpc::EndpointOptions { cluster: None, accepts: &[Alpn::Data] };
            let endpoint = Endpoint::bind(runtime.clone(), loopback(), server_identity, options).unwrap();
            tell_address.send(endpoint.local_address()).unwrap();
            let connection = endpoint.accept().await.unwrap();
            let (writer, mut reader) = connection.accept().await.unwrap();
            let outbox = pegasus_rpc::Outbox::start(&runtime, writer);
            while let Ok(Some(frame)) = reader.next().await {
                let header = pegasus_wire::FrameHeader::answer(
                    frame.header.kind,
                    frame.header.request_id,
                    pegasus_wire::Status::Ok,
                );
                outbox
                    .push_with_attachment(|out| head(out, header, frame.attachment.len()), frame.attachment.clone())
                    .unwrap();
            }
            endpoint.close().await;
        })
        .unwrap();
    let address = address.recv().unwrap();
    on_tokio(|runtime| async move {
        let client = ca.client(&runtime);
        let connection = client.connect(address, Role::Replica, Alpn::Data).await.unwrap();
        let channel = Channel::open(&runtime, &connection).await.unwrap();
        let calls = (0..2000).map(|index| {
            let channel = channel.clone();
            async move { echo(&channel, &payload(index * 7 % 5000, index as u8)).await }
        });
        join_all(calls).await;
        join_all((0..3).map(|seed| {
            let channel = channel.clone();
            async move { echo(&channel, &payload(FRAME_BYTES_MAX - FRAME_HEADER_BYTES, seed)).await }
        }))
        .await;
        client.close().await;
    });
    executor.join().unwrap();
}
