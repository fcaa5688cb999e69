//! Reads of many rows on one node: ranges, filters, limits, both directions; and scans that go on, with and without a
//! moment of their own.
#![allow(clippy::unwrap_used)]

mod roles;
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pegasus_wire::key::encode;
use pegasus_wire::messages::control::Removal;
use pegasus_wire::messages::data::{EndScan, Filter, FilterKind, MultiGet, RowOperation, Scan, SortKey, SortKeys};
use pegasus_wire::{Ballot, Configuration, FrameBuilder, FrameHeader, MessageKind};
use roles::eventually;
use roles::led::{ID, Led, key_of};
use support::operations::{Slice, all_of, whole};

/// First scene number of this program.
const SCENES: u16 = 130;

fn put<'a>(sort_key: &'a [u8], value: &'a [u8]) -> RowOperation<'a> {
    RowOperation::Put { sort_key, value, expiry_seconds: 0 }
}

fn filter(kind: FilterKind, pattern: &[u8]) -> Filter<'_> {
    Filter { kind, pattern }
}

fn range<'a>(start: &'a [u8], start_inclusive: bool, stop: &'a [u8], stop_inclusive: bool) -> SortKeys<'a> {
    SortKeys { start, stop, start_inclusive, stop_inclusive }
}

/// Writes rows `k0000`, `k0001` .. with their own key as value.
async fn fill(led: &Led, hash_key: &[u8], rows: usize) -> Vec<String> {
    let keys: Vec<String> = (0..rows).map(|number| format!("k{number:04}")).collect();
    for some in keys.chunks(1000) {
        let puts: Vec<_> = some.iter().map(|key| put(key.as_bytes(), key.as_bytes())).collect();
        led.caller.written(ID, hash_key, &puts).await;
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_hash_key_are_read_by_range_and_filter() {
    let led = Led::new(SCENES).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    let expired = RowOperation::Put { sort_key: b"bx", value: b"gone", expiry_seconds: 1 };
    let rows = [put(b"", b"0"), put(b"a", b"1"), put(b"ab", b"2"), put(b"b", b"3"), expired, put(b"bab", b"4")];
    caller.written(ID, &key, &rows).await;
    // Neighbours that are no part of it.
    caller.written(ID, &key_of(0, 1), &[put(b"a", b"other")]).await;
    let all = || all_of(ID, &key);
    let keys = async |get: MultiGet<'_>| {
        let found = caller.rows_of(&get).await;
        assert!(found.complete && found.resume_after.is_empty() && found.context == 0, "{found:?}");
        assert_eq!(found.count, found.rows.len() as u64);
        found.keys()
    };
    assert_eq!(keys(all()).await, ["", "a", "ab", "b", "bab"]);
    assert_eq!(keys(MultiGet { reverse: true, ..all() }).await, ["", "a", "ab", "b", "bab"], "ascending all the same");
    let ranges: [(SortKeys<'_>, &[&str]); 8] = [
        (range(b"a", true, b"b", true), &["a", "ab", "b"]),
        (range(b"a", false, b"b", true), &["ab", "b"]),
        (range(b"a", true, b"b", false), &["a", "ab"]),
        (range(b"", false, b"", false), &["a", "ab", "b", "bab"]),
        (range(b"b", true, b"", false), &["b", "bab"]),
        (range(b"a", true, b"a", true), &["a"]),
        (range(b"a", true, b"a", false), &[]),
        (range(b"b", true, b"a", true), &[]),
    ];
    for (range, expected) in ranges {
        for reverse in [false, true] {
            assert_eq!(keys(MultiGet { range, reverse, ..all() }).await, expected, "{range:?}, reverse {reverse}");
        }
    }
    let filters: [(FilterKind, &[u8], &[&str]); 7] = [
        (FilterKind::None, b"zzz", &["", "a", "ab", "b", "bab"]),
        (FilterKind::Anywhere, b"", &["", "a", "ab", "b", "bab"]),
        (FilterKind::Anywhere, b"a", &["a", "ab", "bab"]),
        (FilterKind::Prefix, b"b", &["b", "bab"]),
        (FilterKind::Postfix, b"b", &["ab", "b", "bab"]),
        (FilterKind::Exact, b"ab", &["ab"]),
        (FilterKind::Exact, b"bx", &[]),
    ];
    for (kind, pattern, expected) in filters {
        for reverse in [false, true] {
            let get = MultiGet { filter: filter(kind, pattern), reverse, ..all() };
            assert_eq!(keys(get).await, expected, "{kind:?} {pattern:?}, reverse {reverse}");
        }
    }
    let both = MultiGet { range: range(b"ab", true, b"", false), filter: filter(FilterKind::Prefix, b"a"), ..all() };
    assert_eq!(keys(both).await, ["ab"]);
    // Without values, and only their number.
    let bare = caller.rows_of(&MultiGet { no_value: true, ..all() }).await;
    assert!(bare.rows.len() == 5 && bare.rows.iter().all(|(_, value)| value.is_empty()));
    for reverse in [false, true] {
        let counted = caller.rows_of(&MultiGet { count_only: true, reverse, rows_max: 1, ..all() }).await;
        assert_eq!((counted.count, counted.rows.len(), counted.complete), (5, 0, true));
    }
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_a_hash_key_stop_at_limits_and_go_on() {
    let led = Led::new(SCENES + 1).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    let mut expected = fill(&led, &key, 700).await;
    caller.written(ID, &key, &[put(b"", b"first")]).await;
    expected.insert(0, String::new());
    for (rows_max, bytes_max) in [(7, 0), (350, 0), (0, 1), (0, 1000), (700, 0), (701, 0), (1, 0)] {
        let limited = || MultiGet { rows_max, bytes_max, ..all_of(ID, &key) };
        let mut found = Vec::new();
        let mut start = Vec::new();
        let mut start_inclusive = true;
        loop {
            let slice =
                caller.rows_of(&MultiGet { range: range(&start, start_inclusive, b"", true), ..limited() }).await;
            assert!(rows_max == 0 || slice.rows.len() <= rows_max as usize);
            found.extend(slice.keys());
            if slice.complete {
                break;
            }
            assert_eq!(slice.resume_after, slice.rows.last().unwrap().0);
            (start, start_inclusive) = (slice.resume_after, false);
        }
        assert_eq!(found, expected, "at most {rows_max} rows, {bytes_max} bytes");

        let mut found: Vec<String> = Vec::new();
        let mut stop = Vec::new();
        loop {
            let range = range(b"", true, &stop, false);
            let slice = caller.rows_of(&MultiGet { range, reverse: true, ..limited() }).await;
            found.splice(0..0, slice.keys());
            if slice.complete {
                break;
            }
            assert_eq!(slice.resume_after, slice.rows.first().unwrap().0, "the lowest key looked at");
            stop = slice.resume_after;
        }
        assert_eq!(found, expected, "in reverse, at most {rows_max} rows, {bytes_max} bytes");
    }
    // By keys: in the order asked, missing ones left out.
    let wanted = [&b"k0005"[..], b"none", b"k0001", b"", b"k0003"];
    let sort_keys = wanted.map(|bytes| SortKey { bytes });
    let by_keys = || MultiGet { sort_keys: &sort_keys, ..all_of(ID, &key) };
    assert_eq!(caller.rows_of(&by_keys()).await.keys(), ["k0005", "k0001", "", "k0003"]);
    let some = caller.rows_of(&MultiGet { rows_max: 2, ..by_keys() }).await;
    assert_eq!((some.keys(), some.complete), (vec!["k0005".to_owned(), "k0001".to_owned()], false));
    assert_eq!(some.resume_after, b"k0001");
    let some = caller.rows_of(&MultiGet { bytes_max: 1, ..by_keys() }).await;
    assert_eq!((some.keys(), some.complete, &some.resume_after[..]), (vec!["k0005".to_owned()], false, &b"k0005"[..]));
    let counted = caller.rows_of(&MultiGet { count_only: true, ..by_keys() }).await;
    assert_eq!((counted.count, counted.rows.len(), counted.complete), (4, 0, true));
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_those_of_what_is_answered() {
    let led = Led::new(SCENES + 7).await;
    let (caller, key) = (&led.caller, key_of(0, 0));
    // Ten bytes each. A long read of them goes to the pool.
    let keys = fill(&led, &key, 700).await;
    let sort_keys: Vec<SortKey<'_>> = keys.iter().map(|key| SortKey { bytes: key.as_bytes() }).collect();
    let in_pool = || led.metric("scans_in_pool_total");
    for (bytes_max, no_value, rows) in [(20, false, 2), (21, false, 3), (20, true, 4), (4000, false, 400)] {
        for (by_keys, reverse) in [(&sort_keys[..0], false), (&sort_keys[..0], true), (&sort_keys[..], false)] {
            let get = MultiGet { sort_keys: by_keys, reverse, bytes_max, no_value, ..all_of(ID, &key) };
            let before = in_pool();
            let found = caller.rows_of(&get).await;
            let (first, last) = if reverse { (700 - rows, 699) } else { (0, rows - 1) };
            assert_eq!(found.keys(), keys[first..=last], "{bytes_max} bytes, reverse {reverse}");
            assert!(!found.complete);
            let is_long = rows == 400 || !by_keys.is_empty();
            assert_eq!(in_pool() - before, f64::from(is_long), "{bytes_max} bytes, reverse {reverse}");
        }
    }
    // And of few keys, which are read at once.
    let get = MultiGet { sort_keys: &sort_keys[..5], bytes_max: 20, ..all_of(ID, &key) };
    assert_eq!(caller.rows_of(&get).await.keys(), keys[..2]);
    led.finish();
}

/// Reads under way at a time, far more than there are threads for them.
const AT_ONCE: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_tables_time_limit_stops_goes_on() {
    let led = Led::new(SCENES + 6).await;
    let (key, other) = (key_of(0, 0), key_of(0, 1));
    let expected = fill(&led, &key, 3000).await;
    let settings = [("replica.rocksdb_iteration_threshold_time_ms", "1"), ("default_ttl", "1000")];
    let shows = async || {
        led.caller.written(ID, &other, &[put(b"probe", b"")]).await;
        led.ttl(&other, b"probe").await != Some(-1)
    };
    led.set_environment(&settings, shows).await;
    led.caller.written(ID, &other, &[RowOperation::Delete { sort_key: b"probe" }]).await;
    let stored: Vec<_> = expected.iter().map(|sort_key| encode(&key, sort_key.as_bytes())).collect();
    for keep_context in [false, true] {
        let slices = scan_all(&led, Scan { keep_context, ..whole(ID) }, async || ()).await;
        assert_eq!(found(&slices), stored);
        let counted = scan_all(&led, Scan { keep_context, count_only: true, ..whole(ID) }, async || ()).await;
        assert_eq!(counted.iter().map(|slice| slice.count).sum::<u64>(), 3000);
    }
    // Nothing else stops these reads before their end. One by itself may be fast enough; of many at a time the last
    // ones wait for their turn longer than they have.
    let named: Vec<SortKey<'_>> = expected.iter().map(|key| SortKey { bytes: key.as_bytes() }).collect();
    let scan = whole(ID);
    eventually("the time to stop a scan", || async {
        let slices = join_all((0..AT_ONCE).map(|_| led.caller.slice_of(&scan))).await;
        slices.iter().any(|slice| !slice.complete).then_some(())
    })
    .await;
    for sort_keys in [&[][..], &named] {
        let get = MultiGet { sort_keys, ..all_of(ID, &key) };
        let slice = eventually("the time to stop a multi_get", || async {
            let slices = join_all((0..AT_ONCE).map(|_| led.caller.rows_of(&get))).await;
            slices.into_iter().find(|slice| !slice.complete)
        })
        .await;
        assert_eq!(slice.keys(), expected[..slice.rows.len()]);
        assert_eq!(slice.resume_after, slice.rows.last().unwrap().0);
    }
    led.finish();
}

/// Scans to the end; gives all slices. `between` happens after the first.
async fn scan_all(led: &Led, first: Scan<'_>, between: impl AsyncFnOnce()) -> Vec<Slice> {
    let mut slices = vec![led.caller.slice_of(&first).await];
    between().await;
    while let Some(Slice { complete: false, resume_after, context, .. }) = slices.last() {
        let (context, keep_context) = (*context, first.keep_context);
        let next = match first.reverse {
            false => Scan { start: resume_after, start_inclusive: false, context, keep_context, ..first },
            true => Scan { stop: resume_after, context, keep_context, ..first },
        };
        let slice = led.caller.slice_of(&next).await;
        slices.push(slice);
    }
    slices
}

/// Stored keys of rows found.
fn found(slices: &[Slice]) -> Vec<Vec<u8>> {
    slices.iter().flat_map(|slice| slice.rows.iter().map(|(key, _)| key.clone())).collect()
}

/// Five hash keys of different length, each with rows `a`, `b`, `c`; gives the stored keys in order.
async fn fill_hash_keys(led: &Led) -> Vec<Vec<u8>> {
    let mut stored = Vec::new();
    for n in [0, 1, 5, 40, 400] {
        let key = key_of(0, n);
        led.caller.written(ID, &key, &[put(b"a", b"1"), put(b"b", b"2"), put(b"c", b"3")]).await;
        stored.extend([b"a", b"b", b"c"].map(|sort_key| encode(&key, sort_key)));
    }
    stored.sort();
    stored
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_scanned_in_both_directions_and_by_filters() {
    let led = Led::new(SCENES + 2).await;
    let stored = fill_hash_keys(&led).await;
    led.caller.written(ID, &key_of(0, 2), &[RowOperation::Put { sort_key: b"a", value: b"", expiry_seconds: 1 }]).await;
    let backwards: Vec<_> = stored.iter().rev().cloned().collect();
    for rows_max in [1, 4, 15, 200] {
        for keep_context in [false, true] {
            let scan = Scan { rows_max, keep_context, ..whole(ID) };
            let slices = scan_all(&led, scan, async || ()).await;
            assert_eq!(found(&slices), stored);
            assert!(slices.iter().all(|slice| slice.rows.len() <= rows_max as usize));
            let scan = Scan { rows_max, keep_context, reverse: true, ..whole(ID) };
            assert_eq!(found(&scan_all(&led, scan, async || ()).await), backwards);
        }
    }
    // Part of it: the start in or out, the stop always out.
    for reverse in [false, true] {
        for start_inclusive in [false, true] {
            let scan = Scan { start: &stored[3], start_inclusive, stop: &stored[9], rows_max: 2, reverse, ..whole(ID) };
            let mut part = stored[4 - usize::from(start_inclusive)..9].to_vec();
            if reverse {
                part.reverse();
            }
            assert_eq!(found(&scan_all(&led, scan, async || ()).await), part);
        }
    }
    // Filters, and sort keys of every hash key.
    let of = |wanted: &dyn Fn(&[u8], &[u8]) -> bool| -> Vec<Vec<u8>> {
        let split =
            |stored: &[u8]| pegasus_wire::key::decode(stored).map(|(hash, sort)| (hash.to_vec(), sort.to_vec()));
        let wanted = |stored: &&Vec<u8>| split(stored).is_ok_and(|(hash, sort)| wanted(&hash, &sort));
        stored.iter().filter(wanted).cloned().collect()
    };
    let (last, any) = (key_of(0, 400), filter(FilterKind::None, b""));
    let middle = range(b"a", false, b"b", true);
    type Wanted<'a> = &'a dyn Fn(&[u8], &[u8]) -> bool;
    let cases: [(Filter<'_>, Filter<'_>, SortKeys<'_>, Wanted<'_>); 6] = [
        (filter(FilterKind::Exact, &last), any, SortKeys::ALL, &|hash, _| hash == last),
        (filter(FilterKind::Prefix, b"hash1"), any, SortKeys::ALL, &|hash, _| hash.starts_with(b"hash1")),
        (any, filter(FilterKind::Postfix, b"c"), SortKeys::ALL, &|_, sort| sort == b"c"),
        (any, any, middle, &|_, sort| sort == b"b"),
        (any, filter(FilterKind::Exact, b"a"), middle, &|_, _| false),
        (filter(FilterKind::Anywhere, b"1"), any, range(b"b", true, b"", false), &|hash, sort| {
            hash.contains(&b'1') && sort >= &b"b"[..]
        }),
    ];
    for (hash_key_filter, sort_key_filter, sort_keys, wanted) in cases {
        for (reverse, rows_max, keep_context) in
            [(false, 2, false), (true, 2, true), (false, 0, true), (true, 0, false)]
        {
            let terms = Scan { hash_key_filter, sort_key_filter, sort_keys, rows_max, reverse, ..whole(ID) };
            let mut expected = of(wanted);
            if reverse {
                expected.reverse();
            }
            let slices = scan_all(&led, Scan { keep_context, ..terms }, async || ()).await;
            assert_eq!(found(&slices), expected, "{hash_key_filter:?} {sort_key_filter:?} {sort_keys:?}");
            let counted = scan_all(&led, Scan { count_only: true, keep_context, ..terms }, async || ()).await;
            let count: u64 = counted.iter().map(|slice| slice.count).sum();
            assert_eq!(count, expected.len() as u64);
            assert!(found(&counted).is_empty());
        }
    }
    assert_eq!(led.metric("scan_contexts"), 0.0, "a scan that has ended keeps nothing");
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slices_with_a_context_are_of_one_moment() {
    let led = Led::new(SCENES + 3).await;
    let key = key_of(0, 0);
    let before = fill(&led, &key, 300).await;
    // Rows go, change and come while it runs.
    let change = async || {
        let range = range(b"k0050", true, b"k0100", false);
        let operations =
            [RowOperation::DeleteRange { range }, put(b"k0100", b"changed"), put(b"k01005", b"new"), put(b"z", b"new")];
        led.caller.written(ID, &key, &operations).await;
    };
    let scan = Scan { rows_max: 50, keep_context: true, ..whole(ID) };
    let slices = scan_all(&led, scan, change).await;
    let rows: Vec<_> = slices.iter().flat_map(|slice| slice.rows.clone()).collect();
    let row = |text: &String| (encode(&key, text.as_bytes()), text.as_bytes().to_vec());
    assert_eq!(rows, before.iter().map(row).collect::<Vec<_>>());
    let contexts: Vec<u64> = slices.iter().map(|slice| slice.context).collect();
    // The last answer names it once more: its rows are of that moment, too.
    assert!(contexts.iter().all(|context| *context == contexts[0] && *context != 0), "{contexts:?}");
    assert_eq!(led.metric("scan_contexts"), 0.0);
    // Without one, each slice is of its own moment.
    let add = async || {
        led.caller.written(ID, &key, &[put(b"zz", b"newer")]).await;
    };
    let slices = scan_all(&led, Scan { rows_max: 50, ..whole(ID) }, add).await;
    assert!(slices.iter().all(|slice| slice.context == 0));
    let keys = found(&slices);
    assert_eq!(keys.len(), 300 - 50 + 3);
    assert_eq!(keys.last(), Some(&encode(&key, b"zz")));
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_slice_is_of_the_moment_of_the_others() {
    let led = Led::new(SCENES + 8).await;
    let key = key_of(0, 0);
    fill(&led, &key, 60).await;
    // The first row and the last one are always written together.
    led.caller.written(ID, &key, &[put(b"a", b""), put(b"z", b"")]).await;
    let (writer, over, written) = (led.scene.caller().await, AtomicBool::new(false), AtomicU32::new(0));
    let write = async |_| {
        while !over.load(Ordering::Relaxed) {
            let value = written.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            writer.written(ID, &key, &[put(b"a", &value), put(b"z", &value)]).await;
        }
    };
    let scan = async {
        let mut seen = BTreeSet::new();
        for _ in 0..2000 {
            let slices = scan_all(&led, Scan { rows_max: 50, keep_context: true, ..whole(ID) }, async || ()).await;
            let first = slices[0].rows.first().unwrap();
            let last = slices.last().unwrap().rows.last().unwrap();
            assert!(slices.len() == 2 && first.1 == last.1, "{first:?} {last:?}");
            seen.insert(first.1.clone());
        }
        over.store(true, Ordering::Relaxed);
        assert!(seen.len() > 1, "nothing was written meanwhile");
    };
    tokio::join!(join_all((0..8).map(write)), scan);
    led.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_that_is_not_known_is_replaced() {
    let led = Led::new(SCENES + 4).await;
    let key = key_of(0, 0);
    fill(&led, &key, 300).await;
    let scan = || Scan { rows_max: 50, keep_context: true, ..whole(ID) };
    let first = led.caller.slice_of(&scan()).await;
    let go_on = |context| Scan { context, start: &first.resume_after, start_inclusive: false, ..scan() };
    led.caller.written(ID, &key, &[put(b"k00505", b"new")]).await;
    let position = |slice: &Slice| slice.rows.iter().any(|(row, _)| *row == encode(&key, b"k00505"));
    let same = led.caller.slice_of(&go_on(first.context)).await;
    assert!(same.context == first.context && !position(&same));
    // Asked again, as by a client that has lost the answer: the same slice.
    assert_eq!(led.caller.slice_of(&go_on(first.context)).await, same);
    for unknown in [first.context + 1000, first.context ^ (1 << 40), u64::MAX, 1] {
        let other = led.caller.slice_of(&go_on(unknown)).await;
        assert!(![0, unknown, first.context].contains(&other.context), "{other:?}");
        assert!(position(&other), "a new moment");
        assert_eq!(other.rows.len(), 50);
    }
    assert_eq!(led.metric("scan_contexts"), 5.0);
    // A client that needs it no longer says so.
    end(&led, first.context).await;
    eventually("the context to end", || async { (led.metric("scan_contexts") == 4.0).then_some(()) }).await;
    let other = led.caller.slice_of(&go_on(first.context)).await;
    assert!(other.context != first.context && position(&other));
    // Or ends it with the last slice it wants.
    let last = led.caller.slice_of(&Scan { keep_context: false, ..go_on(other.context) }).await;
    assert_eq!((last.context, last.complete, last.rows.len()), (other.context, false, 50));
    assert_eq!(led.metric("scan_contexts"), 4.0);
    led.finish();
}

async fn end(led: &Led, context: u64) {
    let (mut writer, _reader) = led.caller.connection.open().await.unwrap();
    let mut bytes = Vec::new();
    let header = FrameHeader::request(MessageKind::END_SCAN, 0, 0);
    FrameBuilder::append(&mut bytes, header, &EndScan { partition: ID, context }, &[]);
    writer.write(&bytes).await.unwrap();
    writer.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_not_needed_goes_whatever_scans_it() {
    let led = Led::new(SCENES + 5).await;
    fill(&led, &key_of(0, 0), 300).await;
    let scan = || Scan { rows_max: 50, keep_context: true, ..whole(ID) };
    for _ in 0..20 {
        assert_ne!(led.caller.slice_of(&scan()).await.context, 0);
    }
    assert_eq!(led.metric("scan_contexts"), 20.0);
    let begun = Instant::now();
    led.meta.change(|state| {
        let ballot = Ballot(state.configurations[&ID].ballot.0 + 1);
        let others = Configuration { ballot, primary: Some(led.follower.node), secondaries: Vec::new() };
        state.configurations.insert(ID, others);
        state.removals.push(Removal { partition: ID, ballot: Ballot(ballot.0 + 1) });
    });
    eventually("the copy to be set aside", || async {
        let names = std::fs::read_dir(led.scene.path("data").join("replicas")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.starts_with("1.0.removed.")).then_some(())
    })
    .await;
    // A table that is still read would be waited for, and then given up.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(!led.process.log().contains("given up"), "{}", led.process.log());
    assert_eq!(led.metric("scan_contexts"), 0.0);
    led.finish();
}
