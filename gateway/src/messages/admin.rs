//! Administration that clients' own tools and tests ask of the meta service (facts 2.10).

use crate::thrift::{ErrorCode, Map, RpcAddress, thrift_enum, thrift_struct};

thrift_enum! {
    /// State of a table.
    pub enum AppStatus {
        /// None; as a filter, every state.
        0 => INVALID,
        /// It is served.
        1 => AVAILABLE,
        /// It is being made.
        2 => CREATING,
        /// It was dropped and can be recalled.
        6 => DROPPED,
    }

    /// State of a node.
    pub enum NodeStatus {
        /// None; as a filter, every state.
        0 => INVALID,
        /// It is heard of.
        1 => ALIVE,
        /// It is not.
        2 => UNALIVE,
    }

    /// How a name has to match a pattern.
    pub enum MatchType {
        /// None.
        0 => INVALID,
        /// Every name matches.
        1 => ALL,
        /// It is the pattern.
        2 => EXACT,
        /// The pattern is somewhere in it.
        3 => ANYWHERE,
        /// It begins with the pattern.
        4 => PREFIX,
        /// It ends with the pattern.
        5 => POSTFIX,
        /// The pattern is a regular expression.
        6 => REGEX,
    }

    /// What to do with a table's environment.
    pub enum AppEnvOperation {
        /// Sets keys.
        1 => SET,
        /// Deletes keys.
        2 => DELETE,
        /// Deletes all keys, or those with a prefix.
        3 => CLEAR,
    }
}

thrift_struct! {
    /// How a table is made.
    pub struct CreateAppOptions<'a> {
        /// Number of partitions.
        1 => partition_count: i32,
        /// Copies of each.
        2 => replica_count: i32,
        /// It is no error if there is such a table.
        3 => success_if_exist: bool,
        /// Always "pegasus".
        4 => app_type: &'a str,
        /// Always true.
        5 => is_stateful: bool,
        /// Its environment.
        6 => envs: Map<'a>,
        /// Replicate what increments and checks come to, not themselves; here always so.
        7 (optional) => atomic_idempotent: bool,
    }

    /// Makes a table.
    pub struct CreateAppRequest<'a> {
        /// Its name.
        1 => app_name: &'a str,
        /// How.
        2 => options: CreateAppOptions<'a>,
    }

    /// Answer to [`CreateAppRequest`].
    pub struct CreateAppResponse<'a> {
        /// Whether it was made.
        1 => err: ErrorCode<'a>,
        /// Its number.
        2 => appid: i32,
    }

    /// How a table is dropped.
    pub struct DropAppOptions {
        /// It is no error if there is no such table.
        1 => success_if_not_exist: bool,
        /// How long it can be recalled.
        2 (optional) => reserve_seconds: i64,
    }

    /// Drops a table.
    pub struct DropAppRequest<'a> {
        /// Its name.
        1 => app_name: &'a str,
        /// How.
        2 => options: DropAppOptions,
    }

    /// An answer that has nothing but an error.
    pub struct PlainResponse<'a> {
        /// The error.
        1 => err: ErrorCode<'a>,
    }

    /// An answer with an explanation.
    pub struct HintResponse<'a> {
        /// The error.
        1 => err: ErrorCode<'a>,
        /// For people.
        2 => hint_message: &'a str,
    }

    /// Serves a dropped table again.
    pub struct RecallAppRequest<'a> {
        /// Its number.
        1 => app_id: i32,
        /// Its new name; empty means the old one.
        2 => new_app_name: &'a str,
    }

    /// Answer to [`RecallAppRequest`].
    pub struct RecallAppResponse<'a> {
        /// Whether it is served again.
        1 => err: ErrorCode<'a>,
        /// The table.
        2 => info: AppInfo<'a>,
    }

    /// Renames a table.
    pub struct RenameAppRequest<'a> {
        /// Its name.
        1 => old_app_name: &'a str,
        /// Its name from then on.
        2 => new_app_name: &'a str,
    }

    /// Asks for the tables.
    pub struct ListAppsRequest<'a> {
        /// In which state.
        1 => status: AppStatus,
        /// Whose names match this, if the newest clients ask so.
        2 (optional) => app_name_pattern: &'a str,
        /// How they have to match.
        3 (optional) => match_type: MatchType,
    }

    /// Answer to [`ListAppsRequest`].
    pub struct ListAppsResponse<'a> {
        /// Whether they could be listed.
        1 => err: ErrorCode<'a>,
        /// The tables.
        2 => infos: Vec<AppInfo<'a>>,
        /// For people.
        3 (optional) => hint_message: &'a str,
    }

    /// A table.
    pub struct AppInfo<'a> {
        /// Its state.
        1 => status: AppStatus,
        /// Always "pegasus".
        2 => app_type: &'a str,
        /// Its name.
        3 => app_name: &'a str,
        /// Its number.
        4 => app_id: i32,
        /// Number of partitions.
        5 => partition_count: i32,
        /// Its environment.
        6 => envs: Map<'a>,
        /// Always true.
        7 => is_stateful: bool,
        /// Copies of each partition.
        8 => max_replica_count: i32,
        /// Unix second at which a dropped table is purged.
        9 => expire_second: i64,
        /// Unix second at which it was made; 0 if that is not known.
        10 => create_second: i64,
        /// Unix second at which it was dropped.
        11 => drop_second: i64,
        /// It is copied to another cluster.
        12 (optional) => duplicating: bool,
        /// Partitions before a split; -1 for none.
        13 => init_partition_count: i32,
        /// A bulk load runs.
        14 (optional) => is_bulk_loading: bool,
        /// See [`CreateAppOptions::atomic_idempotent`].
        15 (optional) => atomic_idempotent: bool,
    }

    /// Asks for the nodes.
    pub struct ListNodesRequest {
        /// In which state.
        1 => status: NodeStatus,
    }

    /// A node.
    pub struct NodeState {
        /// Its state.
        1 => status: NodeStatus,
        /// Its first core.
        2 => address: RpcAddress,
    }

    /// Answer to [`ListNodesRequest`].
    pub struct ListNodesResponse<'a> {
        /// Whether they could be listed.
        1 => err: ErrorCode<'a>,
        /// The nodes.
        2 => infos: Vec<NodeState>,
    }

    /// Asks about the cluster.
    pub struct ClusterInfoRequest {}

    /// Answer to [`ClusterInfoRequest`]: names and what they stand for, one by one.
    pub struct ClusterInfoResponse<'a> {
        /// Whether it is known.
        1 => err: ErrorCode<'a>,
        /// Names.
        2 => keys: Vec<&'a str>,
        /// Values.
        3 => values: Vec<&'a str>,
    }

    /// Changes a table's environment.
    pub struct UpdateAppEnvRequest<'a> {
        /// The table's name.
        1 => app_name: &'a str,
        /// What to do.
        2 => op: AppEnvOperation,
        /// With which keys.
        3 (optional) => keys: Vec<&'a str>,
        /// The values of keys that are set.
        4 (optional) => values: Vec<&'a str>,
        /// Which keys are cleared; empty means all.
        5 (optional) => clear_prefix: &'a str,
    }
}
