//! Frames on a QUIC stream.
//!
//! A frame that arrived in one piece is used where it lies; one that arrived in several is gathered once. Nothing
//! larger than `limits::FRAME_BYTES_MAX` is ever gathered: its length is refused when it is read, and the connection
//! is closed with [`CloseCode::Malformed`].

use std::future::Future;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use pegasus_wire::{Frame, WireError};

use crate::close::CloseCode;
use crate::error::RpcError;

/// The reading half of a stream.
#[derive(Debug)]
pub struct FrameReader {
    stream: quinn::RecvStream,
    connection: quinn::Connection,
    received: Received,
}

/// What was taken from the stream and is not yet handed out.
#[derive(Debug)]
struct Received {
    chunks: [Bytes; CHUNKS],
    /// `chunks[next..filled]` were not looked at yet; the first of them may be partly consumed.
    next: usize,
    filled: usize,
    /// The beginning of a frame that is not complete yet.
    gathered: BytesMut,
}

/// Pieces taken from the stream at once.
const CHUNKS: usize = 32;
/// The length field of a frame.
const LENGTH_BYTES: usize = 4;
/// Priority of urgent streams; that of all others is 0.
const URGENT: i32 = 1;

impl FrameReader {
    pub(crate) fn new(stream: quinn::RecvStream, connection: quinn::Connection) -> FrameReader {
        FrameReader { stream, connection, received: Received::new() }
    }

    /// The next frame; `None` when the peer has finished the stream. Dropping the future loses nothing.
    ///
    /// After an error the stream is of no more use. [`RpcError::Malformed`] has closed the connection.
    pub async fn next(&mut self) -> Result<Option<Frame>, RpcError> {
        loop {
            if let Some(frame) = self.parse()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunks(self.received.room()).await.map_err(RpcError::from_read)? {
                Some(chunks) => self.received.filled = chunks,
                None => return self.end(),
            }
        }
    }

    /// The next frame if it has been received already; never waits. For taking requests in batches, after
    /// [`FrameReader::next`] returned the first. The end of the stream is left to `next` to report.
    pub fn try_next(&mut self) -> Result<Option<Frame>, RpcError> {
        if let Some(frame) = self.parse()? {
            return Ok(Some(frame));
        }
        // Fewer chunks than asked for: the stream had no more at that moment.
        if self.received.filled < CHUNKS {
            return Ok(None);
        }
        let read = {
            let read = std::pin::pin!(self.stream.read_chunks(self.received.room()));
            read.poll(&mut Context::from_waker(Waker::noop()))
        };
        match read {
            Poll::Ready(Ok(Some(chunks))) => self.received.filled = chunks,
            Poll::Ready(Err(error)) => return Err(RpcError::from_read(error)),
            Poll::Ready(Ok(None)) | Poll::Pending => return Ok(None),
        }
        self.parse()
    }

    /// Takes the next whole frame from what was received.
    fn parse(&mut self) -> Result<Option<Frame>, RpcError> {
        self.received.take_frame().map_err(|error| self.refuse(&error))
    }

    fn end(&mut self) -> Result<Option<Frame>, RpcError> {
        if self.received.gathered.is_empty() {
            return Ok(None);
        }
        let error = WireError::BadHeader("the stream ended in the middle of a frame");
        Err(self.refuse(&error))
    }

    /// Ends the connection: a peer that sends such bytes does not speak this protocol.
    fn refuse(&self, error: &WireError) -> RpcError {
        let detail = error.to_string();
        tracing::warn!(peer = %self.connection.remote_address(), %detail, "closing the connection after bad data");
        self.connection.close(CloseCode::Malformed.varint(), detail.as_bytes());
        RpcError::Malformed { detail }
    }
}

impl Received {
    fn new() -> Received {
        Received { chunks: [const { Bytes::new() }; CHUNKS], next: 0, filled: 0, gathered: BytesMut::new() }
    }

    /// Room for the next chunks; all earlier ones have been consumed.
    fn room(&mut self) -> &mut [Bytes] {
        debug_assert!(self.next == self.filled, "chunks are taken when there is no whole frame left in the last ones");
        self.next = 0;
        self.filled = 0;
        &mut self.chunks
    }

    /// The next whole frame; `None` when every chunk is consumed.
    fn take_frame(&mut self) -> Result<Option<Frame>, WireError> {
        while self.next < self.filled {
            let chunk = &mut self.chunks[self.next];
            if self.gathered.is_empty()
                && let Some(total) = Frame::bytes_needed(chunk)?
                && total <= chunk.len()
            {
                let frame = Frame::parse(chunk.split_to(total))?;
                self.next += usize::from(chunk.is_empty());
                return Ok(Some(frame));
            }
            let complete = gather(&mut self.gathered, chunk)?;
            self.next += usize::from(chunk.is_empty());
            if complete {
                return Frame::parse(std::mem::take(&mut self.gathered).freeze()).map(Some);
            }
        }
        Ok(None)
    }
}

/// Moves bytes from `chunk` to `gathered` until a whole frame is there (true) or the chunk is empty. The length is
/// checked before room is made for the rest.
fn gather(gathered: &mut BytesMut, chunk: &mut Bytes) -> Result<bool, WireError> {
    if gathered.len() < LENGTH_BYTES {
        let missing = (LENGTH_BYTES - gathered.len()).min(chunk.len());
        gathered.extend_from_slice(&chunk.split_to(missing));
    }
    let Some(total) = Frame::bytes_needed(gathered)? else { return Ok(false) };
    let missing = (total - gathered.len()).min(chunk.len());
    // Pages of a large frame are not touched before its bytes arrive.
    gathered.reserve(total - gathered.len());
    gathered.extend_from_slice(&chunk.split_to(missing));
    Ok(gathered.len() == total)
}

/// The writing half of a stream. Usually given to an [`crate::Outbox`].
#[derive(Debug)]
pub struct FrameWriter {
    pub(crate) stream: quinn::SendStream,
}

impl FrameWriter {
    pub(crate) fn new(stream: quinn::SendStream) -> FrameWriter {
        FrameWriter { stream }
    }

    /// Writes whole frames; waits while the peer does not take them. For streams with one message at a time; an
    /// [`crate::Outbox`] gathers many. A dropped future may leave half a frame written.
    pub async fn write(&mut self, frames: &[u8]) -> Result<(), RpcError> {
        self.stream.write_all(frames).await.map_err(RpcError::from_write)
    }

    /// From now on its bytes leave before those of the connection's other streams: for what is small and urgent.
    pub fn go_first(&self) {
        // Fails only if the stream has ended already.
        let _ = self.stream.set_priority(URGENT);
    }

    /// Tells the peer that nothing more will come. What was written is still delivered.
    pub fn finish(&mut self) {
        // Fails only if the stream has ended already.
        let _ = self.stream.finish();
    }
}

#[cfg(test)]
mod tests {
    use pegasus_wire::{FrameBuilder, FrameHeader, MessageKind};
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes`, cut at the given lengths, and returns the attachments of the frames found.
    fn read(bytes: Vec<u8>, cuts: &[usize]) -> Result<Vec<Bytes>, WireError> {
        let mut rest = Bytes::from(bytes);
        let mut received = Received::new();
        let mut found = Vec::new();
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let room = received.room();
            let mut filled = 0;
            while filled < CHUNKS && !rest.is_empty() {
                room[filled] = rest.split_to(rest.len().min(*cuts.next().unwrap()));
                filled += 1;
            }
            received.filled = filled;
            while let Some(frame) = received.take_frame()? {
                found.push(frame.attachment);
            }
        }
        assert!(received.gathered.is_empty());
        Ok(found)
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_the_cuts(
            lengths in prop::collection::vec(0usize..300, 1..60),
            cuts in prop::collection::vec(1usize..200, 1..20),
        ) {
            let attachments: Vec<Bytes> =
                lengths.iter().enumerate().map(|(index, length)| vec![index as u8; *length].into()).collect();
            let mut bytes = Vec::new();
            for attachment in &attachments {
                FrameBuilder::append_empty(&mut bytes, FrameHeader::request(MessageKind::GET, 1, 0), attachment);
            }
            prop_assert_eq!(read(bytes, &cuts).unwrap(), attachments);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 4..400), cut in 1usize..50) {
            let mut received = Received::new();
            let mut rest = Bytes::from(bytes);
            while !rest.is_empty() {
                received.room()[0] = rest.split_to(rest.len().min(cut));
                received.filled = 1;
                loop {
                    match received.take_frame() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
            }
        }
    }
}
