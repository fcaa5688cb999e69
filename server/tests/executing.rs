//! Operations that read before they write, on a node whose secondary the test plays: exact however many are on their
//! way, and never answered before what they read is committed.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use futures_util::future::join_all;
use futures_util::poll;
use pegasus_wire::expiry::seconds_since_epoch;
use pegasus_wire::hash::partition_index;
use pegasus_wire::messages::data::{Check, CheckAndWrite, ExpiryChange, Increment, RowOperation, SortKeys};
use pegasus_wire::{Frame, PartitionId, Status};
use roles::led::{ID, Led, key_of};
use support::operations::{checked, number, ok, refused};
use support::{Caller, Scene};

/// First scene number of this program.
const SCENES: u16 = 120;

fn add<'a>(hash_key: &'a [u8], sort_key: &'a [u8], increment: i64) -> Increment<'a> {
    Increment { partition: ID, hash_key, sort_key, increment, expiry: ExpiryChange::Keep }
}

fn put<'a>(sort_key: &'a [u8], value: &'a [u8]) -> RowOperation<'a> {
    RowOperation::Put { sort_key, value, expiry_seconds: 0 }
}

fn check<'a>(
    hash_key: &'a [u8],
    check_sort_key: &'a [u8],
    (check, operand): (Check, &'a [u8]),
    operations: &'a [RowOperation<'a>],
) -> CheckAndWrite<'a> {
    CheckAndWrite { partition: ID, hash_key, check_sort_key, check, operand, operations, return_value: true }
}

fn now_seconds() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    seconds_since_epoch(since.as_micros() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_increment_changes_number_and_time_to_live_as_it_says() {
    let led = Led::new(SCENES).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    assert_eq!(number(&caller.increment(&add(&key, b"n", 5)).await), 5, "a row that is missing counts as 0");
    assert_eq!(led.value(&key, b"n").await, Some(b"5".to_vec()));
    assert_eq!(led.ttl(&key, b"n").await, Some(-1));
    assert_eq!(number(&caller.increment(&add(&key, b"n", -7)).await), -2);
    assert_eq!(led.value(&key, b"n").await, Some(b"-2".to_vec()));
    // Empty, and expired long ago.
    let expired = RowOperation::Put { sort_key: b"old", value: b"100", expiry_seconds: 1 };
    caller.written(ID, &key, &[put(b"empty", b""), expired, put(b"hex", b" 0x10"), put(b"text", b"12a")]).await;
    assert_eq!(number(&caller.increment(&add(&key, b"empty", 1)).await), 1);
    assert_eq!(number(&caller.increment(&add(&key, b"old", 1)).await), 1);
    assert_eq!(led.ttl(&key, b"old").await, Some(-1), "a new row");
    assert_eq!(number(&caller.increment(&add(&key, b"hex", 1)).await), 17);
    // Set, kept, cleared.
    let expiring = |expiry| Increment { expiry, ..add(&key, b"n", 1) };
    number(&caller.increment(&expiring(ExpiryChange::Set(now_seconds() + 1000))).await);
    assert!(led.ttl(&key, b"n").await.is_some_and(|ttl| (990..=1000).contains(&ttl)));
    number(&caller.increment(&expiring(ExpiryChange::Keep)).await);
    assert!(led.ttl(&key, b"n").await.is_some_and(|ttl| (990..=1000).contains(&ttl)));
    number(&caller.increment(&expiring(ExpiryChange::Clear)).await);
    assert_eq!(led.ttl(&key, b"n").await, Some(-1));
    assert_eq!(led.value(&key, b"n").await, Some(b"1".to_vec()));
    // What cannot be added to stays as it is.
    refused(&caller.increment(&add(&key, b"text", 1)).await, Status::InvalidArgument, "");
    assert_eq!(led.value(&key, b"text").await, Some(b"12a".to_vec()));
    refused(&caller.increment(&add(&key, b"n", i64::MAX)).await, Status::InvalidArgument, "");
    assert_eq!(led.value(&key, b"n").await, Some(b"1".to_vec()));
    assert_eq!(number(&caller.increment(&add(&key, b"n", i64::MAX - 1)).await), i64::MAX);
    refused(&caller.increment(&expiring(ExpiryChange::Set(0))).await, Status::InvalidArgument, "clear its expiry");
    led.finish();
}

/// One request of a flight.
#[derive(Clone)]
enum Sent<'a> {
    Add(i64),
    Write(&'a [RowOperation<'a>]),
    Check((Check, &'a [u8]), &'a [RowOperation<'a>]),
}

/// Sends everything at once, in this order, about the row `n` of a hash key.
async fn flight(caller: &Caller, key: &[u8], sent: &[Sent<'_>]) -> Vec<Frame> {
    let answer = async |sent: &Sent<'_>| match sent {
        Sent::Add(increment) => caller.increment(&add(key, b"n", *increment)).await,
        Sent::Write(operations) => caller.write(ID, key, operations).await,
        Sent::Check(condition, operations) => caller.check_and_write(&check(key, b"n", *condition, operations)).await,
    };
    join_all(sent.iter().map(answer)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_on_one_row_in_one_flight_are_exact() {
    let led = Led::new(SCENES + 1).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    let answers = flight(caller, &key, &vec![Sent::Add(1); 700]).await;
    let numbers: Vec<i64> = answers.iter().map(number).collect();
    assert_eq!(numbers, (1..=700).collect::<Vec<_>>());
    assert_eq!(led.value(&key, b"n").await, Some(b"700".to_vec()));

    // Each sees what came before it on the stream, whatever that was.
    let (set, delete) = ([put(b"n", b"1000")], [RowOperation::Delete { sort_key: b"n" }]);
    let range = SortKeys { start: b"m", stop: b"o", start_inclusive: false, stop_inclusive: false };
    let put_and_delete = [put(b"n", b"5"), RowOperation::DeleteRange { range }];
    let delete_and_put = [RowOperation::DeleteRange { range }, put(b"n", b"40")];
    let beside = [RowOperation::DeleteRange { range: SortKeys { stop: b"n", ..range } }];
    let expired = [RowOperation::Put { sort_key: b"n", value: b"7", expiry_seconds: 1 }];
    let steps: [(Sent<'_>, i64); 6] = [
        (Sent::Write(&set), 1001),
        (Sent::Write(&delete), 1),
        (Sent::Write(&delete_and_put), 41),
        (Sent::Write(&beside), 42),
        (Sent::Write(&put_and_delete), 1),
        (Sent::Write(&expired), 1),
    ];
    let sent: Vec<Sent<'_>> = steps.iter().flat_map(|(write, _)| [write.clone(), Sent::Add(1)]).collect();
    let answers = flight(caller, &key, &sent).await;
    let numbers: Vec<i64> = answers.iter().skip(1).step_by(2).map(number).collect();
    assert_eq!(numbers, steps.map(|(_, expected)| expected));
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_in_one_flight_are_exact() {
    let led = Led::new(SCENES + 2).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    // A chain: each expects what the one before it wrote. Every second link is sent twice, and only the first holds.
    let values: Vec<[u8; 4]> = (0..200u32).map(u32::to_be_bytes).collect();
    let writes: Vec<[RowOperation<'_>; 1]> = values.iter().map(|value| [put(b"n", value)]).collect();
    let mut sent = vec![(Sent::Check((Check::NotExist, b""), &writes[0]), (true, false, vec![]))];
    for (link, pair) in values.windows(2).enumerate() {
        let condition = (Check::BytesEqual, &pair[0][..]);
        sent.push((Sent::Check(condition, &writes[link + 1]), (true, true, pair[0].to_vec())));
        if link % 2 == 0 {
            sent.push((Sent::Check(condition, &writes[link + 1]), (false, true, pair[1].to_vec())));
        }
    }
    let requests: Vec<Sent<'_>> = sent.iter().map(|(request, _)| request.clone()).collect();
    for (answer, (_, expected)) in flight(caller, &key, &requests).await.iter().zip(&sent) {
        assert_eq!(checked(answer), *expected);
    }
    assert_eq!(led.value(&key, b"n").await, Some(values[199].to_vec()));

    // Several rows at once, or none of them.
    let operations = [put(b"a", b"1"), put(b"b", b"2"), RowOperation::Delete { sort_key: b"n" }];
    let answer = caller.check_and_write(&check(&key, b"n", (Check::NotEmpty, b""), &operations)).await;
    assert!(checked(&answer).0);
    let other = [put(b"a", b"other"), put(b"c", b"3")];
    let answer = caller.check_and_write(&check(&key, b"n", (Check::Exist, b""), &other)).await;
    assert_eq!(checked(&answer), (false, false, vec![]));
    for (sort_key, value) in [(b"a", Some(b"1".to_vec())), (b"b", Some(b"2".to_vec())), (b"c", None), (b"n", None)] {
        assert_eq!(led.value(&key, sort_key).await, value);
    }
    // Values come along only if they are asked for.
    let silent = CheckAndWrite { return_value: false, ..check(&key, b"a", (Check::Exist, b""), &other) };
    assert_eq!(checked(&caller.check_and_write(&silent).await), (true, true, vec![]));
    // Numbers are compared as numbers, or not at all.
    let compare = async |operand: &[u8]| {
        let condition = (Check::IntegerLess, operand);
        caller.check_and_write(&check(&key, b"b", condition, &[put(b"d", b"4")])).await
    };
    assert_eq!(checked(&compare(b"10").await), (true, true, b"2".to_vec()));
    assert_eq!(checked(&compare(b"1").await), (false, true, b"2".to_vec()));
    refused(&compare(b"ten").await, Status::InvalidArgument, "");
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_is_committed_before_it_is_answered() {
    let mut led = Led::new(SCENES + 3).await;
    let key = key_of(0, 0);
    led.caller.written(ID, &key, &[put(b"old", b"x")]).await;
    led.follower.hold();
    let (before, caller) = (led.follower.prepared(), led.scene.caller().await);
    let nothing = [put(b"other", b"w")];
    let (is_missing, not_a_number) = ((Check::NotExist, &b""[..]), add(&key, b"n", 1));
    let set_n = [put(b"n", b"v")];
    let mut set = std::pin::pin!(caller.write(ID, &key, &set_n));
    let fails = check(&key, b"n", is_missing, &nothing);
    let mut fails = std::pin::pin!(caller.check_and_write(&fails));
    let mut refusal = std::pin::pin!(caller.increment(&not_a_number));
    assert!(poll!(set.as_mut()).is_pending() && poll!(fails.as_mut()).is_pending());
    assert!(poll!(refusal.as_mut()).is_pending());
    led.follower.wait_for_prepare(before.next()).await;
    // Sent after them on the same stream, and answered: it reads nothing that is not committed.
    let fails_on_old = caller.check_and_write(&check(&key, b"old", is_missing, &nothing)).await;
    assert_eq!(checked(&fails_on_old), (false, true, b"x".to_vec()));
    assert_eq!(caller.get(ID, &key, b"n").await.header.status, Status::NotFound, "a plain read sees what is applied");
    for (what, waits) in
        [("set", poll!(set.as_mut())), ("check", poll!(fails.as_mut())), ("incr", poll!(refusal.as_mut()))]
    {
        assert!(waits.is_pending(), "{what} was answered though nobody has acknowledged");
    }
    led.follower.release();
    ok(&set.await);
    assert_eq!(checked(&fails.await), (false, true, b"v".to_vec()));
    refused(&refusal.await, Status::InvalidArgument, "");
    assert_eq!(led.value(&key, b"other").await, None, "nothing was written");
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_failed_had_no_effect_when_the_role_is_lost() {
    let mut led = Led::new(SCENES + 4).await;
    let (key, before) = (key_of(0, 0), led.follower.prepared());
    led.follower.hold();
    let caller = led.scene.caller().await;
    let (set_n, nothing) = ([put(b"n", b"v")], [put(b"other", b"w")]);
    let fails = check(&key, b"n", (Check::NotExist, b""), &nothing);
    let holds = check(&key, b"n", (Check::Exist, b""), &nothing);
    let increment = add(&key, b"number", 1);
    let answers = async {
        tokio::join!(
            biased;
            caller.write(ID, &key, &set_n),
            caller.check_and_write(&fails),
            caller.check_and_write(&holds),
            caller.increment(&increment),
        )
    };
    let lose = async {
        // Three of them write.
        led.follower.wait_for_prepare(pegasus_wire::Decree(before.0 + 3)).await;
        led.lose_role();
    };
    let ((set, failed, held, incremented), ()) = tokio::join!(answers, lose);
    refused(&failed, Status::NotServing, "nothing was written");
    for written in [set, held, incremented] {
        refused(&written, Status::OutcomeUnknown, "");
    }
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tables_settings_hold_for_whatever_is_written() {
    let led = Led::new(SCENES + 5).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    let is_default = |ttl: Option<i64>| ttl.is_some_and(|ttl| (990..=1000).contains(&ttl));
    caller.written(ID, &key, &[put(b"before", b"1")]).await;
    let shows = async || {
        caller.written(ID, &key, &[put(b"probe", b"")]).await;
        led.ttl(&key, b"probe").await != Some(-1)
    };
    let limits = [("limits.value_bytes", "2"), ("limits.write_rows", "2"), ("limits.write_bytes", "2048")];
    led.set_environment(&[&limits[..], &[("default_ttl", "1000")]].concat(), shows).await;
    let own = RowOperation::Put { sort_key: b"own", value: b"v", expiry_seconds: now_seconds() + 50 };
    caller.written(ID, &key, &[put(b"plain", b"v"), own]).await;
    number(&caller.increment(&add(&key, b"sum", 7)).await);
    number(&caller.increment(&Increment { expiry: ExpiryChange::Clear, ..add(&key, b"cleared", 7) }).await);
    assert!(checked(&caller.check_and_write(&check(&key, b"x", (Check::Nothing, b""), &[put(b"if", b"v")])).await).0);
    for sort_key in [&b"plain"[..], b"sum", b"cleared", b"if"] {
        let ttl = led.ttl(&key, sort_key).await;
        assert!(is_default(ttl), "{sort_key:?}: {ttl:?}");
    }
    assert!(led.ttl(&key, b"own").await.is_some_and(|ttl| ttl <= 50));
    assert_eq!(led.ttl(&key, b"before").await, Some(-1), "what was there stays as it was");
    // Limits, also of what an operation comes to.
    refused(&caller.write(ID, &key, &[put(b"a", b"123")]).await, Status::TooLarge, "limits.value_bytes");
    let three = [put(b"a", b""), put(b"b", b""), put(b"c", b"")];
    refused(&caller.write(ID, &key, &three).await, Status::TooLarge, "limits.write_rows");
    let conditional = check(&key, b"x", (Check::Exist, b""), &three);
    refused(&caller.check_and_write(&conditional).await, Status::TooLarge, "limits.write_rows");
    let (long, long_too) = ([b'a'; 1024], [b'b'; 1024]);
    let large = [put(&long, b""), put(&long_too, b"")];
    refused(&caller.write(ID, &key, &large).await, Status::TooLarge, "limits.write_bytes");
    let conditional = check(&key, b"x", (Check::Nothing, b""), &large);
    refused(&caller.check_and_write(&conditional).await, Status::TooLarge, "limits.write_bytes");
    assert_eq!(number(&caller.increment(&add(&key, b"sum", 92)).await), 99);
    refused(&caller.increment(&add(&key, b"sum", 1)).await, Status::TooLarge, "limits.value_bytes");
    assert_eq!(led.value(&key, b"sum").await, Some(b"99".to_vec()));
    // And no longer when they are taken back.
    let shows = async || {
        caller.written(ID, &key, &[put(b"probe", b"")]).await;
        led.ttl(&key, b"probe").await == Some(-1)
    };
    led.set_environment(&[], shows).await;
    assert_eq!(number(&caller.increment(&add(&key, b"sum", 1)).await), 100);
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_not_in_memory_are_counted_exactly() {
    const ROWS: usize = 300;
    let scene = Scene::new(SCENES + 6);
    let meta = scene.start_meta();
    let config = scene.node_config("node", |_| ());
    let node = scene.start_node(&config);
    let table = scene.make_table(4).await.table.table.0;
    let keys: Vec<Vec<u8>> = (0..ROWS).map(|number| format!("hash{number}").into_bytes()).collect();
    let of = |key: &[u8]| PartitionId::new(table, partition_index(key, b"", 4));
    let caller = scene.caller().await;
    // Large ones, so that they are in many blocks.
    let filler = vec![7; 3000];
    join_all(keys.iter().map(async |key| caller.written(of(key), key, &[put(b"n", b"40"), put(b"z", &filler)]).await))
        .await;
    drop(caller);
    // A node that stops in order has everything in files.
    node.stop();
    let node = scene.start_node(&config);
    let caller = scene.make_named_table("table", 4).await;
    assert_eq!(caller.table.table.0, table);
    let caller = scene.caller().await;
    let increments: Vec<Increment<'_>> =
        keys.iter().map(|key| Increment { partition: of(key), ..add(key, b"n", 1) }).collect();
    let twice = increments.iter().chain(&increments);
    let answers = join_all(twice.map(|increment| caller.increment(increment))).await;
    let (first, second) = answers.split_at(ROWS);
    for (first, second) in first.iter().zip(second) {
        // Neither has waited for the other, so either may have been the first.
        let mut numbers = [number(first), number(second)];
        numbers.sort_unstable();
        assert_eq!(numbers, [41, 42]);
    }
    let (_, metrics) = scene.admin("/metrics");
    let waited = metrics.lines().find(|line| !line.starts_with('#') && line.contains("executions_in_pool_total"));
    assert!(waited.is_some_and(|line| !line.ends_with(" 0")), "no row was read from the disk: {waited:?}");
    node.stop();
    meta.stop();
}
