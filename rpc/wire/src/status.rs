//! What an answer says, and what its receiver should do about it.
//!
//! A status travels in the frame header of every answer. Its [`Advice`] is the whole retry rule of the system:
//! a request is sent again by itself only when its status proves that it had no effect.

use std::fmt;

/// What to do after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The request was carried out (which includes finding nothing).
    Done,
    /// The request had no effect; the same request may succeed a little later at the same place.
    Retry,
    /// The request had no effect; ask the meta service for the route (or take the hint), then send it again.
    RefreshRoute,
    /// The request had no effect and will not have one; tell the caller.
    GiveUp,
    /// A write was proposed and its outcome is not known. Never sent again by itself.
    Unknown,
}

/// Declares [`Status`] together with its number, its advice and its sentence, so that none can be forgotten.
macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $advice:ident, $sentence:literal;)*) => {
        /// Result of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Status {
            $($(#[$doc])* $name = $code,)*
        }

        impl Status {
            /// All statuses, in the order of their numbers.
            pub const ALL: &'static [Status] = &[$(Status::$name),*];

            /// The status with this number on the wire.
            pub fn from_code(code: u16) -> Option<Status> {
                match code {
                    $($code => Some(Status::$name),)*
                    _ => None,
                }
            }

            /// What the receiver should do.
            pub fn advice(self) -> Advice {
                match self {
                    $(Status::$name => Advice::$advice,)*
                }
            }

            /// One sentence for people.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Status::$name => $sentence,)*
                }
            }
        }
    };
}

statuses! {
    /// Carried out.
    Ok = 0, Done, "done";
    /// The row does not exist or has expired.
    NotFound = 1, Done, "no such row";

    /// A bounded queue or the partition's window is full.
    Busy = 16, Retry, "the server is busy; try again a little later";
    /// The primary has not yet heard every member under its ballot.
    NotServing = 17, Retry, "the partition is being reconciled after a restart; try again shortly";
    /// A member is away, so a new write could not commit.
    NotEnoughMembers = 18, Retry, "too few members of the partition are reachable to accept a write";
    /// The node or the meta service is starting or stopping.
    ShuttingDown = 19, Retry, "the server is starting or stopping; try again";
    /// The meta service has too few live nodes for what was asked.
    NotEnoughNodes = 20, GiveUp, "too few live nodes for the replica count; start nodes or ask for fewer replicas";

    /// Another core of this node, or another node, owns the partition; the answer says which.
    StaleRoute = 32, RefreshRoute, "the route is stale; ask the meta service again";
    /// This node holds the partition but is not its primary.
    NotPrimary = 33, RefreshRoute, "this node is not the primary of the partition";
    /// This node does not hold the partition.
    NoSuchPartition = 34, RefreshRoute, "this node does not hold the partition";
    /// This meta server is not the leader.
    NotLeader = 35, RefreshRoute, "this meta server is not the leader";

    /// No table of this name or number.
    NoSuchTable = 48, GiveUp, "no such table";
    /// A table of this name exists with other properties.
    TableExists = 49, GiveUp, "a table of this name exists already";
    /// The request contradicts itself or a rule; the message says which.
    InvalidArgument = 50, GiveUp, "invalid argument";
    /// A key, value, batch or frame is over its limit; the message names the limit.
    TooLarge = 51, GiveUp, "over a size limit";
    /// The bytes of the request could not be understood.
    Malformed = 52, GiveUp, "malformed request";
    /// The peer's certificate does not allow this request.
    Forbidden = 53, GiveUp, "the certificate's role does not allow this request";
    /// No common protocol version, or a message kind this release does not know.
    Unsupported = 54, GiveUp, "not supported by this release";
    /// The peer belongs to another cluster.
    WrongCluster = 55, GiveUp, "the peer belongs to another cluster";

    /// The table was told to refuse such requests; the message names the setting.
    Denied = 56, GiveUp, "the table refuses such requests";
    /// No dropped table of this number is held.
    NotDropped = 57, GiveUp, "no dropped table of this number is held";

    /// This copy lost data (damaged log or table) and refuses to serve.
    Damaged = 64, GiveUp, "this copy is damaged and refuses to serve; rebuild it from another member";
    /// The node's disk is full or broken; it takes no writes.
    StorageFailed = 65, GiveUp, "storage failed on a member; see the node's log";
    /// The server broke one of its own rules.
    Internal = 66, GiveUp, "internal error; see the server's log";

    /// The write was proposed but the answer cannot be given (for example the replica lost its role).
    OutcomeUnknown = 80, Unknown, "the write was proposed and its outcome is not known";

    /// A member has seen a higher ballot than the sender's.
    StaleBallot = 96, GiveUp, "the sender's ballot is superseded";
    /// A prepare would leave a gap in the member's log.
    Gap = 97, GiveUp, "the prepare does not continue the member's log";
    /// A configuration proposal named a ballot that is no longer the current one.
    BallotConflict = 98, GiveUp, "the configuration has changed; the answer carries the current one";
}

impl Status {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// True for [`Status::Ok`] alone.
    pub fn is_ok(self) -> bool {
        self == Status::Ok
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_are_unique() {
        for pair in Status::ALL.windows(2) {
            assert!(pair[0].code() < pair[1].code(), "{:?} and {:?} are out of order", pair[0], pair[1]);
        }
        for status in Status::ALL {
            assert_eq!(Status::from_code(status.code()), Some(*status));
        }
        assert_eq!(Status::from_code(u16::MAX), None);
    }

    #[test]
    fn only_safe_statuses_are_retried() {
        assert_eq!(Status::OutcomeUnknown.advice(), Advice::Unknown);
        assert_eq!(Status::Internal.advice(), Advice::GiveUp);
        assert_eq!(Status::Busy.advice(), Advice::Retry);
        assert_eq!(Status::StaleRoute.advice(), Advice::RefreshRoute);
    }
}
