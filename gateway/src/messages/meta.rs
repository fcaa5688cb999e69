//! Where partitions are: what every client asks the meta service first.
//!
//! The newest servers of Apache add host names as fields 9 to 11 of a partition's configuration. They are raw types
//! that older clients cannot pass over, and no client needs them: a server of ours must never send them (facts 2.6).
//! They are declared so that a client of ours can read what those servers answer.

use crate::thrift::{ErrorCode, Gpid, HostPort, RpcAddress, thrift_struct};

thrift_struct! {
    /// Asks for a table's partitions.
    pub struct QueryCfgRequest<'a> {
        /// The table's name.
        1 => app_name: &'a str,
        /// Which partitions; empty means all.
        2 => partition_indices: Vec<i32>,
    }

    /// Answer to [`QueryCfgRequest`].
    pub struct QueryCfgResponse<'a> {
        /// Whether there is such a table; or who leads the meta service.
        1 => err: ErrorCode<'a>,
        /// The table's number.
        2 => app_id: i32,
        /// How many partitions it has.
        3 => partition_count: i32,
        /// Always true.
        4 => is_stateful: bool,
        /// Its partitions; if the server does not lead, one whose primary is the leader's address.
        5 => partitions: Vec<PartitionConfiguration<'a>>,
    }

    /// Where a partition is.
    pub struct PartitionConfiguration<'a> {
        /// Which.
        1 => pid: Gpid,
        /// Its ballot; clients take one of 0 for a partition that was never served.
        2 => ballot: i64,
        /// Copies it should have.
        3 => max_replica_count: i32,
        /// The primary's core.
        4 => primary: RpcAddress,
        /// The secondaries' cores.
        5 => secondaries: Vec<RpcAddress>,
        /// Members that were lost.
        6 => last_drops: Vec<RpcAddress>,
        /// A decree that is known to be committed.
        7 => last_committed_decree: i64,
        /// Means nothing here.
        8 => partition_flags: i32,
        /// The primary by its name.
        9 (optional) => hp_primary: HostPort<'a>,
        /// The secondaries by their names.
        10 (optional) => hp_secondaries: Vec<HostPort<'a>>,
        /// The lost members by their names.
        11 (optional) => hp_last_drops: Vec<HostPort<'a>>,
    }
}
