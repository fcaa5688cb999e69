//! What a request comes to, in words of no protocol: whoever took it from a client puts them into its own.
//!
//! The functions that carry requests out take plain borrowed structures and end in an [`Outcome`] or a [`Refusal`].
//! They must never see a frame, so that a request that arrived in another protocol can use them as they are.

use std::net::SocketAddr;

use pegasus_engine::table::Lookup;
use pegasus_wire::messages::data::{CopyReply, Rows};
use pegasus_wire::{Decree, Status};

/// A request was carried out.
pub(crate) enum Outcome<'a> {
    /// The row that was asked for does not exist or has expired.
    Missing,
    /// One row.
    Row {
        /// Its value; empty if it was not wanted.
        value: &'a [u8],
        /// Seconds left to live; -1 for a row without expiry.
        ttl_seconds: i64,
    },
    /// Rows, or their number.
    Rows(Rows<'a>),
    /// What there is to say of a copy.
    Copy(&'a CopyReply),
    /// A write is durable on every member and applied here.
    Written {
        /// Where in the partition's history it stands.
        decree: Decree,
    },
    /// So is an increment.
    Incremented {
        /// The number in the row now.
        value: i64,
        /// Where in the partition's history it stands.
        decree: Decree,
    },
    /// A check was made, and a write carried out if it held.
    Checked {
        /// It held.
        written: bool,
        /// The row that was checked exists.
        exists: bool,
        /// Where the write stands; if there is none, up to where it was read.
        decree: Decree,
        /// The value that was checked, if it was asked for and exists.
        value: Option<&'a [u8]>,
    },
}

impl<'a> Outcome<'a> {
    /// What a read of one row found, as of `now_seconds` (since 2016).
    pub(crate) fn of_lookup(found: &'a Lookup<'_>, now_seconds: u32, no_value: bool) -> Result<Outcome<'a>, Refusal> {
        match found {
            Lookup::Missing => Ok(Outcome::Missing),
            Lookup::Found { value, expiry_seconds } => {
                let left = i64::from(*expiry_seconds) - i64::from(now_seconds);
                let ttl_seconds = if *expiry_seconds == 0 { -1 } else { left };
                Ok(Outcome::Row { value: if no_value { &[] } else { value }, ttl_seconds })
            }
            Lookup::WouldBlock => Err(Refusal::new(Status::Internal, "a blocking read answered that it would block")),
        }
    }
}

/// Why a request is not carried out.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// What the client should make of it.
    pub(crate) status: Status,
    /// For people; empty means the status's own sentence.
    pub(crate) message: String,
    /// Where to go instead.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Clients of Pegasus get no answer at all: an operator has asked for that.
    pub(crate) is_silent: bool,
    /// The number that a row keeps, to which too much was to be added. Clients of Pegasus are told.
    pub(crate) number: Option<i64>,
}

impl Refusal {
    /// A refusal explained by its status alone.
    pub(crate) fn plain(status: Status) -> Refusal {
        Refusal { status, message: String::new(), endpoint: None, is_silent: false, number: None }
    }

    /// A refusal with its own explanation.
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), endpoint: None, is_silent: false, number: None }
    }

    /// A rule of ours is broken.
    pub(crate) fn internal(message: &str) -> Refusal {
        Refusal::new(Status::Internal, message)
    }
}
