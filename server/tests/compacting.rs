//! Manual compaction on a node whose meta service the test plays: what begins one, what keeps it from beginning, how
//! many run at a time, and what the node says of it.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pegasus_wire::messages::data::{CompactionState, CopyReply, RowOperation};
use pegasus_wire::{PartitionId, Status};
use roles::led::{ID, Led, key_of};
use roles::{eventually, partition};

/// First scene number of this program.
const SCENES: u16 = 170;
const ONCE: &str = "manual_compact.once.trigger_time";
const PERIODIC: &str = "manual_compact.periodic.trigger_time";

/// Rows that have expired in 2016.
async fn write_expired_rows(led: &Led, index: u32) {
    let names: Vec<String> = (0..500).map(|number| format!("{number}")).collect();
    let expired = |name| RowOperation::Put { sort_key: str::as_bytes(name), value: &[1; 100], expiry_seconds: 1 };
    let puts: Vec<RowOperation<'_>> = names.iter().map(|name| expired(name)).collect();
    led.caller.written(partition(index), &key_of(index, 0), &puts).await;
}

/// Waits until a copy has been compacted.
async fn compacted(led: &Led, id: PartitionId) -> CopyReply {
    eventually("a compaction to end", || async {
        let copy = led.caller.copy_of(id).await;
        (copy.compaction_ended_seconds > 0).then_some(copy)
    })
    .await
}

/// `hour:minute` in UTC, so long after now.
fn time_of_day(after: Duration) -> String {
    let minutes = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + after).as_secs() / 60;
    format!("{}:{:02}", minutes / 60 % 24, minutes % 60)
}

/// Gives the table settings, and waits until they are in force.
async fn set(led: &Led, settings: &[(&str, &str)]) {
    let (key, put) = (key_of(0, 1), RowOperation::Put { sort_key: b"probe", value: b"", expiry_seconds: 0 });
    let shows = async || {
        led.caller.written(ID, &key, &[put]).await;
        led.ttl(&key, b"probe").await != Some(-1)
    };
    led.set_environment(&[settings, &[("default_ttl", "1000")]].concat(), shows).await;
}

/// Waits for a compaction of another table that this setting begins. Until then the copy of `ID` was looked at as
/// well, and was left alone.
async fn another_one_is_compacted(led: &Led, setting: (&str, &str)) {
    let other = led.other_table(&[setting]).await;
    compacted(led, other).await;
    for id in [ID, partition(1)] {
        let copy = led.caller.copy_of(id).await;
        assert_eq!((copy.compaction, copy.compaction_ended_seconds), (CompactionState::Idle, 0), "{id}: {copy:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_drops_what_has_expired_and_is_remembered() {
    let led = Led::new(SCENES).await;
    let key = key_of(0, 0);
    write_expired_rows(&led, 0).await;
    led.caller.written(ID, &key, &[RowOperation::Put { sort_key: b"s", value: b"value", expiry_seconds: 0 }]).await;
    let before = led.caller.copy_of(ID).await;
    assert!(before.primary && before.estimated_rows >= 500, "{before:?}");
    assert_eq!((before.compaction, before.compaction_ended_seconds), (CompactionState::Idle, 0));

    let once = [
        (ONCE, "1"),
        ("manual_compact.once.bottommost_level_compaction", "force"),
        ("rocksdb.usage_scenario", "prefer_write"),
    ];
    led.set_environment(&once, async || led.caller.copy_of(ID).await.compaction_ended_seconds > 0).await;
    let after = led.caller.copy_of(ID).await;
    assert_eq!((after.compaction, after.compaction_percent), (CompactionState::Idle, 0));
    assert!(after.estimated_rows < 20 && after.file_bytes > 0, "{after:?}");
    assert_eq!(led.value(&key, b"s").await, Some(b"value".to_vec()), "what has not expired stays");
    assert!(led.metric("compactions_total") >= 1.0);

    // A restart does not begin it again.
    let led = led.restart().await;
    assert_eq!(led.caller.copy_of(ID).await.compaction_ended_seconds, after.compaction_ended_seconds);
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_begins_while_they_are_disabled() {
    let led = Led::new(SCENES + 1).await;
    let now = time_of_day(Duration::ZERO);
    let disabled = [("manual_compact.disabled", "true"), (ONCE, "1"), (PERIODIC, &now)];
    set(&led, &disabled).await;
    another_one_is_compacted(&led, (ONCE, "1")).await;
    set(&led, &disabled[1..]).await;
    compacted(&led, ID).await;
    compacted(&led, partition(1)).await;
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_begins_at_its_time_of_the_day() {
    let led = Led::new(SCENES + 2).await;
    write_expired_rows(&led, 0).await;
    let settings = |time| [(PERIODIC, time), ("manual_compact.periodic.bottommost_level_compaction", "force")];
    // Not before its time, however long ago it was yesterday.
    let later = time_of_day(Duration::from_secs(2 * 3600));
    set(&led, &settings(&later)).await;
    let now = time_of_day(Duration::ZERO);
    another_one_is_compacted(&led, (PERIODIC, &now)).await;
    let both = format!("{later},{now}");
    set(&led, &settings(&both)).await;
    let after = compacted(&led, ID).await;
    assert!(after.estimated_rows < 20, "{after:?}");
    let log = led.process.log();
    let line = log.lines().find(|line| line.contains("begins partition=1.0")).unwrap();
    assert!(line.contains("bottommost=true"), "{line}");
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_a_table_wait_for_each_other() {
    let led = Led::with(SCENES + 3, |config| {
        let storage = config["storage"].as_table_mut().unwrap();
        storage.insert("compaction_threads".to_owned(), 4.into());
    })
    .await;
    let copies: Vec<PartitionId> = (0..4).map(partition).collect();
    led.lead(copies[2]);
    led.lead(copies[3]);
    for index in 0..4 {
        eventually("a copy to serve", || async {
            let written = led.caller.set(partition(index), &key_of(index, 1), b"value").await;
            (written.header.status == Status::Ok).then_some(())
        })
        .await;
        write_expired_rows(&led, index).await;
    }
    let one_at_a_time = [
        (ONCE, "1"),
        ("manual_compact.once.bottommost_level_compaction", "force"),
        ("manual_compact.max_concurrent_running_count", "1"),
    ];
    // A node looks once a second whether one is to begin, so those that wait are seen.
    let was_queued = Cell::new(false);
    let all_ended = async || {
        let mut ended = 0;
        for id in &copies {
            let copy = led.caller.copy_of(*id).await;
            assert!(copy.compaction_percent < 100, "{copy:?}");
            ended += usize::from(copy.compaction_ended_seconds > 0);
            was_queued.set(was_queued.get() || copy.compaction == CompactionState::Queued);
        }
        ended == copies.len()
    };
    led.set_environment(&one_at_a_time, all_ended).await;
    assert!(was_queued.get());
    for id in &copies {
        let copy = led.caller.copy_of(*id).await;
        assert_eq!((copy.compaction, copy.compaction_percent), (CompactionState::Idle, 0), "{copy:?}");
    }
    // One core logs what it does in order.
    let log = led.process.log();
    let said = log.lines().filter(|line| line.contains("a manual compaction"));
    let said: Vec<bool> = said.map(|line| line.contains("begins")).collect();
    assert_eq!(said, [true, false].repeat(copies.len()), "{log}");
    led.finish();
}
