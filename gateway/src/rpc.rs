//! The methods that are known, by their names on the wire.

/// Declares the methods with their names.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A method.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rpc {
            $($(#[$doc])* $name,)*
        }

        impl Rpc {
            /// All of them.
            pub const ALL: &'static [Rpc] = &[$(Rpc::$name),*];

            /// The method with this name.
            pub fn from_name(name: &[u8]) -> Option<Rpc> {
                $(if name == $text.as_bytes() {
                    return Some(Rpc::$name);
                })*
                None
            }

            /// Its name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(Rpc::$name => $text,)*
                }
            }
        }
    };
}

methods! {
    /// Reads one row.
    Get = "RPC_RRDB_RRDB_GET";
    /// Sets one row.
    Put = "RPC_RRDB_RRDB_PUT";
    /// Sets rows of one hash key.
    MultiPut = "RPC_RRDB_RRDB_MULTI_PUT";
    /// Deletes one row.
    Remove = "RPC_RRDB_RRDB_REMOVE";
    /// Deletes rows of one hash key.
    MultiRemove = "RPC_RRDB_RRDB_MULTI_REMOVE";
    /// Adds to a number.
    Incr = "RPC_RRDB_RRDB_INCR";
    /// Sets a row if a check holds.
    CheckAndSet = "RPC_RRDB_RRDB_CHECK_AND_SET";
    /// Changes rows if a check holds.
    CheckAndMutate = "RPC_RRDB_RRDB_CHECK_AND_MUTATE";
    /// Seconds that a row has left.
    Ttl = "RPC_RRDB_RRDB_TTL";
    /// Counts the rows of a hash key.
    SortkeyCount = "RPC_RRDB_RRDB_SORTKEY_COUNT";
    /// Reads rows of one hash key.
    MultiGet = "RPC_RRDB_RRDB_MULTI_GET";
    /// Reads rows of one partition.
    BatchGet = "RPC_RRDB_RRDB_BATCH_GET";
    /// Begins a scan.
    GetScanner = "RPC_RRDB_RRDB_GET_SCANNER";
    /// Goes on with a scan.
    Scan = "RPC_RRDB_RRDB_SCAN";
    /// Ends a scan; one way.
    ClearScanner = "RPC_RRDB_RRDB_CLEAR_SCANNER";
    /// Asks where a table's partitions are.
    QueryCfg = "RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX";
    /// Makes a table.
    CreateApp = "RPC_CM_CREATE_APP";
    /// Drops a table.
    DropApp = "RPC_CM_DROP_APP";
    /// Recalls a table.
    RecallApp = "RPC_CM_RECALL_APP";
    /// Renames a table.
    RenameApp = "RPC_CM_RENAME_APP";
    /// Lists the tables.
    ListApps = "RPC_CM_LIST_APPS";
    /// Lists the nodes.
    ListNodes = "RPC_CM_LIST_NODES";
    /// Tells of the cluster.
    ClusterInfo = "RPC_CM_CLUSTER_INFO";
    /// Changes a table's environment.
    UpdateAppEnv = "RPC_CM_UPDATE_APP_ENV";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NAME_BYTES_MAX;

    #[test]
    fn every_method_is_found_by_its_name() {
        for &rpc in Rpc::ALL {
            assert_eq!(Rpc::from_name(rpc.name().as_bytes()), Some(rpc));
            assert!(rpc.name().len() <= NAME_BYTES_MAX);
        }
        assert_eq!(Rpc::from_name(b"RPC_RRDB_RRDB_GE"), None);
        assert_eq!(Rpc::from_name(b""), None);
    }
}
