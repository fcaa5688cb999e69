//! Errors of the framework, by the names that travel in answers.
//!
//! A client that meets a name it does not know breaks: the Go client's reader ends, the Java client closes the channel,
//! Python's raise. So a server of ours must only say what every known client knows; these are those names (facts 2.7).

/// Declares the names.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// An error name that every known client understands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorName {
            $($(#[$doc])* $name,)*
        }

        impl ErrorName {
            /// All of them.
            pub const ALL: &'static [ErrorName] = &[$(ErrorName::$name),*];

            /// As it travels.
            pub fn text(self) -> &'static str {
                match self {
                    $(ErrorName::$name => $text,)*
                }
            }

            /// The error of this name; `None` for those that only servers of Apache say.
            pub fn from_text(text: &str) -> Option<ErrorName> {
                match text {
                    $($text => Some(ErrorName::$name),)*
                    _ => None,
                }
            }
        }
    };
}

names! {
    /// Carried out; whether with success is in the answer itself.
    Ok = "ERR_OK";
    /// Nobody knows what became of it.
    Timeout = "ERR_TIMEOUT";
    /// Too much is going on.
    Busy = "ERR_BUSY";
    /// The server is not in a state to do it; the client should ask the meta service again.
    InvalidState = "ERR_INVALID_STATE";
    /// The same.
    InactiveState = "ERR_INACTIVE_STATE";
    /// The partition is not here; no such table.
    ObjectNotFound = "ERR_OBJECT_NOT_FOUND";
    /// No such method.
    HandlerNotFound = "ERR_HANDLER_NOT_FOUND";
    /// Too few members of the partition are there.
    NotEnoughMember = "ERR_NOT_ENOUGH_MEMBER";
    /// Something is full.
    CapacityExceeded = "ERR_CAPACITY_EXCEEDED";
    /// The request is over a limit.
    InvalidData = "ERR_INVALID_DATA";
    /// The request asks for what cannot be.
    InvalidParameters = "ERR_INVALID_PARAMETERS";
    /// Another meta server leads.
    ForwardToOthers = "ERR_FORWARD_TO_OTHERS";
    /// The server starts or stops.
    ServiceNotActive = "ERR_SERVICE_NOT_ACTIVE";
    /// No such table, for administration.
    AppNotExist = "ERR_APP_NOT_EXIST";
    /// A table of this name exists.
    AppExist = "ERR_APP_EXIST";
    /// The table is being made.
    BusyCreating = "ERR_BUSY_CREATING";
    /// The table is being dropped.
    BusyDropping = "ERR_BUSY_DROPPING";
    /// The meta service changes nothing now.
    StateFreezed = "ERR_STATE_FREEZED";
    /// Everything else.
    Unknown = "ERR_UNKNOWN";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back() {
        for &name in ErrorName::ALL {
            assert_eq!(ErrorName::from_text(name.text()), Some(name));
        }
        assert_eq!(ErrorName::from_text("ERR_DISK_IO_ERROR"), None);
    }
}
