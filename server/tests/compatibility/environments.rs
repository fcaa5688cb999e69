//! What a table's settings do to clients of Pegasus.

use pegasus_gateway::Rpc;
use pegasus_gateway::messages::write::{IncrRequest, IncrResponse, UpdateRequest, UpdateResponse};
use pegasus_gateway::thrift::Blob;
use pegasus_wire::{PartitionId, key};

use crate::Stage;
use crate::client::{Client, request, result};

#[tokio::test]
async fn who_is_denied_is_told_or_hears_nothing() {
    let stage = Stage::new(55, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    client.set(partition, b"h", b"s", b"value");
    let stored = key::encode(b"h", b"s");
    let denied = |client: &mut Client| client.error_of(partition, Rpc::Get, &Blob(&stored)) == "ERR_INVALID_STATE";
    let told = [("replica.deny_client_request", "reconfig*read")];
    stage.set_environment(&told, || denied(&mut client)).await;
    client.set(partition, b"h", b"s", b"value");
    // Whoever is to run into a timeout hears nothing; the connection and what else is asked on it go on.
    let stored = key::encode(b"h", b"s");
    let update = UpdateRequest { key: Blob(&stored), value: Blob(b"new"), expire_ts_seconds: 0 };
    let silent = [("replica.deny_client_request", "timeout*write")];
    let served = |client: &mut Client| client.error_of(partition, Rpc::Get, &Blob(&stored)) == "ERR_OK";
    stage.set_environment(&silent, || served(&mut client)).await;
    let writes: Vec<i32> = (0..10).map(|_| client.send(partition, Rpc::Put, &update)).collect();
    assert_eq!(client.get(partition, b"h", b"s"), (0, b"value".to_vec()));
    assert!(stage.metric("requests_denied_total") >= 10.0);
    // Errors are held back a little: one that is asked for after the writes is waited for as well.
    let elsewhere = PartitionId::new(99, 0);
    assert_eq!(client.error_of(elsewhere, Rpc::Get, &Blob(&stored)), "ERR_OBJECT_NOT_FOUND");
    assert!(writes.iter().all(|sequence| !client.has_answer(*sequence)));
}

#[tokio::test]
async fn rows_get_the_tables_time_to_live() {
    let stage = Stage::new(56, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    stage
        .set_environment(&[("default_ttl", "1000")], || {
            client.set(partition, b"h", b"s", b"value");
            client.ttl(partition, b"h", b"s").1 > 0
        })
        .await;
    let left = client.ttl(partition, b"h", b"s").1;
    assert!((900..=1000).contains(&left), "{left}");
    let stored = key::encode(b"h", b"n");
    let incr = IncrRequest { key: Blob(&stored), increment: 1, expire_ts_seconds: 0 };
    assert_eq!(result::<IncrResponse<'_>>(&client.call(partition, Rpc::Incr, &incr)).new_value, 1);
    assert!(client.ttl(partition, b"h", b"n").1 > 0);
}

#[tokio::test]
async fn those_that_a_throttle_holds_are_answered_later() {
    let stage = Stage::new(57, 1).await;
    let partition = PartitionId::new(stage.table, 0);
    let mut client = Client::of(&stage.scene);
    let throttled = [("replica.write_throttling", "50*delay*10000")];
    stage
        .set_environment(&throttled, || {
            client.set(partition, b"h", b"s", b"value");
            stage.metric("requests_held_total") > 0.0
        })
        .await;
    let stored = key::encode(b"h", b"n");
    let incr = IncrRequest { key: Blob(&stored), increment: 1, expire_ts_seconds: 0 };
    let mut bytes = Vec::new();
    for sequence in 1000..1100 {
        bytes.extend(request(partition, Rpc::Incr, sequence, &incr));
    }
    client.send_bytes(&bytes);
    // In order, each once.
    for sequence in 1000..1100 {
        let answer = client.receive(sequence);
        assert_eq!(result::<IncrResponse<'_>>(&answer).new_value, i64::from(sequence) - 999);
    }
    let update = UpdateRequest { key: Blob(&stored), value: Blob(b"text"), expire_ts_seconds: 0 };
    assert_eq!(result::<UpdateResponse<'_>>(&client.call(partition, Rpc::Put, &update)).error, 0);
}
