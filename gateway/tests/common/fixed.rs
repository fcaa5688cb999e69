//! Frames with fixed values: a request and an answer of every method, and the variants worth a look. Their bytes are
//! kept as images; whoever writes them with another implementation of Thrift finds all values here.

use std::net::SocketAddrV4;

use pegasus_gateway::answer::{append_error, append_result};
use pegasus_gateway::frame::{RequestHeader, append_request};
use pegasus_gateway::messages::admin::*;
use pegasus_gateway::messages::meta::*;
use pegasus_gateway::messages::read::*;
use pegasus_gateway::messages::write::*;
use pegasus_gateway::thrift::{Blob, ErrorCode, Gpid, HostPort, Map, RpcAddress, Value};
use pegasus_gateway::{ErrorName, Rpc, StorageCode};

/// Of the request to get in the fact file: partition 2.7, a second, the key's hash.
pub(crate) const DATA_HEADER: RequestHeader = RequestHeader {
    version: 0,
    app_id: 2,
    partition_index: 7,
    timeout_ms: 1000,
    partition_hash: 0x3377_8570_0652_4257,
    is_backup_request: false,
};
/// Hash key "hello", sort key "sk".
pub(crate) const STORED_KEY: &[u8] = b"\0\x05hellosk";
/// Sequence of a data request.
pub(crate) const SEQUENCE: i32 = 7;
/// Text in answers that name the node.
pub(crate) const SERVER: &str = "127.0.0.1:34801";

const HASH_KEY: Blob<'static> = Blob(b"hello");
const DONE: &str = "ERR_OK";
const DECREE: i64 = 0x0102_0304_0506;
const EXPIRY: i32 = 300_000_000;

/// A frame by the name of its image.
pub(crate) struct Fixed {
    pub(crate) name: &'static str,
    pub(crate) rpc: Rpc,
    pub(crate) is_request: bool,
    pub(crate) bytes: Vec<u8>,
}

/// All of them.
pub(crate) fn frames() -> Vec<Fixed> {
    let mut frames = Vec::new();
    read_requests(&mut frames);
    read_answers(&mut frames);
    write_requests(&mut frames);
    write_answers(&mut frames);
    partitions(&mut frames);
    table_requests(&mut frames);
    table_answers(&mut frames);
    frames
}

fn request<'a>(frames: &mut Vec<Fixed>, name: &'static str, rpc: Rpc, argument: &impl Value<'a>) {
    let is_meta = rpc.name().starts_with("RPC_CM_");
    let (header, sequence) = if is_meta { (RequestHeader::default(), 1) } else { (DATA_HEADER, SEQUENCE) };
    let mut bytes = Vec::new();
    append_request(&mut bytes, &header, rpc, sequence, argument);
    frames.push(Fixed { name, rpc, is_request: true, bytes });
}

fn answer<'a>(frames: &mut Vec<Fixed>, name: &'static str, rpc: Rpc, result: &impl Value<'a>) {
    let sequence = if rpc.name().starts_with("RPC_CM_") { 1 } else { SEQUENCE };
    let mut bytes = Vec::new();
    append_result(&mut bytes, rpc.name().as_bytes(), sequence, result);
    frames.push(Fixed { name, rpc, is_request: false, bytes });
}

fn read_requests(frames: &mut Vec<Fixed>) {
    request(frames, "get_request", Rpc::Get, &Blob(STORED_KEY));
    request(frames, "ttl_request", Rpc::Ttl, &Blob(STORED_KEY));
    request(frames, "sortkey_count_request", Rpc::SortkeyCount, &HASH_KEY);
    let by_range = MultiGetRequest {
        hash_key: HASH_KEY,
        sort_keys: vec![],
        max_kv_count: 100,
        max_kv_size: 100_000,
        no_value: false,
        start_sortkey: Blob(b"a"),
        stop_sortkey: Blob(b"zz"),
        start_inclusive: true,
        stop_inclusive: false,
        sort_key_filter_type: FilterType::POSTFIX,
        sort_key_filter_pattern: Blob(b".log"),
        reverse: true,
    };
    request(frames, "multi_get_request_range", Rpc::MultiGet, &by_range);
    let sort_keys = vec![Blob(b"one"), Blob(b""), Blob(b"\0\xff")];
    let by_keys = MultiGetRequest { hash_key: HASH_KEY, sort_keys, max_kv_count: -1, no_value: true, ..by_range };
    request(frames, "multi_get_request_keys", Rpc::MultiGet, &by_keys);
    let keys = vec![FullKey { hash_key: HASH_KEY, sort_key: Blob(b"sk") }, FullKey::default()];
    request(frames, "batch_get_request", Rpc::BatchGet, &BatchGetRequest { keys });
    let plain = GetScannerRequest {
        start_key: Blob(STORED_KEY),
        stop_key: Blob(b"\0\x05hellosz"),
        start_inclusive: true,
        stop_inclusive: false,
        batch_size: 1000,
        no_value: false,
        hash_key_filter_type: FilterType::PREFIX,
        hash_key_filter_pattern: Blob(b"he"),
        sort_key_filter_type: FilterType::ANYWHERE,
        sort_key_filter_pattern: Blob(b"k"),
        ..GetScannerRequest::default()
    };
    request(frames, "get_scanner_request", Rpc::GetScanner, &plain);
    let newest = GetScannerRequest {
        validate_partition_hash: Some(true),
        return_expire_ts: Some(false),
        full_scan: Some(true),
        only_return_count: Some(false),
        ..plain
    };
    request(frames, "get_scanner_request_newest", Rpc::GetScanner, &newest);
    request(frames, "scan_request", Rpc::Scan, &ScanRequest { context_id: 0x0102_0304_0506_0708 });
    request(frames, "clear_scanner_request", Rpc::ClearScanner, &0x0102_0304_0506_0708_i64);
}

fn read_answers(frames: &mut Vec<Fixed>) {
    let (app_id, partition_index, server) = (2, 7, SERVER);
    let read = ReadResponse { error: 0, value: Blob(b"v"), app_id, partition_index, server };
    answer(frames, "get_answer", Rpc::Get, &read);
    let none = ReadResponse { error: StorageCode::NotFound.code(), value: Blob(b""), ..read };
    answer(frames, "get_answer_not_found", Rpc::Get, &none);
    let ttl = TtlResponse { error: 0, ttl_seconds: -1, app_id, partition_index, server };
    answer(frames, "ttl_answer", Rpc::Ttl, &ttl);
    let count = CountResponse { error: 0, count: 1 << 40, app_id, partition_index, server };
    answer(frames, "sortkey_count_answer", Rpc::SortkeyCount, &count);
    let kvs = vec![
        KeyValue { key: Blob(b"one"), value: Blob(b"first"), expire_ts_seconds: None },
        KeyValue { key: Blob(b""), value: Blob(b"\0\xff"), expire_ts_seconds: Some(EXPIRY) },
    ];
    let error = StorageCode::Incomplete.code();
    let rows = MultiGetResponse { error, kvs: kvs.clone(), app_id, partition_index, server };
    answer(frames, "multi_get_answer", Rpc::MultiGet, &rows);
    let data = vec![FullData { hash_key: HASH_KEY, sort_key: Blob(b"sk"), value: Blob(b"v") }];
    let data = BatchGetResponse { error: 0, data, app_id, partition_index, server };
    answer(frames, "batch_get_answer", Rpc::BatchGet, &data);
    let slice = ScanResponse { error: 0, kvs, context_id: 9, app_id, partition_index, server, kv_count: None };
    answer(frames, "get_scanner_answer", Rpc::GetScanner, &slice);
    let (context_id, kv_count) = (SCAN_COMPLETE, Some(3000));
    let counted = ScanResponse { kvs: vec![], context_id, kv_count, ..slice };
    answer(frames, "scan_answer", Rpc::Scan, &counted);
    for (name, error) in [
        ("error_answer_object_not_found", ErrorName::ObjectNotFound),
        ("error_answer_forward_to_others", ErrorName::ForwardToOthers),
    ] {
        let mut bytes = Vec::new();
        append_error(&mut bytes, Rpc::Get.name().as_bytes(), SEQUENCE, error);
        frames.push(Fixed { name, rpc: Rpc::Get, is_request: false, bytes });
    }
}

fn write_requests(frames: &mut Vec<Fixed>) {
    let put = UpdateRequest { key: Blob(STORED_KEY), value: Blob(b"v"), expire_ts_seconds: EXPIRY };
    request(frames, "put_request", Rpc::Put, &put);
    request(frames, "remove_request", Rpc::Remove, &Blob(STORED_KEY));
    let kvs = vec![
        KeyValue { key: Blob(b"one"), value: Blob(b"first"), expire_ts_seconds: None },
        KeyValue { key: Blob(b"two"), value: Blob(b""), expire_ts_seconds: Some(-2) },
    ];
    let several = MultiPutRequest { hash_key: HASH_KEY, kvs, expire_ts_seconds: EXPIRY };
    request(frames, "multi_put_request", Rpc::MultiPut, &several);
    let sort_keys = vec![Blob(b"one"), Blob(b"two")];
    let several = MultiRemoveRequest { hash_key: HASH_KEY, sort_keys, max_count: 100 };
    request(frames, "multi_remove_request", Rpc::MultiRemove, &several);
    let incr = IncrRequest { key: Blob(STORED_KEY), increment: -3, expire_ts_seconds: -1 };
    request(frames, "incr_request", Rpc::Incr, &incr);
    let set = CheckAndSetRequest {
        hash_key: HASH_KEY,
        check_sort_key: Blob(b"check"),
        check_type: CheckType::VALUE_BYTES_EQUAL,
        check_operand: Blob(b"17"),
        set_diff_sort_key: true,
        set_sort_key: Blob(b"set"),
        set_value: Blob(b"18"),
        set_expire_ts_seconds: EXPIRY,
        return_check_value: true,
    };
    request(frames, "check_and_set_request", Rpc::CheckAndSet, &set);
    let put = Mutate {
        operation: MutateOperation::PUT,
        sort_key: Blob(b"one"),
        value: Blob(b"first"),
        set_expire_ts_seconds: EXPIRY,
    };
    let delete = Mutate { operation: MutateOperation::DELETE, sort_key: Blob(b"two"), ..Mutate::default() };
    let mutate = CheckAndMutateRequest {
        hash_key: HASH_KEY,
        check_sort_key: Blob(b"check"),
        check_type: CheckType::VALUE_NOT_EXIST,
        check_operand: Blob(b""),
        mutate_list: vec![put, delete],
        return_check_value: false,
    };
    request(frames, "check_and_mutate_request", Rpc::CheckAndMutate, &mutate);
}

fn write_answers(frames: &mut Vec<Fixed>) {
    let (app_id, partition_index, decree, server) = (2, 7, DECREE, SERVER);
    let written = UpdateResponse { error: 0, app_id, partition_index, decree, server };
    for (name, rpc) in [("put_answer", Rpc::Put), ("multi_put_answer", Rpc::MultiPut), ("remove_answer", Rpc::Remove)] {
        answer(frames, name, rpc, &written);
    }
    let removed = MultiRemoveResponse { error: 0, count: 2, app_id, partition_index, decree, server };
    answer(frames, "multi_remove_answer", Rpc::MultiRemove, &removed);
    let error = StorageCode::InvalidArgument.code();
    let incremented = IncrResponse { error, new_value: i64::MIN, app_id, partition_index, decree, server };
    answer(frames, "incr_answer", Rpc::Incr, &incremented);
    let failed = CheckResponse {
        error: StorageCode::TryAgain.code(),
        check_value_returned: true,
        check_value_exist: true,
        check_value: Blob(b"16"),
        app_id,
        partition_index,
        decree,
        server,
    };
    answer(frames, "check_and_set_answer", Rpc::CheckAndSet, &failed);
    let done = CheckResponse { error: 0, check_value_returned: false, check_value: Blob(b""), ..failed };
    answer(frames, "check_and_mutate_answer", Rpc::CheckAndMutate, &done);
}

fn address(text: &str) -> RpcAddress {
    RpcAddress(Some(text.parse::<SocketAddrV4>().unwrap()))
}

fn partitions(frames: &mut Vec<Fixed>) {
    let query = QueryCfgRequest { app_name: "temp", partition_indices: vec![] };
    request(frames, "query_cfg_request", Rpc::QueryCfg, &query);
    let query = QueryCfgRequest { app_name: "temp", partition_indices: vec![0, 7] };
    request(frames, "query_cfg_request_some", Rpc::QueryCfg, &query);
    let first = PartitionConfiguration {
        pid: Gpid { app_id: 2, partition_index: 0 },
        ballot: 3,
        max_replica_count: 3,
        primary: address(SERVER),
        secondaries: vec![address("127.0.0.1:34802"), address("10.0.0.255:65535")],
        last_drops: vec![address("192.168.1.2:1")],
        last_committed_decree: DECREE,
        partition_flags: 0,
        ..PartitionConfiguration::default()
    };
    let second = PartitionConfiguration {
        pid: Gpid { app_id: 2, partition_index: 1 },
        ballot: 1,
        max_replica_count: 3,
        ..PartitionConfiguration::default()
    };
    let mut route = QueryCfgResponse {
        err: ErrorCode(DONE),
        app_id: 2,
        partition_count: 2,
        is_stateful: true,
        partitions: vec![first, second],
    };
    answer(frames, "query_cfg_answer", Rpc::QueryCfg, &route);
    let name = |host, port| HostPort { host, port, kind: 1 };
    route.partitions.truncate(1);
    route.partitions[0].hp_primary = Some(name("node-1", 34801));
    route.partitions[0].hp_secondaries = Some(vec![name("node-2", 34802), name("node-3", 65535)]);
    route.partitions[0].hp_last_drops = Some(vec![]);
    answer(frames, "query_cfg_answer_newest", Rpc::QueryCfg, &route);
    let leader = PartitionConfiguration { primary: address("127.0.0.1:34602"), ..PartitionConfiguration::default() };
    let forward = QueryCfgResponse {
        err: ErrorCode(ErrorName::ForwardToOthers.text()),
        partitions: vec![leader],
        ..QueryCfgResponse::default()
    };
    answer(frames, "query_cfg_answer_forward", Rpc::QueryCfg, &forward);
}

fn table_requests(frames: &mut Vec<Fixed>) {
    let options = CreateAppOptions {
        partition_count: 8,
        replica_count: 3,
        success_if_exist: true,
        app_type: "pegasus",
        is_stateful: true,
        envs: Map(vec![("business.info", "x"), ("default_ttl", "86400")]),
        atomic_idempotent: Some(true),
    };
    request(frames, "create_app_request", Rpc::CreateApp, &CreateAppRequest { app_name: "temp", options });
    let options = DropAppOptions { success_if_not_exist: true, reserve_seconds: Some(3600) };
    request(frames, "drop_app_request", Rpc::DropApp, &DropAppRequest { app_name: "temp", options });
    let recall = RecallAppRequest { app_id: 2, new_app_name: "old" };
    request(frames, "recall_app_request", Rpc::RecallApp, &recall);
    let rename = RenameAppRequest { old_app_name: "temp", new_app_name: "t" };
    request(frames, "rename_app_request", Rpc::RenameApp, &rename);
    let list = ListAppsRequest { status: AppStatus::AVAILABLE, app_name_pattern: None, match_type: None };
    request(frames, "list_apps_request", Rpc::ListApps, &list);
    let list = ListAppsRequest { app_name_pattern: Some("te"), match_type: Some(MatchType::EXACT), ..list };
    request(frames, "list_apps_request_newest", Rpc::ListApps, &list);
    request(frames, "list_nodes_request", Rpc::ListNodes, &ListNodesRequest { status: NodeStatus::ALIVE });
    request(frames, "cluster_info_request", Rpc::ClusterInfo, &ClusterInfoRequest {});
    let change = UpdateAppEnvRequest {
        app_name: "temp",
        op: AppEnvOperation::SET,
        keys: Some(vec!["default_ttl", "x"]),
        values: Some(vec!["60", ""]),
        clear_prefix: None,
    };
    request(frames, "update_app_env_request", Rpc::UpdateAppEnv, &change);
    let clear = UpdateAppEnvRequest {
        op: AppEnvOperation::CLEAR,
        keys: None,
        values: None,
        clear_prefix: Some("business."),
        ..change
    };
    request(frames, "update_app_env_request_clear", Rpc::UpdateAppEnv, &clear);
}

fn table_answers(frames: &mut Vec<Fixed>) {
    let err = ErrorCode(DONE);
    answer(frames, "create_app_answer", Rpc::CreateApp, &CreateAppResponse { err, appid: 2 });
    let refused = ErrorCode(ErrorName::AppNotExist.text());
    answer(frames, "drop_app_answer", Rpc::DropApp, &PlainResponse { err: refused });
    let available = AppInfo {
        status: AppStatus::AVAILABLE,
        app_type: "pegasus",
        app_name: "temp",
        app_id: 2,
        partition_count: 8,
        envs: Map(vec![("business.info", "x")]),
        is_stateful: true,
        max_replica_count: 3,
        create_second: 1_700_000_000,
        init_partition_count: -1,
        ..AppInfo::default()
    };
    let dropped = AppInfo {
        status: AppStatus::DROPPED,
        app_name: "old",
        app_id: 1,
        envs: Map(vec![]),
        expire_second: 1_700_604_800,
        drop_second: 1_700_000_001,
        duplicating: Some(false),
        is_bulk_loading: Some(false),
        atomic_idempotent: Some(true),
        ..available.clone()
    };
    answer(frames, "recall_app_answer", Rpc::RecallApp, &RecallAppResponse { err, info: available.clone() });
    answer(frames, "rename_app_answer", Rpc::RenameApp, &HintResponse { err, hint_message: "renamed" });
    let list = ListAppsResponse { err, infos: vec![available, dropped], hint_message: None };
    answer(frames, "list_apps_answer", Rpc::ListApps, &list);
    let refused = ErrorCode(ErrorName::InvalidParameters.text());
    let list = ListAppsResponse { err: refused, infos: vec![], hint_message: Some("no such way to match") };
    answer(frames, "list_apps_answer_refused", Rpc::ListApps, &list);
    let infos = vec![
        NodeState { status: NodeStatus::ALIVE, address: address(SERVER) },
        NodeState { status: NodeStatus::UNALIVE, address: RpcAddress(None) },
    ];
    answer(frames, "list_nodes_answer", Rpc::ListNodes, &ListNodesResponse { err, infos });
    let info = ClusterInfoResponse { err, keys: vec!["a", "b"], values: vec!["1", ""] };
    answer(frames, "cluster_info_answer", Rpc::ClusterInfo, &info);
    answer(frames, "update_app_env_answer", Rpc::UpdateAppEnv, &HintResponse { err, hint_message: "" });
}
