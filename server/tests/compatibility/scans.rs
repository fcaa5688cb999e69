//! Scans: batches, contexts, filters, counts.

use pegasus_gateway::Rpc;
use pegasus_gateway::messages::read::{FilterType, GetScannerRequest, KeyValue};
use pegasus_gateway::messages::write::{MultiPutRequest, UpdateRequest, UpdateResponse};
use pegasus_gateway::thrift::Blob;
use pegasus_wire::{PartitionId, key};

use crate::Stage;
use crate::client::{Client, Slice, result, text};

const COMPLETE: i64 = -1;
const UNKNOWN: i64 = -2;
const ROWS: usize = 2500;

/// Everything, in batches of the server's size.
fn whole() -> GetScannerRequest<'static> {
    GetScannerRequest {
        start_key: Blob(&[0, 0]),
        stop_key: Blob(&[0xff, 0xff]),
        start_inclusive: true,
        batch_size: 1000,
        ..GetScannerRequest::default()
    }
}

async fn stage(number: u16) -> (Stage, PartitionId, Client) {
    let stage = Stage::new(number, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    for first in (0..ROWS).step_by(500) {
        let keys: Vec<String> = (first..first + 500).map(|number| format!("{number:04}")).collect();
        let kvs =
            keys.iter().map(|key| KeyValue { key: Blob(key.as_bytes()), value: Blob(b"v"), ..KeyValue::default() });
        let put = MultiPutRequest { hash_key: Blob(b"scan"), kvs: kvs.collect(), expire_ts_seconds: 0 };
        assert_eq!(result::<UpdateResponse<'_>>(&client.call(partition, Rpc::MultiPut, &put)).error, 0);
    }
    (stage, partition, client)
}

/// All slices of a scan.
fn slices(client: &mut Client, partition: PartitionId, request: &GetScannerRequest<'_>) -> Vec<Slice> {
    let mut slices = vec![client.begin_scan(partition, request)];
    while let Some(Slice { error: 0, context_id: 0.., .. }) = slices.last() {
        let context_id = slices[slices.len() - 1].context_id;
        slices.push(client.continue_scan(partition, context_id));
    }
    slices
}

fn sort_keys(slices: &[Slice]) -> Vec<String> {
    let rows = slices.iter().flat_map(|slice| &slice.rows);
    rows.map(|(key, _, _)| text(pegasus_gateway::mapping::split_key(key).expect("a stored key").1)).collect()
}

#[tokio::test]
async fn a_scan_has_every_row_once_in_order() {
    let (stage, partition, mut client) = stage(47).await;
    for batch_size in [7, 100, 1000, 5000, 0, -1] {
        let found = slices(&mut client, partition, &GetScannerRequest { batch_size, ..whole() });
        let wanted: Vec<String> = (0..ROWS).map(|number| format!("{number:04}")).collect();
        assert_eq!(sort_keys(&found), wanted, "batches of {batch_size}");
        let most = usize::try_from(batch_size).ok().filter(|rows| (1..1000).contains(rows)).unwrap_or(1000);
        assert!(found.iter().all(|slice| slice.error == 0 && slice.rows.len() <= most), "batches of {batch_size}");
        assert_eq!(found.last().map(|slice| slice.context_id), Some(COMPLETE));
        let mut contexts: Vec<i64> = found.iter().map(|slice| slice.context_id).collect();
        contexts.dedup();
        assert_eq!(contexts.len(), found.len(), "each slice names the scan anew");
    }
    assert_eq!(stage.metric("compatibility_scans"), 0.0, "they have ended");
}

#[tokio::test]
async fn a_scan_is_of_one_moment_and_its_number_is_good_once() {
    let (stage, partition, mut client) = stage(48).await;
    let first = client.begin_scan(partition, &whole());
    // What is written meanwhile is not in it.
    client.set(partition, b"scan", b"1500", b"changed");
    client.set(partition, b"scan", b"1500-new", b"new");
    client.call(partition, Rpc::Remove, &Blob(&key::encode(b"scan", b"1600")));
    let second = client.continue_scan(partition, first.context_id);
    assert_eq!((second.error, second.rows.len()), (0, 1000));
    let changed = second.rows.iter().find(|(key, _, _)| key.ends_with(b"1500")).expect("the row");
    assert_eq!(changed.1, b"v");
    assert!(second.rows.iter().any(|(key, _, _)| key.ends_with(b"1600")));
    // Each number is good once.
    let again = client.continue_scan(partition, first.context_id);
    assert_eq!((again.error, again.context_id, again.rows.len()), (1, UNKNOWN, 0));
    // One that was cleared is gone, and clearing is not answered: the next answer is that of the next request.
    client.send(partition, Rpc::ClearScanner, &second.context_id);
    let gone = client.continue_scan(partition, second.context_id);
    assert_eq!((gone.error, gone.context_id), (1, UNKNOWN));
    for context_id in [-1, -2, 0, i64::MAX, i64::MIN] {
        assert_eq!(client.continue_scan(partition, context_id).error, 1, "{context_id}");
    }
    let elsewhere = client.begin_scan(partition, &whole());
    let other = PartitionId::new(stage.table, 7);
    assert_eq!(client.error_of(other, Rpc::Scan, &elsewhere_request(&elsewhere)), "ERR_OBJECT_NOT_FOUND");
    assert_eq!(client.continue_scan(partition, elsewhere.context_id).error, 0, "it is still there");
}

fn elsewhere_request(slice: &Slice) -> pegasus_gateway::messages::read::ScanRequest {
    pegasus_gateway::messages::read::ScanRequest { context_id: slice.context_id }
}

#[tokio::test]
async fn ranges_filters_and_what_is_shown() {
    let (_stage, partition, mut client) = stage(49).await;
    let stored = |sort_key: &[u8]| key::encode(b"scan", sort_key);
    let (start, stop) = (stored(b"0010"), stored(b"0013"));
    let range = |start_inclusive, stop_inclusive| GetScannerRequest {
        start_key: Blob(&start),
        stop_key: Blob(&stop),
        start_inclusive,
        stop_inclusive,
        ..whole()
    };
    for (start_inclusive, stop_inclusive, wanted) in [
        (true, true, vec!["0010", "0011", "0012", "0013"]),
        (true, false, vec!["0010", "0011", "0012"]),
        (false, true, vec!["0011", "0012", "0013"]),
    ] {
        let found = slices(&mut client, partition, &range(start_inclusive, stop_inclusive));
        assert_eq!(sort_keys(&found), wanted);
    }
    let backwards = GetScannerRequest { start_key: Blob(&stop), stop_key: Blob(&start), ..whole() };
    let nothing = client.begin_scan(partition, &backwards);
    assert_eq!((nothing.error, nothing.rows.len(), nothing.context_id), (0, 0, COMPLETE));

    let filtered = GetScannerRequest {
        sort_key_filter_type: FilterType::POSTFIX,
        sort_key_filter_pattern: Blob(b"99"),
        no_value: true,
        ..whole()
    };
    let found = slices(&mut client, partition, &filtered);
    assert_eq!(sort_keys(&found).len(), 25);
    assert!(found.iter().flat_map(|slice| &slice.rows).all(|(_, value, expiry)| value.is_empty() && expiry.is_none()));
    let other = GetScannerRequest {
        hash_key_filter_type: FilterType::PREFIX,
        hash_key_filter_pattern: Blob(b"other"),
        ..whole()
    };
    assert_eq!(sort_keys(&slices(&mut client, partition, &other)), [""; 0]);
    assert_eq!(
        client.begin_scan(partition, &GetScannerRequest { hash_key_filter_type: FilterType(4), ..whole() }).error,
        4
    );

    let counted = GetScannerRequest { only_return_count: Some(true), ..whole() };
    let found = slices(&mut client, partition, &counted);
    assert!(found.iter().all(|slice| slice.rows.is_empty()));
    assert_eq!(found.iter().filter_map(|slice| slice.count).sum::<i32>(), ROWS as i32);

    let stored = key::encode(b"t", b"s");
    let update = UpdateRequest { key: Blob(&stored), value: Blob(b"v"), expire_ts_seconds: 2_000_000_000 };
    client.call(partition, Rpc::Put, &update);
    let expiring = GetScannerRequest { stop_key: Blob(b"\x00\x01\xff"), return_expire_ts: Some(true), ..whole() };
    assert_eq!(client.begin_scan(partition, &expiring).rows, [(stored, b"v".to_vec(), Some(2_000_000_000))]);
}
