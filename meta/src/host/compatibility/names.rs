//! How a refusal is said to Pegasus's clients: by a name of the set that every known client understands.

use pegasus_gateway::ErrorName;
use pegasus_gateway::thrift::RpcAddress;
use pegasus_wire::Status;

use super::super::handlers::Failure;

/// The name for a refusal. Tables that are not there have two: `missing` says which one the method uses.
pub(super) fn error_name(failure: &Failure, missing: ErrorName) -> ErrorName {
    match failure.status() {
        Status::NoSuchTable => missing,
        // A client that is told to go to another server must be told which; otherwise it is told to wait.
        Status::NotLeader if leader_can_be_said(failure) => ErrorName::ForwardToOthers,
        Status::NotLeader | Status::ShuttingDown => ErrorName::ServiceNotActive,
        Status::InvalidArgument | Status::Malformed => ErrorName::InvalidParameters,
        Status::TableExists => ErrorName::AppExist,
        Status::NotEnoughNodes => ErrorName::NotEnoughMember,
        Status::TooLarge => ErrorName::CapacityExceeded,
        Status::Busy => ErrorName::Busy,
        Status::OutcomeUnknown => ErrorName::Timeout,
        Status::Forbidden | Status::Denied => ErrorName::InvalidState,
        _ => ErrorName::Unknown,
    }
}

fn leader_can_be_said(failure: &Failure) -> bool {
    failure.endpoint().is_some_and(|leader| RpcAddress::from(leader).0.is_some())
}

#[cfg(test)]
mod tests {
    use super::super::super::group::GroupError;
    use super::*;
    use crate::core::Refusal;

    #[test]
    fn another_leader_is_named_or_waited_for() {
        let elsewhere = GroupError::NotLeader { leader: Some("127.0.0.1:34602".parse().unwrap()) };
        let nowhere = GroupError::NotLeader { leader: None };
        let name = |error: GroupError| error_name(&error.into(), ErrorName::ObjectNotFound);
        assert_eq!(name(elsewhere), ErrorName::ForwardToOthers);
        assert_eq!(name(nowhere), ErrorName::ServiceNotActive);
        let unsayable = GroupError::NotLeader { leader: Some("[::1]:34602".parse().unwrap()) };
        assert_eq!(name(unsayable), ErrorName::ServiceNotActive);
        assert_eq!(name(GroupError::Stopped(String::new())), ErrorName::ServiceNotActive);
        assert_eq!(name(GroupError::Busy), ErrorName::Busy);
        assert_eq!(name(GroupError::OutcomeUnknown(String::new())), ErrorName::Timeout);
        assert_eq!(error_name(&Refusal::NotFounded.into(), ErrorName::AppNotExist), ErrorName::ServiceNotActive);
    }

    #[test]
    fn a_table_that_is_not_there_has_the_name_the_method_uses() {
        let missing = || Failure::from(Refusal::NoSuchTable { name: "t".to_owned(), dropped: None });
        assert_eq!(error_name(&missing(), ErrorName::ObjectNotFound), ErrorName::ObjectNotFound);
        assert_eq!(error_name(&missing(), ErrorName::AppNotExist), ErrorName::AppNotExist);
    }
}
