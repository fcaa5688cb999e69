//! Streams between replicas: ordered within, unordered among themselves, breakable at any time.

use pegasus_replication::Session;

/// One end of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) node: usize,
    /// The run of the node the stream belongs to; a restarted node knows nothing of it.
    pub(crate) run: u64,
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
}

impl End {
    /// Holds everything that is under way towards this end back, in its order.
    pub(crate) fn hold(&mut self, until: u64) {
        self.held_until = self.arrival.max(until);
        self.arrival = self.held_until + 2;
    }
}

/// A replication stream. End 0 is the opener's (the primary's), end 1 the member's.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) partition: usize,
    pub(crate) ends: [End; 2],
    /// When the link under it was cut: nothing arrives after that.
    pub(crate) cut_at: Option<u64>,
}

/// All streams ever opened, and which links are cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub(crate) streams: Vec<Stream>,
    /// Pairs of nodes (lower first) that cannot reach each other.
    pub(crate) cut_links: Vec<(usize, usize)>,
}

impl Network {
    pub(crate) fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut_links.contains(&link(one, other))
    }

    /// Streams that run over a link and have not been cut yet.
    pub(crate) fn over_link(&self, one: usize, other: usize) -> Vec<usize> {
        let wanted = link(one, other);
        let runs_over = |stream: &Stream| link(stream.ends[0].node, stream.ends[1].node) == wanted;
        let open = |stream: &Stream| stream.cut_at.is_none() && stream.ends.iter().any(|end| !end.closed);
        let streams = self.streams.iter().enumerate();
        streams.filter(|(_, stream)| runs_over(stream) && open(stream)).map(|(id, _)| id).collect()
    }
}

/// A link's name: its nodes, the lower first.
pub(crate) fn link(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}
