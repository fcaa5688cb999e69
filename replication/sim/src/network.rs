//! Streams between replicas: ordered within, unordered among themselves, breakable at any time, in either direction.

use std::collections::BTreeSet;

use pegasus_replication::Session;
use pegasus_wire::NodeId;

/// One end of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) node: usize,
    /// Who the other end takes it for.
    pub(crate) name: NodeId,
    /// The run of the node the stream belongs to; a restarted node knows nothing of it.
    pub(crate) run: u64,
    /// The copy it belongs to; 0 at the member's end until the first message has arrived.
    pub(crate) incarnation: u64,
    /// Unknown at the member's end until the first message has arrived.
    pub(crate) session: Option<Session>,
    /// True once this end has closed it: nothing more is sent, but what the host has read already still arrives.
    pub(crate) closing: bool,
    /// True once this end was told that it is closed: nothing arrives any more.
    pub(crate) closed: bool,
    /// When the last thing sent towards this end arrives.
    pub(crate) arrival: u64,
    /// What was under way at some moment arrives only after this.
    pub(crate) held_until: u64,
    /// When the way towards this end was cut: nothing arrives after that.
    pub(crate) cut_at: Option<u64>,
}

impl End {
    pub(crate) fn new(node: usize, name: NodeId, run: u64, incarnation: u64, now: u64) -> End {
        End {
            node,
            name,
            run,
            incarnation,
            session: None,
            closing: false,
            closed: false,
            arrival: now,
            held_until: 0,
            cut_at: None,
        }
    }

    /// Holds everything that is under way towards this end back, in its order.
    pub(crate) fn hold(&mut self, until: u64) {
        self.held_until = self.arrival.max(until);
        self.arrival = self.held_until + 2;
    }

    /// When something sent now arrives: never before what was sent earlier.
    pub(crate) fn arrive(&mut self, now: u64, delay: u64) -> u64 {
        self.arrival = self.arrival.max(now + delay);
        self.arrival
    }
}

/// A replication stream. End 0 is the opener's (the primary's), end 1 the member's.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) partition: usize,
    pub(crate) ends: [End; 2],
}

/// All streams ever opened, and which ways are cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub(crate) streams: Vec<Stream>,
    /// Streams with an end that is not closed.
    open: Vec<usize>,
    /// From a node to a node nothing passes.
    cut: BTreeSet<(usize, usize)>,
    /// How many faults cut each of them.
    causes: Vec<(usize, usize)>,
}

impl Network {
    /// Adds a stream; its number is returned.
    pub(crate) fn open(&mut self, stream: Stream) -> usize {
        self.streams.push(stream);
        self.open.push(self.streams.len() - 1);
        self.streams.len() - 1
    }

    /// True if nothing passes from one node to the other.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// True if two nodes cannot talk: an answer would not come back.
    pub(crate) fn is_apart(&self, one: usize, other: usize) -> bool {
        self.is_cut(one, other) || self.is_cut(other, one)
    }

    /// Cuts one way.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.causes.push((from, to));
        self.cut.insert((from, to));
    }

    /// One of the causes of a cut is gone.
    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        if let Some(index) = self.causes.iter().position(|cause| *cause == (from, to)) {
            self.causes.swap_remove(index);
        }
        if !self.causes.contains(&(from, to)) {
            self.cut.remove(&(from, to));
        }
    }

    /// Everything passes.
    pub(crate) fn mend_all(&mut self) {
        self.causes.clear();
        self.cut.clear();
    }

    /// Open streams between two nodes.
    pub(crate) fn between(&mut self, one: usize, other: usize) -> Vec<usize> {
        self.open_streams(|stream| {
            let nodes = (stream.ends[0].node, stream.ends[1].node);
            nodes == (one, other) || nodes == (other, one)
        })
    }

    /// Open streams that have an end at a node, of one partition.
    pub(crate) fn of_copy(&mut self, node: usize, partition: usize) -> Vec<usize> {
        self.open_streams(|stream| stream.partition == partition && stream.ends.iter().any(|end| end.node == node))
    }

    fn open_streams(&mut self, wanted: impl Fn(&Stream) -> bool) -> Vec<usize> {
        let streams = &self.streams;
        self.open.retain(|id| streams[*id].ends.iter().any(|end| !end.closed));
        self.open.iter().copied().filter(|id| wanted(&streams[*id])).collect()
    }
}
