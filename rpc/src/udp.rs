//! What both runtimes share about UDP.

use std::io;

use quinn::udp::Transmit;

use crate::transport::DATAGRAM_BYTES_MAX;

/// quinn sizes each receive buffer as this many of the largest datagrams; the kernel coalesces up to 64 KiB into one.
pub(crate) const RECEIVE_SEGMENTS: usize = (64 * 1024usize).div_ceil(DATAGRAM_BYTES_MAX as usize);

/// Most bytes handed to the kernel in one send. Its own limit is 64 KiB less headers; beyond that it refuses with
/// EMSGSIZE, which quinn-udp takes for a failed size probe and swallows.
const SEND_BYTES_MAX: usize = 65_000;

/// Sends a train of datagrams in pieces the kernel takes. quinn makes trains of up to ten datagrams, which is too much
/// once the path carries large ones.
///
/// After `WouldBlock` in the middle, quinn sends the whole train again: the peer sees duplicates and drops them.
pub(crate) fn send_in_pieces(
    transmit: &Transmit<'_>,
    send: impl Fn(&Transmit<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let Some(segment) = transmit.segment_size.filter(|_| transmit.contents.len() > SEND_BYTES_MAX) else {
        return send(transmit);
    };
    let piece_bytes = (SEND_BYTES_MAX / segment).max(1) * segment;
    for contents in transmit.contents.chunks(piece_bytes) {
        send(&Transmit { contents, segment_size: (contents.len() > segment).then_some(segment), ..transmit.clone() })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn sent(bytes: usize, segment_size: Option<usize>) -> Vec<(usize, Option<usize>)> {
        let contents = vec![0; bytes];
        let destination = "127.0.0.1:1".parse().unwrap();
        let transmit = Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None };
        let seen = RefCell::new(Vec::new());
        send_in_pieces(&transmit, |piece| {
            seen.borrow_mut().push((piece.contents.len(), piece.segment_size));
            Ok(())
        })
        .unwrap();
        seen.into_inner()
    }

    #[test]
    fn small_trains_go_whole() {
        assert_eq!(sent(12_000, Some(1_200)), [(12_000, Some(1_200))]);
        assert_eq!(sent(1_200, None), [(1_200, None)]);
    }

    #[test]
    fn large_trains_are_cut_between_datagrams() {
        let whole = Some(16_384);
        assert_eq!(sent(10 * 16_384, whole), [(49_152, whole), (49_152, whole), (49_152, whole), (16_384, None)]);
        assert_eq!(sent(4 * 16_384 - 100, whole), [(49_152, whole), (16_284, None)]);
        assert_eq!(sent(130_000, Some(64_000)), [(64_000, None), (64_000, None), (2_000, None)]);
    }
}
