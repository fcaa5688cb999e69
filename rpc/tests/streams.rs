//! Streams of frames: pieces, bad data, backpressure.
#![cfg(all(feature = "glommio", feature = "tokio"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use futures_util::future::{Either, join, join_all, select};
use pegasus_rpc::{
    Alpn, Channel, CloseCode, Closed, Connection, Endpoint, EndpointOptions, FrameReader, FrameWriter, Outbox, Role,
    RpcError, Runtime,
};
use pegasus_wire::limits::{FRAME_BYTES_MAX, OUTBOX_BYTES_MAX};
use pegasus_wire::{FrameBuilder, FrameHeader};

on_both!(
    frames_in_pieces_and_pieces_of_frames,
    bytes_one_by_one,
    oversized_frame_is_refused,
    impossible_headers_are_refused,
    half_a_frame_is_refused,
    bad_data_ends_that_connection_only,
    garbage_datagrams_do_no_harm,
    slow_reader_stops_the_sender,
    attachments_keep_their_place,
    finished_outbox_delivers_what_it_holds,
    outbox_closes_when_the_peer_goes,
);

/// Both ends of one stream.
struct Stream {
    _endpoints: (Endpoint, Endpoint),
    near: Connection,
    far: Connection,
    writer: FrameWriter,
    reader: FrameReader,
    far_writer: FrameWriter,
    far_reader: FrameReader,
}

impl Stream {
    /// `first` is written by the near side, which makes the stream known to the far side.
    async fn new(runtime: &Runtime, first: &[u8]) -> Stream {
        let ca = Ca::new();
        let options = EndpointOptions { cluster: None, accepts: &[Alpn::Peer] };
        let server = Endpoint::bind(runtime.clone(), loopback(), ca.identity(Role::Replica), options).unwrap();
        let client = Endpoint::bind(runtime.clone(), loopback(), ca.identity(Role::Replica), options).unwrap();
        let connecting = client.connect(server.local_address(), Role::Replica, Alpn::Peer);
        let (far, near) = join(server.accept(), connecting).await;
        let (far, near) = (far.unwrap(), near.unwrap());
        let (mut writer, reader) = near.open().await.unwrap();
        writer.write(first).await.unwrap();
        let (far_writer, far_reader) = far.accept().await.unwrap();
        Stream { _endpoints: (client, server), near, far, writer, reader, far_writer, far_reader }
    }
}

fn frame(id: u64, attachment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    FrameBuilder::append_empty(&mut out, FrameHeader::request(ECHO, id, 7), attachment);
    out
}

async fn frames_in_pieces_and_pieces_of_frames(runtime: Runtime) {
    let lengths: Vec<usize> = (0..400).map(|index| index * index % 3000).chain([100_000, 0, 1, 1_000_000, 5]).collect();
    let bytes: Vec<u8> =
        lengths.iter().enumerate().flat_map(|(id, length)| frame(id as u64, &payload(*length, id as u8))).collect();
    let mut stream = Stream::new(&runtime, &bytes[..3]).await;
    let write = async {
        // Sizes without relation to the frames.
        let (mut rest, mut size) = (&bytes[3..], 1);
        while !rest.is_empty() {
            let piece = rest.len().min(size);
            stream.writer.write(&rest[..piece]).await.unwrap();
            rest = &rest[piece..];
            size = size * 7 % 5003 + 1;
        }
        stream.writer.finish();
    };
    let read = async {
        let mut id = 0;
        while let Some(first) = stream.far_reader.next().await.unwrap() {
            let mut next = Some(first);
            while let Some(frame) = next {
                assert_eq!(frame.header.request_id, id as u64);
                assert_eq!(frame.header.time_left_ms, 7);
                assert_eq!(frame.attachment, payload(lengths[id], id as u8));
                id += 1;
                next = stream.far_reader.try_next().unwrap();
            }
        }
        assert_eq!(id, lengths.len());
    };
    join(write, read).await;
}

async fn bytes_one_by_one(runtime: Runtime) {
    let bytes = frame(1, b"abc");
    let mut stream = Stream::new(&runtime, &bytes[..1]).await;
    for byte in &bytes[1..] {
        // Let each byte arrive on its own.
        let early = runtime.timeout_at(Instant::now() + Duration::from_millis(2), stream.far_reader.next()).await;
        assert!(early.is_none(), "{early:?}");
        assert!(stream.far_reader.try_next().unwrap().is_none());
        stream.writer.write(&[*byte]).await.unwrap();
    }
    assert_eq!(stream.far_reader.next().await.unwrap().unwrap().attachment[..], b"abc"[..]);
}

/// Checks that reading fails as malformed, on this side and, through the close, on the other.
async fn expect_malformed(mut stream: Stream, text: &str) {
    let error = loop {
        match stream.far_reader.next().await {
            Ok(Some(_)) => {}
            other => break other.unwrap_err(),
        }
    };
    let RpcError::Malformed { detail } = &error else { panic!("{error:?}") };
    assert!(detail.contains(text), "{detail}");
    let RpcError::ClosedByPeer { code: CloseCode::Malformed, reason } = stream.near.closed().await else {
        panic!("the sender is not told")
    };
    assert!(reason.contains(text), "{reason}");
    assert!(stream.reader.next().await.is_err());
    assert!(stream.far.is_closed());
}

async fn oversized_frame_is_refused(runtime: Runtime) {
    let length = (FRAME_BYTES_MAX + 1 - 4) as u32;
    expect_malformed(Stream::new(&runtime, &length.to_le_bytes()).await, "frame_bytes_max").await;
}

async fn impossible_headers_are_refused(runtime: Runtime) {
    expect_malformed(Stream::new(&runtime, &[1, 0, 0, 0]).await, "shorter than its header").await;
    let mut long_attachment = frame(1, b"abc");
    long_attachment[20] = 200;
    expect_malformed(Stream::new(&runtime, &long_attachment).await, "attachment is longer").await;
    let mut status = [frame(1, b"good"), frame(2, b"bad")].concat();
    let second = status.len() / 2;
    status[second + 1 + 6] = 0xEE;
    expect_malformed(Stream::new(&runtime, &status).await, "unknown status").await;
}

async fn half_a_frame_is_refused(runtime: Runtime) {
    let bytes = frame(1, b"abc");
    let mut stream = Stream::new(&runtime, &bytes[..bytes.len() - 1]).await;
    stream.writer.finish();
    expect_malformed(stream, "middle of a frame").await;
}

async fn bad_data_ends_that_connection_only(runtime: Runtime) {
    let pair = Pair::new(runtime.clone()).await;
    let bad = pair.client.connect(pair.server.local_address(), Role::Replica, Alpn::Data).await.unwrap();
    // Before the handshake is confirmed a close cannot say its code (RFC 9000, 10.2.3).
    echo(&Channel::open(&runtime, &bad).await.unwrap(), b"it is confirmed").await;
    let (mut writer, _reader) = bad.open().await.unwrap();
    writer.write(&[0xFF; 64]).await.unwrap();
    let closed = bad.closed().await;
    assert!(matches!(closed, RpcError::ClosedByPeer { code: CloseCode::Malformed, .. }), "{closed}");
    echo(&pair.channel, b"the others do not notice").await;
}

async fn garbage_datagrams_do_no_harm(runtime: Runtime) {
    let pair = Pair::new(runtime).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..50u32 {
        for length in [0, 1, 20, 21, 100, 1200, 1472, 9000, 60_000] {
            // All first bytes, so that all kinds of QUIC packets are imitated.
            let mut garbage = payload(length, round as u8).to_vec();
            if let Some(first) = garbage.first_mut() {
                *first = (round * 5) as u8;
            }
            socket.send_to(&garbage, pair.server.local_address()).unwrap();
            let port = pair.client.local_address().port();
            socket.send_to(&garbage, ("127.0.0.1", port)).unwrap();
        }
        echo(&pair.channel, &payload(1000, round as u8)).await;
    }
    let another = pair.ca.connect(&pair.runtime, pair.server.local_address()).await;
    assert!(!another.is_closed());
}

/// The peer does not read: windows fill, then the outbox, then `ready` waits. When it reads, all goes on.
async fn slow_reader_stops_the_sender(runtime: Runtime) {
    let stream = Stream::new(&runtime, &frame(0, &[])).await;
    let outbox = Outbox::start(&runtime, stream.writer);
    let piece = payload(100_000, 5);
    let mut pushed = 0u64;
    loop {
        let wait = outbox.ready();
        let blocked = runtime.timeout_at(Instant::now() + Duration::from_millis(300), wait).await.is_none();
        if blocked && outbox.queued_bytes() >= OUTBOX_BYTES_MAX {
            break;
        }
        pushed += 1;
        outbox.push(|out| out.extend_from_slice(&frame(pushed, &piece))).unwrap();
        assert!(pushed * (piece.len() as u64) < 1 << 30, "nothing stops the sender");
    }
    assert!(outbox.queued_bytes() >= OUTBOX_BYTES_MAX);
    assert!(outbox.queued_bytes() < OUTBOX_BYTES_MAX + 2 * piece.len());

    let mut reader = stream.far_reader;
    let read_all = async {
        for id in 0..=pushed {
            let frame = reader.next().await.unwrap().unwrap();
            assert_eq!(frame.header.request_id, id);
            assert!(id == 0 || frame.attachment == piece);
        }
    };
    let (ready, ()) = join(outbox.ready(), read_all).await;
    assert_eq!(ready, Ok(()));
    assert!(!stream.near.is_closed());
}

async fn attachments_keep_their_place(runtime: Runtime) {
    let mut stream = Stream::new(&runtime, &frame(0, &[])).await;
    let outbox = Outbox::start(&runtime, stream.writer);
    let lengths = [0usize, 10, 20_000, 5, 400_000, 16 * 1024, 16 * 1024 - 1, 1];
    for (index, length) in lengths.iter().enumerate() {
        let header = FrameHeader::request(ECHO, index as u64 + 1, 0);
        outbox.push_with_attachment(|out| head(out, header, *length), payload(*length, index as u8)).unwrap();
    }
    assert_eq!(stream.far_reader.next().await.unwrap().unwrap().header.request_id, 0);
    for (index, length) in lengths.iter().enumerate() {
        let frame = stream.far_reader.next().await.unwrap().unwrap();
        assert_eq!(frame.header.request_id, index as u64 + 1);
        assert_eq!(frame.attachment, payload(*length, index as u8));
    }
}

async fn finished_outbox_delivers_what_it_holds(runtime: Runtime) {
    let mut stream = Stream::new(&runtime, &frame(0, &[])).await;
    let outbox = Outbox::start(&runtime, stream.writer);
    let clone = outbox.clone();
    for id in 1..=100 {
        outbox.push(|out| out.extend_from_slice(&frame(id, &payload(50_000, 1)))).unwrap();
    }
    outbox.finish();
    assert_eq!(clone.push(|_| panic!("closed")), Err(Closed));
    assert!(clone.is_closed());
    for id in 0..=100 {
        assert_eq!(stream.far_reader.next().await.unwrap().unwrap().header.request_id, id);
    }
    assert!(stream.far_reader.next().await.unwrap().is_none());

    // Dropping all handles is the same. Now in the other direction.
    let outbox = Outbox::start(&runtime, stream.far_writer);
    outbox.push(|out| out.extend_from_slice(&frame(7, b"bye"))).unwrap();
    drop(outbox);
    assert_eq!(stream.reader.next().await.unwrap().unwrap().header.request_id, 7);
    assert!(stream.reader.next().await.unwrap().is_none());
}

async fn outbox_closes_when_the_peer_goes(runtime: Runtime) {
    let stream = Stream::new(&runtime, &frame(0, &[])).await;
    let outbox = Outbox::start(&runtime, stream.writer);
    let full = join_all((0..2).map(|_| async {
        // Fill it, so that there is something to wait for.
        let piece = Bytes::from(vec![1; 1 << 20]);
        loop {
            match select(std::pin::pin!(outbox.ready()), runtime.sleep_until(soon())).await {
                Either::Left((Ok(()), _)) => {}
                Either::Left((Err(Closed), _)) => return,
                Either::Right(_) => panic!("it is not told"),
            }
            if outbox.push(|out| out.extend_from_slice(&frame(1, &piece))).is_err() {
                return;
            }
        }
    }));
    let far = stream.far.clone();
    join(full, async {
        runtime.sleep_until(Instant::now() + Duration::from_millis(200)).await;
        far.close("enough");
    })
    .await;
    assert!(outbox.is_closed());
    assert_eq!(outbox.queued_bytes(), 0);
}
