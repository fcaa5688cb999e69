//! A tour of the data model on a running cluster. Makes the table `tour` and drops it again.
//!
//! ```text
//! ./run.sh start_onebox
//! cargo run -p pegasus-client --example tour -- 127.0.0.1:34601 ./onebox/tls
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use pegasus_client::{
    Check, Client, ClientOptions, CompareExchange, DropOptions, EnvironmentChange, Error, HashKeyRange, KeyFilter,
    RangeOptions, RowCheck, ScanOptions, SortKeyRange, Table, TableSpec, Ttl, TtlChange, WriteBatch,
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let meta = arguments.next().unwrap_or_else(|| "127.0.0.1:34601".into()).parse()?;
    let tls = arguments.next().unwrap_or_else(|| "./onebox/tls".into());
    let client = Client::connect(ClientOptions::new(vec![meta], tls)).await?;
    let nodes = client.cluster_status().await?.nodes.len().clamp(1, 3) as u8;
    let wait = Some(Duration::from_secs(60));
    client.create_table(&TableSpec { replica_count: nodes, wait, ..TableSpec::new("tour", 8) }).await?;
    let table = client.table("tour").await?;
    one_hash_key(&table).await?;
    updates(&table).await?;
    scans(&table).await?;
    settings(&client, &table).await?;
    life(&client, &table).await?;
    println!("all of it works");
    Ok(())
}

async fn one_hash_key(table: &Table) -> Outcome {
    let rows: Vec<(String, String)> = (0..500).map(|i| (format!("k{i:03}"), format!("v{i}"))).collect();
    table.multi_set("h", &rows).await?;
    let range = SortKeyRange { start: "k100".into(), stop: "k200".into(), ..SortKeyRange::default() };
    let options = RangeOptions { range: range.clone(), reverse: true, rows_max: 3, ..RangeOptions::default() };
    let last = table.multi_get_range("h", &options).await?;
    let keys: Vec<&[u8]> = last.rows.iter().map(|row| &row.sort_key[..]).collect();
    assert_eq!(keys, [&b"k197"[..], b"k198", b"k199"]);
    let options = RangeOptions { filter: KeyFilter::Postfix("7".into()), no_value: true, ..RangeOptions::default() };
    assert_eq!(table.multi_get_range("h", &options).await?.rows.len(), 50);
    table.del_range("h", &range).await?;
    assert_eq!(table.count("h").await?, 400);
    let mut batch = WriteBatch::new();
    let all = SortKeyRange::default();
    batch.put("early", "").delete_range(&all).put_with_ttl("late", "", 1000);
    table.write("h", &batch).await?;
    assert_eq!(table.multi_get_sort_keys("h", &all).await?, ["late"]);
    assert!(matches!(table.ttl("h", "late").await?, Some(Ttl::Seconds(990..=1000))));
    println!("rows of one hash key");
    Ok(())
}

async fn updates(table: &Table) -> Outcome {
    for expected in 1..=100 {
        assert_eq!(table.incr("counter", "n", 1).await?, expected);
    }
    let sums = (0..100).map(|_| table.incr_with("counter", "n", -1, TtlChange::Set(100)));
    let mut sums = futures_util::future::try_join_all(sums).await?;
    sums.sort_unstable();
    assert_eq!(sums, (0..100).collect::<Vec<i64>>(), "each result once");
    table.set("counter", "word", "seven").await?;
    assert!(matches!(table.incr("counter", "word", 1).await, Err(Error::InvalidArgument(_))));
    assert_eq!(table.compare_exchange("counter", "n", Some(b"0"), "done", 0).await?, CompareExchange::Exchanged);
    let check = RowCheck { sort_key: b"n", check: Check::MatchPrefix, operand: b"do", return_value: true };
    let mut batch = WriteBatch::new();
    batch.delete("word").delete("n");
    let outcome = table.check_and_mutate("counter", &check, &batch).await?;
    assert!(outcome.written && outcome.value.as_deref() == Some(b"done"));
    assert!(!table.check_and_mutate("counter", &check, &batch).await?.exists);
    println!("increments and checks");
    Ok(())
}

async fn scans(table: &Table) -> Outcome {
    let mut rows = Vec::new();
    let mut expected = BTreeMap::new();
    for index in 0..20_000u32 {
        let length = 1 + index as usize % 7;
        let text = format!("{:09}", index.wrapping_mul(2_654_435_761) % 1_000_000_000);
        let (hash_key, sort_key) = (text.as_bytes()[..length].to_vec(), index.to_be_bytes().to_vec());
        expected.insert((hash_key.clone(), sort_key.clone()), text.clone());
        rows.push((hash_key, sort_key, text));
    }
    table.del("h", "late").await?;
    table.batch_set(&rows, 0).await.into_iter().collect::<Result<(), Error>>()?;
    assert_eq!(table.count_all().await?, 20_000);
    let mut counts = Vec::new();
    for mut scanner in table.scanners(3, ScanOptions::default()).await? {
        counts.push(tokio::spawn(async move {
            let mut rows = 0;
            while let Some(batch) = scanner.next_batch().await? {
                rows += batch.len();
            }
            Ok::<_, Error>((rows, scanner.snapshots()))
        }));
    }
    let (mut total, mut moments) = (0, 0);
    for count in counts {
        let (rows, snapshots) = count.await??;
        (total, moments) = (total + rows, moments + snapshots);
    }
    assert_eq!((total, moments), (20_000, 8), "one moment for each partition");
    let range = HashKeyRange { start: "12".into(), stop: "5".into(), ..HashKeyRange::default() };
    for reverse in [false, true] {
        let options = ScanOptions { reverse, ..ScanOptions::default() };
        let mut scanner = table.sorted_scan(&range, &SortKeyRange::default(), options).await?;
        let mut found = Vec::new();
        while let Some(batch) = scanner.next_batch().await? {
            found.extend(batch.into_iter().map(|row| ((row.hash_key.to_vec(), row.sort_key.to_vec()), row.value)));
        }
        if reverse {
            found.reverse();
        }
        let bounds = (b"12".to_vec(), Vec::new())..(b"5".to_vec(), Vec::new());
        let wanted = expected.range(bounds).map(|(key, value)| (key.clone(), value.clone().into()));
        assert!(found.into_iter().eq(wanted), "sorted, reverse: {reverse}");
    }
    println!("scans");
    Ok(())
}

async fn settings(client: &Client, table: &Table) -> Outcome {
    client.change_environment("tour", &EnvironmentChange::set("default_ttl", 1000)).await?;
    let changed = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            table.set("h", "s", "v").await?;
            if table.ttl("h", "s").await? != Some(Ttl::Never) {
                return Ok::<_, Error>(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    changed.await??;
    for copy in client.copies("tour").await? {
        copy.outcome?;
    }
    println!("settings and copies");
    Ok(())
}

async fn life(client: &Client, table: &Table) -> Outcome {
    client.rename_table("tour", "voyage").await?;
    table.set("h", "s", "v").await?;
    let dropped = client.drop_table("voyage", DropOptions::default()).await?.ok_or("there was one")?;
    assert!(matches!(table.get("h", "s").await, Err(Error::NoSuchTable(_))));
    let recalled = client.recall_table(dropped.table, Some("tour")).await?;
    client.wait_until_serving(&recalled.table.name, Duration::from_secs(60)).await?;
    assert_eq!(table.get("h", "s").await?.as_deref(), Some(&b"v"[..]));
    client.drop_table("tour", DropOptions::default()).await?;
    client.purge_table(dropped.table).await?;
    println!("the life of a table");
    Ok(())
}
