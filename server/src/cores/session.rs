//! Client sessions of our own protocol: connections, their streams, the frames on them.
//!
//! A stream's reader takes whatever frames have arrived as one batch, hands each to the core and settles once.
//! Answers go to the stream's outbox in any order. Reading stops while too much is unanswered or unsent.

use pegasus_rpc::{Connection, FrameReader, Outbox};
use pegasus_wire::limits::REQUESTS_PER_STREAM_MAX;

use super::request::{Form, Outlet, Session};
use super::{Core, clock};

/// Frames taken before other tasks of the core get their turn.
const BATCH_FRAMES: usize = 64;

/// Serves a client's connection until it ends.
pub(crate) async fn serve_connection(core: Core, connection: Connection) {
    while let Some((writer, reader)) = connection.accept().await {
        let outbox = Outbox::start(&core.runtime, writer);
        glommio::spawn_local(serve_stream(core.clone(), connection.clone(), reader, outbox)).detach();
    }
}

async fn serve_stream(core: Core, connection: Connection, mut reader: FrameReader, outbox: Outbox) {
    let session = Session::new(Outlet::Stream(outbox), REQUESTS_PER_STREAM_MAX);
    let mut batch = Vec::with_capacity(BATCH_FRAMES);
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                // A peer that breaks the framing is not heard again on this connection.
                if !connection.is_closed() {
                    tracing::warn!(client = %connection.remote_address(), %error, "closing a client's connection");
                    connection.close(&error.to_string());
                }
                break;
            }
        };
        let started = core.begin_run();
        batch.push(frame);
        while batch.len() < BATCH_FRAMES {
            match reader.try_next() {
                Ok(Some(frame)) => batch.push(frame),
                // An error is met again by the next `next`.
                Ok(None) | Err(_) => break,
            }
        }
        // After all of them were received: whether a lease still runs is judged at a moment within each request.
        let now = clock::now();
        for frame in batch.drain(..) {
            core.take_frame(session.begin(Form::Frame(frame.header), frame.header.time_left_ms), frame, now);
        }
        core.settle();
        core.end_run(started);
        session.may_read().await;
        if session.outlet.ready().await.is_err() {
            break;
        }
    }
    session.outlet.finish();
}
