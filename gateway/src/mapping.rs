//! What the foreign protocol means in our words, and our outcomes in its.
//!
//! Nothing here decides about rows: requests become our own structures, refusals become error names. The rule behind
//! the choice of names: a client that may send a request again by itself must only do so if it had no effect.

use pegasus_wire::Status;
use pegasus_wire::messages::data::{Check, ExpiryChange, FilterKind};

use crate::messages::read::FilterType;
use crate::messages::write::CheckType;
use crate::{ErrorName, StorageCode};

/// How a refusal is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// In place of an answer.
    Framework(ErrorName),
    /// In the answer.
    Storage(StorageCode),
    /// Not at all: see [`said`].
    Nothing,
}

/// How a status is said to a client of rows. What the clients make of each name is in their sources:
///
/// - `ERR_INVALID_STATE` and `ERR_OBJECT_NOT_FOUND` make Go, Java and Python ask the meta service again; Go and Java
///   then send the request once more. So both are only said of requests that had no effect.
/// - No name tells a client that the outcome is unknown: after each of them, or after any storage code that is unusual,
///   one client or another sends the request again, `ERR_TIMEOUT` included (Java). So nothing is said, and the client's
///   own timeout tells its caller.
/// - A copy that failed is led by another node soon, so its clients are sent away, too.
/// - `ERR_BUSY` makes nobody send again: the application decides.
pub fn said(status: Status) -> Said {
    use Said::{Framework, Storage};
    match status {
        Status::Ok => Storage(StorageCode::Ok),
        Status::NotFound => Storage(StorageCode::NotFound),
        Status::InvalidArgument => Storage(StorageCode::InvalidArgument),
        Status::Unsupported => Storage(StorageCode::NotSupported),
        Status::Busy => Framework(ErrorName::Busy),
        Status::NotEnoughMembers | Status::NotEnoughNodes => Framework(ErrorName::NotEnoughMember),
        Status::StaleRoute | Status::NoSuchPartition | Status::NoSuchTable | Status::NotDropped | Status::NotLeader => {
            Framework(ErrorName::ObjectNotFound)
        }
        Status::TooLarge => Framework(ErrorName::InvalidData),
        Status::Malformed => Framework(ErrorName::InvalidParameters),
        Status::NotPrimary
        | Status::NotServing
        | Status::ShuttingDown
        | Status::Damaged
        | Status::StorageFailed
        | Status::Denied
        | Status::Forbidden
        | Status::WrongCluster => Framework(ErrorName::InvalidState),
        Status::OutcomeUnknown => Said::Nothing,
        Status::TableExists | Status::Internal | Status::StaleBallot | Status::Gap | Status::BallotConflict => {
            Framework(ErrorName::Unknown)
        }
    }
}

/// The filter of this number; `None` if there is none such.
pub fn filter_kind(filter: FilterType) -> Option<FilterKind> {
    Some(match filter {
        FilterType::NONE => FilterKind::None,
        FilterType::ANYWHERE => FilterKind::Anywhere,
        FilterType::PREFIX => FilterKind::Prefix,
        FilterType::POSTFIX => FilterKind::Postfix,
        _ => return None,
    })
}

/// The check of this number; `None` if there is none such.
pub fn check(check: CheckType) -> Option<Check> {
    u8::try_from(check.0).ok().and_then(Check::from_code)
}

/// What an incr does to the expiry.
pub fn expiry_change(expire_ts_seconds: i32) -> ExpiryChange {
    match expire_ts_seconds {
        0 => ExpiryChange::Keep,
        ..0 => ExpiryChange::Clear,
        seconds => ExpiryChange::Set(seconds.cast_unsigned()),
    }
}

/// An expiry as it is stored. Pegasus takes the 32 bits as they are; beyond 2084 they look negative in the protocol.
pub fn expiry_seconds(expire_ts_seconds: i32) -> u32 {
    expire_ts_seconds.cast_unsigned()
}

/// A limit; what is not positive means none.
pub fn limit(stated: i32) -> u32 {
    u32::try_from(stated).unwrap_or_default()
}

/// The hash key and sort key of a stored key; `None` if it is shorter than the hash key it announces.
pub fn split_key(stored: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = stored.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use pegasus_wire::status::Advice;

    use super::*;

    #[test]
    fn only_of_an_unknown_outcome_nothing_is_said() {
        for &status in Status::ALL {
            assert_eq!(said(status) == Said::Nothing, status.advice() == Advice::Unknown, "{status:?}");
            assert_ne!(said(status), Said::Framework(ErrorName::Timeout), "Java sends again after it: {status:?}");
        }
    }

    #[test]
    fn who_has_to_look_elsewhere_is_told_so() {
        let names = [Said::Framework(ErrorName::ObjectNotFound), Said::Framework(ErrorName::InvalidState)];
        for &status in Status::ALL.iter().filter(|status| status.advice() == Advice::RefreshRoute) {
            assert!(names.contains(&said(status)), "{status:?}");
        }
    }

    #[test]
    fn numbers_without_a_meaning_have_none() {
        assert_eq!(check(CheckType(17)), Some(Check::IntegerGreater));
        for number in [-1, 18, 256, i32::MIN] {
            assert_eq!(check(CheckType(number)), None);
            assert_eq!(filter_kind(FilterType(number)), None);
        }
        assert_eq!(filter_kind(FilterType(4)), None, "exact is the client's own affair");
        assert_eq!((limit(-1), limit(0), limit(7)), (0, 0, 7));
        assert_eq!(expiry_change(-5), ExpiryChange::Clear);
        assert_eq!(expiry_change(5), ExpiryChange::Set(5));
    }

    #[test]
    fn stored_keys_are_split_where_they_say() {
        assert_eq!(split_key(b"\x00\x02hks"), Some((&b"hk"[..], &b"s"[..])));
        assert_eq!(split_key(b"\x00\x00s"), Some((&b""[..], &b"s"[..])));
        for short in [&b""[..], b"\x00", b"\x00\x02h", b"\xff\xffabc"] {
            assert_eq!(split_key(short), None);
        }
    }
}
