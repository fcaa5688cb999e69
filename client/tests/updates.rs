//! Writes that depend on what is there: increments and writes under a condition.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use pegasus_client::{
    Advice, Check, CheckAndSet, CheckOutcome, CompareExchange, Error, RowCheck, SortKeyRange, Table, Ttl, TtlChange,
    WriteBatch,
};
use pegasus_wire::{MessageKind, Status};

use support::{Cluster, Fault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_incremented_and_keep_their_time_to_live() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    assert_eq!(table.incr("h", "n", 0).await.unwrap(), 0);
    assert_eq!(table.incr("h", "n", 7).await.unwrap(), 7);
    assert_eq!(table.incr("h", "n", -10).await.unwrap(), -3);
    assert_eq!(table.get("h", "n").await.unwrap().unwrap(), "-3");
    table.set_with_ttl("h", "n", "", 1000).await.unwrap();
    assert_eq!(table.incr("h", "n", 1).await.unwrap(), 1, "an empty value counts as 0");
    assert!(matches!(table.ttl("h", "n").await.unwrap(), Some(Ttl::Seconds(998..=1000))));
    table.incr_with("h", "n", 1, TtlChange::Set(50)).await.unwrap();
    assert!(matches!(table.ttl("h", "n").await.unwrap(), Some(Ttl::Seconds(48..=50))));
    for change in [TtlChange::Clear, TtlChange::Set(0)] {
        table.set_with_ttl("h", "n", "1", 1000).await.unwrap();
        table.incr_with("h", "n", 1, change).await.unwrap();
        assert_eq!(table.ttl("h", "n").await.unwrap(), Some(Ttl::Never), "{change:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_number_stays_as_it_is() {
    let cluster = Cluster::start(8).await;
    let table = cluster.table().await;
    table.set("h", "word", "seven").await.unwrap();
    table.set("h", "large", i64::MAX.to_string()).await.unwrap();
    for sort_key in ["word", "large"] {
        let error = table.incr("h", sort_key, 1).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    }
    assert_eq!(table.get("h", "word").await.unwrap().unwrap(), "seven");
    assert_eq!(table.incr("h", "large", -1).await.unwrap(), i64::MAX - 1);
    assert_eq!(cluster.nodes[0].requests(MessageKind::INCREMENT), 3, "a refusal is final");
}

fn check(check: Check, operand: &str) -> CheckAndSet<'_> {
    CheckAndSet {
        check_sort_key: b"c",
        check,
        operand: operand.as_bytes(),
        set_sort_key: b"s",
        value: b"set",
        ttl_seconds: 0,
        return_value: true,
    }
}

/// Whether each check passes for a value; `None` where numbers are wanted and there are none.
async fn passed(table: &Table, operand: &str) -> Vec<Option<bool>> {
    let mut passed = Vec::new();
    for kind in Check::ALL {
        table.del("h", "s").await.unwrap();
        let outcome = table.check_and_set("h", &check(kind, operand)).await;
        let written = table.exist("h", "s").await.unwrap();
        passed.push(match outcome {
            Ok(outcome) => {
                assert_eq!(outcome.written, written, "{kind:?}");
                assert_eq!(outcome.value, table.get("h", "c").await.unwrap(), "{kind:?}");
                assert_eq!(outcome.exists, outcome.value.is_some(), "{kind:?}");
                Some(written)
            }
            Err(Error::InvalidArgument(_)) if !written => None,
            Err(error) => panic!("{kind:?}: {error:?}"),
        });
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_checks_reach_the_server_as_what_they_are() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let told = |text: &str| -> Vec<Option<bool>> {
        text.chars().map(|c| [Some(true), Some(false), None]["+-?".find(c).unwrap()]).collect()
    };
    // Nothing, not exist (or empty), exist, not empty; anywhere, prefix, postfix; five for bytes, five for numbers.
    assert_eq!(passed(&table, "5").await, told("+++-- --- ----- -----".replace(' ', "").as_str()), "no row");
    table.set("h", "c", "").await.unwrap();
    assert_eq!(passed(&table, "5").await, told("+-++- --- ++--- ?????".replace(' ', "").as_str()), "empty");
    table.set("h", "c", "15").await.unwrap();
    assert_eq!(passed(&table, "5").await, told("+--++ +-+ ++--- ---++".replace(' ', "").as_str()), "15 and 5");
    assert_eq!(passed(&table, "15").await, told("+--++ +++ -+++- -+++-".replace(' ', "").as_str()), "15 and 15");
    assert_eq!(passed(&table, "").await, told("+--++ +++ ---++ ?????".replace(' ', "").as_str()), "no operand");
    assert_eq!(passed(&table, "100").await, told("+--++ --- ---++ ++---".replace(' ', "").as_str()), "15 and 100");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_checked_comes_only_if_it_is_asked_for() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    table.set("h", "c", "v").await.unwrap();
    let quiet = CheckAndSet { return_value: false, ttl_seconds: 60, ..check(Check::Exist, "") };
    let outcome = table.check_and_set("h", &quiet).await.unwrap();
    assert_eq!(outcome, CheckOutcome { written: true, exists: true, value: None });
    assert!(matches!(table.ttl("h", "s").await.unwrap(), Some(Ttl::Seconds(58..=60))));
    let failed = CheckAndSet { check: Check::NotExist, ..quiet };
    let outcome = table.check_and_set("h", &failed).await.unwrap();
    assert_eq!(outcome, CheckOutcome { written: false, exists: true, value: None });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_carried_out_if_the_check_holds() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    table.multi_set("h", &[("a", "1"), ("b", "2"), ("c", "3")]).await.unwrap();
    let range = SortKeyRange { start: "b".into(), ..SortKeyRange::default() };
    let mut batch = WriteBatch::new();
    batch.put("bb", "4").delete_range(&range).put_with_ttl("d", "5", 60).delete("a");
    let mut condition = RowCheck { sort_key: b"b", check: Check::BytesEqual, operand: b"3", return_value: true };
    let outcome = table.check_and_mutate("h", &condition, &batch).await.unwrap();
    assert_eq!(outcome, CheckOutcome { written: false, exists: true, value: Some("2".into()) });
    assert_eq!(table.count("h").await.unwrap(), 3);
    condition.operand = b"2";
    assert!(table.check_and_mutate("h", &condition, &batch).await.unwrap().written);
    assert_eq!(table.multi_get_sort_keys("h", &SortKeyRange::default()).await.unwrap(), ["d"]);
    assert!(matches!(table.ttl("h", "d").await.unwrap(), Some(Ttl::Seconds(58..=60))));
    let error = table.check_and_mutate("h", &condition, &WriteBatch::new()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_exchanges_a_value() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let missing = table.compare_exchange("h", "s", Some(b"x"), "y", 0).await.unwrap();
    assert_eq!(missing, CompareExchange::Different(None));
    let attempts = (0..10).map(|index| table.compare_exchange("h", "s", None, format!("{index}"), 60));
    let outcomes: Vec<CompareExchange> = join_all(attempts).await.into_iter().map(Result::unwrap).collect();
    let winner = table.get("h", "s").await.unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == CompareExchange::Exchanged).count(), 1);
    let different = CompareExchange::Different(winner.clone());
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == different).count(), 9);
    assert!(matches!(table.ttl("h", "s").await.unwrap(), Some(Ttl::Seconds(58..=60))));
    let last = table.compare_exchange("h", "s", winner.as_deref(), "", 0).await.unwrap();
    assert_eq!(last, CompareExchange::Exchanged);
    let empty = table.compare_exchange("h", "s", None, "z", 0).await.unwrap();
    assert_eq!(empty, CompareExchange::Different(Some("".into())), "an empty value is a value");
}

/// Both of the operations that must not happen twice.
async fn update(table: &Table, by_check: bool) -> Result<(), Error> {
    if by_check {
        let always = RowCheck { sort_key: b"", check: Check::Nothing, operand: b"", return_value: false };
        let mut batch = WriteBatch::new();
        batch.put("checked", "v");
        return table.check_and_mutate("h", &always, &batch).await.map(|_| ());
    }
    table.incr("h", "n", 1).await.map(|_| ())
}

fn sent(cluster: &Cluster, node: usize) -> usize {
    [MessageKind::INCREMENT, MessageKind::CHECK_AND_WRITE].map(|kind| cluster.nodes[node].requests(kind)).iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_whose_answer_is_lost_is_unknown_and_not_sent_again() {
    for by_check in [false, true] {
        let cluster = Cluster::start(1).await;
        let table = cluster.table().await;
        for (fault, happens) in [(Fault::Close, false), (Fault::CloseAfter, true)] {
            let (before, rows) = (sent(&cluster, 0), cluster.store.rows());
            cluster.nodes[0].fault(fault);
            let error = update(&table, by_check).await.unwrap_err();
            assert!(matches!(error, Error::Unknown(_)) && error.advice() == Advice::Unknown, "{error:?}");
            assert_eq!((sent(&cluster, 0), cluster.store.rows()), (before + 1, rows + usize::from(happens)));
        }
        cluster.nodes[0].refuse(1, Status::OutcomeUnknown);
        let error = update(&table, by_check).await.unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{error:?}");
        cluster.nodes[0].always(Some(Fault::Silence));
        let error = update(&table.with_timeout(Duration::from_millis(300)), by_check).await.unwrap_err();
        assert!(matches!(error, Error::Unknown(_)), "{error:?}");
        assert_eq!(sent(&cluster, 0), 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_had_no_effect_is_sent_again() {
    for by_check in [false, true] {
        let cluster = Cluster::start(1).await;
        let table = cluster.table().await;
        for status in [Status::Busy, Status::NotServing, Status::NotEnoughMembers, Status::ShuttingDown] {
            cluster.nodes[0].refuse(2, status);
            update(&table, by_check).await.unwrap();
        }
        assert_eq!(sent(&cluster, 0), 4 * 3);
        // It moves, and the write with it.
        cluster.nodes[0].always(Some(Fault::Status(Status::NotPrimary, Some(cluster.nodes[1].address))));
        update(&table, by_check).await.unwrap();
        assert_eq!((sent(&cluster, 0), sent(&cluster, 1)), (4 * 3 + 1, 1));
        if !by_check {
            assert_eq!(table.get("h", "n").await.unwrap().unwrap(), "5", "each once");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_count_lies_between_what_was_acknowledged_and_what_is_unknown() {
    let cluster = Cluster::start(1).await;
    let table = cluster.table().await;
    let (mut acknowledged, mut unknown) = (0, 0);
    for round in 0..20 {
        match round % 5 {
            1 => cluster.nodes[0].fault(Fault::CloseAfter),
            2 => cluster.nodes[0].fault(Fault::Close),
            3 => cluster.nodes[0].refuse(2, Status::Busy),
            _ => {}
        }
        for outcome in join_all((0..10).map(|_| table.incr("h", "n", 1))).await {
            match outcome {
                Ok(_) => acknowledged += 1,
                Err(Error::Unknown(_)) => unknown += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    let count = table.incr("h", "n", 0).await.unwrap();
    assert!(
        unknown > 0 && (acknowledged..=acknowledged + unknown).contains(&count),
        "{count}: {acknowledged}, {unknown}"
    );
}
