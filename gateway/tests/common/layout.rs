//! Every layout a second time: its fields by number, as the fact file lists them, and a plain encoder that knows
//! nothing of the codec. It can leave fields out, bring them in any order and put others between them.

use pegasus_gateway::frame::HeaderMeta;
use pegasus_gateway::messages::admin::*;
use pegasus_gateway::messages::meta::*;
use pegasus_gateway::messages::read::*;
use pegasus_gateway::messages::write::*;
use pegasus_gateway::thrift::{Blob, ErrorCode, Gpid, HostPort, Map, Reader, RpcAddress, ThriftError, Value, Writer};

use super::source::{Sample, Source};

/// A structure as the tests see it.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Writes what was drawn, with the codec.
    pub(crate) write: fn(&mut Source<'_>) -> Vec<u8>,
    /// Reads; tells how many bytes are left.
    pub(crate) read: fn(&[u8]) -> Result<usize, ThriftError>,
    /// What was drawn is written as the plain encoder does, and read again.
    pub(crate) survives: fn(&mut Source<'_>),
    /// The same with fields in any order, some missing, and others between them.
    pub(crate) survives_mixed: fn(&mut Source<'_>),
}

/// One field as bytes.
pub(crate) struct Chunk {
    id: i16,
    code: u8,
    payload: Vec<u8>,
}

impl Chunk {
    fn append_to(&self, out: &mut Vec<u8>) {
        out.push(self.code);
        out.extend(self.id.to_be_bytes());
        out.extend(&self.payload);
    }
}

/// What the plain encoder can write. Codes are those of the protocol, by number.
trait Encode {
    const CODE: u8;

    fn encode(&self, out: &mut Vec<u8>);

    fn is_there(&self) -> bool {
        true
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

macro_rules! encode {
    ($($of:ty, $code:literal, |$value:ident, $out:ident| $encode:expr;)*) => {$(
        impl Encode for $of {
            const CODE: u8 = $code;

            fn encode(&self, $out: &mut Vec<u8>) {
                let $value = self;
                $encode;
            }
        }
    )*};
}

encode! {
    bool, 2, |value, out| out.push(u8::from(*value));
    i32, 8, |value, out| out.extend(value.to_be_bytes());
    i64, 10, |value, out| out.extend(value.to_be_bytes());
    &'static str, 11, |value, out| encode_bytes(value.as_bytes(), out);
    Blob<'static>, 12, |value, out| encode_bytes(value.0, out);
    ErrorCode<'static>, 12, |value, out| encode_bytes(value.0.as_bytes(), out);
    Gpid, 12, |value, out| {
        out.extend(value.partition_index.to_be_bytes());
        out.extend(value.app_id.to_be_bytes());
    };
    RpcAddress, 12, |value, out| match value.0 {
        Some(address) => {
            out.extend(address.ip().octets());
            out.extend(address.port().to_be_bytes());
            out.extend([0, 1]);
        }
        None => out.extend([0; 8]),
    };
    HostPort<'static>, 12, |value, out| {
        encode_bytes(value.host.as_bytes(), out);
        out.extend(value.port.to_be_bytes());
        out.push(value.kind);
    };
    Map<'static>, 13, |value, out| {
        out.extend([11, 11]);
        out.extend((value.0.len() as u32).to_be_bytes());
        for (key, value) in &value.0 {
            encode_bytes(key.as_bytes(), out);
            encode_bytes(value.as_bytes(), out);
        }
    };
    FilterType, 8, |value, out| value.0.encode(out);
    CheckType, 8, |value, out| value.0.encode(out);
    MutateOperation, 8, |value, out| value.0.encode(out);
    AppStatus, 8, |value, out| value.0.encode(out);
    NodeStatus, 8, |value, out| value.0.encode(out);
    AppEnvOperation, 8, |value, out| value.0.encode(out);
    MatchType, 8, |value, out| value.0.encode(out);
}

impl<T: Encode> Encode for Vec<T> {
    const CODE: u8 = 15;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(T::CODE);
        out.extend((self.len() as u32).to_be_bytes());
        for entry in self {
            entry.encode(out);
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    const CODE: u8 = T::CODE;

    fn encode(&self, out: &mut Vec<u8>) {
        self.as_ref().unwrap().encode(out);
    }

    fn is_there(&self) -> bool {
        self.is_some()
    }
}

fn chunk<T: Encode>(id: i16, value: &T) -> Option<Chunk> {
    let mut payload = Vec::new();
    value.is_there().then(|| value.encode(&mut payload))?;
    Some(Chunk { id, code: T::CODE, payload })
}

/// The fields of a structure: their numbers and types.
trait Known {
    fn fields() -> Vec<(i16, u8)>;
}

fn known_fields<T: Known>(_: &T) -> Vec<(i16, u8)> {
    T::fields()
}

/// The code of a field's type.
fn code_of<S, T: Encode>(_: impl Fn(&S) -> &T) -> u8 {
    T::CODE
}

/// A few fields that the structure does not know: other numbers of any type, and its own numbers with another type.
fn append_unknown_fields(source: &mut Source<'_>, known: &[(i16, u8)], out: &mut Vec<u8>) {
    for _ in 0..source.below(3) {
        let mut id = i32::sample(source) as i16;
        if !known.is_empty() && source.sometimes() {
            id = known[source.below(known.len())].0;
        }
        let code = any_code(source);
        if known.contains(&(id, code)) {
            continue;
        }
        out.push(code);
        out.extend(id.to_be_bytes());
        append_any(source, code, 4, out);
    }
}

fn any_code(source: &mut Source<'_>) -> u8 {
    [2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15][source.below(11)]
}

/// A value of this type that the protocol allows; nested at most so deep.
fn append_any(source: &mut Source<'_>, code: u8, depth: usize, out: &mut Vec<u8>) {
    let count = if depth == 0 { 0 } else { source.below(4) };
    match code {
        2 | 3 => out.push(source.byte()),
        6 => out.extend([source.byte(), 0x0c]),
        8 => out.extend([0x0c, 0, source.byte(), 0]),
        4 | 10 => out.extend([0x0f, 0, 0, 0, 0x0c, 0, 1, source.byte()]),
        11 => encode_bytes(source.blob(), out),
        12 => {
            for id in 0..count {
                let code = any_code(source);
                out.extend([code, 0, id as u8]);
                append_any(source, code, depth - 1, out);
            }
            out.push(0);
        }
        13 => {
            let codes = [any_code(source), any_code(source)];
            out.extend(codes);
            out.extend((count as u32).to_be_bytes());
            for _ in 0..count {
                append_any(source, codes[0], depth - 1, out);
                append_any(source, codes[1], depth - 1, out);
            }
        }
        _ => {
            let code = any_code(source);
            out.push(code);
            out.extend((count as u32).to_be_bytes());
            for _ in 0..count {
                append_any(source, code, depth - 1, out);
            }
        }
    }
}

/// Says that a value ended where it should.
const AFTER: u8 = 0x5a;

macro_rules! layouts {
    ($($name:ident $(<$lifetime:lifetime>)? { $($id:literal $field:ident,)* })*) => {
        $(
            impl Sample for $name $(<$lifetime>)? {
                #[allow(unused_variables, reason = "some structures have no fields")]
                fn sample(source: &mut Source<'_>) -> Self {
                    $name { $($field: Sample::sample(source),)* }
                }
            }

            impl Encode for $name $(<$lifetime>)? {
                const CODE: u8 = 12;

                fn encode(&self, out: &mut Vec<u8>) {
                    $(if let Some(chunk) = chunk($id, &self.$field) {
                        chunk.append_to(out);
                    })*
                    out.push(0);
                }
            }

            impl Known for $name $(<$lifetime>)? {
                fn fields() -> Vec<(i16, u8)> {
                    vec![$(($id, code_of(|value: &Self| &value.$field)),)*]
                }
            }
        )*

        /// All structures.
        pub(crate) fn kinds() -> Vec<Kind> {
            vec![$(Kind {
                name: stringify!($name),
                write: |source| {
                    let mut bytes = Vec::new();
                    $name::sample(source).write(&mut Writer::new(&mut bytes));
                    bytes
                },
                read: |bytes| {
                    let mut reader = Reader::new(bytes);
                    $name::read(&mut reader)?;
                    Ok(reader.rest().len())
                },
                survives: |source| {
                    let value = $name::sample(source);
                    let (mut bytes, mut plain) = (Vec::new(), Vec::new());
                    value.write(&mut Writer::new(&mut bytes));
                    value.encode(&mut plain);
                    assert_eq!(bytes, plain, "{value:?}");
                    bytes.push(AFTER);
                    let mut reader = Reader::new(&bytes);
                    assert_eq!($name::read(&mut reader), Ok(value));
                    assert_eq!(reader.rest(), [AFTER]);
                },
                #[allow(unused_mut, reason = "some structures have no fields")]
                survives_mixed: |source| {
                    let mut value = $name::sample(source);
                    let known = known_fields(&value);
                    let mut chunks: Vec<Chunk> = Vec::new();
                    $(if source.sometimes() {
                        value.$field = Default::default();
                    } else {
                        chunks.extend(chunk($id, &value.$field));
                    })*
                    source.shuffle(&mut chunks);
                    let mut bytes = Vec::new();
                    append_unknown_fields(source, &known, &mut bytes);
                    for chunk in chunks {
                        chunk.append_to(&mut bytes);
                        append_unknown_fields(source, &known, &mut bytes);
                    }
                    bytes.extend([0, AFTER]);
                    let mut reader = Reader::new(&bytes);
                    assert_eq!($name::read(&mut reader), Ok(value));
                    assert_eq!(reader.rest(), [AFTER]);
                },
            },)*]
        }
    };
}

layouts! {
    HeaderMeta {
        1 app_id, 2 partition_index, 3 client_timeout, 4 client_partition_hash, 5 is_backup_request,
    }
    UpdateRequest<'static> { 1 key, 2 value, 3 expire_ts_seconds, }
    UpdateResponse<'static> { 1 error, 2 app_id, 3 partition_index, 4 decree, 5 server, }
    ReadResponse<'static> { 1 error, 2 value, 3 app_id, 4 partition_index, 6 server, }
    TtlResponse<'static> { 1 error, 2 ttl_seconds, 3 app_id, 4 partition_index, 6 server, }
    CountResponse<'static> { 1 error, 2 count, 3 app_id, 4 partition_index, 6 server, }
    KeyValue<'static> { 1 key, 2 value, 3 expire_ts_seconds, }
    MultiPutRequest<'static> { 1 hash_key, 2 kvs, 3 expire_ts_seconds, }
    MultiRemoveRequest<'static> { 1 hash_key, 2 sort_keys, 3 max_count, }
    MultiRemoveResponse<'static> { 1 error, 2 count, 3 app_id, 4 partition_index, 5 decree, 6 server, }
    MultiGetRequest<'static> {
        1 hash_key, 2 sort_keys, 3 max_kv_count, 4 max_kv_size, 5 no_value, 6 start_sortkey, 7 stop_sortkey,
        8 start_inclusive, 9 stop_inclusive, 10 sort_key_filter_type, 11 sort_key_filter_pattern, 12 reverse,
    }
    MultiGetResponse<'static> { 1 error, 2 kvs, 3 app_id, 4 partition_index, 6 server, }
    FullKey<'static> { 1 hash_key, 2 sort_key, }
    FullData<'static> { 1 hash_key, 2 sort_key, 3 value, }
    BatchGetRequest<'static> { 1 keys, }
    BatchGetResponse<'static> { 1 error, 2 data, 3 app_id, 4 partition_index, 6 server, }
    IncrRequest<'static> { 1 key, 2 increment, 3 expire_ts_seconds, }
    IncrResponse<'static> { 1 error, 2 new_value, 3 app_id, 4 partition_index, 5 decree, 6 server, }
    CheckAndSetRequest<'static> {
        1 hash_key, 2 check_sort_key, 3 check_type, 4 check_operand, 5 set_diff_sort_key, 6 set_sort_key,
        7 set_value, 8 set_expire_ts_seconds, 9 return_check_value,
    }
    CheckResponse<'static> {
        1 error, 2 check_value_returned, 3 check_value_exist, 4 check_value, 5 app_id, 6 partition_index, 7 decree,
        8 server,
    }
    Mutate<'static> { 1 operation, 2 sort_key, 3 value, 4 set_expire_ts_seconds, }
    CheckAndMutateRequest<'static> {
        1 hash_key, 2 check_sort_key, 3 check_type, 4 check_operand, 5 mutate_list, 6 return_check_value,
    }
    GetScannerRequest<'static> {
        1 start_key, 2 stop_key, 3 start_inclusive, 4 stop_inclusive, 5 batch_size, 6 no_value,
        7 hash_key_filter_type, 8 hash_key_filter_pattern, 9 sort_key_filter_type, 10 sort_key_filter_pattern,
        11 validate_partition_hash, 12 return_expire_ts, 13 full_scan, 14 only_return_count,
    }
    ScanRequest { 1 context_id, }
    ScanResponse<'static> { 1 error, 2 kvs, 3 context_id, 4 app_id, 5 partition_index, 6 server, 7 kv_count, }
    QueryCfgRequest<'static> { 1 app_name, 2 partition_indices, }
    QueryCfgResponse<'static> { 1 err, 2 app_id, 3 partition_count, 4 is_stateful, 5 partitions, }
    PartitionConfiguration<'static> {
        1 pid, 2 ballot, 3 max_replica_count, 4 primary, 5 secondaries, 6 last_drops, 7 last_committed_decree,
        8 partition_flags, 9 hp_primary, 10 hp_secondaries, 11 hp_last_drops,
    }
    CreateAppOptions<'static> {
        1 partition_count, 2 replica_count, 3 success_if_exist, 4 app_type, 5 is_stateful, 6 envs,
        7 atomic_idempotent,
    }
    CreateAppRequest<'static> { 1 app_name, 2 options, }
    CreateAppResponse<'static> { 1 err, 2 appid, }
    DropAppOptions { 1 success_if_not_exist, 2 reserve_seconds, }
    DropAppRequest<'static> { 1 app_name, 2 options, }
    PlainResponse<'static> { 1 err, }
    HintResponse<'static> { 1 err, 2 hint_message, }
    RecallAppRequest<'static> { 1 app_id, 2 new_app_name, }
    RecallAppResponse<'static> { 1 err, 2 info, }
    RenameAppRequest<'static> { 1 old_app_name, 2 new_app_name, }
    ListAppsRequest<'static> { 1 status, 2 app_name_pattern, 3 match_type, }
    ListAppsResponse<'static> { 1 err, 2 infos, 3 hint_message, }
    AppInfo<'static> {
        1 status, 2 app_type, 3 app_name, 4 app_id, 5 partition_count, 6 envs, 7 is_stateful, 8 max_replica_count,
        9 expire_second, 10 create_second, 11 drop_second, 12 duplicating, 13 init_partition_count,
        14 is_bulk_loading, 15 atomic_idempotent,
    }
    ListNodesRequest { 1 status, }
    NodeState { 1 status, 2 address, }
    ListNodesResponse<'static> { 1 err, 2 infos, }
    ClusterInfoRequest {}
    ClusterInfoResponse<'static> { 1 err, 2 keys, 3 values, }
    UpdateAppEnvRequest<'static> { 1 app_name, 2 op, 3 keys, 4 values, 5 clear_prefix, }
}
