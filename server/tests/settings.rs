//! What a table's settings and its state do to the copies of a node while it serves: denial, throttles, slow requests,
//! durability, names, dropping and recalling.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::poll;
use pegasus_engine::descriptor::{Descriptor, Loaded};
use pegasus_wire::messages::control::TableState;
use pegasus_wire::{Decree, Durability, Frame, Status};
use roles::led::{ID, Led, key_of};
use roles::{eventually, partition};
use support::reason;

/// First scene number of this program.
const SCENES: u16 = 150;

async fn set(led: &Led, key: &[u8]) -> Frame {
    led.caller.set(ID, key, b"value").await
}

async fn get(led: &Led, key: &[u8]) -> Frame {
    led.caller.get(ID, key, b"s").await
}

fn says(frame: &Frame, status: Status, words: &[&str]) {
    assert_eq!(frame.header.status, status, "{}", reason(frame));
    support::contains_all(&reason(frame), words);
}

/// The descriptor of the copy, as it is on the disk.
fn stored(led: &Led) -> Descriptor {
    let directory = led.scene.path("data").join("replicas/1.0");
    let Loaded::Valid(descriptor) = Descriptor::load(&directory).unwrap() else { panic!("there is a descriptor") };
    descriptor
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_is_refused_and_nothing_else() {
    let led = Led::new(SCENES).await;
    let key = key_of(0, 0);
    assert_eq!(set(&led, &key).await.header.status, Status::Ok);
    led.set_environment(&[("replica.deny_client_request", "reconfig*write")], async || {
        set(&led, &key).await.header.status == Status::Denied
    })
    .await;
    says(&set(&led, &key).await, Status::Denied, &["table table", "writes", "replica.deny_client_request"]);
    assert_eq!(get(&led, &key).await.header.status, Status::Ok);
    led.set_environment(&[("replica.deny_client_request", "timeout*all")], async || {
        get(&led, &key).await.header.status == Status::Denied
    })
    .await;
    says(&set(&led, &key).await, Status::Denied, &[]);
    assert!(led.metric("requests_denied_total") >= 4.0);
    led.set_environment(&[], async || get(&led, &key).await.header.status == Status::Ok).await;
    assert_eq!(set(&led, &key).await.header.status, Status::Ok);
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_serves_nothing_until_it_is_recalled() {
    let led = Led::new(SCENES + 1).await;
    let key = key_of(0, 0);
    assert_eq!(set(&led, &key).await.header.status, Status::Ok);
    let ballot = led.meta.change(|state| {
        state.table_state = TableState::Dropped { dropped_seconds: 951_700_000, purge_seconds: 951_782_400 };
        state.configurations[&ID].ballot
    });
    eventually("the table to be gone", || async {
        (get(&led, &key).await.header.status == Status::NoSuchTable).then_some(())
    })
    .await;
    let words = ["table table was dropped", "recalled until 2000-02-29 00:00:00 UTC"];
    says(&get(&led, &key).await, Status::NoSuchTable, &words);
    says(&set(&led, &key).await, Status::NoSuchTable, &words);
    let scan = led.caller.scan(&support::operations::whole(ID)).await;
    says(&scan, Status::NoSuchTable, &words);
    // Operators still see it.
    assert!(led.caller.copy_of(ID).await.applied >= Decree(1));

    led.meta.change(|state| {
        state.table_state = TableState::Available;
        state.name = Some("again".to_owned());
    });
    eventually("the table to be back", || async { led.value(&key, b"s").await }).await;
    assert_eq!(led.value(&key, b"s").await, Some(b"value".to_vec()));
    assert_eq!(set(&led, &key).await.header.status, Status::Ok);
    assert_eq!(led.meta.change(|state| state.configurations[&ID].ballot), ballot, "nothing happened to its members");
    eventually("the name to be durable", || async { (stored(&led).table.name == "again").then_some(()) }).await;
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_request_waits_and_another_tables_does_not() {
    let led = Led::new(SCENES + 2).await;
    let other = led.other_table(&[]).await;
    let (key, value) = (key_of(0, 0), b"value");
    // A request a second for each of four partitions; who would wait for more than ten seconds is refused. Whether that
    // is in force yet is asked of another partition.
    let throttle = [("replica.write_throttling", "4*delay*10000")];
    led.set_environment(&throttle, async || {
        let key = key_of(1, 0);
        let writes = join_all((0..14).map(|_| led.caller.set(partition(1), &key, b"probe")));
        tokio::time::timeout(Duration::from_millis(300), writes).await.is_err()
    })
    .await;
    let mut writes = Box::pin(join_all((0..30).map(|_| led.caller.set(ID, &key, value))));
    assert!(poll!(&mut writes).is_pending());
    // On the same stream, and on the same partition.
    for _ in 0..20 {
        assert_eq!(led.caller.set(other, b"k", b"v").await.header.status, Status::Ok);
        assert_eq!(get(&led, &key).await.header.status, Status::Ok);
    }
    assert!(poll!(&mut writes).is_pending(), "they still wait");
    led.set_environment(&[], async || led.metric("requests_held") == 0.0).await;
    let answers = writes.await;
    let done = answers.iter().filter(|answer| answer.header.status == Status::Ok).count();
    let refused: Vec<&Frame> = answers.iter().filter(|answer| answer.header.status != Status::Ok).collect();
    assert!(done >= 6 && !refused.is_empty(), "{done} done");
    for answer in refused {
        says(answer, Status::Busy, &["table table", "4 requests a second", "replica.write_throttling"]);
    }
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_table_cannot_stop_a_stream_that_others_use() {
    let led = Led::new(SCENES + 3).await;
    let other = led.other_table(&[]).await;
    let key = key_of(0, 0);
    let throttle = [("replica.read_throttling", "4*reject*14000")];
    let held = async || {
        let mut get = Box::pin(get(&led, &key));
        let _ = tokio::time::timeout(Duration::from_millis(50), &mut get).await;
        led.metric("requests_held") > 0.0
    };
    led.set_environment(&throttle, &held).await;
    // More than one stream may have unanswered.
    let reads = join_all((0..1500).map(|_| get(&led, &key)));
    let others = async {
        let begun = Instant::now();
        assert_eq!(led.caller.set(other, b"k", b"v").await.header.status, Status::Ok);
        assert!(begun.elapsed() < Duration::from_secs(10), "it went past those that wait");
        eventually("the others to be refused", || async {
            (led.metric("requests_throttled_total") >= 1200.0).then_some(())
        })
        .await;
        let held = led.metric("requests_held");
        assert!((1.0..=256.0).contains(&held), "{held} are held");
        assert_eq!(led.caller.set(other, b"k", b"v").await.header.status, Status::Ok);
        led.set_environment(&[], async || led.metric("requests_held") == 0.0).await;
    };
    let (answers, ()) = tokio::join!(reads, others);
    let too_many = |answer: &&Frame| reason(answer).contains("too many requests wait");
    assert!(answers.iter().filter(too_many).count() >= 1200);
    assert!(answers.iter().all(|answer| matches!(answer.header.status, Status::Busy | Status::NotFound)));
    // There is room again for as many on the stream.
    led.set_environment(&throttle, &held).await;
    led.set_environment(&[], async || led.metric("requests_held") == 0.0).await;
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_charged_when_they_are_known() {
    let led = Led::new(SCENES + 4).await;
    let key = key_of(0, 0);
    let large = vec![7; 100_000];
    assert_eq!(led.caller.set(ID, &key, &large).await.header.status, Status::Ok);
    let settings = [("replica.read_throttling_by_size", "4000*reject*0"), ("default_ttl", "1000")];
    led.set_environment(&settings, async || {
        let other = key_of(0, 1);
        assert_eq!(set(&led, &other).await.header.status, Status::Ok);
        matches!(led.ttl(&other, b"s").await, Some(1..))
    })
    .await;
    // Little was read so far; this is read as a whole, and owed for 100 seconds.
    eventually("a read to go ahead", || async {
        let read = get(&led, &key).await;
        (read.header.status == Status::Ok && read.attachment.len() == large.len()).then_some(())
    })
    .await;
    says(&get(&led, &key).await, Status::Busy, &["4000 bytes a second", "replica.read_throttling_by_size"]);
    assert_eq!(set(&led, &key).await.header.status, Status::Ok, "writes have rates of their own");
    let settings = [("replica.write_throttling_by_size", "4000*reject*0")];
    led.set_environment(&settings, async || led.caller.get(ID, &key, b"s").await.header.status == Status::Ok).await;
    assert_eq!(led.caller.set(ID, &key, &large).await.header.status, Status::Ok, "what is larger than the rate");
    let refused = led.caller.set(ID, &key, b"small").await;
    says(&refused, Status::Busy, &["4000 bytes a second", "replica.write_throttling_by_size"]);
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_requests_are_counted_and_logged() {
    let mut led = Led::new(SCENES + 5).await;
    let key = key_of(0, 0);
    let settings = [("replica.slow_query_threshold", "20"), ("default_ttl", "1000")];
    led.set_environment(&settings, async || {
        assert_eq!(set(&led, &key).await.header.status, Status::Ok);
        matches!(led.ttl(&key, b"s").await, Some(1..))
    })
    .await;
    let (before, caller) = (led.metric("slow_writes_total"), led.scene.caller().await);
    led.follower.hold();
    let prepared = led.follower.prepared();
    let mut write = std::pin::pin!(caller.set(ID, &key, b"slow"));
    assert!(poll!(write.as_mut()).is_pending());
    led.follower.wait_for_prepare(prepared.next()).await;
    // Time itself is what is waited for.
    tokio::time::sleep(Duration::from_millis(25)).await;
    led.follower.release();
    assert_eq!(write.await.header.status, Status::Ok);
    eventually("it to be counted", || async { (led.metric("slow_writes_total") > before).then_some(()) }).await;
    let log = led.process.log();
    let line = log.lines().find(|line| line.contains("slow request")).unwrap();
    support::contains_all(line, &["WARN", "table=\"table\"", "partition=1.0", "operation=WRITE", "ms="]);
    support::contains_all(line, &[&format!("key_bytes={}", key.len())]);
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_changes_while_the_table_serves() {
    let led = Led::new(SCENES + 6).await;
    let key = key_of(0, 0);
    assert_eq!(stored(&led).table.durability, Durability::Synced);
    for (durability, text) in [
        (Durability::Written, "written"),
        (Durability::Synced, "synced"),
        (Durability::Written, "written"),
        (Durability::Synced, ""),
    ] {
        // Some are on their way while it changes.
        let mut writes = Box::pin(join_all((0..50).map(|_| set(&led, &key))));
        assert!(poll!(&mut writes).is_pending());
        let settings = [("durability", text)];
        led.set_environment(if text.is_empty() { &[] } else { &settings }, async || {
            stored(&led).table.durability == durability
        })
        .await;
        assert!(writes.await.iter().all(|answer| answer.header.status == Status::Ok));
        assert_eq!(set(&led, &key).await.header.status, Status::Ok);
    }
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_name_is_durable_and_clients_go_on() {
    let led = Led::new(SCENES + 7).await;
    let key = key_of(0, 0);
    assert_eq!(set(&led, &key).await.header.status, Status::Ok);
    let configuration = stored(&led).configuration;
    led.meta.change(|state| state.name = Some("renamed".to_owned()));
    eventually("the name to be durable", || async { (stored(&led).table.name == "renamed").then_some(()) }).await;
    assert_eq!(stored(&led).configuration, configuration, "nothing else has changed");
    assert_eq!(led.value(&key, b"s").await, Some(b"value".to_vec()));
    assert_eq!(set(&led, &key).await.header.status, Status::Ok);
    led.set_environment(&[("replica.deny_client_request", "reconfig*all")], async || {
        reason(&get(&led, &key).await).contains("table renamed refuses reads")
    })
    .await;
    led.finish();
}
