//! Expiry across a failover: what had expired by the clock of the old primary stays gone on a new one whose clock is
//! slower, because the writes that it has say how late it was.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use pegasus_wire::expiry::seconds_since_epoch;
use pegasus_wire::key::encode;
use pegasus_wire::messages::control::ReplicaState;
use pegasus_wire::messages::data::{
    Check, CheckAndWrite, ExpiryChange, Increment, MultiGet, RowOperation, Scan, SortKey, Write,
};
use pegasus_wire::{Ballot, Configuration, Decree, Mutation, MutationKind};
use roles::follower::Follower;
use roles::led::{ID, Led, key_of};
use roles::stage::Stage;
use support::operations::{all_of, checked, number, payload, whole};

/// First scene number of this program.
const SCENES: u16 = 160;
/// How far the clock of the old primary is ahead.
const AHEAD_MICROS: u64 = 500_000_000;

/// Puts a row at a time by the primary's clock.
fn put(decree: u64, timestamp_micros: u64, rows: &[(&[u8], u32)]) -> Mutation {
    let key = key_of(0, 0);
    let put = |&(sort_key, expiry_seconds)| RowOperation::Put { sort_key, value: b"7", expiry_seconds };
    let operations: Vec<RowOperation<'_>> = rows.iter().map(put).collect();
    let payload = payload(&Write { partition: ID, hash_key: &key, operations: &operations });
    Mutation { ballot: Ballot(3), decree: Decree(decree), timestamp_micros, kind: MutationKind::Write, payload }
}

/// A node that followed a primary whose clock was ahead, and leads now.
async fn after_the_failover(number: u16) -> Led {
    let stage = Stage::new(number, 1).await;
    let (mut stream, _) = stage.teach(2, 0).await;
    stage.lead(3, &[stage.node]);
    stream.establish(&stage.primary.establish(ID, stage.node, 3, &[stage.node], 0)).await;
    stage.reported(Some(ReplicaState::Whole)).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let seconds = seconds_since_epoch(now);
    let rows: [(&[u8], u32); 3] = [(b"gone", seconds + 300), (b"soon", seconds + 10_000), (b"stays", 0)];
    stream.prepare_mutation(&put(1, now, &rows), 0).await;
    stream.prepare_mutation(&put(2, now + AHEAD_MICROS, &[(b"late", 0)]), 1).await;
    stream.acknowledged(2).await;
    stream.commit(3, 2).await;

    let Stage { process, scene, meta, node, primary, .. } = stage;
    let follower = Follower::start(primary);
    let secondaries = vec![follower.node];
    meta.assign(ID, Configuration { ballot: Ballot(4), primary: Some(node), secondaries });
    let caller = scene.caller().await;
    let led = Led { process: process.unwrap(), scene, meta, node, follower, caller };
    led.lead(roles::partition(1));
    led.serving().await;
    led
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slower_clock_brings_no_row_back() {
    let mut led = after_the_failover(SCENES).await;
    let key = key_of(0, 0);
    for restarted in [false, true] {
        if restarted {
            led = led.restart().await;
        }
        let caller = &led.caller;
        assert_eq!(led.value(&key, b"gone").await, None, "restarted: {restarted}");
        assert_eq!(led.ttl(&key, b"gone").await, None);
        let ttl = led.ttl(&key, b"soon").await.unwrap();
        assert!((9000..=9500).contains(&ttl), "{ttl}: what is left of it is told by the later clock, too");
        let left = ["late", "soon", "stays"];
        assert_eq!(caller.rows_of(&all_of(ID, &key)).await.keys(), left);
        let named = ["gone", "late", "soon", "stays"].map(|key| SortKey { bytes: key.as_bytes() });
        assert_eq!(caller.rows_of(&MultiGet { sort_keys: &named, ..all_of(ID, &key) }).await.keys(), left);
        assert_eq!(caller.rows_of(&MultiGet { count_only: true, ..all_of(ID, &key) }).await.count, 3);
        for keep_context in [false, true] {
            let slice = caller.slice_of(&Scan { keep_context, ..whole(ID) }).await;
            let stored: Vec<_> = left.iter().map(|sort_key| encode(&key, sort_key.as_bytes())).collect();
            assert_eq!(slice.rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), stored);
        }
    }
    // What reads before it writes sees the same.
    let check = CheckAndWrite {
        partition: ID,
        hash_key: &key,
        check_sort_key: b"gone",
        check: Check::Exist,
        operand: b"",
        operations: &[RowOperation::Delete { sort_key: b"stays" }],
        return_value: true,
    };
    assert_eq!(checked(&led.caller.check_and_write(&check).await), (false, false, vec![]));
    let (hash_key, expiry) = (&key[..], ExpiryChange::Keep);
    let add = Increment { partition: ID, hash_key, sort_key: b"gone", increment: 1, expiry };
    assert_eq!(number(&led.caller.increment(&add).await), 1, "and not 8");
    assert_eq!(led.ttl(&key, b"gone").await, Some(-1), "a new row");
    // The table's time to live counts from the later moment, too.
    led.set_environment(&[("default_ttl", "100000")], async || {
        let put = RowOperation::Put { sort_key: b"new", value: b"", expiry_seconds: 0 };
        led.caller.written(ID, &key, &[put]).await;
        led.ttl(&key, b"new").await != Some(-1)
    })
    .await;
    let ttl = led.ttl(&key, b"new").await.unwrap();
    assert!((99_900..=100_000).contains(&ttl), "{ttl}");
    led.finish();
}
