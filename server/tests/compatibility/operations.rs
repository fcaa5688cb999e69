//! Every operation on rows, with its answer.

use pegasus_gateway::Rpc;
use pegasus_gateway::answer::Answer;
use pegasus_gateway::messages::read::{
    BatchGetRequest, BatchGetResponse, FilterType, FullKey, KeyValue, MultiGetRequest, ReadResponse,
};
use pegasus_gateway::messages::write::{
    CheckAndMutateRequest, CheckAndSetRequest, CheckResponse, CheckType, IncrRequest, IncrResponse, MultiPutRequest,
    MultiRemoveRequest, MultiRemoveResponse, Mutate, MutateOperation, UpdateRequest, UpdateResponse,
};
use pegasus_gateway::thrift::Blob;
use pegasus_wire::{PartitionId, expiry, key};

use crate::Stage;
use crate::client::{Client, partition_of, request, result};

const NOT_FOUND: i32 = 1;
const INVALID_ARGUMENT: i32 = 4;
const INCOMPLETE: i32 = 7;
const TRY_AGAIN: i32 = 13;

/// Seconds since 2016, now.
fn now_seconds() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    expiry::seconds_since_epoch(since.as_micros() as u64)
}

#[tokio::test]
async fn single_rows() {
    let stage = Stage::new(40, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    assert_eq!(client.get(partition, b"h", b"s"), (NOT_FOUND, vec![]));
    assert_eq!(client.ttl(partition, b"h", b"s").0, NOT_FOUND);
    client.set(partition, b"h", b"s", b"value");
    assert_eq!(client.get(partition, b"h", b"s"), (0, b"value".to_vec()));
    assert_eq!(client.ttl(partition, b"h", b"s"), (0, -1));
    // Answers say where they are from.
    let answer = client.call(partition, Rpc::Get, &Blob(&key::encode(b"h", b"s")));
    let read: ReadResponse<'_> = result(&answer);
    let (table, server) = (stage.table.cast_signed(), stage.scene.node_address().to_string());
    assert_eq!((read.app_id, read.partition_index, read.server), (table, 0, server.as_str()));
    // With an expiry.
    let stored = key::encode(b"h", b"expiring");
    let expire_ts_seconds = (now_seconds() + 1000).cast_signed();
    let update = UpdateRequest { key: Blob(&stored), value: Blob(b"v"), expire_ts_seconds };
    let answer = client.call(partition, Rpc::Put, &update);
    let written: UpdateResponse<'_> = result(&answer);
    assert!(written.error == 0 && written.decree > 1, "{written:?}");
    let (_, left) = client.ttl(partition, b"h", b"expiring");
    assert!((900..=1000).contains(&left), "{left}");
    let past = UpdateRequest { key: Blob(&stored), value: Blob(b"v"), expire_ts_seconds: 1 };
    client.call(partition, Rpc::Put, &past);
    assert_eq!(client.get(partition, b"h", b"expiring").0, NOT_FOUND);
    // Deleting says OK whether there is a row or not.
    for _ in 0..2 {
        let answer = client.call(partition, Rpc::Remove, &Blob(&key::encode(b"h", b"s")));
        assert_eq!(result::<UpdateResponse<'_>>(&answer).error, 0);
        assert_eq!(client.get(partition, b"h", b"s").0, NOT_FOUND);
    }
    // A key that is none.
    assert_eq!(result::<ReadResponse<'_>>(&client.call(partition, Rpc::Get, &Blob(b"\x00\x09short"))).error, 4);
}

#[tokio::test]
async fn rows_without_a_hash_key() {
    let stage = Stage::new(41, 4).await;
    let mut client = Client::of(&stage.scene);
    for sort_key in [&b"one"[..], b"two", b"three", b"four", b""] {
        // The sort key decides.
        let index = pegasus_wire::hash::partition_index(b"", sort_key, 4);
        let partition = PartitionId::new(stage.table, index);
        client.set(partition, b"", sort_key, sort_key);
        assert_eq!(client.get(partition, b"", sort_key), (0, sort_key.to_vec()));
        let elsewhere = PartitionId::new(stage.table, (index + 1) % 4);
        assert_eq!(client.get(elsewhere, b"", sort_key).0, INVALID_ARGUMENT, "{sort_key:?}");
        let incr = IncrRequest { key: Blob(&key::encode(b"", sort_key)), increment: 1, expire_ts_seconds: 0 };
        let answer = client.call(elsewhere, Rpc::Incr, &incr);
        assert_eq!(result::<IncrResponse<'_>>(&answer).error, INVALID_ARGUMENT);
    }
    let index = pegasus_wire::hash::partition_index(b"", b"", 4);
    let request = MultiGetRequest { hash_key: Blob(b""), start_inclusive: true, ..MultiGetRequest::default() };
    assert_eq!(client.multi_get(PartitionId::new(stage.table, index), &request).0, INVALID_ARGUMENT);
}

#[tokio::test]
async fn rows_of_a_hash_key() {
    let stage = Stage::new(42, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    let row = |key, value| KeyValue { key: Blob(key), value: Blob(value), expire_ts_seconds: None };
    let kvs = vec![row(b"", b"0"), row(b"a1", b"1"), row(b"a2", b"2"), row(b"b1", b"3"), row(b"b2", b"4")];
    let put = MultiPutRequest { hash_key: Blob(b"h"), kvs, expire_ts_seconds: 0 };
    let answer = client.call(partition, Rpc::MultiPut, &put);
    assert_eq!(result::<UpdateResponse<'_>>(&answer).error, 0);
    let none = MultiPutRequest { hash_key: Blob(b"h"), kvs: vec![], expire_ts_seconds: 0 };
    assert_eq!(result::<UpdateResponse<'_>>(&client.call(partition, Rpc::MultiPut, &none)).error, INVALID_ARGUMENT);

    let all = MultiGetRequest { hash_key: Blob(b"h"), start_inclusive: true, ..MultiGetRequest::default() };
    let rows = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let every = rows(&[("", "0"), ("a1", "1"), ("a2", "2"), ("b1", "3"), ("b2", "4")]);
    assert_eq!(client.multi_get(partition, &all), (0, every));
    let keys = vec![Blob(b"b1"), Blob(b"missing"), Blob(b"a1")];
    let named = MultiGetRequest { sort_keys: keys, ..all.clone() };
    assert_eq!(client.multi_get(partition, &named), (0, rows(&[("b1", "3"), ("a1", "1")])), "in the order asked");
    let two = MultiGetRequest { max_kv_count: 2, max_kv_size: -1, ..all.clone() };
    assert_eq!(client.multi_get(partition, &two), (INCOMPLETE, rows(&[("", "0"), ("a1", "1")])));
    let last = MultiGetRequest { reverse: true, ..two };
    assert_eq!(client.multi_get(partition, &last), (INCOMPLETE, rows(&[("b1", "3"), ("b2", "4")])));
    let range = MultiGetRequest {
        start_sortkey: Blob(b"a1"),
        start_inclusive: false,
        stop_sortkey: Blob(b"b1"),
        stop_inclusive: true,
        no_value: true,
        ..all.clone()
    };
    assert_eq!(client.multi_get(partition, &range), (0, rows(&[("a2", ""), ("b1", "")])));
    let filter = |kind, pattern| MultiGetRequest {
        sort_key_filter_type: kind,
        sort_key_filter_pattern: Blob(pattern),
        ..all.clone()
    };
    assert_eq!(client.multi_get(partition, &filter(FilterType::PREFIX, b"b")).1.len(), 2);
    assert_eq!(client.multi_get(partition, &filter(FilterType::POSTFIX, b"1")).1.len(), 2);
    assert_eq!(client.multi_get(partition, &filter(FilterType::ANYWHERE, b"a")).1.len(), 2);
    assert_eq!(client.multi_get(partition, &filter(FilterType(9), b"a")), (INVALID_ARGUMENT, vec![]));
    assert_eq!(client.count(partition, b"h"), (0, 5));
    assert_eq!(client.count(partition, b"nobody"), (0, 0));

    let sort_keys = vec![Blob(b"a1"), Blob(b"missing")];
    let remove = MultiRemoveRequest { hash_key: Blob(b"h"), sort_keys, max_count: 0 };
    let answer = client.call(partition, Rpc::MultiRemove, &remove);
    let removed: MultiRemoveResponse<'_> = result(&answer);
    assert_eq!((removed.error, removed.count), (0, 2), "as many as were named");
    assert_eq!(client.count(partition, b"h"), (0, 4));
}

#[tokio::test]
async fn rows_of_many_hash_keys_and_long_counts() {
    let stage = Stage::new(43, 2).await;
    let mut client = Client::of(&stage.scene);
    let keys: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        client.set(partition_of(stage.table, 2, key.as_bytes()), key.as_bytes(), b"s", key.as_bytes());
    }
    let partition = PartitionId::new(stage.table, 1);
    let here: Vec<&String> =
        keys.iter().rev().filter(|key| partition_of(stage.table, 2, key.as_bytes()) == partition).collect();
    assert!(here.len() > 3, "{here:?}");
    let full = |key: &'_ str, sort_key: &'static [u8]| (key.as_bytes().to_vec(), sort_key);
    let asked: Vec<_> = here.iter().flat_map(|key| [full(key, b"missing"), full(key, b"s")]).collect();
    let full_keys = asked.iter().map(|(hash, sort)| FullKey { hash_key: Blob(hash), sort_key: Blob(sort) }).collect();
    let answer = client.call(partition, Rpc::BatchGet, &BatchGetRequest { keys: full_keys });
    let found: BatchGetResponse<'_> = result(&answer);
    assert_eq!(found.error, 0);
    let values: Vec<String> = found.data.iter().map(|row| String::from_utf8_lossy(row.value.0).into_owned()).collect();
    assert_eq!(values.iter().collect::<Vec<_>>(), here, "in the order asked, those that are there");
    assert!(found.data.iter().all(|row| row.hash_key == row.value && row.sort_key == Blob(b"s")));
    let elsewhere = keys.iter().find(|key| partition_of(stage.table, 2, key.as_bytes()) != partition).expect("a key");
    let foreign = FullKey { hash_key: Blob(elsewhere.as_bytes()), sort_key: Blob(b"s") };
    let answer = client.call(partition, Rpc::BatchGet, &BatchGetRequest { keys: vec![foreign] });
    assert_eq!(result::<BatchGetResponse<'_>>(&answer).error, INVALID_ARGUMENT, "a key of another partition");
    let nothing = client.call(partition, Rpc::BatchGet, &BatchGetRequest::default());
    assert_eq!(result::<BatchGetResponse<'_>>(&nothing).error, INVALID_ARGUMENT);

    // More rows than one look may count.
    let partition = partition_of(stage.table, 2, b"long");
    for first in (0..7000).step_by(1000) {
        let sort_keys: Vec<String> = (first..first + 1000).map(|number| format!("{number:05}")).collect();
        let kvs = sort_keys.iter().map(|key| KeyValue { key: Blob(key.as_bytes()), ..KeyValue::default() }).collect();
        let put = MultiPutRequest { hash_key: Blob(b"long"), kvs, expire_ts_seconds: 0 };
        assert_eq!(result::<UpdateResponse<'_>>(&client.call(partition, Rpc::MultiPut, &put)).error, 0);
    }
    assert_eq!(client.count(partition, b"long"), (0, 7000));
    let all = MultiGetRequest { hash_key: Blob(b"long"), start_inclusive: true, ..MultiGetRequest::default() };
    let (error, rows) = client.multi_get(partition, &all);
    assert_eq!((error, rows.len()), (INCOMPLETE, 3000), "Pegasus's bound");
}

#[tokio::test]
async fn operations_that_read_before_they_write() {
    let stage = Stage::new(44, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    let stored = key::encode(b"h", b"n");
    let incr = |increment, expire_ts_seconds| IncrRequest { key: Blob(&stored), increment, expire_ts_seconds };
    let add = |client: &mut Client, increment, expiry| {
        let answer = client.call(partition, Rpc::Incr, &incr(increment, expiry));
        let done: IncrResponse<'_> = result(&answer);
        (done.error, done.new_value)
    };
    assert_eq!(add(&mut client, 5, 0), (0, 5));
    assert_eq!(add(&mut client, -7, (now_seconds() + 1000).cast_signed()), (0, -2));
    assert!(client.ttl(partition, b"h", b"n").1 > 0);
    assert_eq!(add(&mut client, 1, 0), (0, -1));
    assert!(client.ttl(partition, b"h", b"n").1 > 0, "kept");
    assert_eq!(add(&mut client, 1, -1), (0, 0));
    assert_eq!(client.ttl(partition, b"h", b"n"), (0, -1), "cleared");
    assert_eq!(add(&mut client, i64::MAX, 0), (0, i64::MAX));
    assert_eq!(add(&mut client, 1, 0), (INVALID_ARGUMENT, i64::MAX), "the number that stays");
    client.set(partition, b"h", b"n", b"no number");
    assert_eq!(add(&mut client, 1, 0).0, INVALID_ARGUMENT);

    let check = CheckAndSetRequest {
        hash_key: Blob(b"h"),
        check_sort_key: Blob(b"c"),
        check_type: CheckType::VALUE_NOT_EXIST,
        set_value: Blob(b"first"),
        return_check_value: true,
        ..CheckAndSetRequest::default()
    };
    let try_set = |client: &mut Client, request: &CheckAndSetRequest<'_>| {
        let answer = client.call(partition, Rpc::CheckAndSet, request);
        let done: CheckResponse<'_> = result(&answer);
        (done.error, done.check_value_returned, done.check_value_exist, done.check_value.0.to_vec())
    };
    assert_eq!(try_set(&mut client, &check), (0, true, false, vec![]));
    assert_eq!(try_set(&mut client, &check), (TRY_AGAIN, true, true, b"first".to_vec()));
    let equal = CheckAndSetRequest {
        check_type: CheckType::VALUE_BYTES_EQUAL,
        check_operand: Blob(b"first"),
        set_diff_sort_key: true,
        set_sort_key: Blob(b"d"),
        set_value: Blob(b"second"),
        return_check_value: false,
        ..check.clone()
    };
    assert_eq!(try_set(&mut client, &equal), (0, false, false, vec![]));
    assert_eq!(client.get(partition, b"h", b"d"), (0, b"second".to_vec()));
    assert_eq!(client.get(partition, b"h", b"c"), (0, b"first".to_vec()));
    let unknown = CheckAndSetRequest { check_type: CheckType(18), ..check.clone() };
    assert_eq!(try_set(&mut client, &unknown).0, INVALID_ARGUMENT);

    let put = |sort_key, value| Mutate {
        operation: MutateOperation::PUT,
        sort_key: Blob(sort_key),
        value: Blob(value),
        set_expire_ts_seconds: 0,
    };
    let delete = Mutate { operation: MutateOperation::DELETE, sort_key: Blob(b"d"), ..Mutate::default() };
    let mutate = CheckAndMutateRequest {
        hash_key: Blob(b"h"),
        check_sort_key: Blob(b"c"),
        check_type: CheckType::VALUE_BYTES_EQUAL,
        check_operand: Blob(b"first"),
        mutate_list: vec![put(b"e", b"1"), delete, put(b"e", b"2")],
        return_check_value: false,
    };
    let change = |client: &mut Client, request: &CheckAndMutateRequest<'_>| {
        result::<CheckResponse<'_>>(&client.call(partition, Rpc::CheckAndMutate, request)).error
    };
    assert_eq!(change(&mut client, &mutate), 0);
    assert_eq!(client.get(partition, b"h", b"e"), (0, b"2".to_vec()));
    assert_eq!(client.get(partition, b"h", b"d").0, NOT_FOUND);
    let nothing = CheckAndMutateRequest { mutate_list: vec![], ..mutate.clone() };
    assert_eq!(change(&mut client, &nothing), INVALID_ARGUMENT);
    let strange = Mutate { operation: MutateOperation(2), ..Mutate::default() };
    assert_eq!(change(&mut client, &CheckAndMutateRequest { mutate_list: vec![strange], ..mutate }), INVALID_ARGUMENT);
}

#[tokio::test]
async fn requests_are_pipelined() {
    let stage = Stage::new(45, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    // Increments of one row, each of which reads what the one before wrote; between them reads of another row.
    let stored = key::encode(b"h", b"n");
    let missing = key::encode(b"h", b"missing");
    let incr = IncrRequest { key: Blob(&stored), increment: 1, expire_ts_seconds: 0 };
    let mut bytes = Vec::new();
    for sequence in 0..2000 {
        bytes.extend(request(partition, Rpc::Incr, 2 * sequence, &incr));
        bytes.extend(request(partition, Rpc::Get, 2 * sequence + 1, &Blob(&missing)));
    }
    // In pieces that end anywhere.
    for piece in bytes.chunks(7777) {
        client.send_bytes(piece);
    }
    for sequence in 0..2000 {
        let answer = client.receive(2 * sequence);
        assert_eq!(result::<IncrResponse<'_>>(&answer).new_value, i64::from(sequence) + 1);
        let answer = client.receive(2 * sequence + 1);
        assert_eq!(result::<ReadResponse<'_>>(&answer).error, NOT_FOUND);
    }
    // A request in single bytes.
    for byte in request(partition, Rpc::Get, 9999, &Blob(&stored)) {
        client.send_bytes(&[byte]);
    }
    assert_eq!(result::<ReadResponse<'_>>(&client.receive(9999)).value, Blob(b"2000"));
}

#[tokio::test]
async fn a_large_answer_ends_where_it_must() {
    let stage = Stage::new(58, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    let value = vec![b'x'; 900 * 1024];
    for sort_key in [b"1", b"2", b"3", b"4", b"5", b"6", b"7"] {
        client.set(partition, b"h", sort_key, &value);
    }
    let all = MultiGetRequest { hash_key: Blob(b"h"), start_inclusive: true, ..MultiGetRequest::default() };
    let (error, rows) = client.multi_get(partition, &all);
    let keys: Vec<&str> = rows.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((error, keys), (INCOMPLETE, vec!["1", "2", "3", "4", "5"]), "what passes 4 MiB is the last");
    let rest = MultiGetRequest { start_sortkey: Blob(b"5"), start_inclusive: false, ..all };
    let (error, rows) = client.multi_get(partition, &rest);
    assert_eq!((error, rows.len()), (0, 2));
}

#[tokio::test]
async fn only_the_primary_answers_what_was_asked_of_several() {
    let stage = Stage::new(59, 1).await;
    let mut client = Client::of(&stage.scene);
    client.set(PartitionId::new(stage.table, 0), b"h", b"s", b"value");
    let get = |partition: PartitionId, sequence| {
        // The same request behind a header of version 1 that says that it is a backup.
        let v0 = request(partition, Rpc::Get, sequence, &Blob(&key::encode(b"h", b"s")));
        let body = &v0[48..];
        let mut meta = vec![8, 0, 1];
        meta.extend(partition.table.0.to_be_bytes());
        meta.extend([8, 0, 2]);
        meta.extend(partition.index.to_be_bytes());
        meta.extend([2, 0, 5, 1, 0]);
        let mut bytes = b"THFT\x00\x00\x00\x01".to_vec();
        bytes.extend((meta.len() as u32).to_be_bytes());
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(meta);
        bytes.extend(body);
        bytes
    };
    client.send_bytes(&get(PartitionId::new(77, 0), 500));
    client.send_bytes(&get(PartitionId::new(stage.table, 0), 501));
    assert_eq!(result::<ReadResponse<'_>>(&client.receive(501)).value, Blob(b"value"));
    // An error would come a little later than an answer: one that is asked for after it is waited for as well.
    assert_eq!(
        client.error_of(PartitionId::new(77, 0), Rpc::Get, &Blob(&key::encode(b"h", b"s"))),
        "ERR_OBJECT_NOT_FOUND"
    );
    assert!(!client.has_answer(500));
}

#[tokio::test]
async fn what_is_not_here_is_said_so() {
    let stage = Stage::new(46, 1).await;
    let mut client = Client::of(&stage.scene);
    let key = key::encode(b"h", b"s");
    for partition in [PartitionId::new(stage.table, 1), PartitionId::new(99, 0), PartitionId::new(u32::MAX, u32::MAX)] {
        assert_eq!(client.error_of(partition, Rpc::Get, &Blob(&key)), "ERR_OBJECT_NOT_FOUND");
        let update = UpdateRequest { key: Blob(&key), ..UpdateRequest::default() };
        assert_eq!(client.error_of(partition, Rpc::Put, &update), "ERR_OBJECT_NOT_FOUND");
    }
    let partition = PartitionId::new(stage.table, 0);
    assert_eq!(client.error_of(partition, Rpc::QueryCfg, &Blob(&key)), "ERR_HANDLER_NOT_FOUND");
    // Values that are too large, or too large to be received at all, between requests that are neither.
    for kilobytes in [1001, 1500, 3000, 20_000] {
        let value = vec![7; kilobytes * 1024];
        let large = UpdateRequest { key: Blob(&key), value: Blob(&value), expire_ts_seconds: 0 };
        let sequence = client.send(partition, Rpc::Put, &large);
        assert_eq!(client.get(partition, b"h", b"s").0, NOT_FOUND, "{kilobytes} KiB");
        let answer = client.receive(sequence);
        assert_eq!(Answer::parse(&answer).expect("an answer").error, "ERR_INVALID_DATA", "{kilobytes} KiB");
    }
    let value = vec![7; 1000 * 1024];
    client.set(partition, b"h", b"s", &value);
    assert_eq!(client.get(partition, b"h", b"s"), (0, value));
    let mut unknown = request(partition, Rpc::Get, 77, &Blob(&key));
    let name = unknown.windows(3).position(|window| window == b"GET").expect("its name");
    unknown[name..name + 3].copy_from_slice(b"GOT");
    client.send_bytes(&unknown);
    let answer = client.receive(77);
    assert_eq!(Answer::parse(&answer).expect("an answer").error, "ERR_HANDLER_NOT_FOUND");
    assert!(answer.windows(21).any(|window| window == b"RPC_RRDB_RRDB_GOT_ACK"), "{}", answer.escape_ascii());
}
