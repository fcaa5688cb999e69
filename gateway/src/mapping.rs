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
}

/// How a status is said to a client of rows.
///
/// A partition that is elsewhere is `ERR_OBJECT_NOT_FOUND`, where Pegasus says `ERR_INVALID_STATE` if there is a
/// secondary: both make every client ask the meta service again, but only after the first does the Go client send the
/// request once more, which it may, as nothing was done.
pub fn said(status: Status) -> Said {
    use Said::{Framework, Storage};
    match status {
        Status::Ok => Storage(StorageCode::Ok),
        Status::NotFound => Storage(StorageCode::NotFound),
        Status::InvalidArgument => Storage(StorageCode::InvalidArgument),
        Status::Unsupported => Storage(StorageCode::NotSupported),
        Status::Damaged => Storage(StorageCode::Corruption),
        Status::Busy => Framework(ErrorName::Busy),
        Status::NotEnoughMembers | Status::NotEnoughNodes => Framework(ErrorName::NotEnoughMember),
        Status::StaleRoute
        | Status::NotPrimary
        | Status::NoSuchPartition
        | Status::NotServing
        | Status::ShuttingDown
        | Status::NoSuchTable
        | Status::NotDropped
        | Status::NotLeader => Framework(ErrorName::ObjectNotFound),
        Status::TooLarge => Framework(ErrorName::InvalidData),
        Status::Malformed => Framework(ErrorName::InvalidParameters),
        Status::Denied | Status::Forbidden | Status::WrongCluster => Framework(ErrorName::InvalidState),
        Status::StorageFailed => Framework(ErrorName::CapacityExceeded),
        Status::OutcomeUnknown => Framework(ErrorName::Timeout),
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
    use super::*;

    #[test]
    fn a_write_of_unknown_outcome_is_never_sent_again_by_a_client() {
        // No client sends a request again after a timeout by itself within one call of the application.
        assert_eq!(said(Status::OutcomeUnknown), Said::Framework(ErrorName::Timeout));
        let others = Status::ALL.iter().filter(|status| **status != Status::OutcomeUnknown);
        assert!(others.copied().all(|status| said(status) != Said::Framework(ErrorName::Timeout)));
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
